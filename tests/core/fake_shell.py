"""A daemon's shell without a daemon: it performs the effects of a ``Core`` on processes that are only data.

It is strict: an effect that does not fit what it knows, a second end, a start after the end, a descriptor that is
closed twice or never, fail where they happen. A worker moves in the small steps between which the real races lie: it
stores RUNNING, then looks at EPOCH, then runs, ends, buffers its result, flushes; and what it sent is read later.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from abi.ids import COUNTER_BITS
from abi.wire.schema import ROOT, UNITS, End, EndKind, Function, Options
from abid.core import effects as fx
from abid.core.core import Core, Death, Limits, Session, Total
from abid.core.task import ENDED, Record
from abid.core.workers import Worker

MS = 1_000_000
SECOND = 1_000 * MS


@dataclass
class FakeCall:
    number: int
    seq: int
    attempt: int
    epoch: int


@dataclass
class Process:
    """A worker's process with its page and its socket."""

    worker: Worker
    epoch: int = 0
    running: int = 0
    since: int = 0
    inbox: deque[FakeCall] = field(default_factory=deque)
    armed: FakeCall | None = None
    """RUNNING is stored, EPOCH not yet looked at."""
    call: FakeCall | None = None
    blocked: bool = False
    unsent: list[End] = field(default_factory=list)
    sent: deque[tuple[str, Any]] = field(default_factory=deque)
    stopped: bool = False
    killed: bool = False
    dead: bool = False
    interrupts: Counter[int] = field(default_factory=Counter)
    last_number: int = 0


