"""What a cluster agrees on: members, tokens and names, each command once."""

from __future__ import annotations

import msgspec
import pytest

from abid.core.cluster import commands
from abid.core.cluster.commands import AnyCommand
from abid.core.cluster.facts import NAME_CHARS_MAX, TOKENS_MAX, Facts, Result

DIGEST = b"d" * 32


class Asker:
    """One origin, which counts its requests."""

    def __init__(self, facts: Facts, origin: int = 1) -> None:
        self.facts, self.origin, self.serial, self.at_ms = facts, origin, 0, 1_000

    def make(self, kind: type[AnyCommand], **words: object) -> AnyCommand:
        self.serial += 1
        return kind(origin=self.origin, serial=self.serial, at_ms=self.at_ms, **words)  # type: ignore[arg-type]

    def ask(self, kind: type[AnyCommand], **words: object) -> Result:
        return self.facts.apply(self.make(kind, **words))


@pytest.fixture
def asker() -> Asker:
    asker = Asker(Facts())
    asker.ask(commands.Found, cluster="c1", incarnation=1, number=1, node="aa", name="one", addresses=("10.0.0.1:1",))
    return asker


def admit(asker: Asker, node: str, token: str = "t", digest: bytes = DIGEST) -> Result:
    return asker.ask(commands.Admit, token=token, digest=digest, node=node, name=f"host {node}", addresses=())


def create(asker: Asker, token: str = "t", uses: int = 1, ends_ms: int = 10_000) -> Result:
    return asker.ask(commands.CreateToken, token=token, digest=DIGEST, uses=uses, ends_ms=ends_ms)


def test_a_cluster_begins_with_its_founder(asker: Asker) -> None:
    facts = asker.facts
    assert (facts.cluster, facts.incarnation, list(facts.members)) == ("c1", 1, [1])
    again = asker.ask(commands.Found, cluster="c2", incarnation=1, number=2, node="bb", name="two", addresses=())
    assert (again.refused, facts.cluster) == ("exists", "c1")


def test_a_new_incarnation_begins_anew_and_forgets_no_revocation(asker: Asker) -> None:
    create(asker)
    admit(asker, "bb")
    asker.ask(commands.Remove, number=2, revoke=True)
    asker.ask(commands.ClaimName, name="n", owner="o")
    asker.ask(commands.Found, cluster="c1", incarnation=2, number=9, node="aa", name="one", addresses=())
    facts = asker.facts
    assert (facts.incarnation, list(facts.members), facts.next_number) == (2, [9], 10)
    assert list(facts.revoked) == ["bb"]
    assert list(facts.names) == ["n"]


def test_a_token_is_used_up(asker: Asker) -> None:
    create(asker, uses=2)
    assert admit(asker, "bb").value == 2
    assert admit(asker, "cc").value == 3
    assert admit(asker, "dd").refused == "wrong-token"
    assert sorted(member.node for member in asker.facts.members.values()) == ["aa", "bb", "cc"]


def test_a_token_ends(asker: Asker) -> None:
    create(asker, ends_ms=5_000)
    asker.at_ms = 5_000
    assert admit(asker, "bb").refused == "expired-token"
    assert asker.facts.tokens == {}


def test_a_wrong_secret_uses_nothing_up(asker: Asker) -> None:
    create(asker)
    assert admit(asker, "bb", digest=b"x" * 32).refused == "wrong-token"
    assert admit(asker, "bb").value == 2


def test_a_member_that_lost_everything_comes_back_under_another_number(asker: Asker) -> None:
    create(asker, uses=2)
    assert [admit(asker, "bb").value, admit(asker, "bb").value] == [2, 3]
    assert sorted(asker.facts.members) == [1, 3]


def test_a_restored_member_goes_on_under_another_number(asker: Asker) -> None:
    create(asker)
    admit(asker, "bb")
    assert asker.ask(commands.Readmit, number=2).value == 3
    assert asker.facts.members[3].node == "bb"
    assert asker.ask(commands.Readmit, number=2).refused == "unknown"


