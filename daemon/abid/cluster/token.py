"""A token that the cluster hands out: drawn here, given to a person as text, remembered as a digest.

What the cluster remembers of it (``commands.CreateToken``: identity, digest, uses, end) tells nobody how to join. The
secret is 128 bits that a machine drew, so one plain SHA-256 suffices; what slows down guessing of passwords is for
passwords. The text is in ``abi.wire.join_token``, which the command line reads, too.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

from abi.wire.join_token import ADDRESSES_MAX, ID_BYTES, SECRET_BYTES, JoinToken

USES_DEFAULT: Final = 1
VALID_S_DEFAULT: Final = 3_600
"""A person copies it to another host at once, or to a few; who automates says how long it shall last."""


def draw(fingerprint: bytes, cluster: str, addresses: Sequence[str]) -> JoinToken:
    """A new token of the cluster whose authority has this fingerprint; the first addresses that fit into it."""
    identity, secret = secrets.token_bytes(ID_BYTES).hex(), secrets.token_bytes(SECRET_BYTES)
    return JoinToken(fingerprint, cluster, identity, secret, tuple(addresses[:ADDRESSES_MAX]))


def digest(secret: bytes) -> bytes:
    """What the cluster stores of the secret, and what a host's word is held against."""
    return hashlib.sha256(b"abi join\0" + secret).digest()
