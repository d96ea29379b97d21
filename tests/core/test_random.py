"""Thousands of small steps in an order drawn from a seed, with every race between worker, page and daemon; the seed
of a failure is in the test's name and replays it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from abi.ids import COUNTER_BITS
from abi.wire.schema import ROOT, UNITS, Dependency, End, EndKind, Function, Options, Put
from abid.core.core import Session
from abid.core.task import ENDED, Record
from tests.core.fake_shell import MS, FakeShell, Process

STEPS = 400

OPTIONS = [
    Options(0),
    Options(1, cpus=UNITS // 2, max_retries=1),
    Options(2, cpus=2 * UNITS, priority=2),
    Options(3, max_retries=0),
    Options(4, cpus=0, resources={"slot": UNITS}, max_retries=-1),
    Options(5, timeout_ns=20 * MS),
    Options(6, retry_exceptions=True, max_retries=2),
    Options(7, memory=1 << 29, returns=2),
    Options(8, cpus=UNITS, max_calls=2),
    Options(9, cpus=99 * UNITS),
    Options(10, gpus=UNITS, cpus=0),
]


class Driver:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.shell = FakeShell(
            processes_max=6, gpus=("A", "B"), idle_timeout_ns=80 * MS, aging_ns=100 * MS, interrupt_grace_ns=20 * MS,
            tasks_max=400,
        )  # fmt: skip
        self.sessions: list[Session] = []
        self.counters: Counter[tuple[int, int]] = Counter()
        self.submitted: set[tuple[int, int]] = set()
        self.wanted: set[tuple[int, int, int]] = set()
        self.resent: set[tuple[int, int]] = set()
        self.charged: Counter[tuple[int, int]] = Counter()
        self.held: dict[tuple[int, int], list[int]] = {}
        for number, user in ((1, 1), (2, 1), (3, 2)):
            self.open(number, user)

    def open(self, number: int, user: int) -> None:
        session = self.shell.core.open_session(number, user, self.shell.now)
        self.define(session, ROOT)
        self.sessions.append(session)

    def define(self, session: Session, submitter: int) -> None:
        order = list(range(len(OPTIONS)))
        if submitter != ROOT:
            self.random.shuffle(order)
        items: list[Function | Options] = [
            Function(n, b"%d" % (n + (submitter != ROOT)), f"f{n}", b"") for n in range(3)
        ]
        for index, which in enumerate(order):
            values = {name: getattr(OPTIONS[which], name) for name in OPTIONS[which].__struct_fields__}
            items.append(Options(**{**values, "index": index}))
        self.shell.define(session, submitter, *items)

    # Steps.

    def submit(self, session: Session, submitter: int, parent: int = 0) -> None:
        shell, draw = self.shell, self.random
        records = []
        mine = self.held.setdefault((session.number, submitter), [])
        for _ in range(draw.choice((1, 1, 2, 5, 30))):
            self.counters[session.number, submitter] += 1
            seq = submitter << COUNTER_BITS | self.counters[session.number, submitter]
            record = Record(seq, draw.randrange(3), draw.choice((0, 0, 0, 0, draw.randrange(11))), b"arguments")
            if draw.random() < 0.3 and mine:
                record.dependencies = [Dependency(0, draw.choice(mine)) for _ in range(draw.randrange(1, 3))]
            if draw.random() < 0.1 and mine:
                record.nested = [draw.choice(mine)]
            if draw.random() < 0.1:
                record.arguments, record.size, record.blobs = b"", 1 << 20, [shell.blob()]
            record.parent = parent
            records.append(record)
            mine.append(seq)
            self.submitted.add((session.number, seq))
        shell.core.on_submit(session, submitter, records, shell.now)

    def put(self, session: Session) -> None:
        self.counters[session.number, ROOT] += 1
        seq = self.counters[session.number, ROOT]
        self.held.setdefault((session.number, ROOT), []).append(seq)
        self.shell.core.on_put(session, ROOT, [Put(seq, b"", 9)], {0: [self.shell.blob()]})

    def release(self, session: Session, submitter: int) -> None:
        mine = self.held.get((session.number, submitter))
        if mine:
            some = [
                mine.pop(self.random.randrange(len(mine))) for _ in range(min(len(mine), self.random.randrange(1, 6)))
            ]
            self.shell.core.on_release(session, submitter, some)

    def cancel(self, session: Session, submitter: int) -> None:
        mine = self.held.get((session.number, submitter))
        if mine:
            force, recursive = self.random.random() < 0.2, self.random.random() < 0.7
            self.shell.core.on_cancel(session, [self.random.choice(mine)], force, recursive, self.shell.now)

    def resend(self, session: Session) -> None:
        seqs = [seq for seq, record in session.tasks.items() if record.options >= 0 and not seq >> COUNTER_BITS]
        if seqs:
            seq = self.random.choice(seqs)
            self.resent.add((session.number, seq))
            self.shell.core.on_submit(session, ROOT, [Record(seq, 0, 0, b"again")], self.shell.now)

    def borrow(self, session: Session, submitter: int) -> None:
        if session.tasks:
            seq = self.random.choice(list(session.tasks))
            if submitter == ROOT or seq not in self.held.setdefault((session.number, submitter), []):
                self.shell.core.on_borrow(session, submitter, [seq])
                self.held.setdefault((session.number, submitter), []).append(seq)
                self.shell.core.on_want(session, submitter, [seq])
                self.wanted.add((session.number, submitter, seq))

    def kill(self, process: Process, charged: bool = True) -> None:
        call = process.call or process.armed
        if call is not None and charged:
            self.charged[process.worker.session.number, call.seq] += 1
        self.shell.die(process, charged=charged)

    def move(self, process: Process) -> None:  # noqa: C901 - one step of many sorts
        shell, draw = self.shell, self.random
        worker = process.worker
        session = worker.session
        step = draw.random()
        if process.killed or (process.stopped and step < 0.3):
            if step < 0.5:
                self.kill(process)
            return
        if step < 0.01:
            self.kill(process, charged=draw.random() < 0.7)
        elif step < 0.25:
            shell.arm(process)
        elif step < 0.5:
            shell.look(process)
        elif step < 0.7:
            self.end(process)
        elif step < 0.78:
            shell.flush(process)
        elif step < 0.92:
            shell.read(process, self.blobs_of)
        elif step < 0.94:
            shell.look_at_page(process)
        elif step < 0.96:
            shell.block(process)
        elif step < 0.98:
            shell.unblock(process)
        elif process.call is not None and not session.closed:
            if not session.holders[worker.submitter].options:
                self.define(session, worker.submitter)
            self.submit(session, worker.submitter, parent=process.call.seq)
            if draw.random() < 0.5:
                self.borrow(session, worker.submitter)
            if draw.random() < 0.3:
                self.cancel(session, worker.submitter)
            self.release(session, worker.submitter)

    def end(self, process: Process) -> None:
        if process.call is None:
            return
        draw = self.random
        interrupted = process.interrupts[process.call.number]
        ran = draw.choice((1_000, 2_000, MS, 10 * MS))
        if interrupted or draw.random() < 0.1:
            retry = draw.random() < 0.7 and not interrupted
            self.shell.end(process, EndKind.ERROR, ran, retry=retry)
        else:
            nested = None
            session = process.worker.session
            if draw.random() < 0.1 and session.tasks:
                # What a result refers to is older than the task, as in life: a child's result never holds its parent.
                older = [seq for seq, record in session.tasks.items() if record.state == ENDED]
                nested = [draw.choice(older)] if older else None
            self.shell.end(process, EndKind.OK, ran, nested=nested)

    def blobs_of(self, ends: list[End]) -> dict[int, list[Any]] | None:
        return {0: [self.shell.blob()]} if self.random.random() < 0.1 else None

    def step(self) -> None:
        shell, draw = self.shell, self.random
        shell.pass_time(draw.choice((1_000, 50_000, MS, 3 * MS)))
        live = shell.live()
        if live and draw.random() < 0.85:
            self.move(draw.choice(live))
        else:
            session = draw.choice(self.sessions)
            action = draw.random()
            if action < 0.35:
                self.submit(session, ROOT)
            elif action < 0.45:
                self.put(session)
            elif action < 0.65:
                self.release(session, ROOT)
            elif action < 0.75:
                self.cancel(session, ROOT)
            elif action < 0.8:
                self.resend(session)
            elif action < 0.85:
                self.borrow(session, ROOT)
            elif action < 0.86 and len(self.sessions) > 1:
                self.sessions.remove(session)
                shell.core.close_session(session, shell.now)
                shell.core.close_session(session, shell.now)
            elif action < 0.9:
                session.stalled = not session.stalled
            else:
                for process in shell.live():
                    shell.look_at_page(process)
                shell.core.on_timer(shell.now)
        shell.turn()

    def finish(self) -> None:
        for session in self.sessions:
            session.stalled = False
        self.shell.turn()
        self.shell.run_all()
        for session in self.sessions:
            for seq, record in session.tasks.items():
                assert record.state == ENDED, (
                    f"{record!r} never ended: {self.shell.core.why(session, record, self.shell.now)}"
                )
                assert seq in session.tasks
        self.assert_delivered()
        self.shell.assert_free()
        for (number, seq), count in self.charged.items():
            session = next((s for s in self.sessions if s.number == number), None)
            record = session.tasks.get(seq) if session is not None else None
            if session is not None and record is not None:
                retries = session.options[record.options].wire.max_retries
                assert retries == -1 or count <= retries + 1, f"{record!r} was charged {count} times"
        for session in list(self.sessions):
            self.shell.core.close_session(session, self.shell.now)
        self.shell.turn()
        for process in self.shell.live():
            self.shell.die(process)
        self.shell.turn()
        assert not self.shell.open_blobs
        assert not self.shell.core.board.workers
        assert not self.shell.core.board.sessions
        assert not self.shell.core.board.active

    def assert_delivered(self) -> None:
        open_sessions = {session.number: session for session in self.sessions}
        for number, seq in self.submitted:
            submitter = seq >> COUNTER_BITS
            session = open_sessions.get(number)
            if session is None or submitter not in session.holders:
                continue
            count = self.shell.delivered[number, submitter, seq]
            if (number, seq) in self.resent or (number, submitter, seq) in self.wanted:
                assert count >= 1
            else:
                assert count == 1, f"task {seq:x} of session {number} was delivered {count} times"


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_whatever_happens(seed: int) -> None:
    driver = Driver(seed)
    for _ in range(STEPS):
        driver.step()
    driver.finish()
