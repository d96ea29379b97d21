"""A token that the cluster hands out: drawn here, given to a person as text, remembered as a digest.

What the cluster remembers of it (``commands.CreateToken``: identity, digest, uses, end) tells nobody how to join. The
secret is 128 bits that a machine drew, so one plain SHA-256 suffices; what slows down guessing of passwords is for
passwords. The text is in ``abi.wire.join_token``, which the command line reads, too.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from abi.errors import UsageError
from abi.wire.join_token import ADDRESSES_MAX, ID_BYTES, SECRET_BYTES, JoinToken, to_text
from abid.cluster.asking import TOKENS, done
from abid.core.cluster import commands

if TYPE_CHECKING:
    from abid.cluster.member import Member


def draw(fingerprint: bytes, cluster: str, addresses: Sequence[str]) -> JoinToken:
    """A new token of the cluster whose authority has this fingerprint; the first addresses that fit into it."""
    identity, secret = secrets.token_bytes(ID_BYTES).hex(), secrets.token_bytes(SECRET_BYTES)
    return JoinToken(fingerprint, cluster, identity, secret, tuple(addresses[:ADDRESSES_MAX]))


def digest(secret: bytes) -> bytes:
    """What the cluster stores of the secret, and what a host's word is held against."""
    return hashlib.sha256(b"abi join\0" + secret).digest()


async def create(member: Member, own: Sequence[str], uses: int, valid_s: float) -> dict[str, Any]:
    """Text by which others join; ``own`` are the addresses of this host, two of which stand first in it, before one of
    each other member. Raises UsageError, Refused, NoLeader."""
    if not own:
        raise UsageError("this host has no address that others could dial", hint="set network.address")
    facts = member.consensus.facts
    others = [one.addresses[0] for one in facts.members.values() if one.addresses and one.node != member.node]
    drawn = draw(member.credentials.authority_fingerprint, facts.cluster, [*own[:2], *others])
    ends_ms = int((time.time() + valid_s) * 1000)
    words = {"token": drawn.identity, "digest": digest(drawn.secret), "uses": uses, "ends_ms": ends_ms}
    made = done(await member.asking.command(commands.CreateToken, **words))
    return {"token": to_text(drawn), "id": drawn.identity, "uses": uses, "ends_ms": made.value or ends_ms}


async def listed(member: Member) -> dict[str, Any]:
    """Those by which a host could join now, as the leader knows them. Raises NoLeader."""
    told = done(await member.asking.read(TOKENS)).value
    return {"tokens": msgspec.json.decode(str(told))}


async def revoke(member: Member, identity: str) -> dict[str, Any]:
    """Nobody joins by it any more. Raises Refused (``not_found``), NoLeader."""
    done(await member.asking.command(commands.DropToken, token=identity))
    return {"revoked": identity}
