"""Stories of single tasks: what happened, and what must follow."""

from __future__ import annotations

import msgspec
import pytest

from abi.errors import ProtocolError
from abi.ids import COUNTER_BITS
from abi.wire.codec import decode_failure, decode_items, decoders, encode_items
from abi.wire.schema import ROOT, UNITS, Dependency, End, EndKind, Failure, Function, Kind, Options, Task
from abid.core import effects as fx
from abid.core.cancel import LEAVE_NS
from abid.core.deadlock import DEADLOCK_NS
from abid.core.functions import learn
from abid.core.retry import Role, Verdict, after_death, after_error
from abid.core.task import Record
from tests.core.fake_shell import MS, SECOND, FakeShell


def test_a_frame_decodes_into_records_and_cannot_set_their_inner_fields() -> None:
    table = decoders([Kind.SUBMIT], {Kind.SUBMIT: Record})
    (record,) = decode_items(table, Kind.SUBMIT, encode_items([Task(1, 0, 0, b"x")]))
    assert type(record) is Record
    assert (record.holds, record.end) == (1, None)
    plain = msgspec.to_builtins(Task(1, 0, 0))
    for extra in ([None], [None, 4], [{}], [0], [[]], [None] * 17):
        with pytest.raises(ProtocolError):
            decode_items(table, Kind.SUBMIT, msgspec.msgpack.encode([plain + extra]))


CRASHED, LOST = EndKind.CRASHED, EndKind.LOST


@pytest.mark.parametrize(
    ("role", "max_retries", "charged", "uncharged", "blamed", "verdict"),
    [
        (Role.RUNNING, 3, 0, 0, True, Verdict(None, 1, 0)),
        (Role.RUNNING, 3, 2, 0, True, Verdict(None, 3, 0)),
        (Role.RUNNING, 3, 3, 0, True, Verdict(CRASHED, 4, 0)),  # at most four charged starts
        (Role.RUNNING, -1, 999, 0, True, Verdict(None, 1000, 0)),
        (Role.RUNNING, 0, 0, 0, True, Verdict(LOST, 1, 0)),
        (Role.UNKNOWN, 0, 0, 0, True, Verdict(LOST, 0, 0)),
        (Role.UNSTARTED, 0, 0, 0, True, Verdict(None, 0, 0)),
        (Role.UNSTARTED, 3, 1, 2, True, Verdict(None, 1, 2)),
        (Role.UNKNOWN, 3, 0, 0, True, Verdict(None, 0, 1)),
        (Role.RUNNING, 3, 3, 0, False, Verdict(None, 3, 1)),  # a drain charges nobody
        (Role.RUNNING, 3, 0, 16, False, Verdict(LOST, 0, 17)),  # and does not go on for ever
    ],
)
def test_blame(role: Role, max_retries: int, charged: int, uncharged: int, blamed: bool, verdict: Verdict) -> None:
    assert after_death(role, max_retries, charged, uncharged, blamed, 16) == verdict


def test_errors_are_retried_only_when_asked() -> None:
    assert after_error(True, True, 3, 2)
    assert not after_error(True, True, 3, 3)
    assert not after_error(True, False, 3, 0)
    assert not after_error(False, True, 3, 0)
    assert after_error(True, True, -1, 99)


def test_few_tasks_spread_over_all_workers() -> None:
    shell = FakeShell(cpus=2)
    session = shell.session()
    shell.learn(session, 2 * MS // 4)
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 9)])
    assert len(shell.live()) == 2
    shell.run_all()
    assert all(shell.end_of(session, n).kind == EndKind.OK for n in range(1, 9))
    shell.assert_free()


def test_a_short_task_never_waits_behind_a_long_one_while_a_worker_is_idle() -> None:
    shell = FakeShell(cpus=2)
    session = shell.session()
    shell.learn(session, 10_000)
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 201)])
    first, second = shell.live()
    assert shell.start(first)
    while shell.run_one(second, 10_000):
        pass
    behind = len(first.inbox)
    assert behind > 0, "some wait behind the first, which turns out to be long"
    shell.pass_time(4 * MS)
    shell.look_at_page(first)
    shell.turn()
    assert first.worker.outstanding[-1].number == first.running, "all others were taken back"
    while shell.run_one(second, 10_000):
        pass
    assert len(shell.ends) == 199
    assert shell.core.board.stats.recalled == behind


