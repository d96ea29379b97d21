"""Going on without a majority that is lost: what `abi cluster recover` asks, and who the cluster is afterwards.

1. The cluster is founded anew on one host, from what that host knows, in an incarnation of its own.
2. Members of two incarnations do not speak with each other, whichever side has more of them, or was founded later.
3. Each other host leaves by force, and joins that one.

Two hosts that are both recovered are two clusters, which refuse each other: incarnations are drawn (``incarnations``).
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from abi.errors import AbiError
from abi.wire import incarnations
from abid.cluster import credentials
from abid.cluster.showing import shown
from abid.cluster.standing import store_path

if TYPE_CHECKING:
    from abid.cluster.authority import Authority
    from abid.cluster.member import Member

QUORUM_S: Final = 2.0
"""For a majority to show that it is there."""


class NotRecovered(AbiError):
    """It was not done; ``code`` says why."""


class Plan(NamedTuple):
    authority: Authority
    incarnation: int
    """The one to come."""
    told: dict[str, Any]
    """What the host knows, and whom it goes on without."""


def check_goes_on(member: Member, now: Member | None) -> None:
    """The member that is to recover may have heard meanwhile that it was removed. Raises NotRecovered."""
    if now is not member:
        raise NotRecovered(
            "meanwhile the cluster has answered", code="quorum", hint="`abi network status` says what this host is now"
        )


async def plan(member: Member, folder: Path, *, sure: bool) -> Plan:
    """Raises NotRecovered while a majority answers, where the authority's key or what was agreed on is not, and when
    nobody is ``sure``; CertificateError, CredentialsDamaged and OSError for what this host has of the authority."""
    if await _quorum_answers(member):
        raise NotRecovered(
            "a majority of the voters answers: nothing has to be recovered",
            code="quorum", hint="`abi network status` names them; `abi network remove` sends away who is gone for good",
        )  # fmt: skip
    authority = credentials.load_authority(folder)
    if authority is None:
        raise NotRecovered(
            "this host never voted, and does not hold the authority's key",
            code="no_key", hint="recover on a host that voted: `abi network status` names them",
        )  # fmt: skip
    facts, raft = member.consensus.facts, member.consensus.raft
    if facts.cluster != member.credentials.subject.cluster:
        raise NotRecovered(
            f"nothing of what the cluster agreed on is in {store_path(folder, member.number)}: this host does not know "
            "who belongs to it",
            code="no_facts", hint="recover on another host that voted; or stop abid, put a backup in the place of that "
            "file, and start it",
        )  # fmt: skip
    lost = [one.node for one in facts.members.values() if one.node != member.node]
    told = {
        "applied": raft.log.applied, "last": raft.log.last_index, "voters": shown(member)["voters"],
        "lost_members": lost,
    }  # fmt: skip
    if not sure:
        raise NotRecovered(
            f"this would found the cluster anew from what this host knows (entry {raft.log.applied}); what the others "
            f"agreed on after that is lost. Do it on one host only: each one that does it is a cluster of its own, and "
            f"the {len(lost)} other hosts have to leave (--force) and join this one",
            code="unsure", hint="--yes does it",
        )  # fmt: skip
    incarnation = incarnations.following(facts.incarnation, secrets.randbits(incarnations.LOT_BITS))
    return Plan(authority, incarnation, {**told, "incarnation": incarnation})


async def _quorum_answers(member: Member) -> bool:
    try:
        await asyncio.wait_for(member.asking.read("name", name=""), QUORUM_S)
    except (AbiError, TimeoutError):
        return False
    return True
