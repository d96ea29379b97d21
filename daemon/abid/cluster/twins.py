"""Two hosts with one identity: a state directory was copied, and both run. Which is the copy, only a person knows.

1. A member that is connected with one of the two refuses the other as a COPY. It shows both places, and tells the one
   that it is connected with. One that hears of the other from a third (``elsewhere``) shows whom it sent away.
2. Who is refused so notes it on its disk (``aside``) and takes part no more: the next restart of the other one would
   leave its place free for a moment. It is believed from a majority of the other voters, or, when those cannot be
   reached, from one: else a single member that is out of its mind could shut everybody out (see ``removal``).
3. A person decides. The copy leaves by force, and has an identity of its own from its next start on.

A host whose directory was copied while it was away meets nobody, and cannot be told from one that has moved to another
machine. So what was written on one machine and wakes on another says so in its greeting (``Code.MOVED``), and whoever
was connected with it lately, or was told that it is there, lets some time go by, in which the other may come back.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abi.errors import AbiError
from abid.cluster.peer import Peer
from abid.cluster.refusal import Code, Said, refused
from abid.cluster.requests import Body

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

MET: Final = "copy-met"
"""The question by which a member is told that another host showed its identity."""
MACHINE: Final = Path("/etc/machine-id")
IN_CONTAINER: Final = ("/.dockerenv", "/run/.containerenv")
ALONE_S: Final = 10.0
"""After which one member is believed, if no other voter answers: those that live are connected long before."""
SHOWN_S: Final = 3600.0
"""For how long it is shown who met whom; the log has it for ever."""
SHOWN_MAX: Final = 16


def machine() -> str:
    """A mark of this machine (machine-id(5), hashed as it asks for). "" where there is none that lasts: in a container,
    and where /etc/machine-id is mounted over, since it is drawn anew at each boot then."""
    try:
        is_drawn_anew = os.path.ismount(MACHINE) or any(map(os.path.exists, IN_CONTAINER))
        text = "" if is_drawn_anew else MACHINE.read_text().strip()
    except OSError:
        return ""
    return hashlib.blake2b(text.encode(), person=b"abi machine", digest_size=8).hexdigest() if len(text) == 32 else ""


class Twins:
    """One member's view. Times are monotonic seconds."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._told_by: dict[str, float] = {}
        """Who refuses us as a copy, and since when."""
        self._met: dict[tuple[str, str], float] = {}
        """Node and address of who was refused as a copy, by us or by another; our own node among them."""

    # As the host that is refused.

    def on_refused(self, node: str, error: AbiError) -> AbiError | None:
        """This member will not speak with us. Why we take part no more, if that is so."""
        if not (isinstance(error, Said) and error.code == Code.COPY):
            return None
        if node not in self._told_by:
            log.warning("node %s says that another host has the identity of this one", node)
        first = self._told_by.setdefault(node, time.monotonic())
        return self._believed(time.monotonic() - first)

    def on_answered(self, node: str) -> None:
        """It speaks with us."""
        self._told_by.pop(node, None)

    def _believed(self, told_for_s: float) -> AbiError | None:
        member = self._member
        others = {number: member.node_of(number) for number in member.consensus.configuration.all_voters}
        others.pop(member.number, None)
        told = [node for node in others.values() if node in self._told_by]
        unreached = not any(node in member.peers.connected for node in others.values())
        if 2 * len(told) > len(others) or not others or (unreached and told_for_s >= ALONE_S):
            return refused(Code.COPY, f"{', '.join(sorted(self._told_by))} met the other one")
        return None

    # As the host that met both, or that was told so.

    def on_met(self, twin: Peer, address: str) -> None:
        """Somebody came from there as the node that we are connected with, which lives."""
        self.remember(twin.node, address)
        self._member.later(self._tell(twin, address))

    async def _tell(self, twin: Peer, address: str) -> None:
        member = self._member
        try:
            await member.requests.ask(twin, MET, {"address": address}, member.request_timeout_s())
        except AbiError as error:
            log.info("node %s could not be told of its copy: %s", twin.node, error)

    async def on_told(self, peer: Peer, body: Body) -> Body:
        """A member met another host with our identity."""
        self.remember(self._member.node, str(body["address"])[:64])
        return {}

    def on_heard(self, address: str) -> None:
        """A beacon of our own node came from an address that is not ours."""
        self.remember(self._member.node, address)

    def remember(self, node: str, address: str) -> None:
        """A host came from there as this node, which another one is, too, and was refused."""
        known = self._met.pop((node, address), None)
        self._met[node, address] = time.monotonic()
        if known is None:
            log.error("two hosts have the identity %s, one of them at %s: a state directory was copied", node, address)
        while len(self._met) > SHOWN_MAX:
            del self._met[next(iter(self._met))]

    def notes(self) -> list[dict[str, Any]]:
        """For `abi network status`."""
        now = time.monotonic()
        found = [
            _note(f"node {node} says that another host has the identity of this one") for node in sorted(self._told_by)
        ]
        if self._member.peers.has_moved and len(self._member.consensus.facts.members) > 1:
            found.append(MOVED)
        for (node, place), at in self._met.items():
            if now - at < SHOWN_S:
                whose = "this host's identity" if node == self._member.node else f"the identity of node {node}"
                found.append(_note(f"another host showed {whose}, from {place}, {now - at:.0f} s ago, and was refused"))
        return found


MOVED: Final = {
    "code": str(Code.MOVED),
    "message": "this host's state directory was written on another machine, and no member speaks with it yet",
    "hint": "they let it in a minute after it was gone there; if it is a copy, `abi cluster leave --force` here, stop "
    "abid and remove identity.json: that makes it another host",
}


def _note(message: str) -> dict[str, Any]:
    return {
        "code": str(Code.COPY),
        "message": message,
        "hint": "a state directory was copied: on the copy, `abi cluster leave --force` and a restart of abid give it "
        "an identity of its own; then it can join",
    }
