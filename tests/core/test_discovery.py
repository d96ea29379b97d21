"""The rules of discovery, told with hosts on a network that is not there."""

from __future__ import annotations

import itertools

import pytest

from abid.core.dialling import Address, Origin
from abid.core.discovery import (
    ANSWERS_PER_SECOND_MAX,
    REMEMBERED_MAX,
    Announce,
    Answer,
    Ask,
    Beacon,
    CopySeen,
    Dial,
    Discovery,
    Effect,
    Peer,
    Remember,
    ResolveNames,
    RunHook,
    Settings,
    usable,
)  # fmt: skip
from abid.core.searching import parse_subnets
from tests.core.discovery_world import MS, PORT, SECOND, World, packed

INTERVAL = 5 * SECOND
OWN, OTHER = b"\0\0\0\1", b"\0\0\0\2"
SOURCE = Address("10.0.0.2", 8081)
START = 1000 * SECOND


def discovery(own: bytes = OWN, lot: float = 0.5, **settings: object) -> Discovery:
    rules = Discovery(own, 1, Settings(**settings), lambda: lot)  # type: ignore[arg-type]
    rules.start([], [], START)
    return rules


def beacon(*hosts: str, is_question: bool = False) -> Beacon:
    return Beacon(PORT, packed(*hosts or ("10.0.0.2",)), is_question)


def dialled(effects: list[Effect]) -> list[str]:
    return [effect.address.host for effect in effects if isinstance(effect, Dial)]


# --- finding each other -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_ms", [100, 1000, 5000, 60_000])
@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("delay", [0.0, 0.3, 7.7])
def test_whichever_starts_first_they_meet_within_two_intervals(interval_ms: int, late: int, delay: float) -> None:
    interval = interval_ms * MS
    world = World()
    hosts = [
        world.host(Settings(interval_ns=interval), start_after=int(delay * interval) * (late == i)) for i in (0, 1)
    ]
    world.run(within=int(delay * interval))
    took = world.run(lambda: world.are_connected(*hosts), within=10 * interval)
    assert took <= 2 * interval


@pytest.mark.parametrize("deaf", [0, 1])
@pytest.mark.parametrize("late", [0, 1])
def test_it_is_enough_that_one_hears_the_other(deaf: int, late: int) -> None:
    world = World(hears=lambda _, receiver: receiver != deaf)
    hosts = [world.host(start_after=7 * SECOND * (late == i)) for i in (0, 1)]
    world.run(within=7 * SECOND)
    assert world.run(lambda: world.are_connected(*hosts)) <= 2 * INTERVAL


@pytest.mark.parametrize("seed", range(20))
def test_twenty_hosts_become_one_net(seed: int) -> None:
    """Not everybody dials everybody; those who have enough leave it to the others."""
    world = World(seed)
    hosts = [world.host() for _ in range(20)]
    world.run(within=2 * INTERVAL)
    reached, new = {0}, {0}
    while new:
        connected = {node for place in new for node in hosts[place].rules.connected}
        new = {node[3] - 1 for node in connected} - reached
        reached |= new
    assert len(reached) == 20
    assert min(len(host.rules.connected) for host in hosts) >= 8


def test_where_nothing_is_broadcast_the_subnet_is_asked() -> None:
    """Host 1 hears the question and dials who asked."""
    world = World(has_broadcast=False)
    quiet = world.host()
    world.run(within=SECOND)
    asking = world.host(Settings(subnets=parse_subnets(["10.0.0.0/24"])))
    took = world.run(lambda: world.are_connected(quiet, asking), within=20 * SECOND)
    assert took <= 2 * INTERVAL


def test_the_answer_to_a_question_is_enough_for_who_asked() -> None:
    """What it says of itself leads nowhere, so host 1 cannot dial it."""
    world = World(has_broadcast=False)
    quiet = world.host()
    world.run(within=SECOND)
    subnets = parse_subnets(["10.0.0.0/24"])
    asking = world.host(Settings(subnets=subnets), addresses=["10.77.0.2"], answering={"10.0.0.2"})
    assert world.run(lambda: world.are_connected(quiet, asking), within=20 * SECOND) <= 2 * INTERVAL
    assert "10.0.0.1" in [address.host for _, address in asking.dials]