@pytest.mark.parametrize(("ran_ns", "each"), [(25 * MS, 2), (10 * SECOND, 1)])
def test_one_call_waits_behind_another_that_is_not_long(ran_ns: int, each: int) -> None:
    shell = FakeShell(cpus=2)
    session = shell.session()
    shell.learn(session, ran_ns)
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 9)])
    assert [len(process.worker.outstanding) for process in shell.live()] == [each, each]


def test_a_worker_that_falls_idle_is_given_at_once_what_waits_behind_another_call() -> None:
    shell = FakeShell(cpus=2)
    session = shell.session()
    shell.learn(session, 25 * MS)
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 5)])
    first, second = shell.live()
    assert shell.start(first)
    shell.run_one(second, 25 * MS)
    shell.run_one(second, 25 * MS)
    assert [record.number for record in first.worker.outstanding] == [first.running]
    assert len(second.worker.outstanding) == 1
    shell.run_all(25 * MS)
    assert shell.core.board.stats.recalled == 1
    assert all(shell.end_of(session, n).kind == EndKind.OK for n in range(1, 5))
    shell.assert_free()


def test_only_the_task_that_ran_is_charged_and_its_neighbours_are_not() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.learn(session, 10_000)
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 11)])
    poison = session.tasks[3]
    for _ in range(4):
        (process,) = [p for p in shell.live() if p.inbox]
        while not (shell.start(process) and process.call is not None and process.call.seq == 3):
            shell.run_one(process, 10_000)
        shell.die(process)
        shell.turn()
    end = shell.end_of(session, 3)
    assert end.kind == EndKind.CRASHED
    failure = decode_failure(end.payload)
    assert "killed by SIGKILL" in failure.text
    assert failure.stderr == "last words"
    assert poison.charged == 4
    shell.run_all()
    for n in range(1, 11):
        if n != 3:
            assert shell.end_of(session, n).kind == EndKind.OK
            assert session.tasks[n].charged == 0
            assert shell.starts[1, n] == 1


def test_what_may_start_once_is_noted_first_and_lost_when_its_worker_dies() -> None:
    shell = FakeShell(cpus=2)
    session = shell.session()
    shell.define(session, ROOT, Options(1, max_retries=0))
    shell.core.on_submit(session, ROOT, [Record(1, 0, 1), Record(2, 0, 1)], shell.now)
    shell.core.schedule(shell.now)
    taken = shell.core.effects()
    assert [type(effect) for effect in taken] == [fx.Spawn, fx.Note, fx.Dispatch] * 2
    for effect in taken:
        shell.perform(effect)
    process = shell.live()[0]
    assert shell.start(process)
    shell.die(process)
    shell.turn()
    assert shell.end_of(session, 1).kind == EndKind.LOST
    assert decode_failure(shell.end_of(session, 1).payload).type_name == "TaskLostError"


def test_a_failed_dependency_ends_all_that_need_it_without_running() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    chain = [Record(1, 0, 0)] + [Record(n, 0, 0, dependencies=[Dependency(0, n - 1)]) for n in range(2, 5_001)]
    shell.core.on_submit(session, ROOT, chain, shell.now)
    assert shell.core.why(session, session.tasks[2], shell.now) == "waits for 1 object"
    shell.turn()
    (process,) = shell.live()
    shell.start(process)
    process.call, call = None, process.call
    process.running = 0
    assert call is not None
    failure = Failure("ValueError", "no")
    shell.core.on_results(process.worker, [End(1, EndKind.ERROR, msgspec.msgpack.encode(failure))], shell.now)
    shell.turn()
    end = shell.end_of(session, 5_000)
    assert end.kind == EndKind.ERROR
    assert "f, whose result it needs, had failed" in decode_failure(end.payload).notes[0]
    assert sum(shell.starts.values()) == 1


def test_cancel_queued_running_forced_and_finished() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 5)])
    (process,) = shell.live()
    shell.start(process)
    shell.core.on_cancel(session, [2], False, True, shell.now)
    shell.core.on_cancel(session, [1], False, True, shell.now)
    shell.core.on_cancel(session, [1], False, True, shell.now)
    shell.turn()
    assert shell.end_of(session, 2).kind == EndKind.CANCELLED
    assert process.interrupts == {1: 1}
    shell.run_one(process, kind=EndKind.ERROR)
    assert shell.end_of(session, 1).kind == EndKind.CANCELLED
    shell.start(process)
    shell.core.on_cancel(session, [3], True, True, shell.now)
    shell.turn()
    assert process.killed
    shell.die(process)
    shell.turn()
    assert shell.end_of(session, 3).kind == EndKind.CRASHED
    shell.run_all()
    shell.core.on_cancel(session, [4], True, True, shell.now)
    shell.turn()
    assert shell.end_of(session, 4).kind == EndKind.OK
    assert shell.starts[1, 2] == 0


