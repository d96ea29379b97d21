"""The process that all workers and supervisors of one interpreter are forked from.

It has one thread, imports no user code, touches no CUDA and opens no loop: a fork of it is 2 ms and always safe. It
owns its children to the last: it is a child subreaper, so whatever a worker leaves behind becomes its child when the
worker dies, and is killed then. When the daemon's end of the socket closes it kills all its descendants and goes.

A fork, told as steps:

1. all signals are blocked, so that the child is born with none of the zygote's handlers able to run;
2. fork; the child unblocks them after it has restored their defaults (``birth``);
3. a pidfd is opened before any child can have been reaped (only this thread reaps), so it names the child for certain;
4. FORKED goes out with the pidfd before any EXITED of the same worker can.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
from collections.abc import Callable
from typing import Final

from abi.errors import ProtocolError
from abi.processes import become_subreaper
from abi.wire.schema import Empty, Exited, Fork, Forked, Kind
from abi_worker import birth, linux
from abi_worker.channel import Channel

ESSENTIALS: Final = ("cloudpickle", "abi.session", "abi_worker.loop")
"""What every worker needs: imported before the first worker is forked. A supervisor needs none of them."""
EXTRAS: Final = ("asyncio", "subprocess")
"""What many tasks need: imported one by one, so that workers share the pages, but none before it has been quiet for
``QUIET_MS``. While a daemon starts, and with it the program that waits for its first result, they have the cores."""
QUIET_MS: Final = 2000

Child = Callable[[], None]
"""What a forked process does with the rest of its life."""


def run_zygote(socket_fd: int, lock_fd: int) -> None:
    """Returns in no process: the zygote exits, and so does every child that this forks."""
    gc.disable()
    zygote = _Zygote(socket_fd, lock_fd)
    life: Child | None = None
    status = 0
    try:
        life = zygote.run()
    except (EOFError, ConnectionError):
        pass
    except BaseException:
        import traceback  # 10 ms, and hardly ever

        status = 1
        traceback.print_exc()
    if life is None:
        linux.kill_descendants()
        os._exit(status)
    # A child: nothing of the zygote is on its stack.
    del zygote
    life()
    os._exit(0)


class _Zygote:
    def __init__(self, socket_fd: int, lock_fd: int) -> None:
        self.pid = os.getpid()
        self.lock_fd = lock_fd
        self.workers: dict[int, int] = {}
        """Worker by pid: the children that we know. Every other child is what a dead one left."""
        self.waiting: list[tuple[Fork, list[int]]] = []
        """Forks of workers that came before the essentials were there."""
        self.ready = False
        self.ending = False
        self._own_process()
        for fd in (socket_fd, lock_fd):
            os.set_inheritable(fd, False)  # for us and our forks, not for what they execute
        self.channel = Channel(socket_fd, [Kind.FORK])
        self.wakeups = self._wake_on_signals()
        self.poll = select.poll()
        self.poll.register(socket_fd, select.POLLIN)
        self.poll.register(self.wakeups, select.POLLIN)

    def _own_process(self) -> None:
        become_subreaper()
        linux.name_process("abi_zygote")
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)

    def _wake_on_signals(self) -> int:
        """A descriptor that has a byte to read, the signal's number, for each signal that we care about."""
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # A terminal's Ctrl-C is for the program in it; the daemon decides what ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        return read_end

    def run(self) -> Child | None:
        """The life of a child, in the child; None in the zygote when it is to end. Raises EOFError, OSError."""
        for module in ESSENTIALS:
            life = self._attend(self.poll.poll(0))
            if life is not None or self.ending:
                return life
            importlib.import_module(module)
        life = self._become_ready()
        extras = list(EXTRAS)
        while life is None and not self.ending:
            events = self.poll.poll(QUIET_MS if extras else None)
            if not events:
                importlib.import_module(extras.pop(0))
            life = self._attend(events)
        return life

    def _become_ready(self) -> Child | None:
        self.ready = True
        self.channel.send(Kind.READY, Empty())
        waiting, self.waiting = self.waiting, []
        for fork, descriptors in waiting:
            life = self._fork(fork, descriptors)
            if life is not None:
                return life
        return None

    def _attend(self, events: list[tuple[int, int]]) -> Child | None:
        for fd, _ in events:
            if fd == self.wakeups:
                self._on_signals(os.read(self.wakeups, 4096))
                continue
            for message in self.channel.receive():
                life = self._on_forks(message.items, message.descriptors)
                if life is not None:
                    return life
        return None

    def _on_signals(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            self.ending = True
        elif signal.SIGCHLD in numbers:
            self._reap()

    def _reap(self) -> None:
        """Reaps all who died, kills what they left, then says so.

        The kernel gives a dead process's children to us before it lets us reap it, so what it left is in the list now.
        Their own children come to us with their deaths, and with a SIGCHLD each: this runs again until none is left.
        """
        exited: list[Exited] = []
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                worker = self.workers.pop(pid, None)
                if worker is not None:
                    exited.append(Exited(worker, pid, status))
        except ChildProcessError:
            pass
        else:
            linux.kill_children(known=self.workers)
        for item in exited:
            self.channel.send(Kind.EXITED, item)

    def _on_forks(self, forks: list[Fork], descriptors: list[int]) -> Child | None:
        for fork in forks:
            count = 3 if fork.command else 6
            own, descriptors = descriptors[:count], descriptors[count:]
            if len(own) != count:
                raise ProtocolError(f"a FORK of worker {fork.worker} came with {len(own)} descriptors, not {count}")
            if fork.command or self.ready:
                life = self._fork(fork, own)
                if life is not None:
                    return life
            else:
                self.waiting.append((fork, own))
        return None

    def _fork(self, fork: Fork, descriptors: list[int]) -> Child | None:
        """The child's life, in the child. A fork that fails is EXITED with pid 0 and the negative errno as status."""
        gc.freeze()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _close(descriptors)
            self.channel.send(Kind.EXITED, Exited(fork.worker, 0, -(error.errno or 1)))
            return None
        if pid == 0:
            return self._child(fork, descriptors)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.workers[pid] = fork.worker
        pidfd = os.pidfd_open(pid)
        _close(descriptors)
        self.channel.send(Kind.FORKED, Forked(fork.worker, pid), [pidfd])
        os.close(pidfd)
        return None

    def _child(self, fork: Fork, descriptors: list[int]) -> Child:
        self.channel.detach()
        birth.become_child(self.pid, {*descriptors, self.lock_fd}, fork.process_name)
        if fork.command:
            from abi_worker.supervisor import supervise

            return lambda: supervise(*descriptors)
        from abi_worker.loop import work

        return lambda: work(*descriptors)


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
