"""Two hosts with one identity: who is told, who is believed, and what a disk remembers of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.wire.peers import Refused
from abid.cluster import aside, standing, twins
from abid.cluster.aside import Aside
from abid.cluster.peers import MOVED_S
from abid.cluster.refusal import Code, PeerRefused, refused, said
from abid.cluster.standing import Standing
from abid.cluster.twins import ALONE_S, Twins
from abid.core.raft.configuration import Configuration
from tests.daemon.cluster.hosts import WAIT_S, Ca, Host, hosts, run

A, B = "0000000a", "0000000b"
US = "node3"
SAID = said(Refused(Code.COPY, "another host is alive that is node3, too"))


class View:
    """Host 3, where these vote; ``now`` is its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *voters: int, connected: tuple[str, ...] = ()) -> None:
        self.now = 1000.0
        self.asked: list[tuple[str, str, Any]] = []
        monkeypatch.setattr("abid.cluster.twins.time.monotonic", lambda: self.now)
        self.twins = Twins(
            cast(
                Any,
                SimpleNamespace(
                    node=US, number=3, node_of=lambda number: f"node{number}", later=self._later,
                    consensus=SimpleNamespace(
                        configuration=Configuration(frozenset(voters)), facts=SimpleNamespace(members={1: 1, 3: 3})
                    ),
                    peers=SimpleNamespace(connected=connected, has_moved=False),
                    requests=SimpleNamespace(ask=self._ask), request_timeout_s=lambda: 1.0,
                ),
            )
        )  # fmt: skip

    async def _ask(self, peer: Any, verb: str, body: Any, timeout_s: float) -> None:
        self.asked.append((peer.node, verb, body))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def is_believed(self, *nodes: str) -> bool:
        """Whether the last of these is, after all of them said so."""
        return [self.twins.on_refused(node, SAID) for node in nodes][-1] is not None


def test_a_majority_of_the_other_voters_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not View(monkeypatch, 1, 2, 3).is_believed("node1")
    assert View(monkeypatch, 1, 2, 3).is_believed("node1", "node2")
    assert not View(monkeypatch, 1, 2, 4).is_believed("node7", "node8", "node9")
    assert View(monkeypatch, 1).is_believed("node1")
    why = View(monkeypatch, 1).twins.on_refused("node1", SAID)
    assert why is not None
    assert why.code == Code.COPY


def test_where_nobody_else_votes_anybody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only voter was copied: its copy would lead, alone."""
    assert View(monkeypatch, 3).is_believed("node1")


def test_one_is_believed_in_time_if_no_other_voter_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(monkeypatch, 1, 2, 3)
    assert not view.is_believed("node1")
    view.now += ALONE_S
    assert view.is_believed("node1")
    view = View(monkeypatch, 1, 2, 3, connected=("node2",))
    assert not view.is_believed("node1")
    view.now += ALONE_S
    assert not view.is_believed("node1")


def test_who_speaks_with_us_has_taken_it_back_and_other_words_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(monkeypatch, 1, 2, 3)
    assert not view.is_believed("node1")
    assert [note["code"] for note in view.twins.notes()] == ["copy"]
    view.twins.on_answered("node1")
    assert view.twins.notes() == []
    assert not view.is_believed("node2")
    other = said(Refused(Code.REVOKED, "no"))
    assert view.twins.on_refused("node1", other) is None
    assert view.twins.on_refused("node1", refused(Code.COPY, "we refuse it")) is None


def test_who_met_both_tells_the_one_that_it_is_connected_with_and_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(monkeypatch, 1, 2, 3)
    view.twins.on_met(cast(Any, SimpleNamespace(node="node1")), "10.0.0.9")
    assert view.asked == [("node1", twins.MET, {"address": "10.0.0.9"})]
    asyncio.run(view.twins.on_told(cast(Any, SimpleNamespace(node="node1")), {"address": "10.0.0.8"}))
    view.twins.on_heard("10.0.0.8")
    first, second = view.twins.notes()
    assert "the identity of node node1, from 10.0.0.9" in first["message"]
    assert "this host's identity, from 10.0.0.8" in second["message"]
    view.now += twins.SHOWN_S
    assert view.twins.notes() == []


def test_who_woke_on_another_machine_says_so_where_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(monkeypatch, 1)
    member = cast(Any, view.twins._member)
    member.peers.has_moved = True
    assert [note["code"] for note in view.twins.notes()] == ["moved"]
    del member.consensus.facts.members[1]
    assert view.twins.notes() == []


def test_what_is_shown_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(monkeypatch, 1)
    for octet in range(3 * twins.SHOWN_MAX):
        view.twins.on_heard(f"10.0.0.{octet}")
    assert len(view.twins.notes()) == twins.SHOWN_MAX


def stood(folder: Path, code: str) -> tuple[Path, Aside]:
    """A member's folder whose host stands aside."""
    place = folder / "cluster"
    place.mkdir()
    for name in ("ca.key", "secret", "next.key", "ca.pem", "node.pem"):
        (place / name).touch()
    (folder / "identity.json").touch()
    return place, aside.stand(place, refused(code, "2 of 3 say so"))