def test_cancel_of_a_call_that_has_not_started_waits_for_the_worker_to_say_so() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.submit(session, Record(1, 0, 0))
    (process,) = shell.live()
    shell.core.on_cancel(session, [1], False, True, shell.now)
    shell.turn()
    assert (1, 1) not in shell.ends
    assert not shell.start(process)
    shell.read(process)
    shell.turn()
    assert shell.end_of(session, 1).kind == EndKind.CANCELLED
    assert shell.starts[1, 1] == 0


def test_a_parent_that_waits_gives_its_processor_to_its_child() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 21)])
    (parent,) = shell.live()
    shell.start(parent)
    submitter = parent.worker.submitter
    shell.define(session, submitter, Function(0, b"g", "g", b""), Options(0))
    child = submitter << COUNTER_BITS | 1
    shell.submit(session, Record(child, 0, 0, parent=1))
    shell.block(parent)
    shell.read(parent)
    shell.turn()
    (other,) = [p for p in shell.live() if p is not parent]
    assert other.inbox[0].seq == child, "before the program's own, or a parent of each would hold a process"
    shell.run_one(other)
    assert shell.delivered[1, submitter, child] == 1
    shell.unblock(parent)
    shell.read(parent)
    shell.run_all()
    shell.assert_free()


def test_time_runs_out_interrupt_then_kill() -> None:
    shell = FakeShell(cpus=1, interrupt_grace_ns=SECOND)
    session = shell.session()
    shell.define(session, ROOT, Options(1, timeout_ns=100 * MS))
    shell.submit(session, Record(1, 0, 1))
    (process,) = shell.live()
    shell.pass_time(500 * MS)  # a slow fork is not the task's time
    shell.start(process)
    shell.look_at_page(process)
    shell.core.on_timer(shell.now)
    shell.turn()
    assert not process.interrupts
    due = shell.core.next_timer()
    assert due == shell.now + 100 * MS
    shell.pass_time(100 * MS)
    shell.core.on_timer(shell.now)
    shell.turn()
    assert process.interrupts == {1: 1}
    assert not process.killed
    shell.pass_time(SECOND)
    shell.core.on_timer(shell.now)
    shell.turn()
    assert process.killed
    shell.die(process)
    shell.turn()
    assert shell.end_of(session, 1).kind == EndKind.TIMED_OUT


def test_clocks_of_calls_that_ended_in_time_do_not_gather() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.define(session, ROOT, Options(1, timeout_ns=24 * 3600 * SECOND))
    for seq in range(1, 201):
        shell.submit(session, Record(seq, 0, 1))
        shell.run_all()
    assert all(shell.end_of(session, seq).kind == EndKind.OK for seq in range(1, 201))
    assert len(shell.core.board.clocks) < 100


def test_what_nobody_has_is_refused_at_once_by_name() -> None:
    shell = FakeShell(cpus=2, gpus=("A",))
    session = shell.session()
    shell.define(
        session, ROOT, Options(1, cpus=64 * UNITS), Options(2, gpus=2 * UNITS), Options(3, resources={"tpu": 1})
    )
    shell.submit(session, Record(1, 0, 1), Record(2, 0, 2), Record(3, 0, 3))
    texts = [decode_failure(shell.end_of(session, n).payload).text for n in (1, 2, 3)]
    assert texts[0] == "asks for 64 CPUs; this node has 2"
    assert texts[1] == "asks for 2 GPUs; this node has 1"
    assert "slot" in texts[2]


def test_a_full_queue_says_when_to_try_again_and_nested_tasks_have_a_reserve() -> None:
    shell = FakeShell(cpus=1, tasks_max=3, nested_reserve=1)
    session = shell.session()
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 6)])
    assert "try again after 100 ms" in decode_failure(shell.end_of(session, 4).payload).text
    (process,) = shell.live()
    shell.start(process)
    submitter = process.worker.submitter
    shell.define(session, submitter, Function(0, b"g", "g", b""), Options(0))
    children = [submitter << COUNTER_BITS | n for n in (1, 2)]
    shell.submit(session, *[Record(child, 0, 0) for child in children])
    assert (1, children[0]) not in shell.ends
    assert shell.end_of(session, children[1]).kind == EndKind.REFUSED


