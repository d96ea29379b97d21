"""The processes: a zygote per interpreter, a worker or supervisor for each worker of the core."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from abi.wire.schema import Interpreter, Setup
from abid.commands import CommandProcess, signal_name
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


class Pool:
    """All processes below this daemon. ``own`` is the interpreter of the daemon, whose zygote runs commands too."""

    def __init__(self, node: Node, own: Interpreter, first: ZygoteProcess, estate_fd: int) -> None:
        self.node = node
        self.processes: dict[int, WorkerProcess | CommandProcess] = {}
        self._estate_fd = estate_fd
        self._own = own
        self._zygotes: dict[tuple[Any, ...], Zygote] = {}
        self._sweeping = False
        self._oom_kills = oom_kills()
        self.on_zygote_gone: Callable[[], None] | None = None
        self._adopt(own, first)

    def _adopt(self, interpreter: Interpreter, process: ZygoteProcess) -> Zygote:
        zygote = Zygote(self.node.loop, process, self._on_forked, self._on_exited, self._on_zygote_gone)
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
        """Make the process of a worker; frames sent to it wait until it is there."""
        self.node.loop.call_later(
            self.node.config.integer("workers.start_timeout_ms") / 1000, self._see_started, worker
        )
        try:
            if worker.command:
                self.processes[worker.number] = CommandProcess(self.node, worker, self._zygote(self._own))
                return
            program = self.node.sessions[worker.session.number]
            zygote = self._zygote(program.program.interpreter)
            setup = Setup(
                session=program.prefix,
                submitter=worker.submitter,
                namespace=program.namespace,
                sys_path=program.program.sys_path,
                directory=program.program.directory,
                environment=program.program.environment,
                main_path=program.program.main_path,
                gpu_ids=worker.gpu_ids,
                host=self.node.host,
                socket_path=self.node.socket_path,
            )
            self.processes[worker.number] = WorkerProcess(self.node, worker, zygote, setup)
        except OSError as error:
            log.error("worker %d could not be started: %s", worker.number, error)
            self.node.loop.call_soon(self._on_failed_start, worker, str(error))

    def _see_started(self, worker: Worker) -> None:
        """A zygote that has not forked for so long hangs, and all its workers wait for it."""
        process = self.processes.get(worker.number)
        if process is not None and process.pid == 0:
            log.error("zygote %d did not fork in time: it is killed", process.zygote.pid)
            process.zygote.kill()

    def _on_failed_start(self, worker: Worker, why: str) -> None:
        death = Death(text=f"its worker could not be started: {why}", started=False)
        self.node.core.on_exit(worker, 0, death, self.node.now())
        self.node.touch()

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
        self._report(process, running, self._death(process, status, running))

    def _report(self, process: WorkerProcess | CommandProcess, running: int, death: Death) -> None:
        log.log(
            logging.INFO if death.exit_code == 0 or process.killed_because else logging.WARNING,
            "worker %d (pid %d) ended: %s",
            process.number,
            process.pid,
            death.text,
        )
        self.node.core.on_exit(process.core, running, death, self.node.now())
        self.node.touch()

    def _death(self, process: WorkerProcess | CommandProcess, status: int, running: int) -> Death:
        """What ended a process, in words: who killed it, or by what signal or code it went."""
        if status < 0:  # the zygote's fork failed
            return Death(text=f"its worker could not be forked: {os.strerror(-status)}", started=False)
        stderr = process.stderr_tail(running)
        # One that left by itself, with zombies or enough calls behind it, may have been sent more just then.
        started = not process.page.left
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            return Death(text=f"its worker ended with exit code {code}", exit_code=code, stderr=stderr, started=started)
        name = signal_name(os.WTERMSIG(status))
        text = f"its worker was killed by {name}"
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
        for key, known in list(self._zygotes.items()):
            if known is zygote:
                del self._zygotes[key]
        level = logging.ERROR if not self.node.stopping else logging.INFO
        log.log(level, "zygote %d ended: %s", zygote.pid, why)
        self.sweep()
        for number in sorted(zygote.workers):
            process = self.processes.pop(number, None)
            if process is not None:
                running = process.collect()
                text = f"its worker's zygote ended: {why}"
                self._report(process, running, Death(text=text, charged=False, started=process.pid != 0))
        if self.on_zygote_gone is not None:
            self.on_zygote_gone()

    def sweep(self) -> None:
        """End the orphans that came to us, again and again until there are none."""
        if self._sweeping:
            return
        self._sweeping = True
        self._sweep_once()

    def _sweep_once(self) -> None:
        if sweep({zygote.pid for zygote in self._zygotes.values()}):
            self.node.loop.call_later(SWEEP_AGAIN_S, self._sweep_once)
        else:
            self._sweeping = False

    def prune(self) -> None:
        """Let go of zygotes that no session uses; the daemon's own stays."""
        used = {key_of(self._own)} | {key_of(s.program.interpreter) for s in self.node.sessions.values()}
        for key, zygote in list(self._zygotes.items()):
            if key not in used and not zygote.workers:
                zygote.close()

    def close(self) -> None:
        """End everything: each zygote kills all below it and goes."""
        for zygote in self._zygotes.values():
            zygote.close()

    @property
    def empty(self) -> bool:
        return not self._zygotes
