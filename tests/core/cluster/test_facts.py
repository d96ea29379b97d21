"""What a cluster agrees on: members, tokens and names, each command once."""

from __future__ import annotations

import msgspec
import pytest

from abi.errors import UsageError
from abi.wire.frames import FRAME_BYTES_MAX
from abid.core.cluster import commands
from abid.core.cluster.commands import AnyCommand
from abid.core.cluster.facts import (
    ADDRESSES_MAX,
    GONE_MAX,
    HELD_BYTES_MAX,
    KEY_BYTES_MAX,
    MEMBERS_MAX,
    NAME_CHARS_MAX,
    PAST_MAX,
    RENEWALS_MAX,
    REVOKED_MAX,
    STALE,
    TOKENS_MAX,
    TOLD_BYTES_MAX,
    Applied,
    Facts,
    Result,
)

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
    assert admit(asker, "dd").refused == "wrong_token"
    assert sorted(member.node for member in asker.facts.members.values()) == ["aa", "bb", "cc"]


def test_a_token_ends(asker: Asker) -> None:
    create(asker, ends_ms=5_000)
    asker.at_ms = 5_000
    assert [admit(asker, "bb").refused for _ in range(2)] == ["expired_token"] * 2
    create(asker, "another", ends_ms=9_000)
    assert list(asker.facts.tokens) == ["another"]


def test_a_wrong_secret_uses_nothing_up(asker: Asker) -> None:
    create(asker)
    assert admit(asker, "bb", digest=b"x" * 32).refused == "wrong_token"
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


def test_the_clock_of_the_leader_decides_when_a_token_ends(asker: Asker) -> None:
    """That of the member that asked may be wrong: behind, and its token would be over; ahead, and all others' would."""
    create(asker, "others", ends_ms=asker.at_ms + 50)
    right = asker.at_ms
    for name, wrong_by in (("ahead", 3_600_000), ("behind", -900)):
        asker.at_ms = right + wrong_by
        words = {"token": name, "digest": DIGEST, "uses": 1, "ends_ms": asker.at_ms + 100}
        made = asker.make(commands.CreateToken, **words)
        asker.at_ms = right
        asker.facts.apply(commands.proposed_at(made, right))
    assert {name: token.ends_ms - right for name, token in asker.facts.tokens.items()} == {
        "others": 50, "ahead": 100, "behind": 100,
    }  # fmt: skip
    assert admit(asker, "bb", "others").refused == ""


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
    late = asker.facts.apply(request)
    assert (late.refused, late.value) == (STALE, asker.serial), "above which its origin has to go"
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


def test_of_those_that_left_only_the_latest_requests_are_remembered(asker: Asker) -> None:
    """Also of hosts whose disk was restored, again and again, each time under another number."""
    create(asker, uses=10_000)
    for _ in range(GONE_MAX):
        number = admit(asker, "bb").value
        assert isinstance(number, int)
        leaver = Asker(asker.facts, number)
        assert not leaver.ask(commands.Announce, number=number, name="b", addresses=()).refused
        again = leaver.ask(commands.Readmit, number=number).value
        assert isinstance(again, int)
        leave = Asker(asker.facts, again)
        leaving = leave.make(commands.Remove, number=again, revoke=False)
        assert not asker.facts.apply(leaving).refused
        assert not asker.facts.apply(leaving).refused, "its answer was lost, and it asks again"
    assert list(asker.facts.members) == [1]
    assert len(asker.facts.applied) == 1 + GONE_MAX
    assert again in asker.facts.applied
    assert 1 in asker.facts.applied, "who is there is not forgotten"


def test_what_one_who_was_removed_asked_for_has_its_effect_once(asker: Asker) -> None:
    create(asker)
    admit(asker, "bb")
    other = Asker(asker.facts, 2)
    claim = other.make(commands.ClaimName, name="n", owner="bb")
    first = asker.facts.apply(claim)
    asker.ask(commands.Remove, number=2, revoke=True)
    asker.ask(commands.ReleaseName, name="n", owner="bb")
    assert asker.facts.apply(claim) == first
    assert asker.facts.names == {}


