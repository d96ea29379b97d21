"""One worker process as its daemon sees it: a socket, a slot page, two pipes, and how it died.

Reading a pipe while tasks follow each other within microseconds must not give one task's line to another. As numbered
steps (the worker's are in ``abi_worker``):

1. We store READING = 1 and fence (``abi.objects.fence``), then load RUNNING = n.
2. A worker that ends call n stores RUNNING = 0, *then* loads READING, and waits while it is 1; only then does it read
   what is left in the pipes itself and starts no call before that.
3. So if we see n, then until we store READING = 0 the worker is within n or waits behind it: all bytes are n's.
   If we see 0, a call has just ended and the worker takes the bytes itself, or it is idle and a thread that some task
   left running writes: those lines are charged to the last task.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from abi.errors import ProtocolError
from abi.objects.blob import Blob
from abi.objects.fence import barrier
from abi.objects.slot_page import INTERRUPT_SIGNAL, SlotPage
from abi.wire.codec import decode_items, decoders, encode_failure, encode_items
from abi.wire.frames import BATCH_BYTES, DESCRIPTORS_MAX, MSGPACK, Frame
from abi.wire.schema import Call, End, EndKind, Failure, Kind, Part, Run, Setup, Values
from abid import held
from abid.channel import Channel
from abid.output import STDERR, STDOUT, Lines
from abid.submitters import Blobs, Submitter

if TYPE_CHECKING:
    from abid.core.task import Record
    from abid.core.workers import Worker
    from abid.node import Node
    from abid.zygotes import Zygote

log = logging.getLogger(__name__)

PIPE_READ_BYTES = 64 * 1024
INTERRUPT_AGAIN_S = 0.1
BETWEEN_CALLS_S = 0.001
"""How long to leave a pipe alone whose worker is between two calls and will take the bytes itself."""
LAST_WORDS_S = 0.1
"""From the end of its connection to the kill of a worker that does not go by itself."""
STUCK_S = 0.05
"""And one whose program reads nothing of what there is already."""
KINDS = (Kind.RESULT, Kind.DROPPED, Kind.PRINTED, Kind.BLOCKED, Kind.UNBLOCKED)


class WorkerProcess:
    """Speaks to one worker of Python tasks. The core decides, this carries it out."""

    def __init__(self, node: Node, core_worker: Worker, zygote: Zygote, setup: Setup) -> None:
        self.node = node
        self.core = core_worker
        self.number = core_worker.number
        self.zygote = zygote
        self.pid = 0
        self.killed_because = ""
        self.lines = Lines()
        self.port = Submitter(node, core_worker.session, setup.submitter)
        self._pidfd = -1
        self._last_seq = 0
        self._last_kind: tuple[int, int, int] | None = None
        """The last task that ended here, by its sequence, function and options: what it left running may say something
        when the program has let go of it. No reference to the task itself, whose descriptors close with it."""
        self._run_epoch = 0
        self._is_collected = False
        self._functions: set[int] = set()
        self._options: set[int] = set()
        self._decoders = decoders(KINDS)
        self._handlers: dict[int, Callable[[list[Any], list[int]], None]] = {
            Kind.RESULT: self._on_results,
            Kind.DROPPED: self._on_dropped,
            Kind.PRINTED: self._on_printed,
            Kind.BLOCKED: self._on_blocked,
            Kind.UNBLOCKED: self._on_unblocked,
        }
        self._pipes: dict[int, int] = {}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        fds: list[int] = []
        try:
            self.page, page_fd = SlotPage.create()
            fds.append(page_fd)
            for stream in (STDOUT, STDERR):
                read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
                fds += (read_fd, write_fd)
                os.set_blocking(read_fd, False)
                self._pipes[read_fd] = stream
            page_fd, out_read, out_write, err_read, err_write = fds
            zygote.fork(self.number, False, [theirs.fileno(), page_fd, out_write, err_write, out_read, err_read])
        except OSError:  # no descriptor is left, say: then the few that we got must not be lost too
            for fd in self._pipes:
                os.close(fd)
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in fds:
                if fd not in self._pipes:
                    os.close(fd)
        self.channel = Channel(node.loop, ours, self._on_frame, self._on_channel_closed)
        self.channel.on_drained = self.port.pump
        self.channel.after_read = node.after_read
        self.port.channel = self.channel
        self.channel.send(Kind.SETUP, encode_items([setup]))
        for fd in self._pipes:
            node.loop.add_reader(fd, self._on_pipe, fd)

    def __repr__(self) -> str:
        return f"<worker {self.number}, pid {self.pid}, {self.page!r}>"

    # From the core to the process.

    def run(self, records: list[Record], epoch: int = -1) -> None:
        """Send calls, in order, after the functions and options they name; under an older ``epoch``, if they are sent
        later than they were meant to be: then the worker drops what was recalled in between."""
        self._run_epoch = self.page.epoch if epoch < 0 else epoch
        function = options = -1
        simple: list[Any] = []
        room = BATCH_BYTES
        for record in records:
            if record.function != function:
                function = record.function
                self._tell_function(function)
            if record.options != options:
                options = record.options
                self._tell_options(options)
            if record.size or record.dependencies is not None:
                self._send_run(simple, [])
                simple = []
                self._run_with_payloads(record)
            else:
                room -= len(record.arguments)
                if room < 0:
                    self._send_run(simple, [])
                    simple, room = [], BATCH_BYTES
                simple.append((record.number, record.seq, record.attempt, function, options, record.arguments))
        self._send_run(simple, [])

    def _tell_function(self, index: int) -> None:
        if index not in self._functions:
            self._functions.add(index)
            function = self.core.session.functions[index]
            fds = [blob.fd for blob in function.blobs or ()]
            self.channel.send(Kind.FUNCTION, encode_items([function.wire]), fds)

    def _tell_options(self, index: int) -> None:
        if index not in self._options:
            self._options.add(index)
            self.channel.send(Kind.OPTIONS, encode_items([self.core.session.options[index].wire]))

    def _send_run(self, calls: list[Any], fds: list[int]) -> None:
        if calls:
            self.channel.send(Kind.RUN, encode_items([Run(self._run_epoch, calls)]), fds)

    def _run_with_payloads(self, record: Record) -> None:
        """A call whose arguments or dependencies lie in descriptors, or bring other objects' payloads along."""
        own = [blob.fd for blob in record.blobs] if record.size and record.blobs else []
        call = Call(
            number=record.number,
            seq=record.seq,
            attempt=record.attempt,
            function=record.function,
            options=record.options,
            arguments=record.arguments,
            size=record.size,
            dependencies=record.dependencies,
        )
        try:
            tasks = self.core.session.tasks
            payloads = [payload_of(tasks[item.seq], item.index) for item in record.dependencies or ()]
        except KeyError:  # the session has ended, and this call with it
            return
        except ProtocolError as error:
            self.node.loop.call_soon(self._fail, record, error.message)
            return
        values: list[Part] = []
        fds: list[int] = []
        room = BATCH_BYTES - len(record.arguments)
        for part, blob in payloads:
            room -= 16 + len(part.payload)
            if values and (room < 0 or len(fds) + len(own) >= DESCRIPTORS_MAX):
                self.channel.send(Kind.VALUES, encode_items([Values(record.number, values)]), fds)
                values, fds, room = [], [], BATCH_BYTES
            values.append(part)
            if blob is not None:
                fds.append(blob.fd)
        if values and (room < 0 or len(values) < len(record.dependencies or ())):
            self.channel.send(Kind.VALUES, encode_items([Values(record.number, values)]), fds)
            values, fds = [], []
        call.values = values or None
        self._send_run([call], own + fds)

    def _fail(self, record: Record, why: str) -> None:
        """A call that cannot be sent, since it asks for an object that is none."""
        failure = self._failure("ProtocolError", why, record)
        end = End(record.seq, EndKind.ERROR, encode_failure(failure), record.attempt)
        self.node.core.on_results(self.core, [end], self.node.now(), None)
        self.node.touch()

    def _failure(self, type_name: str, text: str, record: Record | None) -> Failure:
        name = "" if record is None else self.node.core.board.task_name(self.core.session, record)
        return Failure(type_name, text, host=self.node.host, task_name=name)

    def recall(self) -> tuple[int, int]:
        """Take back what has not started; the number of the call that has (0: none), and since when."""
        self.page.epoch += 1
        barrier()
        return self.page.running, self.page.since

    def interrupt(self, number: int) -> None:
        """Raise KeyboardInterrupt in this call, in no other and in none of our own code (see the worker's handler).

        Repeated until the call has taken it: a signal that comes while our own code runs does nothing.
        """
        if self.channel.closed or self.page.running != number or self.page.interrupted == number:
            return
        self.page.interrupt = number
        barrier()
        self.signal(INTERRUPT_SIGNAL)
        self.node.loop.call_later(INTERRUPT_AGAIN_S, self.interrupt, number)

    def kill(self, why: str) -> None:
        self.killed_because = self.killed_because or why
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """Let an idle worker go: it leaves when it reads this."""
        self.channel.send(Kind.STOP, encode_items([]))

    def signal(self, number: int) -> None:
        if self._pidfd < 0:
            return  # not forked yet; `forked` makes up for a kill
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def forked(self, pid: int, pidfd: int) -> None:
        self.pid, self._pidfd = pid, pidfd
        if self.killed_because:
            self.signal(signal.SIGKILL)

    # From the process to the core.

    def _on_frame(self, frame: Frame, fds: list[int]) -> None:
        handler = self._handlers.get(frame.kind)
        if handler is None:
            self.port.on_frame(frame, fds)
            return
        if frame.codec != MSGPACK:
            raise ProtocolError("a worker speaks msgpack")
        handler(decode_items(self._decoders, frame.kind, frame.payload), fds)
        self.node.touch()

    def _on_results(self, ends: list[Any], fds: list[int]) -> None:
        blobs: dict[int, list[Any]] | None = None
        if fds:
            taken = Blobs(fds)
            blobs = {}
            for index, end in enumerate(ends):
                sizes = [end.size] if end.size else []
                sizes.extend(part.size for part in end.parts or () if part.size)
                if sizes:
                    blobs[index] = [taken.take(size) for size in sizes]
            if blobs and (why := held.too_many()):
                for index in blobs:
                    ends[index] = self._not_kept(ends[index], why)
                blobs = None
        if self.lines.unfinished:
            for end in ends:
                self._finish_lines(end.seq)
        if ends:
            self._last_seq = ends[-1].seq
            last = self.core.session.tasks.get(self._last_seq)
            if last is not None:
                self._last_kind = last.seq, last.function, last.options
        self.node.core.on_results(self.core, ends, self.node.now(), blobs)

    def _not_kept(self, end: End, why: str) -> End:
        record = self.core.session.tasks.get(end.seq)
        failure = self._failure("QueueFullError", f"its result is not kept: {why}", record)
        return End(end.seq, EndKind.ERROR, encode_failure(failure), end.attempt, 0, end.ran_ns)

    def _on_dropped(self, items: list[Any], fds: list[int]) -> None:
        self.node.core.on_dropped(self.core, [item.number for item in items], self.node.now())

    def _on_printed(self, items: list[Any], fds: list[int]) -> None:
        for item in items:
            self._print(self.seq_of(item.number), item.stream, item.data)

    def _on_blocked(self, items: list[Any], fds: list[int]) -> None:
        for item in items:
            self.node.core.on_blocked(self.core, item.number, self.node.now())

    def _on_unblocked(self, items: list[Any], fds: list[int]) -> None:
        for item in items:
            self.node.core.on_unblocked(self.core, item.number, self.node.now())

    def seq_of(self, number: int) -> int:
        """The task of an outstanding call; the last one's if the call is unknown."""
        for record in self.core.outstanding:
            if record.number == number:
                return int(record.seq)
        return self._last_seq

    # What it prints.

    def _on_pipe(self, fd: int) -> None:
        if self.node.output_is_stuck(self.core.session):
            self._read_later(fd, STUCK_S)  # its tasks' prints block, rather than our memory grow
            return
        self.page.reading = 1
        barrier()
        number = self.page.running
        try:
            if self.page.owns_pipes(number) and (number or not self.core.outstanding):
                self._read_pipe(fd, self.seq_of(number))
            else:
                self._read_later(fd)
        finally:
            self.page.reading = 0

    def _read_later(self, fd: int, seconds: float = BETWEEN_CALLS_S) -> None:
        self.node.loop.remove_reader(fd)
        self.node.loop.call_later(seconds, self._read_again, fd)

    def _read_again(self, fd: int) -> None:
        if fd in self._pipes:
            self.node.loop.add_reader(fd, self._on_pipe, fd)

    def _read_pipe(self, fd: int, seq: int) -> bool:
        """One read; False when the pipe is empty or closed."""
        try:
            data = os.read(fd, PIPE_READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._print(seq, self._pipes[fd], data)
            return True
        self.node.loop.remove_reader(fd)  # the worker closed all its descriptors; the task goes on without a voice
        return False

    def _print(self, seq: int, stream: int, data: bytes) -> None:
        whole = self.lines.feed(seq, stream, data)
        if whole:
            self.node.print_lines(self.core.session, seq, stream, whole, self._last_kind)

    def _finish_lines(self, seq: int) -> None:
        for stream, line in self.lines.finish(seq):
            self.node.print_lines(self.core.session, seq, stream, line, self._last_kind)

    # How it ends.

    def _on_channel_closed(self, why: str) -> None:
        """It closed its socket, or broke the protocol. Its death is told by the zygote; see that it comes."""
        self.port.channel = None
        if why:
            self.kill(f"the worker broke the protocol: {why}")
        elif not self._is_collected:
            # One that ends by itself does so at once, and knows which call closed the connection.
            self.node.loop.call_later(LAST_WORDS_S, self.kill, "a task closed its worker's connection to the daemon")

    def collect(self) -> int:
        """The process is gone: take in all it had said, and release what was held for it. Which call was running."""
        self.channel.read_rest()
        self._is_collected = True
        self.channel.close("")
        number = self.page.running
        seq = self.seq_of(number)
        for fd in list(self._pipes):
            while self._read_pipe(fd, seq):
                pass
            self.node.loop.remove_reader(fd)
            del self._pipes[fd]
            os.close(fd)
        self._finish_lines(seq)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return number

    def stderr_tail(self, number: int) -> str:
        return self.lines.tail(self.seq_of(number))


def payload_of(record: Record, index: int) -> tuple[Part, Blob | None]:
    """One object of an ended task: inline, or the descriptor that it lies in.

    Raises ProtocolError for an index that the task has no result for.
    """
    end = record.end
    assert end is not None
    blobs = iter(record.blobs or ())
    if end.parts is None:
        if index:
            raise ProtocolError(f"task {record.seq:x} has one result; index {index} was asked for")
        return Part(end.payload, end.size), next(blobs, None)
    for number, part in enumerate(end.parts):
        blob = next(blobs, None) if part.size else None
        if number == index:
            return part, blob
    raise ProtocolError(f"task {record.seq:x} has {len(end.parts)} results; index {index} was asked for")
