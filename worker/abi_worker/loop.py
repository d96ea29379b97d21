"""A worker's life: runs arrive, calls are executed in the main thread, results leave in batches.

The way of one call, with the races that its order prevents:

1. SINCE, then RUNNING = n, then a look at EPOCH. The daemon recalls the other way round: EPOCH, fence, then a look at
   RUNNING (``abi.objects.fence``). So at least one side sees the other: a call is never both taken back and executed.
   A call that finds itself recalled says DROPPED; the others of its run are known to be taken back and say nothing.
2. The function. ``inside`` tells the interrupt's handler that user code runs (``interrupt``).
3. The result is pickled while RUNNING is still n: a crash in somebody's ``__reduce__`` is that call's crash.
4. What it printed is told apart from what follows (``output``), and PRINTED goes before RESULT.
5. RESULT waits in the outbox for company: until nothing is left to run, 1 ms has passed, or much has gathered. The
   link's helper sends what waits behind a call that takes long.
6. The value goes only after its RESULT has joined the outbox. Else: its references go with it, RELEASE; the helper
   sends what waits; RESULT comes after that, and names objects that the daemon has forgotten.

A call that may be started only once (``max_retries=0``) keeps its number in RUNNING, marked ENDING, until its result
has left: otherwise a death in between would look as though it had never started.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from typing import Any, Final, NoReturn

from abi import context
from abi.link import Handler, Link
from abi.objects import fence
from abi.objects.slot_page import ENDING, EPOCH, READING, RUNNING, SINCE, STARTED, SlotPage
from abi.session import RECEIVED
from abi.wire.codec import decoders
from abi.wire.frames import BATCH_BYTES
from abi.wire.schema import Blocked, Call, Dropped, End, EndKind, Function, Kind, Options, Part, Run, Setup, Values
from abi_worker import birth, departure
from abi_worker.coroutines import Coroutines
from abi_worker.execute import Executor
from abi_worker.interrupt import OURS, Interrupts
from abi_worker.output import Pipes
from abi_worker.submitting import open_session
from abi_worker.surroundings import Surroundings
from abi_worker.world import enter_world, limit_threads

LOOK_NS: Final = 1_000_000_000
"""How often a busy worker looks for zombies."""
FLUSH_NS: Final = 1_000_000
"""Results wait this long for company at most."""
LINGER_S: Final = 0.004
"""How long results wait behind a call that takes long. The helper that sends them then wakes while short calls run too,
and each time takes the interpreter's lock from them."""
_DECODERS: Final = decoders([Kind.SETUP, Kind.FUNCTION, Kind.OPTIONS, Kind.RUN, Kind.STOP, Kind.VALUES, *RECEIVED])
"""Made in the zygote, once: it takes 6 ms."""
_RESULT: Final = int(Kind.RESULT)
_OK: Final = int(EndKind.OK)


def work(socket_fd: int, page_fd: int, stdout: int, stderr: int, stdout_read: int, stderr_read: int) -> NoReturn:
    """Never returns. The exit status is 0 when the worker was told to stop or left because nothing held it."""
    page = SlotPage.attach(page_fd)
    page.keep_from_forks()
    os.close(page_fd)
    birth.adopt_output(stdout, stderr)
    fence.register()
    pipes = {stdout_read: stdout, stderr_read: stderr}
    worker = Worker(socket.socket(fileno=socket_fd), page, pipes)
    worker.run()
    page.left = 1
    departure.leave(0)