def test_those_that_were_sent_away_first_are_forgotten_at_last_whatever_the_clocks_say(asker: Asker) -> None:
    create(asker, uses=2 * REVOKED_MAX, ends_ms=10**15)
    for count in range(REVOKED_MAX + 2):
        asker.at_ms = 10**14 if count % 2 else 0
        asker.ask(commands.Remove, number=admit(asker, f"n{count}").value, revoke=True)
    assert len(asker.facts.revoked) == REVOKED_MAX
    assert [asker.facts.is_revoked(f"n{count}") for count in (0, 1, 2, REVOKED_MAX + 1)] == [False, False, True, True]


def test_renewals_are_remembered_up_to_a_number(asker: Asker) -> None:
    for count in range(RENEWALS_MAX + 1):
        assert not asker.ask(commands.NoteRenewal, serial_number=f"{count:x}", key=b"k").refused
    assert len(asker.facts.renewals) == RENEWALS_MAX
    assert asker.facts.renewed_for("0") is None
    assert asker.ask(commands.NoteRenewal, serial_number="1", key=b"other").refused == "renewed_before"
    assert asker.facts.renewed_for("0") is None, "what was refused makes nobody forget"


def test_a_member_and_a_name_take_no_more_room_than_they_may(asker: Asker) -> None:
    many = tuple(f"10.0.0.{number}:1" for number in range(100))
    asker.ask(commands.Announce, number=1, name="one", addresses=many)
    assert asker.facts.members[1].addresses == many[:ADDRESSES_MAX]
    assert asker.ask(commands.ClaimName, name="n", owner="o" * (NAME_CHARS_MAX + 1)).refused == "usage"
    assert asker.facts.names == {}


def test_what_is_forgotten_is_the_same_from_a_snapshot_on(asker: Asker) -> None:
    """Who comes late gets a snapshot and forgets from then on as all the others do."""
    create(asker, uses=10_000)
    late = Facts()
    for count in range(GONE_MAX + 200):
        if count == GONE_MAX - 100:
            late = Facts.decoded(asker.facts.encoded())
        token = {"token": "t", "digest": DIGEST}
        joining = asker.make(commands.Admit, **token, node=f"n{count}", name="n", addresses=())
        number = asker.facts.apply(joining).value
        assert isinstance(number, int)
        leaving = Asker(asker.facts, number).make(commands.Remove, number=number, revoke=bool(count % 2))
        asker.facts.apply(leaving)
        if late.cluster:
            late.apply(joining)
            late.apply(leaving)
    assert late.encoded() == asker.facts.encoded()


def test_who_left_is_known_by_its_number_until_it_is_back(asker: Asker) -> None:
    create(asker, uses=9)
    facts = asker.facts
    admit(asker, "bb")
    assert not facts.has_left("bb")
    asker.ask(commands.Remove, number=2, revoke=False)
    assert (facts.has_left("bb"), facts.has_left("stranger"), facts.node_of(2)) == (True, False, "bb")
    admit(asker, "bb")
    asker.ask(commands.Readmit, number=3)
    assert not facts.has_left("bb"), "it is there, under another number"
    assert [facts.node_of(number) for number in (2, 3, 4, 5)] == ["bb", "bb", "bb", None]
    asker.ask(commands.Found, cluster="c1", incarnation=2, number=9, node="bb", name="two", addresses=())
    assert (facts.has_left("aa"), facts.has_left("bb")) == (True, False), "nobody else was taken over"
    assert Facts.decoded(facts.encoded()) == facts


def test_who_left_first_is_forgotten_at_last(asker: Asker) -> None:
    create(asker, uses=9)
    admit(asker, "bb")
    number = 2
    for _ in range(PAST_MAX):
        number = asker.ask(commands.Readmit, number=number).value  # type: ignore[assignment]
    assert len(asker.facts.past) == PAST_MAX
    assert asker.facts.node_of(2) == "bb"
    asker.ask(commands.Readmit, number=number)
    assert asker.facts.node_of(2) is None