def test_a_large_request_is_not_passed_for_ever() -> None:
    shell = FakeShell(cpus=2, aging_ns=100 * MS)
    session = shell.session()
    shell.define(session, ROOT, Options(1, cpus=2 * UNITS, name="large"))
    shell.learn(session, 5 * MS)
    shell.submit(session, *[Record(n, 0, 0) for n in range(1, 401)])
    shell.submit(session, Record(5000, 0, 1))
    for _ in range(200):
        shell.pass_time(5 * MS)
        for process in shell.live():
            shell.run_one(process, 5 * MS)
        if (1, 5000) in shell.ends:
            break
    assert shell.end_of(session, 5000).kind == EndKind.OK
    assert len(shell.ends) < 200


def test_two_users_share_though_one_came_with_hundreds() -> None:
    shell = FakeShell(cpus=2)
    first, second = shell.session(1, user=1), shell.session(2, user=2)
    for session in (first, second):
        shell.learn(session, 10 * MS)
    shell.submit(first, *[Record(n, 0, 0) for n in range(1, 401)])
    shell.submit(second, *[Record(n, 0, 0) for n in range(1, 101)])
    for _ in range(80):
        shell.pass_time(10 * MS)
        for process in shell.live():
            shell.run_one(process, 10 * MS)
    served = [sum(number == n for number, _ in shell.ends) for n in (1, 2)]
    assert abs(served[0] - served[1]) < 20, served


def test_a_program_that_returns_is_told_again_what_ended() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.submit(session, Record(1, 0, 0))
    shell.run_all()
    shell.submit(session, Record(1, 0, 0))
    assert shell.delivered[1, ROOT, 1] == 2
    assert shell.starts[1, 1] == 1


def test_a_released_task_still_runs_and_says_only_that_it_ended() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.submit(session, Record(1, 0, 0))
    shell.core.on_release(session, ROOT, [1, 1, 77])
    shell.run_all()
    assert shell.starts[1, 1] == 1
    assert shell.end_of(session, 1) == End(1, EndKind.RELEASED, ran_ns=MS)
    assert not session.tasks


def test_draining_starts_nothing_but_the_children_of_what_runs() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.submit(session, *[Record(n, 0, 0) for n in (1, 2)])
    (process,) = shell.live()
    shell.start(process)
    shell.core.drain(shell.now)
    shell.submit(session, Record(3, 0, 0))
    shell.define(session, process.worker.submitter, Function(0, b"f", "f", b"pickle"), Options(0))
    child = process.worker.submitter << COUNTER_BITS | 1
    shell.submit(session, Record(child, 0, 0, parent=1))
    shell.block(process)
    shell.read(process)
    shell.turn()
    shell.run_all()
    assert shell.starts == {(1, 1): 1, (1, child): 1}
    assert shell.core.running_count == 0
    assert shell.core.undispatched(session) == [2, 3], "theirs again, who sent them"


@pytest.mark.parametrize("seen_running", [True, False])
def test_nothing_is_given_to_a_worker_between_a_recall_and_its_answer(seen_running: bool) -> None:
    """A cancel and results come in one turn: the worker has room again, and its recall is not answered yet. What were
    given to it then would start, and be taken back as well."""
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.learn(session, 100_000)
    records = [Record(n, 0, 0) for n in range(1, 61)]
    shell.submit(session, *records)
    (process,) = shell.live()
    given = len(process.inbox)
    assert 10 < given < 20
    for _ in range(given - 2):
        shell.start(process)
        shell.end(process, ran_ns=100_000)
    if seen_running:
        shell.arm(process)
    shell.flush(process)
    shell.read(process)
    shell.core.on_cancel(session, [given], False, False, shell.now)
    shell.turn()
    shell.look(process)
    shell.run_all(100_000)
    assert shell.end_of(session, given).kind == EndKind.CANCELLED
    assert shell.starts == {(1, n): 1 for n in range(1, 61) if n != given}


@pytest.mark.parametrize("why", ["processes_max", "memory"])
def test_what_can_never_start_is_refused_after_a_while(why: str) -> None:
    """Each task waits for its child, and the last one's cannot start: no process may be had, or no memory."""
    shell = FakeShell(cpus=1, processes_max=2 if why == "processes_max" else 100)
    session = shell.session()
    memory = 0 if why == "processes_max" else (1 << 30) // 4
    shell.define(session, ROOT, Options(1, cpus=UNITS, memory=memory))
    seq = 1
    shell.submit(session, Record(seq, 0, 1))
    for _ in range(4):
        process = shell.live()[-1]
        assert shell.start(process)
        submitter = process.worker.submitter
        shell.define(session, submitter, Function(0, b"f", "f", b"pickle"), Options(0, cpus=UNITS, memory=memory))
        seq = submitter << COUNTER_BITS | 1
        shell.submit(session, Record(seq, 0, 0))
        shell.block(process)
        shell.read(process)
        shell.turn()
    assert len(shell.live()) == 4
    due = shell.core.next_timer()
    assert due is not None
    shell.now = due - 1
    shell.core.on_timer(shell.now)
    shell.turn()
    assert session.tasks[seq].end is None
    shell.now = due
    shell.core.on_timer(shell.now)
    shell.turn()
    end = shell.end_of(session, seq)
    assert end.kind == EndKind.REFUSED
    text = decode_failure(end.payload).text
    assert text.startswith("it can never start")
    assert why in text
    assert shell.core.next_timer() != due


