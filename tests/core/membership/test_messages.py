"""Messages on the wire: what goes in comes out, and what is no message is refused by name."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.errors import ProtocolError
from abid.core.membership.messages import (
    INCARNATION_MAX,
    RUMOURS_ACCEPTED_MAX,
    Ack,
    Answer,
    Ask,
    Message,
    Probe,
    Rumour,
    State,
    decode,
    encode,
)

RUMOUR = Rumour(7, 3, State.SUSPECT, 9)


@pytest.mark.parametrize(
    "message",
    [
        Probe(0),
        Probe(INCARNATION_MAX, (RUMOUR,), asks_all=True),
        Ack(1, (RUMOUR, Rumour(8, 0, State.LEFT))),
        Ask(2, 7, (RUMOUR,)),
        Answer(3, 7, True),
        Answer(3, 7, False, (RUMOUR,)),
    ],
)
def test_what_goes_in_comes_out(message: Message) -> None:
    assert decode(encode(message)) == message


def test_the_largest_is_small_enough_for_a_control_frame() -> None:
    worst = Rumour((1 << 63) - 1, INCARNATION_MAX, State.SUSPECT, (1 << 63) - 1)
    assert len(encode(Probe(INCARNATION_MAX, (worst,) * RUMOURS_ACCEPTED_MAX))) < 8_000
    usual = Rumour(1000, 3 << 32, State.SUSPECT, 1000)
    assert len(encode(Probe(3 << 32, (usual,) * RUMOURS_ACCEPTED_MAX))) < 5_000


@pytest.mark.parametrize(
    "wrong",
    [
        [5, 0, []],  # no such kind
        [1, -1, []],
        [1, INCARNATION_MAX + 1, []],
        [1, 0, [[0, 0, 0]]],  # nobody
        [1, 0, [[1 << 63, 0, 0]]],
        [1, 0, [[7, 0, 4]]],  # no such state
        [1, 0, [[7, 0]]],
        [1, 0, [[7, 0, 0]] * (RUMOURS_ACCEPTED_MAX + 1)],
        [3, 0, 0],
        [4, 0, 7],
        {"kind": 1},
        1,
        [],
    ],
)
def test_what_is_no_message_is_refused(wrong: object) -> None:
    with pytest.raises(ProtocolError, match="a message about members cannot be read") as refused:
        decode(msgspec.msgpack.encode(wrong))
    assert "version" in refused.value.hint


@given(st.binary(max_size=200) | st.integers(0, 60).map(lambda end: encode(Probe(5, (RUMOUR,) * 8))[:end]))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        message = decode(data)
    except ProtocolError:
        return
    assert decode(encode(message)) == message
