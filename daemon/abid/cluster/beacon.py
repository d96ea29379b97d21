"""Beacons as bytes: sealed with a key that the cluster's members share, so that nobody else can read or make them.

    version 2 · cluster tag 8 · sender 4 · number 8 · nonce 12 · sealed content · authenticator 16

The content is sealed with ChaCha20-Poly1305 (RFC 8439); what stands before it is authenticated with it. Sender and
number are in the open, so that copies are told without opening anything. The tag is derived from the key: it tells
one cluster's packets from another's and says nothing of its name. The nonce is random: with 200 packets a second for
a year, the chance that any two are equal is below one in a billion.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from abid.core.discovery import Beacon

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

VERSION: Final = b"ab"
"""Of the layout. A packet of another is not ours to read."""
KEY_BYTES: Final = 32
_KIND_BYTES: Final = len(VERSION) + 8
_NONCE_BYTES: Final = 12
_HEAD: Final = struct.Struct(f">{_KIND_BYTES}s4sQ{_NONCE_BYTES}s")
BYTES_MIN: Final = _HEAD.size + 16
BYTES_MAX: Final = 512
"""Eight IPv6 addresses take 220. It passes every network in one piece (RFC 791 asks for 576)."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Beacon).decode


class Claim(NamedTuple):
    """What a packet says in the open. It is true only if the packet opens."""

    sender: bytes
    number: int


class Seals:
    """The cluster's beacon keys. The first seals; all of them open, so that a key can be changed under way."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Keys of 32 bytes. Raises ValueError for any other, and for none."""
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a beacon key has {KEY_BYTES} bytes, and there must be one")
        # What is not in a cluster never loads it.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self._forged: type[Exception] = InvalidTag
        self._by_kind: dict[bytes, ChaCha20Poly1305] = {}
        for key in reversed(keys):
            kind = VERSION + _derived(key, b"abi beacon tag", 8)
            self._by_kind[kind] = ChaCha20Poly1305(_derived(key, b"abi beacon key", KEY_BYTES))
            self._own_kind = kind

    def claim(self, packet: bytes) -> Claim | None:
        """None: it is no beacon of this cluster. Costs under a microsecond."""
        if not BYTES_MIN <= len(packet) <= BYTES_MAX or packet[:_KIND_BYTES] not in self._by_kind:
            return None
        _, sender, number, _ = _HEAD.unpack_from(packet)
        return Claim(sender, number)

    def open(self, packet: bytes) -> Beacon | None:
        """The content of a packet that has a ``claim``. None: it was forged or damaged."""
        aead = self._by_kind[packet[:_KIND_BYTES]]
        head = packet[: _HEAD.size]
        try:
            return _decode(aead.decrypt(head[-_NONCE_BYTES:], packet[_HEAD.size :], head))
        except (self._forged, msgspec.DecodeError):
            return None

    def seal(
        self, sender: bytes, number: int, beacon: Beacon, draw: Callable[[int], bytes] = secrets.token_bytes
    ) -> bytes:
        """``sender`` has 4 bytes; ``number`` fits into 64 bits and is used once."""
        head = _HEAD.pack(self._own_kind, sender, number, draw(_NONCE_BYTES))
        return head + self._by_kind[self._own_kind].encrypt(head[-_NONCE_BYTES:], _encode(beacon), head)


def _derived(key: bytes, use: bytes, size: int) -> bytes:
    """Keyed BLAKE2b (RFC 7693), told apart by use."""
    return hashlib.blake2b(key=key, person=use, digest_size=size).digest()