def test_what_people_add_is_bounded_by_its_bytes(asker: Asker) -> None:
    """In scripts of four bytes a letter, too: a frame between daemons holds the facts whatever is in them."""
    owner, count = "\U00010400" * (NAME_CHARS_MAX // 4), 0
    while not (said := asker.ask(commands.ClaimName, name=f"{count:\U00010400<{NAME_CHARS_MAX}}", owner=owner)).refused:
        count += 1
    assert said.refused == "full"
    facts = asker.facts
    assert HELD_BYTES_MAX - 10_000 < facts.held_bytes <= HELD_BYTES_MAX
    for refused in (
        create(asker, "t" * 2_000),
        asker.ask(commands.Announce, number=1, name="n" * 8_000, addresses=("10.0.0.1:1",)),
    ):
        assert refused.refused == "full"
    assert asker.ask(commands.Announce, number=1, name="uno", addresses=("10.0.0.1:1",)).refused == "", (
        "no more than now"
    )
    # And all that grows by itself is as large as it may be.
    told = Result("taken", "t" * TOLD_BYTES_MAX, "v" * NAME_CHARS_MAX)
    facts.applied.update((2**40 + n, Applied(2**62, told)) for n in range(MEMBERS_MAX + GONE_MAX))
    facts.renewals.update((f"{n:0{KEY_BYTES_MAX}x}", b"k" * KEY_BYTES_MAX) for n in range(RENEWALS_MAX))
    facts.revoked.update((f"{n:08x}", 2**50) for n in range(REVOKED_MAX))
    facts.past.update((2**40 + n, f"{n:08x}") for n in range(PAST_MAX))
    assert len(facts.encoded()) < FRAME_BYTES_MAX * 7 // 8


def test_what_goes_makes_room_again(asker: Asker) -> None:
    facts = asker.facts
    empty = facts.held_bytes
    for count in range(1, 4):
        create(asker, "t", uses=1, ends_ms=10**15)
        create(asker, "over", ends_ms=asker.at_ms + count)
        create(asker, "dropped", ends_ms=10**15)
        number = admit(asker, "bb").value
        asker.ask(commands.ClaimName, name="n", owner="o")
        asker.ask(commands.Announce, number=number, name="longer than before", addresses=("10.0.0.1:1",) * 20)
        number = asker.ask(commands.Readmit, number=number).value
        assert facts.held_bytes > empty
        asker.ask(commands.Remove, number=number, revoke=False)
        asker.ask(commands.ReleaseName, name="n", owner="o")
        asker.ask(commands.DropToken, token="dropped")
        asker.at_ms += 10
        asker.ask(commands.CreateToken, token="last", digest=DIGEST, uses=1, ends_ms=10**15)
        asker.ask(commands.DropToken, token="last")
        assert (facts.held_bytes, list(facts.tokens)) == (empty, [])
    create(asker)
    asker.ask(commands.Found, cluster="c1", incarnation=2, number=99, node="aa", name="one", addresses=("10.0.0.1:1",))
    assert facts.held_bytes == empty


def test_no_key_is_longer_than_ours_are(asker: Asker) -> None:
    long = "f" * (KEY_BYTES_MAX + 1)
    create(asker, uses=2)
    assert admit(asker, long).refused == "usage"
    assert asker.ask(commands.NoteRenewal, serial_number=long, key=b"k").refused == "usage"
    assert asker.ask(commands.NoteRenewal, serial_number="1", key=long.encode()).refused == "usage"
    assert asker.facts.renewals == {}
    assert asker.facts.tokens["t"].uses == 2


def test_what_is_told_of_a_request_is_kept_in_few_bytes(asker: Asker) -> None:
    told = asker.ask(commands.DropToken, token="\U00010400" * 500).told
    assert TOLD_BYTES_MAX - 4 < len(told.encode()) <= TOLD_BYTES_MAX


@pytest.mark.parametrize(
    "wrong",
    [{"name": 7, "owner": "o"}, {"name": "n" * commands.BYTES_MAX, "owner": "o"}, {"name": "\ud800", "owner": "o"}],
)
def test_what_no_log_may_hold_is_refused_before_it_is_in_it(asker: Asker, wrong: dict[str, str]) -> None:
    right = asker.make(commands.ClaimName, name="n", owner="o")
    assert commands.decode(commands.checked(right)) == right
    with pytest.raises(UsageError):
        commands.checked(asker.make(commands.ClaimName, **wrong))
