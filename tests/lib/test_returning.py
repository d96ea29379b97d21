"""A lost connection: what the program tells the next daemon, and that each result comes once."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import pytest

import abi
from abi import errors, returning
from abi.private import PrivateDaemon
from abi.returning import Returner
from abi.wire.frames import JSON, pack
from abi.wire.schema import End, EndKind, Kind, Refused, Starting, Task, Welcome
from tests.lib.conftest import PREFIX, Connected
from tests.lib.fake_daemon import FakeDaemon


@abi.remote
def double(number: int) -> int:
    return number * 2


def never(_daemon: FakeDaemon, _task: Task) -> list[End]:
    return []


class Successors:
    """Daemons that answer when the program dials again, each with what it knows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.daemons: list[FakeDaemon] = []
        self.hellos: list[tuple[Any, ...]] = []
        self.resumed: bool | Exception = False
        self.on_task: Callable[[FakeDaemon, Task], list[End]] = FakeDaemon.run
        monkeypatch.setattr(returning, "connect", self.connect)

    def connect(self, *hello: Any) -> tuple[socket.socket, Welcome]:
        self.hellos.append(hello)
        if isinstance(self.resumed, Exception):
            raise self.resumed
        ours, theirs = socket.socketpair()
        self.daemons.append(FakeDaemon(theirs, self.on_task))
        return ours, Welcome((1, 0), "", "", "here", 0, session=PREFIX.hex(), token="new", resumed=self.resumed)


@pytest.fixture
def successors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Successors]:
    made = Successors(monkeypatch)
    yield made
    made.resumed = errors.Refused("the test is over")
    for daemon in made.daemons:
        daemon.close()


