"""How a host gets into a cluster: it asks until it is let in, it is refused, or time is over.

A member that is asked may be lost before it answers, and so may this host, when the cluster has agreed already:

1. The key for our certificate is on disk before anybody is asked.
2. The leader has the cluster remember with whom it let in the digest of the token's secret and that key (``ticket``).
3. Who asks again with both is the same host: it gets the number that it has, and no use of the token goes for it. So
   the next member is asked without harm, and so is the cluster by the next `abi cluster join` with the same token.
4. Who has only the token, used up by then, is refused as anybody is; and so is whoever has a copy of our directory
   while we are there.

Doubt: a disk that is put back to the moment before the answer makes its host the member again that it has been since,
with an empty log. The others remember what it promised, as of any disk that was put back (``core.raft.recollection``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path
from typing import Final, NamedTuple

from abi.backoff import Backoff
from abi.errors import AbiError, Timeout
from abi.wire.join_token import JoinToken
from abi.wire.peers import Admitted
from abid.cluster import joining
from abid.cluster.certificates import CertificateError, new_key_and_request, request_for
from abid.cluster.credentials import JOIN_KEY, write_private
from abid.cluster.dialling import AllRefuse, NobodyAnswers
from abid.cluster.refusal import Code, Said

AGAIN: Final = Backoff(base_ms=200, cap_ms=1_000)
"""Between two rounds: an election takes less than a second, and each costs a member two handshakes."""
NEVER: Final = frozenset({Code.WRONG_TOKEN, Code.EXPIRED_TOKEN, Code.FULL, Code.REVOKED})
"""What a member says of a host that the cluster has not let in."""
HINT: Final = (
    "more than half of the cluster's voters have to be up: `abi network status` on a member says who is; then "
    "`abi cluster join` again, with the same token"
)


class Newcomer(NamedTuple):
    """Who knocks."""

    node: str
    started: int
    name: str
    addresses: tuple[str, ...]


class LetIn(NamedTuple):
    """What makes a member of this host. Certificate in DER, key in PEM."""

    authority: bytes
    admitted: Admitted
    key: bytes


class NotLetIn(AbiError):
    """Time is over, and nobody has decided. It may be a member all the same; asked again, it is told so."""

    code = "unavailable"

    def __init__(self, limit_s: float, why: AbiError) -> None:
        super().__init__(f"no member has let this host in within {limit_s:.3g} s: {why.message}", hint=HINT)


async def knock(folder: Path, token: JoinToken, host: Newcomer, timeout_s: float, limit_s: float) -> LetIn:
    """Until a member has let us in; ``timeout_s`` is for each dial, ``limit_s`` for all of it, but that the addresses
    are dialled once in any case, until one is reached. Raises NotLetIn when that is over, OSError, and what
    ``joining.join`` does."""
    path, asked = folder / JOIN_KEY, list[str]()
    key, request, is_new = await asyncio.to_thread(_request, path, token, host.node)
    try:
        authority, admitted = await _until_let_in(token, host, request, timeout_s, limit_s, asked)
    except NotLetIn:
        raise
    except AbiError as error:
        # Who was asked before and did not decide may have had it let in all the same.
        is_never = not asked or (len(asked) == 1 and isinstance(error, Said) and error.code in NEVER)
        if is_new and is_never:  # nobody has let it in, and nobody will
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return LetIn(authority, admitted, key)


async def _until_let_in(
    token: JoinToken, host: Newcomer, request: bytes, timeout_s: float, limit_s: float, asked: list[str]
) -> tuple[bytes, Admitted]:
    loop, lots, retry = asyncio.get_running_loop(), random.SystemRandom(), 0
    ends = loop.time() + limit_s
    try:
        return await joining.join(token, *host[:3], request, host.addresses, timeout_s, limit_s, asked)
    except AbiError as error:
        if not _may_pass(error):
            raise
        why = error
    try:
        async with asyncio.timeout_at(ends):
            while not isinstance(why, Timeout):  # it took all the time that there was
                await asyncio.sleep(AGAIN.wait_ns(retry, lots.random()) / 1e9)
                retry += 1
                try:
                    return await joining.join(token, *host[:3], request, host.addresses, timeout_s, limit_s, asked)
                except (NobodyAnswers, AllRefuse) as error:  # they may be on their way to be there again
                    why = error
    except TimeoutError:
        pass
    raise NotLetIn(limit_s, why) from None


def _may_pass(error: AbiError) -> bool:
    """Whether somebody was there who may say otherwise soon. Where nobody was, no patience is asked for."""
    if isinstance(error, NobodyAnswers | AllRefuse):
        return any(joining.may_pass(each) for each in error.by_address.values())
    return isinstance(error, Timeout)


def _request(path: Path, token: JoinToken, node: str) -> tuple[bytes, bytes, bool]:
    """The key (PEM) and request (DER) of this host's for this token, and whether they are new: those of an attempt
    whose answer never came, if there was one. Raises OSError."""
    subject = joining.subject_for(token, node)
    head = json.dumps({"node": node, "cluster": token.cluster, "token": token.identity}).encode()
    with contextlib.suppress(FileNotFoundError, CertificateError):
        told, _, key = path.read_bytes().partition(b"\n")
        if told == head:
            return key, request_for(key, subject), False
    key, request = new_key_and_request(subject)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, head + b"\n" + key)
    return key, request, True
