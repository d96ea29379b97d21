"""The text by which a host joins a cluster, and where it is read from.

``abi-1-`` and, in Crockford's base 32 (no case, nothing that looks like something else)::

    fingerprint of the authority 32 · cluster 8 · token's id 4 · secret 16 · length and text of each address · CRC-32 4

The checksum tells a slip of the pen from a token that the cluster does not know. The fingerprint lets a host see that
it speaks to the right cluster before it says the secret. Whoever has the text may join, so it is read from a prompt
without echo, from standard input, from a file or from the environment, and never from the command line, which every
user of the host can see.

Standard library only: the command line reads it, too.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TextIO

from abi.errors import UsageError

PREFIX: Final = "abi-1-"
VARIABLE: Final = "ABI_JOIN_TOKEN"
FINGERPRINT_BYTES: Final = 32
"""SHA-256 of the authority's certificate."""
CLUSTER_BYTES: Final = 8
ID_BYTES: Final = 4
SECRET_BYTES: Final = 16
"""128 bits drawn by the machine: nobody guesses them, so a plain hash of them may be stored."""
ADDRESSES_MAX: Final = 8
"""Enough to find one member that is up; more would make the text unwieldy."""
ADDRESS_CHARS_MAX: Final = 255
MEANT_CHARS_MIN: Final = 24
"""A fifth of the shortest token: what is cut off more than that tells little."""
TEXT_CHARS_MAX: Final = 4096
"""Longer than any token: what is read of a file or a pipe that is none."""

_HEAD: Final = FINGERPRINT_BYTES + CLUSTER_BYTES + ID_BYTES + SECRET_BYTES
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)} | {"o": 0, "i": 1, "l": 1}


class JoinToken(NamedTuple):
    """What the text says."""

    fingerprint: bytes
    cluster: str
    """16 hex digits."""
    identity: str
    """8 hex digits: by it the cluster finds the token among those it gave out."""
    secret: bytes
    addresses: tuple[str, ...]
    """``host:port`` of members, to be tried in this order."""

    def __repr__(self) -> str:
        """Without the secret: this may end in a log."""
        return f"<join token {self.identity} of cluster {self.cluster}, {len(self.addresses)} addresses>"


def to_text(token: JoinToken) -> str:
    """The text of a token. Raises ValueError if a part of it has the wrong size."""
    head = token.fingerprint + bytes.fromhex(token.cluster) + bytes.fromhex(token.identity) + token.secret
    sizes = (len(token.fingerprint), len(token.cluster), len(token.identity), len(token.secret))
    if sizes != (FINGERPRINT_BYTES, 2 * CLUSTER_BYTES, 2 * ID_BYTES, SECRET_BYTES):
        raise ValueError(f"parts of a token have the sizes {sizes}")
    addresses = [address.encode() for address in token.addresses]
    if not 0 < len(addresses) <= ADDRESSES_MAX or not all(0 < len(a) <= ADDRESS_CHARS_MAX for a in addresses):
        raise ValueError(f"a token has 1 to {ADDRESSES_MAX} addresses of up to {ADDRESS_CHARS_MAX} characters")
    body = head + b"".join(bytes([len(address)]) + address for address in addresses)
    return PREFIX + _letters(body + zlib.crc32(body).to_bytes(4, "big"))


def parse(text: str) -> JoinToken:
    """The token that a text says. White space in it is passed over: mail programs break long lines.

    Raises UsageError, which says what is wrong and never repeats the text, since most of it is a secret.
    """
    text = "".join(text.split()).lower()
    if not text:
        raise UsageError("the token is empty", hint="`abi cluster token` on a member prints one")
    if not text.startswith(PREFIX):
        if text.startswith("abi-") and text[4:].partition("-")[0].isdigit():
            raise UsageError("this token was made by a newer abi", hint="upgrade abi on this host")
        raise UsageError(f"this is no token: one begins with {PREFIX}", hint="`abi cluster token` prints it")
    letters = text.removeprefix(PREFIX)
    data = _bytes(letters)
    body, checksum = data[:-4], data[-4:]
    # A last letter that is another may say the same bytes: it has more bits than are left of them.
    is_whole = _letters(data) == "".join(_ALPHABET[_VALUES[letter]] for letter in letters)
    if not is_whole or len(body) <= _HEAD or zlib.crc32(body).to_bytes(4, "big") != checksum:
        raise UsageError(
            "the token has a typo or is not complete: its checksum does not fit",
            hint="copy it again, all of it; the cluster was not asked",
        )
    addresses = _addresses(body[_HEAD:])
    fingerprint, rest = body[:FINGERPRINT_BYTES], body[FINGERPRINT_BYTES:_HEAD]
    cluster, rest = rest[:CLUSTER_BYTES], rest[CLUSTER_BYTES:]
    return JoinToken(fingerprint, cluster.hex(), rest[:ID_BYTES].hex(), rest[ID_BYTES:], addresses)


