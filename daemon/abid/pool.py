"""The processes: a zygote per interpreter, a worker or supervisor for each worker of the core."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from abi import exits
from abi.processes import signal_name
from abi.wire.names import to_bytes
from abi.wire.schema import Interpreter, Setup
from abid.commands import CommandProcess
from abid.core.retry import Death
from abid.core.workers import Worker
from abid.resources import oom_kills
from abid.workers import WorkerProcess
from abid.zygote_process import ZygoteProcess
from abid.zygotes import SWEEP_AGAIN_S, Zygote, key_of, sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from abid.node import Node

log = logging.getLogger(__name__)


START_AGAIN_S = 0.1
"""After a start that failed for want of descriptors, processes or memory: other work may end meanwhile."""
BROKEN_S = 5.0
"""How long an interpreter that does not start is not tried again: somebody may be repairing it."""
FAIL_AGAIN_S = 0.001
LET_GO_S = 3.0
"""How long a zygote may take to end all below it before it is killed. The daemon waits a little longer than that."""
OUR_TROUBLES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC})


class Broken(NamedTuple):
    """An interpreter that did not start."""

    why: str
    until: float


class Pool:
    """All processes below this daemon. ``own`` is the interpreter of the daemon, whose zygote runs commands too."""

    def __init__(self, node: Node, own: Interpreter, first: ZygoteProcess, estate_fd: int) -> None:
        self.node = node
        self.processes: dict[int, WorkerProcess | CommandProcess] = {}
        self._estate_fd = estate_fd
        self._own = own
        self._zygotes: dict[tuple[Any, ...], Zygote] = {}
        self._leaving: set[Zygote] = set()
        """Told to go, and not gone yet: no worker comes from them any more."""
        self._broken: dict[tuple[Any, ...], Broken] = {}
        self._sweeping = False
        self._oom_kills = oom_kills()
        self.on_zygote_gone: Callable[[], None] | None = None
        self._adopt(own, first)

    def _adopt(self, interpreter: Interpreter, process: ZygoteProcess) -> Zygote:
        zygote = Zygote(self.node.loop, interpreter, process, self._on_forked, self._on_exited, self._on_zygote_gone)
        self._zygotes[key_of(interpreter)] = zygote
        return zygote

    def _zygote(self, interpreter: Interpreter) -> Zygote:
        found = self._zygotes.get(key_of(interpreter))
        if found is None:
            process = ZygoteProcess(
                interpreter.executable,
                interpreter.flags,
                interpreter.variables,
                interpreter.package_path,
                str(self.node.runtime_dir),
                self._estate_fd,
            )
            found = self._adopt(interpreter, process)
        return found

    def spawn(self, worker: Worker) -> None:
        """Make the process of a worker; frames sent to it wait until it is there.

        Where that fails for want of descriptors or memory, nobody is to blame and it is tried again a little later.
        Where the interpreter itself is what fails, the call is charged, or a program would wait for ever for what
        cannot come; and for a while the next ones are failed unseen: a million calls are not a million attempts.
        """
        program = None if worker.command else self.node.sessions.get(worker.session.number)
        if program is None and not worker.command:  # it ended between the decision and now
            self.node.loop.call_soon(self._on_failed_start, worker, "its program has ended", False)
            return
        interpreter = self._own if program is None else program.program.interpreter
        broken = self._broken.get(key_of(interpreter))
        if broken is not None and broken.until > self.node.loop.time():
            self.node.loop.call_later(FAIL_AGAIN_S, self._on_failed_start, worker, broken.why, True)
            return
        self.node.loop.call_later(self._start_timeout_s, self._see_started, worker)
        try:
            zygote = self._zygote(interpreter)
            if program is None:
                self.processes[worker.number] = CommandProcess(self.node, worker, zygote)
                return
            world = program.program
            setup = Setup(
                session=program.prefix,
                submitter=worker.submitter,
                namespace=program.namespace,
                sys_path=list(map(to_bytes, world.sys_path)),
                directory=to_bytes(world.directory),
                environment={to_bytes(name): to_bytes(value) for name, value in world.environment.items()},
                main_path=to_bytes(world.main_path),
                gpu_ids=worker.gpu_ids,
                host=self.node.host,
                socket_path=to_bytes(self.node.socket_path),
            )
            self.processes[worker.number] = WorkerProcess(self.node, worker, zygote, setup)
        except (OSError, ValueError) as error:  # ValueError: a name that the kernel cannot be told
            log.error("worker %d could not be started: %s", worker.number, error)
            ours = isinstance(error, OSError) and error.errno in OUR_TROUBLES
            if not ours:
                self._note_broken(interpreter, str(error))
            self.node.loop.call_later(START_AGAIN_S if ours else 0, self._on_failed_start, worker, str(error), not ours)

    @property
    def _start_timeout_s(self) -> float:
        return self.node.config.integer("workers.start_timeout_ms") / 1000

    def _see_started(self, worker: Worker) -> None:
        """A zygote that has not forked for so long hangs, and all its workers wait for it. One that forks others has
        much to do, and is given its time."""
        process = self.processes.get(worker.number)
        if process is None or process.pid:
            return
        left = process.zygote.forked_s + self._start_timeout_s - self.node.loop.time()
        if left > 0:
            self.node.loop.call_later(left, self._see_started, worker)
        else:
            log.error("zygote %d did not fork in time: it is killed", process.zygote.pid)
            process.zygote.kill("it did not fork in time")

    def _on_failed_start(self, worker: Worker, why: str, charged: bool) -> None:
        running = worker.outstanding[0].number if charged and worker.outstanding else 0
        death = Death(text=f"its worker could not be started: {why}", started=charged, charged=charged)
        self.node.core.on_exit(worker, running, death, self.node.now())
        self.node.touch()

    def _note_broken(self, interpreter: Interpreter, why: str) -> None:
        now = self.node.loop.time()
        self._broken = {key: broken for key, broken in self._broken.items() if broken.until > now}
        self._broken[key_of(interpreter)] = Broken(why, now + BROKEN_S)

    def never_was(self, process: CommandProcess) -> None:
        """It found that it could not begin, before it asked for a process; its call has ended."""
        del self.processes[process.number]
        process.collect()
        self.node.core.on_exit(process.core, 0, Death(text="it was not started", started=False), self.node.now())
        self.node.touch()

    def _on_forked(self, worker: int, pid: int, pidfd: int) -> None:
        process = self.processes.get(worker)
        if process is None:
            os.close(pidfd)
        else:
            process.forked(pid, pidfd)

    def _on_exited(self, worker: int, status: int) -> None:
        process = self.processes.pop(worker, None)
        if process is None:
            return
        running = process.collect()
        death = self._death(process, status, running)
        if status < 0:  # the zygote's fork failed, and would again if it were asked at once
            log.error("worker %d: %s", process.number, death.text)
            self.node.loop.call_later(START_AGAIN_S, self._report, process, running, death)
        else:
            self._report(process, running, death)

    def _report(self, process: WorkerProcess | CommandProcess, running: int, death: Death) -> None:
        log.log(
            logging.INFO if death.exit_code == 0 or process.killed_because else logging.WARNING,
            "worker %d (pid %d) ended: %s",
            process.number,
            process.pid,
            death.text,
        )
        if isinstance(process, WorkerProcess):
            death.last_started = process.page.started
        elif running:
            process.on_lost(death.text)
        self.node.core.on_exit(process.core, running, death, self.node.now())
        self.node.touch()

    def _death(self, process: WorkerProcess | CommandProcess, status: int, running: int) -> Death:
        """What ended a process, in words: who killed it, or by what signal or code it went."""
        if status < 0:  # the zygote's fork failed
            return Death(text=f"its worker could not be forked: {os.strerror(-status)}", started=False)
        stderr = process.stderr_tail(running)
        who = _who(process)
        # One that left by itself, with zombies or enough calls behind it, may have been sent more just then.
        started = not process.page.left
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            text = f"{who} ended with exit code {code}"
            if code == exits.CUT_OFF and process.killed_because:  # it saw its connection end before the signal came
                text += f" ({process.killed_because})"
            elif code == exits.CUT_OFF:
                text += ", as it does when a task closed the connection to its daemon"
            return Death(text=text, exit_code=code, stderr=stderr, started=started)
        name = signal_name(os.WTERMSIG(status))
        text = f"{who} was killed by {name}"
        oom = False
        if process.killed_because:
            text += f" ({process.killed_because})"
        elif name == "SIGKILL":
            kills = oom_kills()
            oom, self._oom_kills = kills > self._oom_kills, kills
            text += " (out of memory: the kernel chose it)" if oom else " (somebody else's: the daemon did not)"
        return Death(text=text, signal=os.WTERMSIG(status), oom=oom, stderr=stderr, started=started)

    def _on_zygote_gone(self, zygote: Zygote, why: str) -> None:
        """Its workers die with it. What they leave is ours to end."""
        self._leaving.discard(zygote)
        for key, known in list(self._zygotes.items()):
            if known is zygote:
                del self._zygotes[key]
        level = logging.ERROR if not self.node.stopping else logging.INFO
        log.log(level, "zygote %d ended: %s", zygote.pid, why)
        if zygote.is_broken:
            self._note_broken(zygote.interpreter, why)
        self.sweep()
        for number in sorted(zygote.workers):
            process = self.processes.pop(number, None)
            if process is not None:
                running = process.collect()
                if process.pid == 0:
                    self._on_failed_start(process.core, why, zygote.is_broken)
                else:
                    text = f"{_who(process)}'s zygote ended: {why}"
                    self._report(process, running, Death(text=text, charged=False))
        if self.on_zygote_gone is not None:
            self.on_zygote_gone()

    def sweep(self) -> None:
        """End the orphans that came to us, again and again until there are none."""
        if self._sweeping:
            return
        self._sweeping = True
        self._sweep_once()

    def _sweep_once(self) -> None:
        if sweep({zygote.pid for zygote in (*self._zygotes.values(), *self._leaving)}):
            self.node.loop.call_later(SWEEP_AGAIN_S, self._sweep_once)
        else:
            self._sweeping = False
            if self.on_zygote_gone is not None:
                self.on_zygote_gone()

    def prune(self) -> None:
        """Let go of zygotes that no session uses; the daemon's own stays."""
        used = {key_of(self._own)} | {key_of(s.program.interpreter) for s in self.node.sessions.values()}
        for key, zygote in list(self._zygotes.items()):
            if key not in used and not zygote.workers:
                del self._zygotes[key]
                self._leaving.add(zygote)
                zygote.close()

    def close(self) -> None:
        """End everything: each zygote kills all below it and goes. One that does not, because somebody stopped it, say,
        is killed, and its workers with it."""
        for zygote in (*self._zygotes.values(), *self._leaving):
            zygote.close()
            self.node.loop.call_later(LET_GO_S, self._kill, zygote)

    def _kill(self, zygote: Zygote) -> None:
        if zygote in self._zygotes.values() or zygote in self._leaving:
            zygote.kill("it did not end in time")

    @property
    def empty(self) -> bool:
        """Whether nothing of ours runs any more, be it an orphan of a zygote that died."""
        return not (self._zygotes or self._leaving or self._sweeping)


def _who(process: WorkerProcess | CommandProcess) -> str:
    return "its worker" if isinstance(process, WorkerProcess) else "its supervisor"