def test_each_of_several_addresses_is_tried_the_best_first() -> None:
    world = World()
    one = world.host()
    world.host(addresses=["10.9.0.1", "172.17.0.1", "10.0.0.7"], answering={"10.0.0.7"})
    took = world.run(lambda: len(one.rules.connected) > 0)
    assert took <= 2 * INTERVAL
    assert [address.host for _, address in one.dials] == ["10.9.0.1", "172.17.0.1", "10.0.0.7"]
    assert [at - one.dials[0][0] for at, _ in one.dials] == [0, 250 * MS, 500 * MS]


def test_a_host_that_comes_back_is_dialled_within_two_intervals_however_long_it_was_away() -> None:
    world = World()
    one, other = world.host(), world.host()
    world.run(lambda: world.are_connected(one, other))
    other.is_up = False
    for host, lost in ((one, other), (other, one)):
        host.rules.on_closed(lost.rules.own, world.now)
        world.after(0, lambda host=host: world._do(host, []))  # type: ignore[misc]
    world.run(within=3600 * SECOND)
    assert not one.rules.connected
    other.is_up = True
    world._do(other, [])
    assert world.run(lambda: world.are_connected(one, other)) <= 2 * INTERVAL


# --- what arrives -----------------------------------------------------------------------------------------------------


def test_a_replayed_beacon_changes_nothing() -> None:
    rules = discovery()
    number = 7 << 32
    assert rules.is_worth_opening(OTHER, number, "10.0.0.2", START)
    rules.on_beacon(OTHER, number, beacon(), SOURCE, START)
    before = rules.next_at(), dict(rules.dialling.candidates)
    for old in (number, number - 1, 0):
        assert not rules.is_worth_opening(OTHER, old, "10.0.0.2", START)
        assert rules.on_beacon(OTHER, old, beacon("10.6.6.6"), SOURCE, START) == []
    assert (rules.next_at(), rules.dialling.candidates) == before


def test_numbers_go_on_rising_when_a_host_starts_again() -> None:
    first, second = discovery(), Discovery(OWN, 2, Settings(), lambda: 0.5)
    numbers = [e.number for _ in range(3) for e in first.on_change(START) if isinstance(e, Announce)]
    again = [e.number for e in second.start([], [], START) if isinstance(e, Announce)]
    assert numbers == sorted(set(numbers))
    assert again[0] > numbers[-1]


def test_who_only_claims_a_number_has_nobody_ignored() -> None:
    rules = discovery()
    assert rules.is_worth_opening(OTHER, (1 << 63) - 1, "10.6.6.6", START)  # it does not open: on_beacon is not told
    assert rules.is_worth_opening(OTHER, 1, "10.0.0.2", START)


def test_who_has_the_key_cannot_silence_anybody_by_a_number_that_is_nobody_s() -> None:
    """A host that was removed has the key still, until it is another."""
    rules = discovery()
    rules.on_beacon(OTHER, 7 << 32, beacon(), SOURCE, START)
    for number in ((1 << 64) - 1, 1 << 63, 7 + 1025 << 32):
        assert not rules.is_worth_opening(OTHER, number, "10.6.6.6", START)
        assert rules.on_beacon(OTHER, number, beacon("10.6.6.6"), SOURCE, START) == []
    assert rules.is_worth_opening(OTHER, 7 + 1000 << 32, "10.0.0.2", START), "it may have started so often meanwhile"
    assert rules.is_worth_opening(OTHER, (7 << 32) + 1, "10.0.0.2", START)
    assert not rules.is_worth_opening(b"\0\0\0\7", (1 << 64) - 1, "10.6.6.6", START), "nor who is not known yet"


