"""Beacons as bytes: who can make them, who can read them, and what a stranger learns or breaks."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from abid.cluster import beacon
from abid.cluster.beacon import Seals
from abid.core.discovery import Beacon

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NODE = b"\xde\xad\xbe\xef"
SAID = Beacon(8081, (b"\x0a\0\0\1", b"\xfd" + b"\0" * 14 + b"\1"), is_question=True)


@pytest.fixture(scope="module")
def seals() -> Seals:
    return Seals([KEY])


def test_what_was_sealed_opens(seals: Seals) -> None:
    packet = seals.seal(NODE, 7 << 32 | 9, SAID)
    assert seals.claim(packet) == (NODE, 7 << 32 | 9)
    assert seals.open(packet) == SAID


def test_every_bit_counts(seals: Seals) -> None:
    """Changed anywhere, a packet is either not of this cluster or does not open."""
    packet = seals.seal(NODE, 1, SAID)
    for bit in range(len(packet) * 8):
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        assert seals.claim(bytes(changed)) is None or seals.open(bytes(changed)) is None


def test_every_truncation_and_addition_is_refused(seals: Seals) -> None:
    packet = seals.seal(NODE, 1, SAID)
    for length in range(len(packet)):
        assert seals.claim(packet[:length]) is None or seals.open(packet[:length]) is None
    assert seals.open(packet + b"\0") is None
    assert seals.claim(packet + bytes(beacon.BYTES_MAX)) is None


@pytest.mark.parametrize("seed", range(200))
def test_noise_is_refused(seals: Seals, seed: int) -> None:
    lots = random.Random(seed)
    noise = lots.randbytes(lots.randrange(600))
    assert seals.claim(noise) is None
    prefixed = seals.seal(NODE, 1, SAID)[:10] + noise
    assert seals.claim(prefixed) is None or seals.open(prefixed) is None


def test_another_clusters_packets_are_told_by_their_tag(seals: Seals) -> None:
    assert seals.claim(Seals([OTHER_KEY]).seal(NODE, 1, SAID)) is None


def test_a_forged_tag_does_not_make_it_open(seals: Seals) -> None:
    forged = seals.seal(NODE, 1, SAID)[:10] + Seals([OTHER_KEY]).seal(NODE, 1, SAID)[10:]
    assert seals.claim(forged) == (NODE, 1)
    assert seals.open(forged) is None


def test_a_key_changes_under_way(seals: Seals) -> None:
    both = Seals([OTHER_KEY, KEY])
    assert both.open(seals.seal(NODE, 1, SAID)) == SAID
    assert Seals([OTHER_KEY]).open(both.seal(NODE, 1, SAID)) == SAID
    assert seals.claim(both.seal(NODE, 1, SAID)) is None


def test_what_a_member_sealed_and_is_no_beacon_is_none(seals: Seals) -> None:
    for wrong in (
        Beacon(0, ()),
        Beacon(70_000, ()),
        Beacon(1, (b"1234",) * 9),
        Beacon("8081", ()),  # type: ignore[arg-type]
    ):
        assert seals.open(seals.seal(NODE, 1, wrong)) is None


def test_the_largest_beacon_fits(seals: Seals) -> None:
    packet = seals.seal(NODE, (1 << 64) - 1, Beacon(65535, tuple(bytes([n] * 16) for n in range(8)), is_question=True))
    assert len(packet) <= beacon.BYTES_MAX
    assert seals.claim(packet) == (NODE, (1 << 64) - 1)


def test_two_packets_of_the_same_words_differ(seals: Seals) -> None:
    one, other = seals.seal(NODE, 1, SAID), seals.seal(NODE, 1, SAID)
    assert one[22:] != other[22:]


def test_nothing_that_it_says_can_be_read(seals: Seals) -> None:
    packet = seals.seal(NODE, 1, SAID)
    assert not any(address in packet for address in SAID.addresses)


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, b"x" * 33]])
def test_a_wrong_key_is_refused(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Seals(keys)


def test_cryptography_is_loaded_only_where_beacons_are_sealed() -> None:
    program = (
        "import sys, abid.cluster.discovery, abid.cluster.beacon as b\n"
        "assert 'cryptography' not in sys.modules\n"
        "b.Seals([bytes(32)])\n"
        "assert 'cryptography' in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_telling_what_is_not_ours_costs_next_to_nothing(seals: Seals) -> None:
    """Ten thousand a second must not cost a tenth of a core: 10 µs each, of which the socket takes some four. How long
    this machine takes for anything, opening one that is ours says."""
    ours = seals.seal(NODE, 1, SAID)
    strange = b"xx" + ours[2:]

    def cost_s(tell: Callable[[bytes], object], packet: bytes) -> float:
        start = time.thread_time()
        for _ in range(1_000):
            tell(packet)
        return time.thread_time() - start

    costs = [(cost_s(seals.claim, strange), cost_s(seals.open, ours)) for _ in range(10)]
    assert min(claim for claim, _ in costs) < min(opening for _, opening in costs) / 3