@pytest.mark.parametrize(("code", "kept"), [(Code.COPY, True), (Code.REVOKED, False)])
def test_who_was_removed_has_no_secret_any_more(tmp_path: Path, code: str, kept: bool) -> None:
    place, noted = stood(tmp_path, code)
    assert aside.load(place) == noted
    assert (noted.code, noted.why) == (code, "2 of 3 say so")
    assert [(place / name).exists() for name in ("ca.key", "secret", "next.key")] == [kept] * 3
    assert (place / "node.pem").exists()


@pytest.mark.parametrize(("code", "kept"), [(Code.COPY, False), (Code.REVOKED, True)])
def test_a_copy_that_leaves_is_somebody_else_when_it_starts_again(tmp_path: Path, code: str, kept: bool) -> None:
    place, noted = stood(tmp_path, code)
    assert bool(aside.end(place, noted)) is not kept
    assert ((tmp_path / "identity.json").exists(), aside.load(place)) == (kept, None)
    assert aside.end(place, None) == ""


def test_a_note_that_is_not_readable_is_one(tmp_path: Path) -> None:
    (tmp_path / aside.FILE).write_text("{")
    noted = aside.load(tmp_path)
    assert noted is not None
    assert str(tmp_path / aside.FILE) in aside.outside(tmp_path, noted).hint


def test_a_machine_has_a_mark_where_it_has_an_id_that_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "machine-id"
    monkeypatch.setattr(twins, "MACHINE", file)
    monkeypatch.setattr(twins, "IN_CONTAINER", ())
    assert twins.machine() == ""
    for text in ("", "uninitialized\n"):
        file.write_text(text)
        assert twins.machine() == ""
    file.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    mark = twins.machine()
    assert len(mark) == 16
    assert "3d12" not in mark
    file.write_text("4d1219c7c4c5404aaa1f6d2a48adfda4\n")
    assert twins.machine() not in ("", mark)
    monkeypatch.setattr(twins, "IN_CONTAINER", (str(file),))
    assert twins.machine() == ""


def test_the_machine_is_kept_beside_number_and_port_and_may_be_missing(tmp_path: Path) -> None:
    standing.save(tmp_path, Standing(1, 8081, ("h:1",)))
    standing.settle(tmp_path, "feedbeef")
    assert standing.load(tmp_path) == Standing(1, 8081, ("h:1",), "feedbeef")
    (tmp_path / standing.FILE).write_text('{"number": 2, "port": 1, "hints": []}')
    assert standing.load(tmp_path) == Standing(2, 1, ())


def test_who_woke_on_another_machine_waits_for_the_one_that_was_here(tmp_path: Path) -> None:
    """And is let in if that one does not come back; who was not here does not keep anybody out."""

    async def story() -> None:
        ca = Ca(tmp_path)
        first = ca.member(A)
        moved = Host(first, started=7)
        moved.peers.has_moved = True
        async with hosts(first, ca.member(B)) as (a, b):
            await a.peers.dial([b.address], WAIT_S)
            a.peers.close()
            await b.until_told("closed", A, True)
            with pytest.raises(PeerRefused) as caught:
                await moved.peers.dial([b.address], WAIT_S)
            assert (caught.value.code, bool(caught.value.hint)) == (Code.MOVED, True)
            back = Host(first, started=8)
            await back.peers.dial([b.address], WAIT_S)
            back.peers.close()
            await b.until(lambda: A not in b.peers.connected)
            b.peers._was_here[A] -= MOVED_S
            await moved.peers.dial([b.address], WAIT_S)
            moved.peers.close()

    run(story())


def test_whom_others_saw_lately_is_waited_for_by_those_that_never_met_it(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        moved = Host(ca.member(A), started=7)
        moved.peers.has_moved = True
        async with hosts(ca.member(B)) as (b,):
            b.there.add(A)
            with pytest.raises(PeerRefused) as caught:
                await moved.peers.dial([b.address], WAIT_S)
            assert caught.value.code == Code.MOVED
            b.there.clear()
            await moved.peers.dial([b.address], WAIT_S)
            moved.peers.close()

    run(story())
