"""The daemon's side of a zygote, its workers and supervisors, for tests: real processes, events instead of sleeps."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle

from abi.objects import fence
from abi.objects.slot_page import INTERRUPT_SIGNAL, SlotPage
from abi.wire.names import to_bytes
from abi.wire.schema import (
    Call,
    Command,
    CommandSignal,
    End,
    Exited,
    Fork,
    Forked,
    Function,
    Item,
    Kind,
    Options,
    Run,
    Setup,
)
from abi_worker.channel import Channel, Message

PATIENCE_S = 20.0
"""Only a failing test ever waits this long."""
FROM_WORKER = [
    *(Kind.RESULT, Kind.DROPPED, Kind.PRINTED, Kind.BLOCKED, Kind.UNBLOCKED),
    *(Kind.FUNCTION, Kind.OPTIONS, Kind.SUBMIT, Kind.PUT, Kind.WANT, Kind.BORROW, Kind.RELEASE, Kind.CANCEL, Kind.BYE),
]
FROM_SUPERVISOR = [Kind.COMMAND_STARTED, Kind.COMMAND_GREW, Kind.COMMAND_ENDED]


class Side(Channel):
    """One connection: what has arrived waits in ``inbox`` until somebody asks for its kind."""

    def __init__(self, sock: socket.socket, accepts: list[Kind]) -> None:
        super().__init__(sock.detach(), accepts)
        self.inbox: list[tuple[int, Any, list[int]]] = []
        self.ended = False

    def await_item(self, kind: Kind, match: Callable[[Any], bool] = lambda _: True) -> Any:
        return self.await_with_descriptors(kind, match)[0]

    def await_with_descriptors(
        self, kind: Kind, match: Callable[[Any], bool] = lambda _: True
    ) -> tuple[Any, list[int]]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for at, (sort, item, descriptors) in enumerate(self.inbox):
                if sort == kind and match(item):
                    del self.inbox[at]
                    return item, descriptors
            assert not self.ended, f"the connection ended without {kind.name}; there was {self.inbox}"
            assert self.pump(deadline - time.monotonic()), f"no {kind.name} came; there was {self.inbox}"

    def await_end(self) -> None:
        while not self.ended:
            assert self.pump(PATIENCE_S), "the connection does not end"

    def pump(self, timeout_s: float) -> bool:
        if not select.select([self], [], [], max(timeout_s, 0))[0]:
            return False
        try:
            for message in self.receive():
                self._keep(message)
        except (EOFError, ConnectionResetError):
            self.ended = True
        return True

    def _keep(self, message: Message) -> None:
        for item in message.items:
            self.inbox.append((message.kind, item, message.descriptors))

    def close(self) -> None:
        self._socket.close()


class Process:
    """A worker or supervisor as its daemon sees it."""

    def __init__(self, number: int, side: Side, page: SlotPage) -> None:
        self.number, self.side, self.page = number, side, page
        self.pid, self.pidfd = 0, -1
        self.stdout = self.stderr = self.log = -1
        self._calls = 0

    # --- a worker -----------------------------------------------------------------------------------------------------

    def set_up(self, **changes: Any) -> None:
        values: dict[str, Any] = {
            "session": b"8 bytes.",
            "submitter": 1,
            "namespace": "default",
            "sys_path": list(sys.path),
            "directory": "/",
            "environment": dict(os.environ),
            "main_path": "",
            "gpu_ids": [],
            "host": "here",
            "socket_path": "/nowhere",
        }
        values |= changes
        for name in ("sys_path", "directory", "environment", "main_path", "socket_path"):
            values[name] = _on_the_wire(values[name])
        self.side.send(Kind.SETUP, Setup(**values))
        self.define_options(Options(0))
        self.define_options(Options(1, max_retries=0))

    def define(self, index: int, function: Callable[..., Any] | bytes, name: str = "f") -> None:
        pickled = function if isinstance(function, bytes) else by_value(function)
        self.side.send(Kind.FUNCTION, Function(index, b"digest", name, pickled))

    def define_options(self, options: Options) -> None:
        self.side.send(Kind.OPTIONS, options)

    def call(self, function: int, *args: Any, options: int = 0, epoch: int = 0, **kwargs: Any) -> int:
        """Sends one call and does not wait; its number, which is its seq too."""
        number = self.reserve()
        self.side.send(Kind.RUN, Run(epoch, [self.make_call(number, function, args, kwargs, options)]))
        return number

    def reserve(self) -> int:
        self._calls += 1
        return self._calls

    def make_call(self, number: int, function: int, args: Any = (), kwargs: Any = None, options: int = 0) -> Call:
        arguments = pickle.dumps((args, kwargs or {})) if args or kwargs else b""
        return Call(number, number, 1, function, options, arguments)

    def end_of(self, number: int) -> End:
        end: End = self.side.await_item(Kind.RESULT, lambda end: end.seq == number)
        return end

    def value_of(self, number: int) -> Any:
        end = self.end_of(number)
        assert end.kind == 0, end.payload
        return pickle.loads(end.payload) if end.payload else None

    def run(self, function: Callable[..., Any], *args: Any, options: int = 0) -> Any:
        """Defines, calls and waits: for tests of one call."""
        number = self.reserve()
        self.define(1000 + number, function)
        self.side.send(Kind.RUN, Run(self.page.epoch, [self.make_call(number, 1000 + number, args, None, options)]))
        return self.value_of(number)

    def interrupt(self, number: int) -> None:
        self.page.interrupt = number
        fence.barrier()
        signal.pidfd_send_signal(self.pidfd, INTERRUPT_SIGNAL)

    # --- either -------------------------------------------------------------------------------------------------------

    def kill(self, number: int = signal.SIGKILL) -> None:
        signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        self.side.close()
        for fd in (self.pidfd, self.stdout, self.stderr, self.log):
            if fd >= 0:
                os.close(fd)


class Zygote:
    """A zygote of this interpreter and what was forked from it. Ends with everything it started."""

    def __init__(self, directory: str) -> None:
        ours, theirs = socket.socketpair()
        self.lock_fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        arguments = [sys.executable, "-P", "-m", "abi_worker", directory]
        arguments += ["--socket", str(theirs.fileno()), "--lock", str(self.lock_fd)]
        self.process = subprocess.Popen(
            arguments,
            pass_fds=(theirs.fileno(), self.lock_fd),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        theirs.close()
        self.side = Side(ours, [Kind.FORKED, Kind.EXITED, Kind.READY])
        self.processes: list[Process] = []

    def fork(self, number: int) -> Process:
        """A worker, before its SETUP."""
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        process = self._fork(number, FROM_WORKER, [out_write, err_write, out_read, err_read], command=False)
        os.close(out_write)
        os.close(err_write)
        process.stdout, process.stderr = out_read, err_read
        return process

    def worker(self, number: int = 1, **setup: Any) -> Process:
        process = self.fork(number)
        process.set_up(**setup)
        return process

    def supervisor(self, number: int, log_path: str, command: Command, *signals: CommandSignal) -> Process:
        """``signals`` are there with the command when it looks first."""
        log = os.open(log_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        process = self._fork(number, FROM_SUPERVISOR, [log], command=True)
        process.log = log
        os.kill(process.pid, signal.SIGSTOP)
        process.side.send(Kind.COMMAND, command)
        for item in signals:
            process.side.send(Kind.COMMAND_SIGNAL, item)
        os.kill(process.pid, signal.SIGCONT)
        return process

    def _fork(self, number: int, kinds: list[Kind], more: list[int], *, command: bool) -> Process:
        ours, theirs = socket.socketpair()
        page, page_fd = SlotPage.create()
        self.side.send(Kind.FORK, Fork(number, command), [theirs.fileno(), page_fd, *more])
        theirs.close()
        os.close(page_fd)
        process = Process(number, Side(ours, kinds), page)
        self.processes.append(process)
        forked: Forked
        forked, descriptors = self.side.await_with_descriptors(Kind.FORKED, lambda item: item.worker == number)
        process.pid, process.pidfd = forked.pid, descriptors[0]
        return process

    def exit_of(self, process: Process) -> int:
        exited: Exited = self.side.await_item(Kind.EXITED, lambda item: item.worker == process.number)
        assert exited.pid == process.pid
        return exited.status

    def close(self) -> None:
        self.side.close()
        self.process.wait(PATIENCE_S)
        for process in self.processes:
            process.close()
        os.close(self.lock_fd)


@contextlib.contextmanager
def a_zygote(directory: Any) -> Iterator[Zygote]:
    zygote = Zygote(str(directory))
    try:
        yield zygote
    finally:
        zygote.close()


def _on_the_wire(names: Any) -> Any:
    """Names of files and variables, with the types that SETUP has for them."""
    if isinstance(names, dict):
        return {to_bytes(name): to_bytes(value) for name, value in names.items()}
    return to_bytes(names) if isinstance(names, str) else list(map(to_bytes, names))


def by_value(function: Callable[..., Any]) -> bytes:
    """Pickled as a function of ``__main__`` would be: the worker need not import the test's module."""
    module = sys.modules[function.__module__]
    if not module.__name__.startswith(("tests.", "__main__")):
        return pickle.dumps(function)
    cloudpickle.register_pickle_by_value(module)
    try:
        data: bytes = cloudpickle.dumps(function)
        return data
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def await_death(pid: int) -> None:
    """Returns when ``pid`` is no more (a zombie counts as dead: its pidfd is readable)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], PATIENCE_S)[0], f"process {pid} lives on"
    finally:
        os.close(fd)


__all__ = ["End", "Item", "Process", "Side", "Zygote", "a_zygote", "await_death", "by_value"]