class Worker:
    """All that a worker is, wired together. ``run`` returns when it is to leave."""

    def __init__(self, sock: socket.socket, page: SlotPage, pipes: dict[int, int]) -> None:
        self.page = page
        self.words = page.words
        self.runs: deque[Run] = deque()
        self.descriptors: dict[int, list[int]] = {}
        """What came beside a call, by its number, until it is executed or taken back."""
        self.values: dict[int, list[Part]] = {}
        """What came ahead of a call, until the call itself comes."""
        self.options: dict[int, Options] = {}
        self.setup: Setup | None = None
        self.stopping = self.is_used_up = False
        self.looked = 0
        self.waiting = self.waits = 0
        """The call that waits for others, and for how many at once."""
        self.limited: Options | None = None
        """Whose number of threads is in the environment."""
        self.calls_left: dict[int, int] = {}
        """By function: how many calls of it until the worker leaves (``max_calls``)."""
        self.main_thread = threading.get_ident()
        self.interrupts = Interrupts(page.words)
        self.surroundings = Surroundings()
        self.executor = Executor(self.interrupts, "")
        handlers: dict[Kind, Handler] = {
            Kind.SETUP: self.on_setup,
            Kind.FUNCTION: self.on_functions,
            Kind.OPTIONS: self.on_options,
            Kind.RUN: self.on_runs,
            Kind.STOP: self.on_stop,
            Kind.VALUES: self.on_values,
        }
        table = {int(kind): handler for kind, handler in handlers.items()}
        self.link = Link(sock, _DECODERS, table, self._on_lost, guard=self.interrupts, linger_s=LINGER_S)
        self.pipes = Pipes(pipes, page.words, self.link.outbox)

    # --- what arrives: under the link's guard, perhaps in its helper thread -------------------------------------------

    def _on_lost(self) -> None:
        departure.daemon_is_gone(self.link.why)

    def on_setup(self, items: list[Setup], _: list[int]) -> None:
        self.setup = items[0]

    def on_functions(self, items: list[Function], descriptors: list[int]) -> None:
        fds = iter(descriptors)
        for function in items:
            self.executor.define(function, next(fds) if function.pickled is None and function.size else None)

    def on_options(self, items: list[Options], _: list[int]) -> None:
        for options in items:
            self.options[options.index] = options

    def on_runs(self, items: list[Run], descriptors: list[int]) -> None:
        if descriptors or self.values:
            fds = iter(descriptors)
            for run in items:
                for call in run.calls:
                    sizes = [call.size, *(part.size for part in call.values or ())]
                    if any(sizes):
                        own = [next(fds) for size in sizes if size]
                        self.descriptors[call.number] = own + self.descriptors.get(call.number, [])
                    if call.number in self.values:
                        call.values = self.values.pop(call.number)
        self.runs.extend(items)

    def on_values(self, items: list[Values], descriptors: list[int]) -> None:
        for ahead in items:
            self.values.setdefault(ahead.number, []).extend(ahead.values)
            self.descriptors.setdefault(ahead.number, []).extend(descriptors)

    def on_stop(self, _: list[Any], __: list[int]) -> None:
        self.stopping = True

    def has_work(self) -> bool:
        return bool(self.runs) or self.stopping

    # --- the life -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Waits for its SETUP, then executes until it is told to stop."""
        self.link.wait(lambda: self.setup is not None)
        if self.setup is None:
            return
        self._begin(self.setup)
        while True:
            if self.is_used_up:  # even if more has come meanwhile: that runs elsewhere
                return
            if self.runs:
                self.execute(self.runs)
            elif self.stopping or not self._await_work():
                return

    def _begin(self, setup: Setup) -> None:
        enter_world(setup, self.surroundings)
        context.host = self.executor.host = setup.host
        context.namespace = setup.namespace
        self.session = open_session(self.link, setup, self.blocked, self.unblocked)

    def _await_work(self) -> bool:
        """False when the worker is to leave for its zombies' sake. Without children it waits for as long as it
        takes."""
        while departure.has_children():
            if self.link.wait(self.has_work, departure.IDLE_S):
                self._look_around(time.monotonic_ns())
                return not self.is_used_up
            if departure.has_zombies():
                return False
        return self.link.wait(self.has_work)

    def execute(self, runs: deque[Run]) -> None:
        """All calls that wait. One long function, because every line of it is paid by every call."""
        words, link, interrupts, pipes = self.words, self.link, self.interrupts, self.pipes
        outbox, poll, executor = link.outbox, pipes.poll, self.executor
        functions, names, all_options = executor.functions, executor.names, self.options
        session, surroundings, now = self.session, self.surroundings, time.monotonic_ns
        flushed, gathered, armed = now(), 0, False
        given: Any
        while runs:
            run = runs.popleft()
            epoch = run.epoch
            for call in run.calls:
                number = call.number
                words[SINCE] = began = now()
                words[RUNNING] = number
                if words[EPOCH] > epoch:  # see 1. at the top
                    self._drop(number, run)
                    break
                if outbox and not armed:
                    link.arm()
                    armed = True
                words[STARTED] = number
                context.call = call
                session.parent = call.seq
                options = all_options[call.options]
                if options is not self.limited:
                    self.limited = limit_threads(options)
                function = functions.get(call.function)
                try:
                    if function is None or call.size or call.dependencies is not None:
                        value = self._execute_slowly(call, options)
                    else:
                        context.task_name = options.name or names[call.function]
                        interrupts.inside = True
                        if call.arguments:
                            given = executor.inline_arguments(call)
                            value = function(*given[0], **given[1])
                            given = None
                        else:
                            value = function()
                    interrupts.inside = False
                    ended = now()
                    if value is None and options.returns == 1:
                        entry: tuple[Any, ...] = (_RESULT, End(call.seq, _OK, b"", call.attempt, 0, ended - began))
                    else:
                        entry = executor.result(call, options, value, ended - began)
                        gathered += len(entry[1].payload) if not executor.unsent else BATCH_BYTES + 1
                except BaseException as error:
                    interrupts.inside = False
                    ended = now()
                    entry = (_RESULT, executor.failed(call, options, error, ended - began))
                    given = None
                pipes.flush()
                words[RUNNING] = 0 if options.max_retries else number | ENDING
                if words[READING] or poll(0):
                    pipes.drain(number)
                outbox.append(entry)
                value = None  # only now: see 6.
                if surroundings.changed:
                    self.is_used_up = not surroundings.restore()
                if not options.max_retries or ended - flushed > FLUSH_NS or gathered > BATCH_BYTES:
                    link.flush()
                    flushed, gathered, armed = now(), 0, False
                    words[RUNNING] = 0
                    self._look_around(flushed)
                if self.is_used_up or (options.max_calls and self._count_down(call, options)):
                    runs.clear()
                    break
        context.call = None
        link.flush()

    def _look_around(self, now: int) -> None:
        """After a flush."""
        if self.executor.unsent:
            self.executor.close_sent()
        if now - self.looked > LOOK_NS:
            self.looked = now
            if departure.has_zombies() and departure.count_zombies() > departure.ZOMBIES_MAX:
                self.is_used_up = True

    def _drop(self, number: int, run: Run) -> None:
        """The call that was about to start was recalled, and with it all behind it in its run."""
        self.words[RUNNING] = 0
        self.link.outbox.append((Kind.DROPPED, Dropped(number)))
        for call in run.calls:
            if call.number >= number:
                for fd in self.descriptors.pop(call.number, ()):
                    os.close(fd)

    def _execute_slowly(self, call: Call, options: Options) -> Any:
        """A call with arguments, or the first of its function. Raises what the call raises; ``inside`` is left set."""
        executor = self.executor
        context.task_name = options.name or executor.names.get(call.function, "")
        descriptors = self.descriptors.pop(call.number, [])
        self.interrupts.inside = True
        function = executor.functions.get(call.function)
        if function is None:
            function = executor.load(call.function)
        args, kwargs = executor.arguments(call, descriptors)
        return function(*args, **kwargs)

    def _count_down(self, call: Call, options: Options) -> bool:
        """Whether this was the last call of its function here: the worker leaves, and what waits here runs
        elsewhere."""
        left = self.calls_left.get(call.function, options.max_calls) - 1
        self.calls_left[call.function] = left
        self.is_used_up = left <= 0
        return self.is_used_up

    # --- what a task's own waiting means ------------------------------------------------------------------------------

    def blocked(self) -> None:
        """The running task waits for others: its processors are free. A coroutine may wait for several at once: its
        first wait counts, and the end of the last. Threads beside the task do not speak for it."""
        number = self.words[RUNNING]
        if number and threading.get_ident() == self.main_thread:
            if self.waiting != number:
                self.waiting, self.waits = number, 0
            self.waits += 1
            if self.waits == 1:
                self._tell(Kind.BLOCKED, number)

    def unblocked(self) -> None:
        number = self.words[RUNNING]
        if number and self.waiting == number and threading.get_ident() == self.main_thread:
            self.waits -= 1
            if self.waits == 0:
                self._tell(Kind.UNBLOCKED, number)

    def _tell(self, kind: Kind, number: int) -> None:
        self.link.outbox.append((kind, Blocked(number)))
        self.link.flush()


for function in (
    Worker.execute,
    Worker._execute_slowly,
    Executor.load,
    Executor.arguments,
    Executor.inline_arguments,
    Coroutines.run,
):
    OURS.add(function.__code__)