def test_a_daemon_that_says_goodbye_was_stopped(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    link = connected.session.link
    losses: list[str] = []

    def on_lost() -> None:
        losses.append(link.why)
        connected.session.end_all(link.why)

    link.on_lost = on_lost
    ref = double.remote(1)
    connected.daemon.say(Kind.BYE)
    with pytest.raises(errors.SessionLost, match="the daemon was stopped"):
        abi.get(ref, timeout=10)
    assert set(losses) == {"the daemon was stopped"}


def returner(connected: Connected, private: PrivateDaemon | None = None) -> Returner:
    return Returner(connected.session, "/socket", "default", "token", private)


def lose(connected: Connected) -> None:
    """As a daemon that dies: at any moment, without a word."""
    connected.session.link.on_lost = returner(connected)
    connected.daemon.sock.shutdown(socket.SHUT_RDWR)


def test_a_new_daemon_starts_over(connect: Callable[..., Connected], successors: Successors) -> None:
    connected = connect(never)
    known = abi.put(20)
    refs = [double.remote(number) for number in range(100)]
    connected.daemon.until(lambda: len(connected.daemon.of(Kind.SUBMIT)) >= 1)
    lose(connected)
    assert abi.get(refs) == [2 * number for number in range(100)]
    assert successors.hellos == [("/socket", "default", PREFIX.hex(), "token")]
    kinds = [kind for kind, _item in successors.daemons[0].heard]
    assert kinds[:2] == [Kind.FUNCTION, Kind.OPTIONS]
    assert [task.seq for task in successors.daemons[0].of(Kind.SUBMIT)] == [ref.seq for ref in refs]
    # The new daemon is given an old object when it is used, before its use.
    successors.daemons[0]._on_task = never
    double.remote(known)
    successors.daemons[0].until(lambda: len(successors.daemons[0].of(Kind.SUBMIT)) == 101)
    assert [put.seq for put in successors.daemons[0].of(Kind.PUT)] == [known.seq]


def test_what_unfinished_work_depends_on_goes_first(connect: Callable[..., Connected], successors: Successors) -> None:
    connected = connect(never)
    known = abi.put(20)
    ref = double.remote(known)
    del known
    successors.on_task = never
    lose(connected)
    connected.session.wait(lambda: bool(successors.daemons), 10)
    successors.daemons[0].until(lambda: bool(successors.daemons[0].of(Kind.SUBMIT)))
    kinds = [kind for kind, _item in successors.daemons[0].heard]
    assert kinds == [Kind.FUNCTION, Kind.OPTIONS, Kind.PUT, Kind.SUBMIT]
    assert ref.end is None


def test_results_come_once(connect: Callable[..., Connected], successors: Successors) -> None:
    connected = connect(never)
    first, second = double.remote(1), double.remote(2)
    connected.daemon.say(Kind.END, End(first.seq, 0))
    abi.get(first)
    successors.resumed = True
    successors.on_task = lambda daemon, task: [End(first.seq, EndKind.CANCELLED), *daemon.run(task)]
    lose(connected)
    assert abi.get([first, second]) == [None, 4]


def test_what_may_start_once_is_lost(connect: Callable[..., Connected], successors: Successors) -> None:
    connected = connect(never)
    ref = double.options(max_retries=0).remote(1)
    connected.daemon.say(Kind.STARTING, Starting(ref.seq))
    connected.session.wait(lambda: bool(connected.session.starting), 10)
    lose(connected)
    with pytest.raises(errors.TaskLostError) as caught:
        abi.get(ref)
    assert str(caught.value) == f"double ({ref.short}): it had started when its daemon ended, and max_retries is 0"
    assert caught.value.__notes__ == [f"in task double ({ref.short}) on here, attempt 1"]
    assert (caught.value.task_name, caught.value.host) == ("double", "here")


def test_refused_for_good(connect: Callable[..., Connected], successors: Successors) -> None:
    connected = connect(never)
    ref = double.remote(1)
    successors.resumed = errors.VersionMismatch("too new")
    lose(connected)
    with pytest.raises(errors.SessionLost, match="too new"):
        abi.get(ref)
    with pytest.raises(errors.SessionLost):
        double.remote(1)


def refuse(daemon: FakeDaemon, _task: Task | None = None) -> list[End]:
    """As a daemon that cannot take what was said: it says so, and closes."""
    words = msgspec.json.encode(Refused("protocol_error", "too much", "say less"))
    daemon.sock.sendall(pack(Kind.REFUSED, words, codec=JSON))
    daemon.sock.shutdown(socket.SHUT_RDWR)
    return []


def test_a_refusal_in_the_middle_is_heard_again_once(connect: Callable[..., Connected], successors: Successors) -> None:
    connected = connect(never)
    ref = double.remote(1)
    connected.session.link.on_lost = returner(connected)
    refuse(connected.daemon)
    assert abi.get(ref, timeout=10) == 2
    assert len(successors.hellos) == 1


def test_what_is_refused_again_ends_the_session(connect: Callable[..., Connected], successors: Successors) -> None:
    connected = connect(refuse)
    connected.session.link.on_lost = returner(connected)
    successors.resumed, successors.on_task = True, refuse
    ref = double.remote(1)
    with pytest.raises(errors.SessionLost, match="ended this session: too much; say less"):
        abi.get(ref, timeout=10)
    assert len(successors.hellos) == 1
    with pytest.raises(errors.SessionLost, match="too much"):
        double.remote(2)


def test_a_private_daemon_that_refuses_has_not_ended(connect: Callable[..., Connected], successors: Successors) -> None:
    connected = connect(refuse)
    connected.session.link.on_lost = returner(connected, cast(PrivateDaemon, object()))
    with pytest.raises(errors.SessionLost, match="ended this session: too much"):
        abi.get(double.remote(1), timeout=10)
    assert not successors.hellos


def test_returns_are_apart(
    connect: Callable[..., Connected], successors: Successors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that drops us at each return is not told everything again and again."""
    monkeypatch.setattr(returning, "RETURNS_APART_SECONDS", 3600)

    def drop(daemon: FakeDaemon, _task: Task) -> list[End]:
        daemon.sock.shutdown(socket.SHUT_RDWR)
        return []

    connected = connect(never)
    successors.on_task = drop
    ref = double.remote(1)
    lose(connected)
    connected.session.wait(lambda: bool(successors.hellos), 10)
    with pytest.raises(errors.GetTimeoutError):
        abi.get(ref, timeout=0.5)
    assert len(successors.hellos) == 1


def test_a_caller_s_timeout_holds_while_nobody_answers(
    connect: Callable[..., Connected], successors: Successors
) -> None:
    connected = connect(never)
    ref = double.remote(1)
    successors.resumed = ConnectionRefusedError("nobody")
    assert returner(connected)() == returning.PAUSE_SECONDS
    assert len(successors.hellos) == 1
    lose(connected)
    with pytest.raises(errors.GetTimeoutError):
        abi.get(ref, timeout=0.1)
    successors.resumed = False
    assert abi.get(ref, timeout=10) == 2


def test_who_lost_nothing_looks_for_as_long_as_it_takes(
    connect: Callable[..., Connected], successors: Successors, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"RETURN_SECONDS": 0.0, "IDLE_PAUSE_SECONDS": 0.0, "PAUSE_SECONDS": 0.001}.items():
        monkeypatch.setattr(returning, name, seconds)
    connected = connect()
    known = abi.put(20)
    assert abi.get(double.remote(1)) == 2
    successors.resumed = ConnectionRefusedError("nobody")
    lose(connected)
    connected.session.wait(lambda: len(successors.hellos) > 5, 10)
    assert len(successors.hellos) > 5
    successors.resumed = False
    assert abi.get(double.remote(21), timeout=10) == 42
    successors.daemons[0]._on_task = never
    double.remote(known)
    successors.daemons[0].until(lambda: len(successors.daemons[0].of(Kind.SUBMIT)) == 2)
    assert [put.seq for put in successors.daemons[0].of(Kind.PUT)] == [known.seq], "what it held is of use still"


def test_nobody_answers(
    connect: Callable[..., Connected], successors: Successors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "RETURN_SECONDS", 0.05)
    connected = connect(never)
    ref = double.remote(1)
    successors.resumed = ConnectionRefusedError("nobody")
    lose(connected)
    with pytest.raises(errors.SessionLost, match="nobody answered"):
        abi.get(ref)
    assert successors.hellos