def test_who_was_sent_away_stays_away(asker: Asker) -> None:
    create(asker, uses=9)
    admit(asker, "bb")
    assert asker.ask(commands.Remove, number=2, revoke=True).value == "bb"
    assert admit(asker, "bb").refused == "revoked"
    admit(asker, "cc")
    assert asker.ask(commands.Remove, number=3, revoke=False).value == "cc"
    assert admit(asker, "cc").value == 4


def test_the_last_member_stays(asker: Asker) -> None:
    assert asker.ask(commands.Remove, number=1, revoke=False).refused == "last"
    assert asker.ask(commands.Remove, number=7, revoke=False).refused == "unknown"


def test_members_announce_their_addresses(asker: Asker) -> None:
    asker.ask(commands.Announce, number=1, name="uno", addresses=("10.0.0.9:8081",))
    member = asker.facts.members[1]
    assert (member.name, member.addresses) == ("uno", ("10.0.0.9:8081",))
    assert asker.ask(commands.Announce, number=5, name="", addresses=()).refused == "unknown"


def test_names(asker: Asker) -> None:
    one = asker.ask(commands.ClaimName, name="trainer", owner="a")
    assert asker.ask(commands.ClaimName, name="trainer", owner="a") == one
    taken = asker.ask(commands.ClaimName, name="trainer", owner="b")
    assert (taken.refused, taken.value) == ("taken", "a")
    assert asker.ask(commands.ReleaseName, name="trainer", owner="b").refused == "taken"
    assert not asker.ask(commands.ReleaseName, name="trainer", owner="a").refused
    assert asker.ask(commands.ReleaseName, name="trainer", owner="a").refused == "unknown"
    two = asker.ask(commands.ClaimName, name="trainer", owner="b")
    assert isinstance(one.value, int)
    assert two.value == one.value + 1, "a claim can be told from an earlier one"
    assert asker.ask(commands.ClaimName, name="n" * (NAME_CHARS_MAX + 1), owner="b").refused == "usage"


def test_tokens_are_bounded_and_those_that_ended_make_room(asker: Asker) -> None:
    for number in range(TOKENS_MAX):
        assert not create(asker, f"t{number}").refused
    assert create(asker, "one more").refused == "full"
    asker.at_ms = 10_000
    assert not create(asker, "one more", ends_ms=20_000).refused
    assert list(asker.facts.tokens) == ["one more"]


def test_a_request_that_comes_twice_has_its_effect_once(asker: Asker) -> None:
    create(asker, uses=5)
    request = asker.make(commands.Admit, token="t", digest=DIGEST, node="bb", name="b", addresses=())
    first = asker.facts.apply(request)
    before = asker.facts.encoded()
    assert asker.facts.apply(request) == first
    assert asker.facts.encoded() == before
    create(asker, "other")
    assert asker.facts.apply(request).refused == "stale"
    assert list(asker.facts.members) == [1, 2]


def test_the_same_log_makes_the_same_facts_also_from_a_snapshot_on(asker: Asker) -> None:
    create(asker, uses=3)
    half = Facts.decoded(asker.facts.encoded())
    rest = [
        asker.make(commands.Admit, token="t", digest=DIGEST, node=node, name=node, addresses=("a:1",))
        for node in ("bb", "cc")
    ]
    rest.append(asker.make(commands.ClaimName, name="n", owner="o"))
    for command in rest:
        sent = commands.decode(commands.encode(command))
        assert sent == command
        assert half.apply(sent) == asker.facts.apply(command)
    assert half == asker.facts
    assert half.encoded() == asker.facts.encoded()


def test_what_a_newer_release_means_is_not_guessed(asker: Asker) -> None:
    strange = msgspec.msgpack.encode(["take-over-the-world", 1, 2, 3])
    with pytest.raises(msgspec.ValidationError):
        commands.decode(strange)


def test_what_is_shown_holds_no_secret(asker: Asker) -> None:
    create(asker)
    assert "digest" not in str(asker.facts.shown())