@pytest.mark.parametrize(("interval", "forgotten"), [(INTERVAL, 60 * SECOND), (60 * SECOND, 720 * SECOND)])
def test_a_sender_whose_number_was_driven_up_is_heard_again(interval: int, forgotten: int) -> None:
    rules = discovery(interval_ns=interval)
    rules.on_beacon(OTHER, 7 + 1000 << 32, beacon("10.6.6.6"), SOURCE, START)
    real = 7 << 32
    assert not rules.is_worth_opening(OTHER, real, "10.0.0.2", START + forgotten - 1)
    assert rules.is_worth_opening(OTHER, real, "10.0.0.2", START + forgotten)
    rules.on_beacon(OTHER, real, beacon("10.0.0.2"), SOURCE, START + forgotten)
    assert dialled(rules.tick(START + forgotten)) == ["10.0.0.2"]
    assert not rules.is_worth_opening(OTHER, real, "10.0.0.2", START + forgotten), "copies are told again"


@pytest.mark.parametrize("number", [(1 << 64) - 1, (1 << 63) - 1, 1 << 60])
def test_a_number_that_is_nobody_s_under_our_name_changes_none_of_ours(number: int) -> None:
    rules = discovery()
    [before] = [e.number for e in rules.on_change(START) if isinstance(e, Announce)]
    told = rules.on_beacon(OWN, number, beacon(), Address("10.0.0.9", 1), START)
    assert told == ([CopySeen("10.0.0.9")] if number < 1 << 63 else [])
    assert rules.on_beacon(OWN, number, beacon(), Address("10.0.0.9", 1), START) == [], "once"
    [after] = [e.number for e in rules.on_change(START) if isinstance(e, Announce)]
    assert after == before + 1


def test_our_numbers_are_not_driven_up_without_end() -> None:
    """However often somebody counts on in our name, others believe what we say."""
    rules, other = discovery(), discovery(OTHER)
    for step in range(1, 5_000):
        rules.on_beacon(OWN, step * 1000 << 32, beacon(), Address("10.0.0.9", 1), START)
    [number] = [e.number for e in rules.on_change(START) if isinstance(e, Announce)]
    assert number >> 32 == 1000
    assert other.is_worth_opening(OWN, number, "10.0.0.1", START)


def test_openings_are_rationed_by_the_second_in_all_and_by_source() -> None:
    rules = discovery()
    same = [rules.is_worth_opening(OTHER, number, "10.6.6.6", START) for number in range(1, 10_001)]
    assert (same.count(True), same[:50].count(True)) == (50, 50)
    assert rules.is_worth_opening(OTHER, 1, "10.0.0.2", START), "another source has its own ration"
    spread = [rules.is_worth_opening(OTHER, n, f"10.6.{n >> 8}.{n & 255}", START) for n in range(1, 10_001)]
    assert spread.count(True) == 500 - 51
    assert not rules.is_worth_opening(OTHER, 1, "10.0.0.9", START + SECOND - 1)
    again = [rules.is_worth_opening(OTHER, number, "10.6.6.6", START + SECOND) for number in range(1, 101)]
    assert again.count(True) == 50


def test_our_own_echo_is_nothing_and_our_name_from_another_is_told() -> None:
    rules = discovery()
    [sent] = [e.number for e in rules.on_change(START) if isinstance(e, Announce)]
    assert not rules.is_worth_opening(OWN, sent, "10.0.0.1", START)
    assert rules.is_worth_opening(OWN, sent + 5, "10.0.0.9", START)
    assert rules.on_beacon(OWN, sent + 5, beacon(), Address("10.0.0.9", 1), START) == [CopySeen("10.0.0.9")]
    [after] = [e.number for e in rules.on_change(START) if isinstance(e, Announce)]
    assert after > sent + 5, "else those who heard the copy would not hear us"
    assert dialled(rules.tick(START + SECOND)) == []


def test_questions_are_answered_to_where_they_came_from_and_so_many_a_second() -> None:
    rules = discovery()
    asked = Address("10.0.0.2", 40_000)
    answers = [rules.on_beacon(OTHER, n, beacon(is_question=True), asked, START) for n in range(1, 101)]
    sent = [effect for effects in answers for effect in effects if isinstance(effect, Answer)]
    assert len(sent) == ANSWERS_PER_SECOND_MAX
    assert {answer.to for answer in sent} == {asked}
    assert len({answer.number for answer in sent}) == len(sent)
    [later] = rules.on_beacon(OTHER, 101, beacon(is_question=True), asked, START + SECOND)
    assert isinstance(later, Answer)
    assert rules.on_beacon(OTHER, 102, beacon(), asked, START + SECOND) == [], "no question, no answer"


