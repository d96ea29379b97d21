"""From words to addresses: what people write, names, and the hook's output."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from abi.errors import UsageError
from abid.cluster import lookup
from abid.cluster.lookup import HookFailed, Place
from abid.core.dialling import Address

PORT = 8081
PLACES = [
    ("node7", Place("node7", PORT)),
    ("node7.example.org:9000", Place("node7.example.org", 9000)),
    (" 10.0.0.2 ", Place("10.0.0.2", PORT)),
    ("10.0.0.2:65535", Place("10.0.0.2", 65535)),
    ("fd00::7", Place("fd00::7", PORT)),
    ("[fd00::7]:9000", Place("fd00::7", 9000)),
]


@pytest.mark.parametrize(("text", "place"), PLACES)
def test_what_people_write(text: str, place: Place) -> None:
    assert lookup.parse(text, PORT) == place


@pytest.mark.parametrize("text", ["", "a b", "10.0.0.256", "node:", "node:0", "node:65536", "[fd00::7", "-x", "n:1e3"])
def test_what_is_no_place_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="is no HOST"):
        lookup.parse(text, PORT)


def test_one_address_has_one_spelling() -> None:
    assert (
        lookup.address_of(Place("FD00:0:0::07", 1)) == lookup.address_of(Place("fd00::7", 1)) == Address("fd00::7", 1)
    )


def test_addresses_need_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked the resolver"))
    found = asyncio.run(lookup.resolved([Place("10.0.0.2", 1), Place("FD00:0::7", 2), Place("10.0.0.2", 1)]))
    assert found == [Address("10.0.0.2", 1), Address("fd00::7", 2)]


def test_all_addresses_of_a_name_are_found_and_unknown_names_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host == "unknown":
            raise socket.gaierror(-2, "Name or service not known")
        hosts = [f"10.0.1.{n}" for n in range(200)] if host == "many" else ["10.0.0.2", "10.0.0.2", "fe80::1%eth0"]
        return [(0, 0, 0, "", (one, port)) for one in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert asyncio.run(lookup.resolved([Place("unknown", 1), Place("few", 2)])) == [Address("10.0.0.2", 2)]
    assert len(asyncio.run(lookup.resolved([Place("many", 1)]))) == lookup.ADDRESSES_PER_NAME_MAX


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before it is kept. It hangs for less than a name may take where nothing is said."""
    answer, answered = threading.Event(), list[bool]()

    def hang(*_: object, **__: object) -> list[object]:
        answered.append(answer.wait(lookup.NAME_S * 0.9))
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        found = asyncio.run(lookup.resolved([Place("10.0.0.2", 1), Place("hangs", 1)], within_s=0.1))
        assert not answered
    finally:
        answer.set()
    assert found == [Address("10.0.0.2", 1)]


class Resolver:
    """Names that begin with "dead" hang until ``answer`` is set; the others are there at once."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        if host.startswith("dead"):
            assert self.answer.wait(30)
            return []
        return [(0, 0, 0, "", ("10.0.0.2", port))]


def end_threads() -> None:
    while threads := [one for one in threading.enumerate() if one.name == "abid names"]:
        threads[0].join(30)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    end_threads()  # of an earlier test
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.answer.set()
    end_threads()


def test_dead_names_hold_up_nobody(resolver: Resolver) -> None:
    places = [Place("dead1", 1), Place("dead2", 1), Place("good", 1)]

    async def story() -> None:
        answers = lookup.each_resolved(places)
        assert await asyncio.wait_for(anext(answers), 30) == (Place("good", 1), [Address("10.0.0.2", 1)])
        resolver.answer.set()
        assert sorted([answer async for answer in answers]) == [(places[0], []), (places[1], [])]

    asyncio.run(story())


def test_each_name_has_a_time_of_its_own(resolver: Resolver) -> None:
    """Those that are asked first are all dead; the next have their turn when the time of these is over."""
    dead = [Place(f"dead{number}", 1) for number in range(lookup.NAMES_AT_ONCE_MAX)]
    assert asyncio.run(lookup.resolved([*dead, Place("good", 1)], within_s=1)) == [Address("10.0.0.2", 1)]


def test_threads_that_never_return_are_bounded(resolver: Resolver) -> None:
    dead = [Place(f"dead{number}", 1) for number in range(lookup.THREADS_MAX + 8)]
    assert asyncio.run(lookup.resolved(dead, within_s=0.01)) == []
    deadline = time.monotonic() + 60
    while len(resolver.asked) < lookup.THREADS_MAX:  # the last ones may not have run yet
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert len(lookup._threads) == len(resolver.asked) == lookup.THREADS_MAX
    assert asyncio.run(lookup.resolved([Place("good", 1)])) == []


def script(folder: Path, *lines: str) -> str:
    path = folder / "hook"
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o700)
    return str(path)


def run(command: str, within_s: float = 10) -> list[Place]:
    return asyncio.run(lookup.run_hook(command, PORT, within_s))


def test_the_hook_prints_places(tmp_path: Path) -> None:
    hook = script(tmp_path, "echo '# of $1'; echo 10.0.0.2; echo; echo \"$1:9000 \"; echo '[fd00::7]:1'")
    places = [Place("10.0.0.2", PORT), Place("node7", 9000), Place("fd00::7", 1)]
    assert run(f"{hook} node7") == places
    assert run(f"exec:{hook} node7") == places


WRONG = [
    ("echo 10.0.0.2; echo 'no match for region' >&2; exit 3", "ended with 3: no match for region"),
    ("exit 1", "ended with 1: it said nothing"),
    ("echo 10.0.0.2; echo 'Usage: x'", "'Usage: x'"),
    ("kill -9 $$", "ended with -9"),
]


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_a_hook_that_fails_is_said_and_nothing_of_it_is_believed(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(HookFailed, match=said):
        run(script(tmp_path, line))


def test_a_hook_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(HookFailed, match="cannot be run"):
        run(str(tmp_path / "nothing"))


def test_a_hook_that_prints_for_ever_is_bounded(tmp_path: Path) -> None:
    hook = script(tmp_path, "i=0; while [ $i -lt 20000 ]; do echo 10.0.0.2; i=$((i+1)); done")
    assert run(hook) == [Place("10.0.0.2", PORT)] * lookup.HOOK_ADDRESSES_MAX


def test_a_hook_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    told, pid = tmp_path / "told", tmp_path / "pid"
    os.mkfifo(told)
    hook = script(tmp_path, f"sleep 1000 & echo $! > {pid}; echo > {told}; wait")

    async def both() -> None:
        started = asyncio.create_task(asyncio.to_thread(told.read_text))
        hooked = asyncio.create_task(lookup.run_hook(hook, PORT, within_s=60))
        await started
        hooked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hooked

    asyncio.run(both())
    child = int(pid.read_text())
    deadline = time.monotonic() + 60
    while is_alive(child):
        assert time.monotonic() < deadline, "what the hook started is still there"
        time.sleep(0.01)


def test_a_hook_that_takes_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(HookFailed, match=r"longer than 0\.1 s"):
        run(script(tmp_path, "exec sleep 1000"), within_s=0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGCONT)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
