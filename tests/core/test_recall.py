"""Calls that are taken back while their worker goes on: none is lost, and none runs twice."""

from __future__ import annotations

import pytest

from abi.wire.schema import EndKind
from abid.core import recall
from abid.core.task import Record
from abid.core.workers import Worker
from tests.core.fake_shell import MS, FakeShell, Process


def begin(count: int) -> tuple[FakeShell, Process]:
    """One worker with so many calls of 0.1 ms, none of which has begun; more wait in the queue."""
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.learn(session, MS // 10)
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, count + 1)])
    [process] = shell.live()
    return shell, process


def ask(shell: FakeShell, worker: Worker) -> None:
    recall.ask(shell.core.board, worker)
    shell.turn()


@pytest.mark.parametrize("armed", [False, True], ids=["between two calls", "about to begin"])
def test_a_drop_of_the_first_recall_says_nothing_of_what_was_sent_after_it(armed: bool) -> None:
    """1. A recall finds the worker between two calls, or about to begin one. 2. More is sent. 3. The worker backs off,
    says so, and begins what was sent after. 4. A second recall. 5. Only now is read that it had backed off."""
    shell, process = begin(3)
    worker = process.worker
    if armed:
        shell.arm(process)
    ask(shell, worker)
    shell.submit(worker.session, *[Record(n, 0, 0) for n in range(4, 8)])
    later = [call for call in process.inbox if call.epoch == process.epoch]
    if not armed:
        shell.arm(process)
    shell.look(process)
    assert process.call is None, "it backed off"
    if later:
        assert shell.start(process)
    ask(shell, worker)
    while shell.read(process):
        pass
    shell.turn()
    shell.run_all(MS // 10)
    session = worker.session
    assert all(shell.end_of(session, n).kind == EndKind.OK for n in range(1, 8))
    assert max(shell.starts.values()) == 1
    shell.assert_free()