class FakeShell:
    def __init__(self, cpus: float = 2, processes_max: int = 8, gpus: tuple[str, ...] = (), **limits: Any) -> None:
        total = Total(cpus=int(cpus * UNITS), memory=1 << 30, gpus=gpus, resources={"slot": 2 * UNITS})
        self.core = Core(Limits(processes_max=processes_max, **limits), total, "host")
        self.now = SECOND
        self.processes: dict[int, Process] = {}
        self.delivered: Counter[tuple[int, int, int]] = Counter()
        """(session, submitter, seq) → times."""
        self.ends: dict[tuple[int, int], End] = {}
        self.starts: Counter[tuple[int, int]] = Counter()
        self.notes: set[tuple[int, int]] = set()
        self.open_blobs: set[str] = set()
        self.blob_next = 0
        self.log: list[str] = []

    # What tests say.

    def session(self, number: int = 1, user: int = 1000, **options: Any) -> Session:
        session = self.core.open_session(number, user, self.now, **options)
        self.define(session, ROOT, Function(0, b"f", "f", b"pickle"), Options(0))
        return session

    def define(self, session: Session, submitter: int, *items: Function | Options) -> None:
        for item in items:
            if isinstance(item, Function):
                self.core.on_function(session, submitter, item)
            else:
                self.core.on_options(session, submitter, item)

    def learn(self, session: Session, ran_ns: int, index: int = 0) -> None:
        """The function's run time is known."""
        session.functions[index].run_time.estimate_ns = ran_ns

    def submit(self, session: Session, *records: Record) -> None:
        submitter = records[0].seq >> COUNTER_BITS
        self.core.on_submit(session, submitter, list(records), self.now)
        self.turn()

    def pass_time(self, ns: int) -> None:
        self.now += ns

    def turn(self) -> None:
        """What the loop does after events: schedule and perform, until nothing is left to do; check at every step."""
        self.core.check()
        while True:
            self.core.schedule(self.now)
            self.core.check()
            taken = self.core.effects()
            if not taken:
                return
            for effect in taken:
                self.perform(effect)
            self.core.check()

    def blob(self) -> str:
        self.blob_next += 1
        name = f"blob {self.blob_next}"
        self.open_blobs.add(name)
        return name

    # Effects.

    def perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Spawn(worker):
                assert worker.number not in self.processes, f"{worker!r} is spawned twice"
                self.processes[worker.number] = Process(worker)
            case fx.Dispatch(worker, records):
                self._dispatch(self.processes[worker.number], records)
            case fx.Recall(worker):
                process = self.processes[worker.number]
                process.epoch += 1
                self.core.on_recalled(worker, process.running, process.since, self.now)
            case fx.Interrupt(worker, number):
                process = self.processes[worker.number]
                assert not process.dead
                assert number == process.running, f"interrupt for call {number} while {process.running} runs"
                process.interrupts[number] += 1
            case fx.Kill(worker):
                process = self.processes[worker.number]
                assert not process.killed
                assert not process.dead
                process.killed = True
            case fx.Stop(worker):
                process = self.processes[worker.number]
                assert not process.stopped
                assert not process.dead
                assert not worker.outstanding, "stopped with work outstanding"
                process.stopped = True
            case fx.Note(session, _submitter, seqs):
                for seq in seqs:
                    assert (session.number, seq) not in self.notes, "noted twice: it starts twice"
                    self.notes.add((session.number, seq))
            case fx.Deliver(session, submitter, records):
                self._deliver(session, submitter, records)
            case fx.Discard(blobs):
                for blob in blobs:
                    assert blob in self.open_blobs, f"{blob} is closed twice"
                    self.open_blobs.remove(blob)
            case _:
                raise AssertionError(f"an effect that nobody expects: {effect!r}")

    def _dispatch(self, process: Process, records: list[Record]) -> None:
        assert not process.dead
        assert not process.stopped
        assert records
        session = process.worker.session
        for record in records:
            assert record.number > process.last_number, "calls are numbered in order"
            process.last_number = record.number
            option = session.options[record.options].wire
            if option.max_retries == 0:
                assert (session.number, record.seq) in self.notes, "started without a note"
                assert len(records) == 1
                assert not process.inbox
                assert process.call is None
            for dependency in record.dependencies or ():
                producer = session.tasks[dependency.seq]
                assert producer.end is not None
                assert producer.end.kind == EndKind.OK, "started with a failed argument"
            process.inbox.append(FakeCall(record.number, record.seq, record.attempt, process.epoch))

    def _deliver(self, session: Session, submitter: int, records: list[Record]) -> None:
        assert not session.closed
        assert submitter in session.holders, "delivered to a submitter that is gone"
        for record in records:
            assert record.end is not None
            assert record.state == ENDED
            self.delivered[session.number, submitter, record.seq] += 1
            self.ends[session.number, record.seq] = record.end

    # What processes do, in the smallest steps.

    def arm(self, process: Process) -> None:
        """Store RUNNING for the next call."""
        if process.armed is None and process.call is None and process.inbox and not process.dead:
            process.armed = process.inbox.popleft()
            process.running, process.since = process.armed.number, self.now

    def look(self, process: Process) -> None:
        """Look at EPOCH: start, or back off."""
        call, process.armed = process.armed, None
        if call is None:
            return
        if process.epoch > call.epoch:
            process.running = 0
            process.sent.append(("dropped", call.number))
            process.inbox = deque(other for other in process.inbox if other.epoch >= process.epoch)
            return
        session = process.worker.session
        if not session.closed:
            record = session.tasks.get(call.seq)
            if record is None or record.state == ENDED:
                raise AssertionError(f"task {call.seq:x} starts after its end")
            assert record.worker == process.worker.number, f"{record!r} starts where it is not"
        self.starts[session.number, call.seq] += 1
        process.call = call

    def end(self, process: Process, kind: EndKind = EndKind.OK, ran_ns: int = MS, **fields: Any) -> None:
        """The running call ends; its result is buffered."""
        call, process.call = process.call, None
        assert call is not None
        process.running = 0
        process.blocked = False
        process.unsent.append(End(call.seq, kind, b"result", call.attempt, ran_ns=ran_ns, **fields))

    def flush(self, process: Process) -> None:
        if process.unsent:
            process.sent.append(("results", process.unsent))
            process.unsent = []

    def block(self, process: Process) -> None:
        if process.call is not None and not process.blocked:
            self.flush(process)
            process.blocked = True
            process.sent.append(("blocked", process.call.number))

    def unblock(self, process: Process) -> None:
        if process.call is not None and process.blocked:
            process.blocked = False
            process.sent.append(("unblocked", process.call.number))

    def read(self, process: Process, blob_of: Any = None) -> bool:
        """The daemon reads the process's next message."""
        if not process.sent:
            return False
        what, value = process.sent.popleft()
        worker = process.worker
        match what:
            case "results":
                blobs = blob_of(value) if blob_of is not None else None
                self.core.on_results(worker, value, self.now, blobs)
            case "dropped":
                self.core.on_dropped(worker, [value], self.now)
            case "blocked":
                self.core.on_blocked(worker, value, self.now)
            case "unblocked":
                self.core.on_unblocked(worker, value, self.now)
        return True

    def look_at_page(self, process: Process) -> None:
        if not process.dead:
            self.core.on_progress(process.worker, process.running, process.since, self.now)

    def die(self, process: Process, text: str = "killed by SIGKILL", charged: bool = True) -> None:
        """The process is gone; what it had sent is read first, what it had buffered is lost."""
        while self.read(process):
            pass
        process.dead = True
        process.inbox.clear()
        death = Death(text, signal=9, stderr="last words", charged=charged)
        self.core.on_exit(process.worker, process.running, death, self.now)
        self.core.on_exit(process.worker, process.running, death, self.now)
        del self.processes[process.worker.number]

    # Whole steps, for stories.

    def live(self) -> list[Process]:
        return list(self.processes.values())

    def start(self, process: Process) -> bool:
        self.arm(process)
        self.look(process)
        return process.call is not None

    def run_one(self, process: Process, ran_ns: int = MS, kind: EndKind = EndKind.OK, **fields: Any) -> bool:
        """Start if need be, end, flush, read, turn."""
        if process.call is None and not self.start(process):
            return False
        self.end(process, kind, ran_ns, **fields)
        self.flush(process)
        while self.read(process):
            pass
        self.turn()
        return True

    def run_all(self, ran_ns: int = MS) -> None:
        """Until nothing is left to do."""
        for _ in range(100_000):
            self.now += ran_ns
            moved = False
            for process in self.live():
                if process.dead:
                    continue
                if process.stopped or process.killed:
                    self.die(process)
                    self.turn()
                    moved = True
                    continue
                self.look(process)
                if process.blocked:
                    self.unblock(process)
                moved = self.run_one(process, ran_ns) or moved
                self.flush(process)
                while self.read(process):
                    moved = True
                self.turn()
            if not moved:
                return
        raise AssertionError("it never ends")

    def end_of(self, session: Session, seq: int) -> End:
        return self.ends[session.number, seq]

    def assert_free(self) -> None:
        resources = self.core.board.resources
        assert resources.free == resources.total
        assert sorted(resources.free_gpus + [g for w in self.core.board.workers.values() for g in w.gpu_ids]) == sorted(
            resources.gpus
        )
