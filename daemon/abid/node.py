"""The loop of one daemon: events go into the core, effects come out and are carried out, batch by batch.

Everything runs on one thread. A callback hands what came to the core and calls ``touch``; when all that it read has
been handled, ``settle`` lets the core schedule once and performs what it decided. So a frame of a thousand results
costs one scheduling, and nothing is awaited between reading the core's state and writing it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from abi.config import Config, Reloaded
from abi.errors import Denied
from abi.processes import return_memory
from abi.version import __version__
from abi.wire.codec import decode_failure
from abi.wire.schema import ROOT, UNITS, End, EndKind, Hello, Interpreter, Kind, Program, Starting
from abid import held, resources
from abid.core.board import Limits
from abid.core.core import Core
from abid.core.effects import Deliver, Discard, Dispatch, Effect, Interrupt, Kill, Note, Recall, Spawn, Stop
from abid.core.resources import CPUS, MEMORY, Total
from abid.core.session import Session
from abid.core.task import Record
from abid.core.workers import Worker
from abid.gpus import GpuProbe, NoCards
from abid.jobs import Jobs
from abid.network import Network
from abid.notify import Pulse
from abid.pool import Pool
from abid.programs import ProgramSession, watch_program
from abid.state import Identity
from abid.submitters import Submitter
from abid.workers import WorkerProcess
from abid.zygote_process import ZygoteProcess

log = logging.getLogger(__name__)

PROGRESS_NS = 4_000_000
"""A call that has another behind it is looked at when it has taken this much longer than two of its kind should."""
JOBS_SESSION = 0
AT_ONCE_MAX = 2
"""Reads in one turn of the loop that are settled at once, for whoever waits for a single answer; more are a burst, and
settled together."""
RETURN_MEMORY_S = 0.5
"""After the last program ended: by then its session is forgotten, and one of many short programs has its next."""
SLICE_NS = 4_000_000
"""Effects are performed in order, but for no longer than this at a time."""


class Node:
    """One daemon. ``start`` makes it from the process's surroundings; tests may make several."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        runtime_dir: Path,
        state_dir: Path,
        socket_path: str,
        identity: Identity,
        probe: GpuProbe | None = None,
    ) -> None:
        self.loop = loop
        self.config = config
        self.runtime_dir = runtime_dir
        self.state_dir = state_dir
        self.socket_path = socket_path
        self.identity = identity.node
        self.incarnation = identity.incarnation
        self.host = socket.gethostname()
        self.system = False
        """Whether it serves a group of people rather than one."""
        self.draining = False
        self.stopping = False
        self.sessions: dict[int, ProgramSession] = {}
        self.on_reload: Callable[[], Reloaded] = lambda: config.reloaded(config)
        self.on_settled: Callable[[], None] | None = None
        self.on_stop: Callable[[bool], None] = lambda now: None
        self.now = time.monotonic_ns
        self.started_ns = self.now()
        self.cpu_units = round(config.number("workers.cpus") * UNITS) or resources.cpu_units()
        memory = config.integer("workers.memory_bytes") or resources.memory_bytes()
        custom = {name: round(amount * UNITS) for name, amount in config.table("workers.resources").items()}
        gpus = tuple((probe or NoCards()).uuids())
        held.set_limit(config.integer("workers.processes_max"))
        self.core = Core(limits_of(config), Total(self.cpu_units, memory, gpus, custom), self.host)
        self.jobs_session = self.core.open_session(JOBS_SESSION, os.getuid(), self.now(), commands=True)
        jobs_dir = state_dir / "jobs"
        jobs_dir.mkdir(mode=0o700, exist_ok=True)
        jobs_prefix = self.identity + secrets.token_bytes(4)
        self.jobs = Jobs(self, self.jobs_session, jobs_prefix, jobs_dir)
        self.network: Network
        self.pool: Pool
        self.pulse: Pulse
        self._touched = False
        self._turn = 0.0
        self._at_once = 0
        self._effects: deque[Effect] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._progress: asyncio.TimerHandle | None = None
        self._progress_at = 0
        self._answered: ProgramSession | None = None
        """To whom a single answer went in this settling."""
        self._to_pump: set[ProgramSession] = set()
        self._noted: set[int] = set()
        self._performers: dict[type, Callable[[Any], None]] = {
            Spawn: self._spawn,
            Dispatch: self._dispatch,
            Deliver: self._deliver,
            Recall: self._recall,
            Interrupt: self._interrupt,
            Kill: self._kill,
            Stop: self._stop_worker,
            Note: self._note,
            Discard: self._discard,
        }

    def open_pool(self, own: Interpreter, first: ZygoteProcess, estate_fd: int) -> None:
        self.pool = Pool(self, own, first, estate_fd)

    # The loop.

    @property
    def is_settled(self) -> bool:
        """Whether all that the core decided has been carried out."""
        return not (self._touched or self._effects)

    def touch(self) -> None:
        """Something changed in the core: settle after this read, or when this turn's callbacks have run."""
        if not self._touched:
            self._touched = True
            self.loop.call_soon(self.settle)

    def after_read(self) -> None:
        """What one connection had to say has been handled."""
        turn = self.loop.time()  # uvloop's moves on from turn to turn
        if turn != self._turn:
            self._turn, self._at_once = turn, 0
        if self._at_once < AT_ONCE_MAX:
            self._at_once += 1
            self.settle()

    def settle(self) -> None:
        """Schedule, and carry out what the core decided, if something changed since the last time."""
        if not self._touched:
            return
        self._touched = False
        core = self.core
        core.schedule(self.now())
        effects = self._effects
        effects.extend(core.effects())
        performers = self._performers
        enough = self.now() + SLICE_NS
        while effects:
            effect = effects.popleft()
            try:
                performers[type(effect)](effect)
            except Exception:  # a fault of ours: it costs one task, not all that is to be done after it
                log.exception("%s could not be carried out", type(effect).__name__)
                self._give_up(effect)
            if effects and self.now() > enough:  # a hundred workers to fork: let others have a turn, then go on
                self.touch()
                break
        if self._to_pump:
            to_pump, self._to_pump = self._to_pump, set()
            for program in to_pump:
                program.port.pump()
                program.on_progress()
        self._set_timers()
        if self.on_settled is not None:
            self.on_settled()
        answered, self._answered = self._answered, None
        if answered is not None and core.board.assigned == 0:
            answered.look_for_more()

    def _give_up(self, effect: Effect) -> None:
        """Calls that never reached their worker would wait there for ever. Its death gives them back, and counts: a
        call that is at fault comes to an end."""
        process = self.pool.processes.get(effect.worker.number) if isinstance(effect, Dispatch) else None
        if process is not None:
            process.kill("what it was to run could not be sent")

    def _set_timers(self) -> None:
        due = self.core.next_timer()
        # Only ever earlier: a worker's idle timeout moves on with every task, and a timer that fires too soon looks
        # again.
        if due is not None and (self._timer is None or due < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self.loop.call_later(max(0, due - self.now()) / 1e9, self._on_timer)

    def _watch_calls(self, worker: Worker) -> None:
        """Some call stands behind another, so it matters how long that one takes: look at it in time."""
        due = self.now() + PROGRESS_NS + (worker.each_ns << 1)
        if self._progress is None or due < self._progress_at:
            if self._progress is not None:
                self._progress.cancel()
            self._progress_at = due
            self._progress = self.loop.call_later((due - self.now()) / 1e9, self._on_progress)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, 0
        self._read_pages()
        self.core.on_timer(self.now())
        self.touch()

    def _on_progress(self) -> None:
        self._progress = None
        self._read_pages()
        for worker in self.core.board.workers.values():
            if len(worker.outstanding) > 1:
                self._watch_calls(worker)
        self.touch()

    def _read_pages(self) -> None:
        now = self.now()
        for worker in list(self.core.board.workers.values()):
            process = self.pool.processes.get(worker.number) if worker.outstanding else None
            if process is not None:
                page = process.page
                self.core.on_progress(worker, page.running, page.since, now)

    # Effects.

    def _spawn(self, effect: Spawn) -> None:
        self.pool.spawn(effect.worker)

    def _dispatch(self, effect: Dispatch) -> None:
        worker = effect.worker
        process = self.pool.processes.get(worker.number)
        if process is None:
            return
        if len(worker.outstanding) > 1:
            self._watch_calls(worker)
        program = self.sessions.get(worker.session.number)
        if program is not None and isinstance(process, WorkerProcess) and effect.records[0].seq in self._noted:
            self._noted.clear()
            epoch = process.page.epoch
            program.when_noted(lambda: self._run_noted(process, effect.records, epoch))
        else:
            process.run(effect.records)

    def _run_noted(self, process: WorkerProcess, records: list[Record], epoch: int) -> None:
        """The program's side holds the note. Meanwhile the worker may have died, and the records be another's."""
        if all(record.worker == process.number for record in records):
            process.run(records, epoch)

    def _deliver(self, effect: Deliver) -> None:
        if effect.session is self.jobs_session:
            self.jobs.deliver(effect.records)
            return
        port = self._port(effect.session, effect.submitter)
        if port is not None:
            port.deliver(effect.records)
            if effect.submitter == ROOT and len(effect.records) == 1:
                self._answered = self.sessions[effect.session.number]

    def _port(self, session: Session, submitter: int) -> Submitter | None:
        if submitter == ROOT:
            program = self.sessions.get(session.number)
            return None if program is None else program.port
        holder = session.holders.get(submitter)
        if holder is not None and holder.worker is not None:
            process = self.pool.processes.get(holder.worker.number)
            if isinstance(process, WorkerProcess):
                return process.port
        return None

    def _recall(self, effect: Recall) -> None:
        process = self.pool.processes.get(effect.worker.number)
        if process is not None:
            running, since = process.recall()
            self.core.on_recalled(effect.worker, running, since, self.now())
            self.touch()

    def _interrupt(self, effect: Interrupt) -> None:
        process = self.pool.processes.get(effect.worker.number)
        if process is not None:
            process.interrupt(effect.number)

    def _kill(self, effect: Kill) -> None:
        process = self.pool.processes.get(effect.worker.number)
        if process is not None:
            process.kill("cancelled, timed out, or its program ended")

    def _stop_worker(self, effect: Stop) -> None:
        process = self.pool.processes.get(effect.worker.number)
        if process is not None:
            process.stop()

    def _note(self, effect: Note) -> None:
        program = self.sessions.get(effect.session.number)
        if program is not None and effect.submitter == ROOT:
            for seq in effect.seqs:
                program.port.say(Kind.STARTING, Starting(seq))
            program.port.pump()
            self._noted.update(effect.seqs)  # their Dispatch comes next

    def _discard(self, effect: Discard) -> None:
        """Nothing: a descriptor closes with the last reference to its Blob, which a queue to a slow reader may hold."""

    # Sessions.

    def open_session(self, hello: Hello, pid: int, uid: int, program: Program) -> ProgramSession:
        """A new session, or one that a daemon before this one had, under the same ids."""
        wanted = bytes.fromhex(hello.resume) if len(hello.resume) == 16 else b""
        prefix = wanted or self.identity + secrets.token_bytes(4)
        number = int.from_bytes(prefix, "big")
        while number in self.sessions or number == JOBS_SESSION:
            if wanted:
                raise Denied("this session belongs to another program", hint="start a session of your own")
            prefix = self.identity + secrets.token_bytes(4)
            number = int.from_bytes(prefix, "big")
        pidfd = watch_program(pid)
        life = 1 + self.incarnation % 2047 if wanted else 0
        core = self.core.open_session(number, uid, self.now(), namespace=hello.namespace, life=life)
        session = ProgramSession(self, core, pid, pidfd, program, hello.namespace, prefix)
        if wanted and hello.token:
            session.token = hello.token
        self.sessions[number] = session
        log.info("%r begins", session)
        return session

    def resume_session(self, hello: Hello) -> ProgramSession | None:
        """The session that this greeting returns to, if it is here. Raises Denied for a wrong token."""
        if len(hello.resume) != 16:
            return None
        session = self.sessions.get(int.from_bytes(bytes.fromhex(hello.resume), "big"))
        if session is not None and not secrets.compare_digest(session.token.encode(), hello.token.encode()):
            raise Denied("this session belongs to another program", hint="start a session of your own")
        return session

    def forget_session(self, session: ProgramSession) -> None:
        self.core.close_session(session.core, self.now())
        self.touch()
        # Its workers are killed by the core's effects, which need the session's processes but not the session.
        del self.sessions[session.core.number]
        self.loop.call_later(self.config.integer("workers.idle_timeout_ms") / 1000, self.pool.prune)
        if not self.sessions:
            self.loop.call_later(RETURN_MEMORY_S, self._return_memory)

    def _return_memory(self) -> None:
        """What the last program's results took, if no other came meanwhile."""
        if not self.sessions:
            gc.collect()
            return_memory()

    # Output of tasks.

    def print_lines(
        self, session: Session, seq: int, stream: int, text: bytes, last: tuple[int, int, int] | None
    ) -> None:
        """Lines of a task, or of what the ``last`` one of this worker left behind."""
        program = self.sessions.get(session.number)
        if program is not None:
            program.print_lines(seq, self._task_name(session, seq, last), stream, text)

    def output_is_stuck(self, session: Session) -> bool:
        program = self.sessions.get(session.number)
        return program is not None and program.output_is_stuck()

    def pump_later(self, program: ProgramSession) -> None:
        self._to_pump.add(program)
        self.touch()

    def _task_name(self, session: Session, seq: int, last: tuple[int, int, int] | None) -> str:
        record = session.tasks.get(seq)
        if record is None and last is not None and last[0] == seq:
            record = Record(*last)
        return "worker" if record is None else self.core.board.task_name(session, record)

    # What people ask.

    def failure_text(self, end: End) -> str:
        return decode_failure(end.payload).text if end.payload else ""

    def status(self) -> dict[str, Any]:
        """The words of `abi status`."""
        return {
            "pid": os.getpid(),
            "version": __version__,
            "node": self.identity.hex(),
            "host": self.host,
            "uptime_s": round((self.now() - self.started_ns) / 1e9, 3),
            "state": "draining" if self.draining else "ready",
            "sessions": len(self.sessions),
            **self._core_status(),
            "jobs": self.jobs.counts(),
            "loop_lag_ms_p99": round(self.pulse.p99_s() * 1000, 3),
            "runtime_dir": str(self.runtime_dir),
            "state_dir": str(self.state_dir),
            "config_file": self.config.file,
        }

    def _core_status(self) -> dict[str, Any]:
        board = self.core.board
        busy = sum(1 for worker in board.workers.values() if worker.outstanding)
        free, total = board.resources.free, board.resources.total
        custom = {
            name: {"total": total[name] / UNITS, "free": free[name] / UNITS}
            for name in total
            if name not in (CPUS, MEMORY)
        }
        return {
            "workers": {"total": len(board.workers), "busy": busy, "idle": len(board.workers) - busy},
            "tasks": {
                "waiting": board.waiting,
                "queued": board.queued,
                "running": board.assigned,
                "finished": sum(board.stats.ended),
                "held": sum(len(program.core.tasks) - program.core.open_tasks for program in self.sessions.values()),
            },
            "ends": {kind.name.lower(): board.stats.ended[kind] for kind in EndKind},
            "retries": board.stats.retries,
            "resources": {
                "cpus": {"total": total[CPUS] / UNITS, "free": free[CPUS] / UNITS},
                "memory": {"total": total[MEMORY], "free": free[MEMORY]},
                "gpus": {"total": len(board.resources.gpus), "free": len(board.resources.free_gpus)},
                "custom": custom,
            },
        }

    def reload(self) -> Reloaded:
        """Read the configuration again. Raises ConfigError and keeps the old one."""
        return self.on_reload()

    def stop(self, now: bool) -> None:
        self.on_stop(now)


def limits_of(config: Config) -> Limits:
    """The core's limits, from the configuration."""
    return Limits(
        processes_max=config.integer("workers.processes_max"),
        tasks_max=config.integer("queue.tasks_max"),
        bytes_max=config.integer("queue.bytes_max"),
        nested_reserve=config.integer("queue.nested_reserve"),
        aging_ns=config.integer("queue.aging_ms") * 1_000_000,
        interrupt_grace_ns=config.integer("workers.interrupt_grace_ms") * 1_000_000,
        idle_timeout_ns=config.integer("workers.idle_timeout_ms") * 1_000_000,
        uncharged_starts_max=config.integer("tasks.uncharged_starts_max"),
        unread_results_bytes_max=config.integer("queue.unread_results_bytes_max"),
    )