def _addresses(data: bytes) -> tuple[str, ...]:
    """The checksum fits, so nothing but a faulty or malicious maker can be told of here."""
    found = []
    try:
        while data:
            length = data[0]
            if not 0 < length < len(data):
                raise ValueError(length)
            found.append(data[1 : 1 + length].decode())
            data = data[1 + length :]
        if len(found) > ADDRESSES_MAX or not all(address.isprintable() for address in found):
            raise ValueError(len(found))
    except ValueError:
        raise UsageError("the addresses in the token are not readable") from None
    return tuple(found)


def _letters(data: bytes) -> str:
    """Base 32, five bits a letter, the last one filled up with zeros."""
    bits = -len(data) * 8 % 5
    number = int.from_bytes(data, "big") << bits
    count = (len(data) * 8 + bits) // 5
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in range(count - 1, -1, -1))


def _bytes(text: str) -> bytes:
    """The bytes that ``_letters`` wrote, and perhaps did not write so. Raises UsageError for a letter that is none; a
    wrong length shows in the checksum."""
    number = 0
    for place, letter in enumerate(text, len(PREFIX) + 1):
        value = _VALUES.get(letter)
        if value is None:
            raise UsageError(f"the token has a typo: its character {place} is none of a token", hint="copy it again")
        number = number << 5 | value
    return (number >> len(text) * 5 % 8).to_bytes(len(text) * 5 // 8, "big")


# Where it is read from.

_WAYS: Final = f"put it into a file and name that (--token-file FILE), pipe it in, or set {VARIABLE}"


def read(
    path: str | None = None,
    *,
    stdin: TextIO | None = None,
    environment: Mapping[str, str] | None = None,
    prompt: Callable[[str], str] | None = None,
) -> JoinToken:
    """A token from the first source that applies: ``path`` ("-" is standard input), ``ABI_JOIN_TOKEN``, standard input
    that is not a terminal, a prompt. Raises UsageError.

    A source that is there and says nothing, or nonsense, is an error: the next one is not tried instead, since the
    host would then join by a token that nobody meant.
    """
    environment = os.environ if environment is None else environment
    if path is not None and path != "-":
        return _named(_from_file(path), path)
    if path is None and VARIABLE in environment:
        return _named(environment[VARIABLE], VARIABLE)
    if stdin is not None and (path == "-" or not stdin.isatty()):
        return _named(stdin.read(TEXT_CHARS_MAX), "standard input")
    if path is None and prompt is not None:
        try:
            return parse(prompt("token: "))
        except EOFError:
            raise _none_given() from None
    raise _none_given()


def is_meant(text: str) -> bool:
    """Whether this was meant to be a token, and was written where none is read. No host's name looks so."""
    text = text.strip().lower()
    return text.startswith(PREFIX) and len(text) >= MEANT_CHARS_MIN and text.removeprefix(PREFIX).isalnum()


def on_command_line() -> UsageError:
    """What to say then; never with the text, which is a secret."""
    return UsageError(
        "a token is never read from the command line, which every user of this host can see",
        hint=f"{_WAYS}; without one of these `abi cluster join` asks for it",
    )


def _none_given() -> UsageError:
    return UsageError("no token was given", hint=f"{_WAYS}; not as an argument")


def _from_file(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(TEXT_CHARS_MAX)
    except OSError as error:
        raise UsageError(f"the token cannot be read from {path}: {error.strerror}") from None


def _named(text: str, source: str) -> JoinToken:
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{source}: {error.message}", hint=error.hint) from None
