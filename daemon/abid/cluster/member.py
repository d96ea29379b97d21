"""This host as a member of its cluster: what connects peers, Raft, membership and the leader's duties.

    peers ──frames──▶ Member ──▶ consensus (RAFT), health (GOSSIP), requests (REQUEST, RESPONSE), admission (strangers)
      ▲                                  │
      └──────── reach ◀── to whom ───────┘

Raft and membership know members by number; connections know them by node. A number is never used again, so that a host
that lost what it had promised goes on as somebody new.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from abi.backoff import Backoff
from abi.config import Config
from abi.errors import AbiError, ProtocolError
from abi.wire.peers import Join, PeerKind, Renew
from abid.cluster import (
    admission,
    asking,
    elsewhere,
    finding,
    former,
    interfaces,
    leading,
    leaving,
    lost,
    standing,
    twins,
    vetting,
)
from abid.cluster.about import about_this_host
from abid.cluster.admission import Admission
from abid.cluster.announcing import Announcing
from abid.cluster.asking import Asking
from abid.cluster.authority import Authority
from abid.cluster.certificates import Subject
from abid.cluster.consensus import Consensus
from abid.cluster.credentials import Credentials
from abid.cluster.discovery import Discoverer
from abid.cluster.door import Stranger
from abid.cluster.elsewhere import Elsewhere
from abid.cluster.expected import Expected, host_of
from abid.cluster.health import Health
from abid.cluster.leading import Leading
from abid.cluster.leaving import Gone
from abid.cluster.listening import Listening
from abid.cluster.peer import Peer
from abid.cluster.peers import Peers
from abid.cluster.reach import Reach
from abid.cluster.refusal import Code
from abid.cluster.removal import Removal
from abid.cluster.renewal import Renewal, certificate_of
from abid.cluster.requests import Handler, Requests
from abid.cluster.strays import Strays
from abid.cluster.twins import Twins
from abid.cluster.vetting import Vetting
from abid.cluster.waking import Outside
from abid.core.raft.messages import Message
from abid.raft_store import RaftStore, Stored
from abid.state import Identity

log = logging.getLogger(__name__)

MESSAGES_MAX: Final = 1_000
"""Of Raft in one frame; a leader has far fewer for one member."""
TWINS: Final = (Code.COPY, Code.CONTENDED)
"""Where a connection ends so, it says nothing about the host whose identity it was."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Message]).decode