def test_what_a_program_submitted_and_a_parent_keeps_from_starting_is_refused_too() -> None:
    """The parent holds what the task needs that it waits for; neither is the other's child."""
    shell = FakeShell(cpus=2, processes_max=2)
    session = shell.session()
    shell.define(session, ROOT, Options(1, cpus=UNITS, memory=1 << 30))
    shell.submit(session, Record(1, 0, 1), Record(2, 0, 1))
    (parent,) = shell.live()
    assert shell.start(parent)
    for _ in range(2):  # who looks again in time is left alone
        shell.block(parent)
        shell.read(parent)
        shell.turn()
        shell.pass_time(DEADLOCK_NS - 1)
        shell.core.on_timer(shell.now)
        shell.turn()
        assert session.tasks[2].end is None
        shell.unblock(parent)
        shell.read(parent)
        shell.turn()
    shell.block(parent)
    shell.read(parent)
    shell.turn()
    shell.pass_time(DEADLOCK_NS)
    shell.core.on_timer(shell.now)
    shell.turn()
    end = shell.end_of(session, 2)
    assert end.kind == EndKind.REFUSED
    assert "tasks that wait for others hold all memory it asks for" in decode_failure(end.payload).text


def test_a_worker_that_does_not_leave_when_told_is_killed() -> None:
    shell = FakeShell(cpus=1, processes_max=1)
    one, two = shell.session(1), shell.session(2)
    for session in (one, two):
        shell.define(session, ROOT, Options(1, cpus=UNITS))
    shell.submit(one, Record(1, 0, 1))
    shell.run_all()
    (worker,) = shell.live()
    shell.submit(two, Record(1, 0, 1))
    assert worker.stopped, "it is to make room, and does not"
    assert shell.core.next_timer() == shell.now + LEAVE_NS
    assert two.tasks[1].end is None
    shell.pass_time(LEAVE_NS)
    shell.core.on_timer(shell.now)
    shell.turn()
    assert worker.killed
    shell.die(worker)
    shell.turn()
    shell.run_all()
    assert shell.end_of(two, 1).kind == EndKind.OK


def test_a_worker_that_has_done_its_calls_is_given_no_more() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.define(session, ROOT, Options(1, max_calls=2))
    shell.submit(session, *[Record(n, 0, 1) for n in range(1, 6)])
    shell.run_all()
    assert shell.starts == {(1, n): 1 for n in range(1, 6)}
    assert shell.core.board.worker_next == 4, "three workers, for two calls each"


def test_indexes_never_defined_are_a_protocol_error_that_names_them() -> None:
    shell = FakeShell()
    session = shell.session()
    with pytest.raises(ProtocolError, match="function 7"):
        shell.core.on_submit(session, ROOT, [Record(1, 0, 0), Record(2, 7, 0)], shell.now)
    shell.core.check()
    with pytest.raises(ProtocolError, match="options 7"):
        shell.core.on_submit(session, ROOT, [Record(3, 0, 7)], shell.now)
    with pytest.raises(ProtocolError, match="range"):
        shell.core.on_submit(session, ROOT, [Record(1 << COUNTER_BITS, 0, 0)], shell.now)
    with pytest.raises(ProtocolError, match="negative"):
        shell.core.on_options(session, ROOT, Options(1, cpus=-1))
    shell.turn()


def test_a_command_has_a_worker_of_its_own() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session(commands=True)
    shell.submit(session, Record(1, 0, 0), Record(2, 0, 0))
    shell.run_all()
    assert shell.core.board.worker_next == 3
    assert not shell.processes


def test_one_call_in_a_hundred_that_is_a_thousand_times_longer_leaves_the_estimate_alone() -> None:

    estimate = 0
    worst = 0
    for n in range(2000):
        estimate = learn(estimate, 10_000_000 if n % 100 == 50 else 10_000)
        if n > 100:
            worst = max(worst, estimate)
    assert worst < 13_500