USABLE = [
    (["10.0.0.2", "fd00::2"], "10.0.0.9", ["10.0.0.2", "fd00::2"]),
    (["10.0.0.2", "10.0.0.2"], "10.0.0.9", ["10.0.0.2"]),
    (["127.0.0.1", "::1", "10.0.0.2"], "10.0.0.9", ["10.0.0.2"]),
    (["127.0.0.1", "10.0.0.2"], "127.0.0.1", ["127.0.0.1"]),
    (["224.0.0.1", "255.255.255.255", "0.0.0.0", "240.0.0.1"], "10.0.0.9", []),
    (["fe80::1", "ff02::1", "::", "::ffff:10.0.0.2"], "fe80::9", []),
]


@pytest.mark.parametrize(("said", "source", "left"), USABLE)
def test_only_what_a_host_can_have_is_dialled(said: list[str], source: str, left: list[str]) -> None:
    assert [address.host for address in usable(Beacon(PORT, packed(*said)), Address(source, 1))] == left


def test_an_address_of_a_wrong_length_is_none() -> None:
    assert usable(Beacon(PORT, (b"", b"abc", b"12345", b"1" * 17)), SOURCE) == ()


# --- who is dialled ---------------------------------------------------------------------------------------------------


def test_the_smaller_id_dials_at_once_and_the_other_if_it_is_still_needed() -> None:
    small, large = discovery(OWN), discovery(OTHER)
    small.on_beacon(OTHER, 9, beacon("10.0.0.2"), SOURCE, START)
    large.on_beacon(OWN, 9, beacon("10.0.0.1"), SOURCE, START)
    assert dialled(small.tick(START)) == ["10.0.0.2"]
    assert dialled(large.tick(START + SECOND - 1)) == []
    assert dialled(large.tick(START + SECOND)) == ["10.0.0.1"]


def test_an_address_is_dialled_once_a_second_at_most_whatever_is_heard() -> None:
    """A member gone mad says a new thing each millisecond; its address refuses at once, and every lot is zero."""
    rules = discovery(lot=0.0)
    dials = []
    for ms in range(10_000):
        now = START + ms * MS
        rules.on_beacon(OTHER, ms + 1, beacon(*(["10.0.0.2"] if ms % 3 else ["10.0.0.3"])), SOURCE, now)
        rules.on_connected(OTHER)
        rules.on_closed(OTHER, now)
        for effect in rules.tick(now):
            if isinstance(effect, Dial) and effect.address.host == "10.0.0.2":
                dials.append(now)
                rules.on_dialled(effect.address, None, now)
    assert len(dials) >= 5
    assert min(later - earlier for earlier, later in itertools.pairwise(dials)) >= SECOND


def test_addresses_that_a_host_no_longer_has_are_dropped() -> None:
    rules = discovery()
    rules.on_beacon(OTHER, 1, beacon("10.0.0.2", "10.0.0.3"), SOURCE, START)
    rules.on_beacon(OTHER, 2, beacon("10.0.0.3"), SOURCE, START)
    assert dialled(rules.tick(START + SECOND)) == ["10.0.0.3"]


def test_with_enough_connections_only_what_a_person_said_is_dialled() -> None:
    rules = discovery(connections_wanted=1)
    rules.on_connected(b"\0\0\0\7")
    rules.on_beacon(OTHER, 1, beacon(), SOURCE, START)
    assert dialled(rules.tick(START + SECOND)) == []
    assert rules.register(Address("10.0.0.8", PORT), START) == [Remember()]
    assert dialled(rules.tick(START + SECOND)) == ["10.0.0.8"]
    rules.on_dialled(Address("10.0.0.8", PORT), b"\0\0\0\x08", START + SECOND)
    rules.on_closed(b"\0\0\0\7", START + SECOND)
    assert dialled(rules.tick(START + 2 * SECOND)) == ["10.0.0.8", "10.0.0.2"]