class Member:
    """From ``start`` to ``close``. ``on_failure`` is told when this host can be no member any more, with the reason."""

    lost: Outside | None = None
    """Why this member takes no part, if its log is gone."""
    took_part = True
    """Whether its standing says so, or is to say so from the next start on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        identity: Identity,
        number: int,
        credentials: Credentials,
        store: RaftStore,
        stored: Stored,
        on_failure: Callable[[AbiError], None],
        on_forgotten: Callable[[Peer, str], None],
    ) -> None:
        self.config = config
        self._identity = identity
        self.node = identity.node.hex()
        self.number = number
        self.folder: Path = credentials.folder
        self.credentials = credentials
        self.authority: Authority | None = None
        self.hints: tuple[str, ...] = ()
        """Addresses to dial while the facts name nobody yet: a newcomer's."""
        self.why_unheard: AbiError | None = None
        """Why the last of these dials was in vain."""
        self._loop = loop
        self.discoverer: Discoverer | None = None
        self.on_forgotten = on_forgotten
        """Told when others remember more of this host than it does itself."""
        self._on_failure = on_failure
        self.listening: Listening
        """From ``start`` on."""
        self.announcing = Announcing(self)
        self._interfaces = interfaces.Following()
        self._store = store
        lots = self._lots = random.SystemRandom()
        self.peers = Peers(loop, self, credentials, identity.incarnation)
        self.peers.is_expected = Expected(self._member_hosts, loop.time)
        self.requests = Requests(loop)
        self.reach = Reach(
            loop, self.peers, self.requests, self._addresses_of, lots.uniform, self._connection_timeout_s,
            self._on_refused,
        )  # fmt: skip
        self.consensus = Consensus(
            loop, store, stored, number, lots.randint, self._send_raft, self._round_trips_s, self._on_change,
            self._on_beat, on_failure,
        )  # fmt: skip
        self._nodes: dict[int, str] = {}
        """By number, as they said themselves: members of which we have not heard yet, so that they can be answered."""
        self._known: dict[int, str] = {}
        """By number: whom the facts name, or named while Raft counts it still."""
        self.removal = Removal(self)
        self.twins = Twins(self)
        self.elsewhere = Elsewhere(self)
        self.strays = Strays(self)
        self.gone = Gone()
        others = self.consensus.facts.members
        self.health = Health(
            loop, number, others, identity.incarnation, self._send_gossip, self._dial, self._on_change, self._on_woken
        )
        self._leading = Leading(self, loop)
        self._admission = Admission(self)
        self._renewal = Renewal(self, loop)
        self.vetting = Vetting(self, about_this_host(config))
        self.asking = Asking(
            loop, self.consensus, self.reach, self.node_of, lots.uniform, identity.incarnation << 32,
            self.request_timeout_s, self._max_retries,
        )  # fmt: skip
        self.requests.handlers = self._handlers()
        self._answering: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def _handlers(self) -> dict[str, Handler]:
        """Who answers what members ask, by verb."""
        return {
            asking.COMMAND: self.asking.on_command,
            asking.READ: self.asking.on_read,
            admission.JOIN: self._admission.on_join,
            admission.RENEW: self._admission.on_renew,
            admission.RENEW_OWN: self._admission.on_renew_own,
            leading.KEY: self._leading.on_key,
            twins.MET: self.twins.on_told,
            leaving.GONE: self.gone.on_told,
            vetting.ABOUT: self.vetting.on_about,
            vetting.FORGOTTEN: self.vetting.on_forgotten,
            vetting.READMIT: self.vetting.on_readmit,
            elsewhere.LIVES: self.elsewhere.on_lives,
            elsewhere.ALIVE: self.elsewhere.on_alive,
        }

    async def start(self, hosts: Sequence[str], port: int, *, may_move: bool, or_any: bool) -> int:
        """Open the port, and take part. Returns the port. Raises ConfigError."""
        port = await self.peers.listen(hosts, port, may_move=may_move, or_any=or_any)
        self.discoverer = finding.discoverer(
            self._loop, self.config, self._identity, self.credentials.secret, port, self.folder, self.peers,
            self._connection_timeout_s, self._interfaces.found,
        )  # fmt: skip
        self.listening = Listening(
            self._loop, self.config, self.peers.door, port, hosts, self.announcing.on_moved, self.announcing.on_told,
            self._interfaces.found,
        )  # fmt: skip
        self.discoverer.on_moved = self.listening.look
        self.discoverer.on_copy = self.twins.on_heard
        self.discoverer.start()
        self.listening.start()
        self._note_known()
        self.consensus.start()
        self.health.start()
        self._renewal.look()
        return port

    def seek(self) -> None:
        """A newcomer knows nobody, and who knows of it may not reach it: dial where members were said to be."""
        self.later(self._seek())
        if self.lost is not None:
            self.later(lost.ask(self, self.lost))

    async def _seek(self) -> None:
        pauses, retry = Backoff(), 0
        while self.hints and not self.peers.connected and not self.consensus.facts.members:
            try:
                await self.peers.dial(self.hints, self._connection_timeout_s())
            except AbiError as error:
                self.why_unheard = error
                log.debug("no member is found yet: %s", error)
            await asyncio.sleep(pauses.wait_ns(retry, self._lots.random()) / 1e9)
            retry += 1

    def close(self) -> None:
        """Say goodbye. What was to be stored is stored."""
        self.listening.close()
        if self.discoverer is not None:
            self._loop.create_task(self.discoverer.stop())
        self.health.close()
        self._renewal.close()
        self._leading.close()
        self.consensus.close()
        self.reach.close()
        for task in self._answering:
            task.cancel()
        self.peers.close()
        self._interfaces.close()
        self._store.close()

    async def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it came to be so: looked at after every change."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def use(self, found: Credentials) -> None:
        """Our certificate is another one now."""
        self.credentials = found
        self.peers.use(found)

    async def certify(self, request: bytes) -> bytes:
        """A certificate (DER) of our own for another key. Raises AbiError."""
        if self.consensus.is_leader:
            return self._admission.certify(self.node, request)
        return await certificate_of(self, request)

    # Who is who.

    def node_of(self, number: int) -> str | None:
        """The node of a member."""
        if number == self.number:
            return self.node
        member = self.consensus.facts.members.get(number)
        return self._nodes.get(number) if member is None else member.node

    def known_as(self, number: int) -> str | None:
        """The node also of one that is no member any more."""
        return self.node_of(number) or self.consensus.facts.past.get(number)

    def is_alive(self, number: int) -> bool:
        return self.health.is_alive(number)

    def is_revoked(self, node: str) -> bool:
        """Sent away, and dispensable: a voter without whom those that live are no majority is heard until the voters
        have changed, which takes a second. Nobody could agree on that without it."""
        return self.consensus.facts.is_revoked(node) and former.is_dispensable(self, node)

    def was_there(self, node: str, within_s: float) -> bool:
        known = self.consensus.facts.of_node(node)
        return known is not None and self.health.was_there(known.number, within_s)

    def has_left(self, node: str) -> bool:
        """And is dispensable, too."""
        return self.consensus.facts.has_left(node) and former.is_dispensable(self, node)

    def _addresses_of(self, node: str) -> Sequence[str]:
        member = self.consensus.facts.of_node(node)
        return member.addresses if member is not None else self.hints

    def _member_hosts(self) -> Iterator[str]:
        """The addresses from which members may come, as far as it is known."""
        for member in self.consensus.facts.members.values():
            yield from map(host_of, member.addresses)
        yield from map(host_of, self.hints)
        yield from (peer.address for peer in self.peers.connected.values())
        if self.discoverer is not None:
            yield from (place.address.host for place in self.discoverer.peers)

    def request_timeout_s(self) -> float:
        return self.config.integer("network.request_timeout_ms") / 1000

    def _max_retries(self) -> int:
        return self.config.integer("network.max_retries")

    def _connection_timeout_s(self) -> float:
        return self.config.integer("network.connection_timeout_ms") / 1000

    # What is sent.

    def _send_raft(self, message: Message) -> None:
        node = self.known_as(message.receiver)
        try:
            is_sent = node is not None and self.reach.send(node, PeerKind.RAFT, _encode([message]))
        except ProtocolError:
            log.error("member %d cannot be told what it lacks: it is too much for one frame", message.receiver)
            is_sent = False
        if not is_sent:
            self._loop.call_soon(self.consensus.unreachable, message.receiver)

    def _send_gossip(self, number: int, payload: bytes) -> None:
        node = self.node_of(number)
        if node is not None:
            self.reach.send(node, PeerKind.GOSSIP, payload)

    def _dial(self, number: int) -> None:
        node = self.node_of(number)
        if node in self.peers.connected:
            self.health.on_connected(number)
        elif node is not None:
            self.reach.want(node)

    # What happens; the owner of the peers.

    def on_connected(self, peer: Peer) -> None:
        self.reach.on_connected(peer.node)
        self.strays.on_connected(peer.node)
        self.gone.on_connected(peer.node)
        self.consensus.on_distances()
        if self.discoverer is not None:
            self.discoverer.on_connected(bytes.fromhex(peer.node))
        self.later(self._vet(peer))
        member = self.consensus.facts.of_node(peer.node)
        if member is not None:
            self.health.on_connected(member.number)
        self._changed.set()

    async def _vet(self, peer: Peer) -> None:
        await self.vetting.ask(peer)
        if self.vetting.listens_to(peer):
            await self.elsewhere.compare(peer)

    def on_settled(self, peer: Peer) -> None:
        """Each of the two has let in the other."""
        self.removal.on_answered(peer.node)
        self.twins.on_answered(peer.node)
        self.reach.on_let_in(peer.node)
        if self.peers.has_moved:  # this machine is the one that this host is on
            self.peers.has_moved = False
            standing.settle(self.folder, twins.machine())

    def on_message(self, peer: Peer, kind: int, payload: bytes) -> None:
        """Raises ProtocolError."""
        match kind:
            case PeerKind.RAFT:
                self._on_raft(peer, payload)
            case PeerKind.GOSSIP:
                member = self.consensus.facts.of_node(peer.node)
                if member is not None:
                    self.health.on_message(member.number, payload)
            case PeerKind.REQUEST:
                self.requests.on_request(peer, payload)
            case PeerKind.RESPONSE:
                self.requests.on_response(peer, payload)
            case _:
                raise ProtocolError(f"a frame of kind {kind} has no place between members")

    def _round_trips_s(self) -> list[float]:
        """To the other voters, as far as they are connected."""
        voters = (self.node_of(number) for number in self.consensus.configuration.all_voters)
        return [peer.round_trip_s for node in voters if node and (peer := self.peers.connected.get(node))]

    def _on_raft(self, peer: Peer, payload: bytes) -> None:
        try:
            said = _decode(payload)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"Raft's messages do not decode: {error}") from None
        if not self.vetting.listens_to(peer):
            return  # Raft says again what matters
        for message in said[:MESSAGES_MAX]:
            if not former.may_speak_as(self, message.sender, peer.node):
                continue
            if self.known_as(message.sender) is None:
                self._nodes[message.sender] = peer.node
            if message.receiver == self.number:
                self.consensus.on_message(message)

    def on_closed(self, peer: Peer, orderly: bool) -> None:
        is_twin = peer.why is not None and peer.why.code in TWINS
        was_let_in = self.vetting.listens_to(peer)
        self.requests.on_closed(peer)
        self.vetting.forget(peer)
        if self.discoverer is not None:
            self.discoverer.on_closed(bytes.fromhex(peer.node))
        # A leader that left is no member any more, and is the leader still until another is elected.
        numbers = [number for number, node in {**self._nodes, **self._known}.items() if node == peer.node]
        if peer.is_made_anew:
            self._on_made_anew(peer, numbers)
            return
        if was_let_in or not is_twin:
            self._on_lost(peer, numbers, orderly)
        if is_twin:
            self.reach.rest(peer.node)
        if peer.why is not None:
            self._on_refused(peer.node, peer.why)
        self._changed.set()

    def _on_lost(self, peer: Peer, numbers: Sequence[int], orderly: bool) -> None:
        for number in numbers:
            self.consensus.connection_lost(number)
        member = self.consensus.facts.of_node(peer.node)
        if member is not None:
            self.health.on_closed(member.number, peer, orderly)

    def _on_made_anew(self, peer: Peer, numbers: Sequence[int]) -> None:
        """It is as alive as it was. Who could dial the other then dials it now."""
        for number in numbers:
            self.consensus.unreachable(number)
        if peer.dialled:
            self.reach.want(peer.node)
        self._changed.set()

    def _on_refused(self, node: str, error: AbiError) -> None:
        """It will not speak with us, or we not with it."""
        why = self.removal.on_refused(node, error) or self.twins.on_refused(node, error)
        if why is not None:
            self._on_failure(why)

    def is_let_in(self, peer: Peer) -> bool:
        return self.vetting.listens_to(peer)

    def on_copy(self, twin: Peer, address: str) -> None:
        self.twins.on_met(twin, address)

    def on_stray(self, subject: Subject) -> None:
        self.strays.on_met(subject)

    def on_stranger(self, stranger: Stranger, message: Join | Renew) -> None:
        self.later(self._admission.on_stranger(stranger, message))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _on_woken(self) -> None:
        """This host was suspended; whoever led may not lead any more."""
        self.consensus.step_down()
        self.peers.on_woken()
        self._renewal.look()
        if self.discoverer is not None:
            self.discoverer.on_woken()

    def _on_beat(self) -> None:
        """Raft woke this host anyway."""
        self.health.ride()
        self.elsewhere.look()

    def _on_change(self) -> None:
        """Facts, voters, leader, or somebody's health."""
        members = self.consensus.facts.members
        self.health.configure(members)
        for number in [number for number in self._nodes if number in members]:
            del self._nodes[number]
        self._note_known()
        lost.look(self)
        for node in list(self.peers.connected):
            if self.is_revoked(node):
                self.peers.revoke(node)
        if members:
            self.reach.keep({*self._known.values(), *self._nodes.values()})
            nodes = {member.node for member in members.values()}
            self.removal.keep(nodes)
            self.gone.keep(nodes)
        self.asking.on_change()
        self._leading.look()
        self._changed.set()

    def _note_known(self) -> None:
        """Also forget those that are not known any more, whatever was kept of them."""
        facts, before = self.consensus.facts, self._known
        numbers = facts.members.keys() | self.consensus.configuration.members
        self._known = {number: node for number in numbers if (node := self.known_as(number)) is not None}
        for number in before.keys() - self._known.keys():
            self.consensus.raft.recollection.forget(number)
        for node in set(before.values()).difference(self._known.values(), [self.node]):
            self.vetting.forget_node(node)
            if self.discoverer is not None and facts.is_revoked(node):
                self.discoverer.forget(bytes.fromhex(node))
