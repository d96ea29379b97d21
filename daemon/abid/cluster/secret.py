"""The cluster's secret: 32 bytes that every member holds and nobody else, and the keys that are derived from it.

A key has one purpose (HKDF, RFC 5869): what is derived for another one later does not touch the first, and none of them
gives the secret away.
"""

from __future__ import annotations

import secrets
from typing import Final

SECRET_BYTES: Final = 32
KEY_BYTES: Final = 32
_BEACONS: Final = b"abi beacons 1"


def draw() -> bytes:
    """A new secret, for a new cluster or a new incarnation of it."""
    return secrets.token_bytes(SECRET_BYTES)


def beacon_key(secret: bytes) -> bytes:
    """With it the members of the cluster seal and open beacons."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, salt=None, info=_BEACONS).derive(secret)
