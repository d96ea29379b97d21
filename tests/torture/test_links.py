"""Failing links at their smallest, and what is counted in what hosts say.

Elections are told here and not held, but for two leaders in one term: on a busy machine there may be more of them, and
the torture's own run holds them on a quiet one.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from abi.errors import DaemonUnreachable
from tests.system.harness import eventually
from tests.torture.figures import table
from tests.torture.links import Partition, flap, flap_figures, partition, partition_figures, three_hosts
from tests.torture.watching import Seen, Watch, changes, deaths_in, reigns, said_of, terms_gained


def said(*words: tuple[int, int, str | None], states: Mapping[str, str] | None = None) -> list[Seen]:
    """One word a second: host, term, leader."""
    return [Seen(float(at), host, term, leader, states or {}) for at, (host, term, leader) in enumerate(words)]


def test_each_new_term_with_a_leader_is_a_change() -> None:
    assert changes([]) == changes(said((0, 3, None))) == changes(said((0, 3, "a"), (1, 3, "a"), (1, 3, None))) == 0
    assert changes(said((0, 3, "a"), (1, 4, None), (1, 4, "b"), (0, 4, "b"))) == 1
    assert changes(said((0, 3, "a"), (0, 5, "a"))) == 1, "it led anew"
    late = said((0, 3, "a"), (1, 7, "b"), (2, 3, "a"), (2, 5, "c"))
    assert [reign.leader for reign in reigns(late)] == ["a", "c", "b"], "by their terms, whoever said it when"


def test_two_leaders_of_one_term_are_a_failure_at_once() -> None:
    with pytest.raises(AssertionError, match="both lead in term 4"):
        changes(said((0, 4, "a"), (1, 4, "b")))


def test_terms_count_also_where_nobody_won() -> None:
    assert terms_gained([]) == terms_gained(said((0, 9, "a"), (1, 9, "a"))) == 0
    assert terms_gained(said((0, 9, "a"), (1, 8, None), (1, 9, "a"))) == 0, "who was behind has caught up"
    assert terms_gained(said((0, 9, "a"), (1, 9, "a"), (2, 12, None))) == 3 - 3, "its first word was that already"
    assert terms_gained(said((0, 9, "a"), (1, 9, "a"), (0, 12, None))) == 3


def test_deaths_show_in_states_and_in_logs() -> None:
    series = said((0, 1, "a"), (1, 1, "a"), states={"a": "alive", "b": "dead", "c": "suspect"})
    assert said_of(series, "dead") == {(0, "b"), (1, "b")}
    assert deaths_in("member 2 is suspect\nmember 2 is dead\nmember 14 is dead\nmember 2 is alive") == [2, 14]


def test_a_watch_hears_who_answers_and_tells_what_went_wrong_with_itself() -> None:
    def ask(host: int) -> dict[str, Any]:
        if host == 1:
            raise DaemonUnreachable("nobody is there")
        return {"joined": True, "term": 5, "leader": "a", "nodes": [{"id": "a", "state": "alive"}]}

    with Watch(ask, [0, 1], every_s=0.001) as watch:
        began = time.monotonic()
        while len(watch.since(began)) < 3:
            assert time.monotonic() < began + 10
    assert {(one.host, one.term, one.leader, one.states["a"]) for one in watch.series} == {(0, 5, "a", "alive")}
    asked = threading.Event()

    def broken(host: int) -> dict[str, Any]:
        asked.set()
        raise KeyError("term")

    with pytest.raises(KeyError), Watch(broken, [0], every_s=0.001):
        assert asked.wait(10)


def test_more_changes_than_may_be_fail_a_gate() -> None:
    well = [Partition("leader to one", 1, 1, 0, 0.5)]
    assert not any(figure.fails for figure in partition_figures(well))
    for wrong in (well[0]._replace(changes=2), well[0]._replace(gained_later=1)):
        assert [figure.fails for figure in partition_figures([*well, wrong])].count(True) == 1
    assert [figure.fails for figure in flap_figures("it", said((0, 1, "a"), (0, 3, "a")), 9)].count(True) == 0
    assert [figure.fails for figure in flap_figures("it", said((0, 1, "a"), (0, 4, "a")), 9)].count(True) == 1


@pytest.mark.usefixtures("needs_hosts")
def test_a_leader_that_nobody_hears_is_replaced_and_all_is_whole_again_when_it_is_heard() -> None:
    with three_hosts() as fleet, Watch(fleet.status, range(3), every_s=0.02) as watch:
        eventually(lambda: reigns(watch.series), "the watch sees who leads")

        def another_leads(leader: int) -> None:
            fleet.await_leader(not_=leader, among={0, 1, 2} - {leader})
            began = time.monotonic()
            eventually(
                lambda: any(one.leader not in (None, fleet.nodes[leader]) for one in watch.since(began)),
                "the watch sees what the fleet sees",
            )

        done = partition(fleet, watch, "leader to both", another_leads, calm_s=0.5, lots=random.Random(1))
        assert changes(watch.series) >= 1
        leader, _ = fleet.await_leader()
        series, count = flap(fleet, watch, (leader + 1) % 3, 0.1, random.Random(1))
    assert count >= 1
    # Had two led in one term, there would be no figures.
    print(table([*partition_figures([done]), *flap_figures("a follower", series, count)]))
