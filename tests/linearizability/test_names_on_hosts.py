"""Names that real daemons agree on, under kills, partitions and stops; and daemons that answer from stale facts, which
the same examination finds out."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hosts import kernel
from tests.linearizability import weather
from tests.linearizability.clients import Away, Line
from tests.linearizability.history import Note, wrong
from tests.linearizability.names import Asked, Claim, Get, Held, Release, Told
from tests.system.harness import eventually
from tests.torture import names
from tests.torture.fleet import Fleet

PLANTED = """
def _plant():
    import os
    from abid.cluster import asking
    right = asking.Asking.look

    async def look(self, what, words):
        if os.path.exists({marker!r}):
            return asking.LOOKS[what](self._consensus, **words)
        return await right(self, what, words)

    asking.Asking.look = look

_plant()
"""
"""Who believes that it leads does not ask the others before it reads (thesis, 6.4), from when the marker is there."""
ANSWERS_MIN = 50
"""Fewer would show nothing."""
SCENES_MAX = 5
OLD = "a client of the old leader"


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted") / "stale-reads"


@pytest.fixture(scope="module")
def fleet(marker: Path) -> Iterator[Fleet]:
    """Of three, for all tests here."""
    missing = kernel.why_not() or kernel.why_no_loss()
    if missing:
        pytest.skip(f"no hosts for tests: {missing}")
    with weather.cluster(before=PLANTED.format(marker=str(marker))) as made:
        yield made


def test_names_under_kills_partitions_and_stops_have_an_order(fleet: Fleet) -> None:
    weathers = [
        (weather.leader_killed, 0.0),
        (weather.leader_cut_off, 0.9),
        (weather.leader_stopped, 0.7),
        (weather.follower_killed, 0.0),
    ]
    notes = names.round_of(fleet, weathers, random.Random(1))
    assert sum(note.is_known for note in notes) >= ANSWERS_MIN
    assert {note.host for note in notes if note.is_known} == {0, 1, 2}
    assert not [str(failure) for failure in wrong(notes)]


def test_a_leader_that_was_deposed_in_its_sleep_says_nothing_stale(fleet: Fleet) -> None:
    scene = deposed(fleet)
    assert scene.told is None, "it cannot know, and says so"
    assert not wrong(scene.notes)


def test_one_that_reads_without_asking_the_others_is_found_out(fleet: Fleet, marker: Path) -> None:
    marker.touch()
    scene = deposed(fleet, with_an_answer=True)
    assert scene.told == Held("before")
    [failure] = wrong(scene.notes)
    assert failure.broke.asked == Get(scene.name)
    assert failure.broke.who == OLD
    assert [state.owner for state in failure.states] == ["after"]


class Scene(NamedTuple):
    """``told``: who held the name, in the words of a leader that slept while it went from ``before`` to ``after``."""

    name: str
    told: Told | None
    notes: list[Note]


def deposed(fleet: Fleet, *, with_an_answer: bool = False) -> Scene:
    """On a busy machine another may be elected while the scene is set, or a client may give its daemon up before that
    has answered; then it is set again."""
    for attempt in range(SCENES_MAX):
        is_set, scene = asked_of_a_deposed_leader(fleet, f"scene-{attempt}-{time.monotonic_ns()}")
        if is_set and (scene.told is not None or not with_an_answer):
            return scene
    raise AssertionError("no leader stayed one for as long as it takes to stop it, or none answered")


def asked_of_a_deposed_leader(fleet: Fleet, name: str) -> tuple[bool, Scene]:
    """Whether it still believed that it led when it woke and was asked, and what it said.

    1. All are stopped, and cut off from the leader: nothing reaches it that is said from now on.
    2. The others go on. One of them leads, and the name changes hands. They are not asked to look: with the planted
       fault a new leader, too, would tell what it knew before its first commit.
    3. The question lies in the old leader's socket before it goes on. A leader that hears nobody steps down after an
       election timeout, four of its ticks; it reads its sockets in its first turn.
    """
    old, term = fleet.await_leader()
    others = [number for number in range(len(fleet)) if number != old]
    paths, notes = weather.sockets(fleet), list[Note]()
    line = Line(OLD, old, paths[old], notes)
    looker = Line("who looks at it", old, paths[old], notes)
    other = Line("a client of the others", others[0], paths[others[0]], notes)
    eventually(lambda: asked(line, Claim(name, "before")), "the name is claimed")
    eventually(lambda: is_connected(looker), "who looks is connected")
    for daemon in fleet.daemons:
        os.kill(daemon.pid, signal.SIGSTOP)
    for number in range(len(fleet)):
        fleet.freeze(number)
    fleet.hosts.split([fleet.hosts[old]], [fleet.hosts[number] for number in others])
    for number in others:
        fleet.thaw(number)
    eventually(lambda: asked(other, Release(name, "before")), "another leads, and the name is released")
    eventually(lambda: asked(other, Claim(name, "after")), "it is another's")
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(asked, line, Get(name))
        status = pool.submit(looker.connect().request, "network-status")
        eventually(lambda: answer.done() or (line.is_unread and looker.is_unread), "both questions are asked")
        is_asked = not answer.done()
        fleet.thaw(old)
        told, woke = answer.result(), status.result()
    fleet.hosts.heal()
    for one in (line, looker, other):
        one.close()
    return is_asked and (woke["role"], woke["term"]) == ("leader", term), Scene(name, told, notes)


def asked(line: Line, what: Asked) -> Told | None:
    """None also where the daemon greets so late that nothing was asked."""
    try:
        return line.ask(what)
    except Away:
        return None


def is_connected(line: Line) -> bool:
    try:
        line.connect()
    except Away:
        return False
    return True
