"""Names of tasks and objects: 16 bytes that no two hosts ever draw alike, and the form in which people read them.

``id = node (4 bytes, drawn at the host's first start) · session (4) · sequence (8)``. The sequence carries who
submitted: ``submitter (24 bits) · counter (40 bits)``; submitter 0 is the program itself, the others are its workers,
so that a task may submit tasks without asking anybody for a number. An object is a task's id and an index.

People see the id through a bijection (multiplication by an odd constant modulo 2**128) in Crockford's base 32, so that
neighbouring tasks differ in their first letters and any unique prefix will do.
"""

from __future__ import annotations

from typing import Final

COUNTER_BITS: Final = 40
SUBMITTERS_MAX: Final = 1 << 23  # the sequence stays below 2**63, so that it is a signed 64-bit integer anywhere
SHORT_LETTERS: Final = 8
TEXT_LETTERS: Final = 26

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_MODULUS: Final = 1 << 128
_SCRAMBLE: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835  # odd, so it has an inverse modulo 2**128
_UNSCRAMBLE: Final = pow(_SCRAMBLE, -1, _MODULUS)


def task_id(prefix: bytes, sequence: int) -> bytes:
    """The 16-byte id of task ``sequence`` in the session whose 8-byte ``prefix`` is node and session."""
    return prefix + sequence.to_bytes(8, "big")


def split(identity: bytes) -> tuple[bytes, int]:
    """The session's 8-byte prefix and the sequence of a 16-byte id. Raises ValueError for any other length."""
    if len(identity) != 16:
        raise ValueError(f"a task id has 16 bytes, not {len(identity)}")
    return identity[:8], int.from_bytes(identity[8:], "big")


def submitter_of(sequence: int) -> int:
    """Who submitted: 0 is the program, others are workers of its session."""
    return sequence >> COUNTER_BITS


def to_text(identity: bytes) -> str:
    """All 26 letters of an id."""
    number = int.from_bytes(identity, "big") * _SCRAMBLE % _MODULUS
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def short(identity: bytes) -> str:
    """The first letters of an id: what people see."""
    return to_text(identity)[:SHORT_LETTERS]


def from_text(text: str) -> bytes:
    """The id that ``to_text`` wrote. Raises ValueError if ``text`` is not 26 letters of the alphabet."""
    if len(text) != TEXT_LETTERS or any(letter not in _VALUES for letter in text):
        raise ValueError(f"{text!r} is not the id of a task: {TEXT_LETTERS} letters of {_ALPHABET} are")
    number = 0
    for letter in text:
        number = number << 5 | _VALUES[letter]
    if number >= _MODULUS:
        raise ValueError(f"{text!r} is not the id of a task: it is out of range")
    return (number * _UNSCRAMBLE % _MODULUS).to_bytes(16, "big")
