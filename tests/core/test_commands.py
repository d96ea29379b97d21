"""Cancelling commands: interrupted, and killed when their grace is over. Tasks are only interrupted."""

from __future__ import annotations

from abi.wire.schema import EndKind
from abid.core.session import Session
from abid.core.task import Record
from tests.core.fake_shell import MS, FakeShell, Process

GRACE_NS = 100 * MS


def begun(*, commands: bool) -> tuple[FakeShell, Session, Process]:
    """Task 1 runs in the one process that there is."""
    shell = FakeShell(cpus=1, interrupt_grace_ns=GRACE_NS)
    session = shell.session(commands=commands)
    shell.submit(session, Record(1, 0, 0, b""))
    (process,) = shell.live()
    assert shell.start(process)
    return shell, session, process


def cancel(shell: FakeShell, session: Session, *, force: bool = False) -> None:
    shell.core.on_cancel(session, [1], force, True, shell.now)
    shell.turn()


def ring(shell: FakeShell, after_ns: int) -> None:
    shell.pass_time(after_ns)
    shell.core.on_timer(shell.now)
    shell.turn()


def test_a_command_that_does_not_listen_is_killed_when_its_grace_is_over() -> None:
    shell, session, process = begun(commands=True)
    cancel(shell, session)
    assert process.interrupts[1] == 1
    assert shell.core.next_timer() == shell.now + GRACE_NS
    ring(shell, GRACE_NS - 1)
    assert not process.killed
    ring(shell, 1)
    assert process.killed
    shell.die(process)
    shell.turn()
    assert shell.end_of(session, 1).kind == EndKind.CANCELLED
    shell.assert_free()


def test_a_command_that_goes_in_time_leaves_nothing_to_kill() -> None:
    shell, session, process = begun(commands=True)
    cancel(shell, session)
    shell.run_one(process, kind=EndKind.ERROR)
    assert shell.end_of(session, 1).kind == EndKind.CANCELLED
    ring(shell, GRACE_NS)
    assert not process.killed


def test_force_is_a_kill_at_once_and_the_command_was_cancelled() -> None:
    for asked_before in (False, True):
        shell, session, process = begun(commands=True)
        if asked_before:
            cancel(shell, session)
        cancel(shell, session, force=True)
        assert process.killed
        shell.die(process)
        shell.turn()
        assert shell.end_of(session, 1).kind == EndKind.CANCELLED
        ring(shell, GRACE_NS)


def test_a_task_may_go_on_after_its_interrupt_and_force_crashes_it() -> None:
    shell, session, process = begun(commands=False)
    cancel(shell, session)
    ring(shell, 100 * GRACE_NS)
    assert process.interrupts[1] == 1
    assert not process.killed
    cancel(shell, session, force=True)
    assert process.killed
    shell.die(process)
    shell.turn()
    assert shell.end_of(session, 1).kind == EndKind.CRASHED