def test_nobody_is_dialled_who_is_connected_and_everybody_again_who_was() -> None:
    rules = discovery()
    rules.on_connected(OTHER)
    rules.on_connected(OTHER)
    rules.on_beacon(OTHER, 1, beacon(), SOURCE, START)
    assert dialled(rules.tick(START + 60 * SECOND)) == []
    rules.on_closed(OTHER, START + 60 * SECOND)
    assert dialled(rules.tick(START + 60 * SECOND + SECOND // 2)) == ["10.0.0.2"]


def test_we_do_not_dial_ourselves_twice_unless_our_addresses_change() -> None:
    rules = discovery()
    seed = Address("10.0.0.1", PORT)
    rules.register(seed, START)
    assert dialled(rules.tick(START)) == ["10.0.0.1"]
    rules.on_dialled(seed, OWN, START)
    assert dialled(rules.tick(START + 3600 * SECOND)) == []
    assert dialled(rules.on_change(START + 3600 * SECOND)) == ["10.0.0.1"]


def test_a_beacon_cuts_a_long_back_off_to_an_interval() -> None:
    rules = discovery(lot=1 - 2**-50)
    there, now = Address("10.0.0.2", PORT), START
    rules.propose([there], Origin.CONFIGURED, now)
    for _ in range(10):
        now = max(now, rules.dialling.candidates[there].ready_at)
        assert dialled(rules.tick(now)) == ["10.0.0.2"]
        rules.on_dialled(there, None, now)
    rules.on_beacon(OTHER, 1, beacon(), SOURCE, now + SECOND)
    assert dialled(rules.tick(now + INTERVAL - 1)) == []
    assert dialled(rules.tick(now + INTERVAL)) == ["10.0.0.2"]


def test_waking_up_forgets_back_offs() -> None:
    rules = discovery(lot=1 - 2**-50)
    seed = Address("10.0.0.9", PORT)
    rules.propose([seed], Origin.CONFIGURED, START)
    now = START
    for _ in range(10):
        now = max(now, rules.dialling.candidates[seed].ready_at)
        assert "10.0.0.9" in dialled(rules.tick(now))
        rules.on_dialled(seed, None, now)
    assert dialled(rules.tick(now + 50 * SECOND)) == []
    effects = rules.on_change(now + 50 * SECOND)
    assert dialled(effects) == ["10.0.0.9"]
    assert any(isinstance(effect, Announce) for effect in effects)


# --- searching --------------------------------------------------------------------------------------------------------


def searched(rules: Discovery, until: int) -> list[tuple[int, str]]:
    """What a lonely host asks, by milliseconds since its start, from tick to tick; the start's own are left out."""
    found: list[tuple[int, str]] = []
    now = START
    while (now := max(now, rules.next_at())) <= until:
        asked = [effect for effect in rules.tick(now) if isinstance(effect, ResolveNames | RunHook | Ask)]
        found += [((now - START) // MS, type(effect).__name__) for effect in asked]
    return found


def test_a_lonely_host_asks_names_then_subnets_then_the_hook_ever_more_rarely() -> None:
    subnets = parse_subnets(["10.1.0.0/28"])
    rules = Discovery(OWN, 1, Settings(subnets=subnets, has_names=True, has_hook=True), lambda: 1 - 2**-50)
    assert ResolveNames() in rules.start([], [], START)
    said = searched(rules, START + 100 * SECOND)
    assert [at for at, what in said if what == "ResolveNames"] == pytest.approx([10_000, 30_000, 70_000], abs=2)
    assert [at for at, what in said if what == "Ask"] == pytest.approx([1_250, 21_250, 61_250], abs=2)
    assert [at for at, what in said if what == "RunHook"] == pytest.approx([5_000, 25_000, 65_000], abs=2)


def test_who_is_not_alone_searches_nothing_but_names() -> None:
    subnets = parse_subnets(["10.1.0.0/28"])
    rules = Discovery(OWN, 1, Settings(subnets=subnets, has_names=True, has_hook=True), lambda: 0.5)
    rules.start([], [], START)
    rules.on_connected(OTHER)
    assert {what for _, what in searched(rules, START + 3600 * SECOND)} == {"ResolveNames"}
    alone = START + 3600 * SECOND
    rules.on_closed(OTHER, alone)
    assert not [effect for effect in rules.tick(alone) if isinstance(effect, Ask | RunHook)]
    assert any(isinstance(effect, Ask) for effect in rules.tick(alone + INTERVAL // 4))
    assert RunHook() in rules.tick(alone + INTERVAL)


def test_every_host_of_the_subnets_is_asked_once_and_not_too_fast() -> None:
    texts = ["10.1.0.0/26", "10.2.0.4/31", "10.3.0.1/32"]
    rules = discovery(subnets=parse_subnets(texts))
    asked: list[str] = []
    times = []
    now = START
    while (now := max(now, rules.next_at())) <= START + 8 * SECOND:
        for effect in rules.tick(now):
            if isinstance(effect, Ask):
                asked += effect.hosts
                times.append(now)
                assert len(effect.hosts) <= 16
    hosts = [f"10.1.0.{n}" for n in range(1, 63)] + ["10.2.0.4", "10.2.0.5", "10.3.0.1"]
    assert sorted(asked) == sorted(hosts)
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {250 * MS}


@pytest.mark.parametrize("text", ["10.0.0.0/15", "fd00::/64", "10.0.0.1/24", "ten", "10.0.0.0/33"])
def test_what_cannot_be_searched_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_subnets([text])


# --- what is remembered -----------------------------------------------------------------------------------------------


def test_who_was_met_is_remembered_and_dialled_after_the_next_start() -> None:
    world = World()
    one, other = world.host(), world.host()
    world.run(lambda: world.are_connected(one, other))
    for host, met in ((one, other), (other, one)):
        assert Remember() in host.others
        assert list(host.rules.peers.values()) == [Peer(Address(met.addresses[0], PORT), met.rules.own)]
    again = Discovery(OWN, 2, Settings(), lambda: 0.5)
    assert dialled(again.start(one.rules.peers.values(), [], START)) == ["10.0.0.2"]


def test_where_a_node_is_reached_is_what_it_says_then_where_it_was_met() -> None:
    rules = discovery()
    for host in ("10.0.0.7", "10.0.0.8"):
        rules.register(Address(host, PORT), START)
        rules.tick(START)
        rules.on_dialled(Address(host, PORT), OTHER, START)
    rules.on_beacon(OTHER, 1, beacon("10.0.0.3", "10.0.0.7"), SOURCE, START)
    assert [address.host for address in rules.addresses_of(OTHER)] == ["10.0.0.3", "10.0.0.7", "10.0.0.8"]
    assert rules.addresses_of(b"\0\0\0\x09") == []


def test_registered_addresses_stay_and_those_met_longest_ago_go() -> None:
    rules = discovery()
    mine = Address("10.0.0.9", PORT)
    rules.register(mine, START)
    for n in range(REMEMBERED_MAX + 10):
        address = Address(f"10.8.{n >> 8}.{n & 255}", PORT)
        rules.propose([address], Origin.CONFIGURED, START)
        rules.tick(START)
        rules.on_dialled(address, n.to_bytes(4, "big"), START)
    assert len(rules.peers) == REMEMBERED_MAX
    assert mine in rules.peers
    assert Address("10.8.0.0", PORT) not in rules.peers
    assert Address("10.8.0.200", PORT) in rules.peers


def test_a_host_that_was_removed_is_neither_dialled_nor_remembered() -> None:
    rules = discovery()
    there = Address("10.0.0.2", PORT)
    rules.on_beacon(OTHER, 1, beacon(), SOURCE, START)
    rules.on_connected(OTHER)
    assert list(rules.peers) == [there]
    assert rules.forget(OTHER) == [Remember()]
    rules.on_closed(OTHER, START)
    assert rules.peers == {}
    assert dialled(rules.tick(START + 60 * SECOND)) == []


def test_what_is_unregistered_is_not_dialled_any_more() -> None:
    rules = discovery()
    there = Address("10.0.0.2", PORT)
    rules.register(there, START)
    assert rules.unregister(there) == [Remember()]
    assert dialled(rules.tick(START)) == []
    assert rules.unregister(there) == []
