"""The members that this host is connected with: one connection each, whoever dialled.

A link is *judged* when TLS is up, by its certificate alone: is it of our cluster and incarnation, not revoked, not our
own? Then both greet, and it is a ``Peer``. What goes wrong with two links of one pair, and what is done:

1. Both dial at once, and both have sent HELLO when the other's comes. The lower node's link stays: the lower node
   refuses the other's HELLO as a duplicate, and the higher one, when HELLO comes to it, drops its own attempt. Its dial
   ends well all the same, with the link that stays.
2. A HELLO comes over a second link that was sent before what the peer said last on the first one. The links crossed,
   and the second is refused as a duplicate.
3. A HELLO comes over a second link that was sent after that. Nobody dials who has a connection, so the peer lost the
   first, or is in a later life, and we have not noticed yet. We ask over the first whether anybody is there. If not,
   the second takes its place. If so, two hosts have one identity: the second is refused as a copy.

Which was sent first is known from the greetings: each carries how often its daemon has started, and a number that
grows with each greeting.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from abi.errors import AbiError
from abi.version import __version__
from abi.wire import incarnations
from abi.wire.peers import ADDRESSES_MAX, PEER_PROTOCOL, Greeting, Join, PeerKind, Renew, decode
from abid.cluster import tls
from abid.cluster.certificates import Subject
from abid.cluster.credentials import Credentials
from abid.cluster.dialling import Race, unreachable
from abid.cluster.door import Door, Stranger, check_protocol
from abid.cluster.link import Link, State
from abid.cluster.outgoing import Outgoing
from abid.cluster.peer import Peer
from abid.cluster.refusal import Code, PeerRefused, refused
from abid.cluster.tls import PeerIdentity

log = logging.getLogger(__name__)

PROBE_S: Final = 2.0
"""For a host that has another connection with us to say that it is alive. Far more than a round trip, and less than
``GREETING_S``, which the newcomer's dial has at least."""
MOVED_S: Final = 60.0
"""After a host was here, for one that shows its identity on another machine: the first may come back until then."""


class Owner(Protocol):
    """What the rest of the daemon does about peers. Nothing here waits for it."""

    def on_connected(self, peer: Peer) -> None: ...

    def on_message(self, peer: Peer, kind: int, payload: bytes) -> None:
        """A frame. An AbiError that is raised is said to the peer, and ends the connection."""

    def on_closed(self, peer: Peer, orderly: bool) -> None:
        """``orderly``: it was ended on purpose, and said so. Otherwise ``peer.why`` may say what happened."""

    def on_stranger(self, stranger: Stranger, message: Join | Renew) -> None:
        """To be answered within ``door.ANSWER_S``."""

    def is_revoked(self, node: str) -> bool: ...

    def has_left(self, node: str) -> bool: ...

    def was_there(self, node: str, within_s: float) -> bool:
        """Whether it is connected with another member, as far as we were told, or was so lately."""
        ...

    def is_let_in(self, peer: Peer) -> bool:
        """Whether it is listened to; before, it may turn out to be a copy."""
        ...

    def on_copy(self, twin: Peer, address: str) -> None:
        """Another host came from there, and was refused: it has the identity of this one, which is alive."""

    def on_stray(self, subject: Subject) -> None:
        """It is of our cluster, and of another incarnation of it: it was refused."""


class Peers:
    """``started``: how often this daemon has started. ``addresses``: what is told to peers, set after ``listen``.
    ``has_moved``: whether this host woke on another machine than it fell asleep on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner, credentials: Credentials, started: int) -> None:
        self.owner = owner
        self.connected: dict[str, Peer] = {}
        """By node."""
        self.is_expected: Callable[[str], bool] = lambda _address: False
        """Whether a member may come from this address; see ``strangers``."""
        self.addresses: tuple[str, ...] = ()
        self.has_moved = False
        self.life = secrets.randbits(62) + 1
        """Drawn anew whenever this host begins to take part: two hosts with one identity have two."""
        self._was_here: dict[str, float] = {}
        """By node: until when nobody takes its place who has moved."""
        self._loop = loop
        self._started = started
        self._moment = 0
        self._door = Door(loop, self)
        self._greeting: dict[str, Outgoing] = {}
        """By node: our HELLO has left and is not answered."""
        self._following: dict[str, list[Outgoing]] = {}
        """By node: dials of ours that wait for a connection that another one, or the node itself, is about to make."""
        self._tests: set[asyncio.Task[None]] = set()
        self.use(credentials)

    def use(self, credentials: Credentials) -> None:
        """From now on, for new connections: our certificate was renewed. Raises OSError and ssl.SSLError."""
        self.authority_certificate = credentials.authority_certificate
        self.accepting_context = tls.accepting(credentials)
        self._member_context = tls.member(credentials)
        self._us = credentials.subject

    @property
    def node(self) -> str:
        return self._us.node

    @property
    def door(self) -> Door:
        return self._door

    @property
    def refusals(self) -> Counter[str]:
        """How many were sent away, by code."""
        return self._door.refusals

    async def listen(self, hosts: Sequence[str], port: int, *, may_move: bool = False, or_any: bool = False) -> int:
        """See ``Door.listen``."""
        return await self._door.listen(hosts, port, may_move=may_move, or_any=or_any)

    async def dial(self, addresses: Sequence[str], timeout_s: float, node: str | None = None) -> Peer:
        """The peer that answers at one of these addresses, connected and greeted; ``node``, if it must be that one.

        ``timeout_s`` is for all of it. Raises NodeUnreachable, and PeerRefused by whichever side refused.
        """
        if node is not None and node in self.connected:
            return self.connected[node]
        outgoing = Outgoing(self, self._loop, node)
        try:
            async with asyncio.timeout(timeout_s):
                await Race(self._loop, self._member_context, outgoing).run(addresses)
                return await outgoing.peer
        except TimeoutError:
            raise unreachable(addresses, timeout_s) from None
        finally:
            self._forget_dial(outgoing)

    def send(self, node: str, kind: int, payload: bytes) -> bool:
        """Send a frame to a peer that is connected; False if it is not. Raises ProtocolError for one too long."""
        peer = self.connected.get(node)
        if peer is None:
            return False
        peer.send(kind, payload)
        return peer.is_open

    def revoke(self, node: str) -> None:
        """It was removed from the cluster, and ``owner.is_revoked`` says so: its connection ends now."""
        peer = self.connected.get(node)
        if peer is not None:
            self.send_away(peer, refused(Code.REVOKED, "this host was removed from the cluster"))

    def send_away(self, peer: Peer, why: PeerRefused) -> None:
        """End a connection that was made, and say why."""
        self.refusals[why.code] += 1
        peer.refuse(why)

    @property
    def outdated(self) -> list[Peer]:
        """Those whose connection was made with a certificate of ours that has been renewed since. They end it when that
        one runs out."""
        ours = (self.accepting_context, self._member_context)
        return [peer for peer in self.connected.values() if peer.context not in ours]

    def end_outdated(self, now: float) -> None:
        """End connections with peers that would not be let in now; to be called now and then. Who has renewed its
        certificate dials again. ``now``: seconds since the epoch."""
        for peer in list(self.connected.values()):
            try:
                self.judge(peer.identity)
                if peer.identity.not_after <= now:
                    raise refused(Code.EXPIRED, "the certificate that this connection was made with has run out")
            except PeerRefused as error:
                log.warning("the connection with node %s is ended: %s", peer.node, error.message)
                self.send_away(peer, error)

    def on_woken(self) -> None:
        """This host slept, and the others, or a firewall between, may have given up what looks open here: connections
        over which nobody answers end, and are dialled anew."""
        for peer in list(self.connected.values()):
            self._test(self._end_if_silent(peer))

    async def _end_if_silent(self, peer: Peer) -> None:
        if not await peer.answers(PROBE_S):
            peer.abandon(refused(Code.SILENT, "nobody answered after this host's sleep"))

    def close(self) -> None:
        """Close the port, and say goodbye to all."""
        self._door.close()
        for test in self._tests:
            test.cancel()
        for outgoing in list(self._greeting.values()):
            outgoing.fail(refused(Code.BUSY, "the daemon is stopping"))
        for peer in list(self.connected.values()):
            peer.say_goodbye()

    # Judging and greeting, for links from either side.

    def judge(self, identity: PeerIdentity) -> None:
        """Whether a certificate is of somebody that we speak with. Raises PeerRefused."""
        them = identity.subject
        if them.cluster != self._us.cluster:
            raise refused(Code.OTHER_CLUSTER, f"one side is of cluster {self._us.cluster}, the other of {them.cluster}")
        if them.incarnation != self._us.incarnation:
            self.owner.on_stray(them)
        self._judge_incarnation(them.incarnation)
        if self.owner.is_revoked(them.node):
            raise refused(Code.REVOKED, f"node {them.node} was removed from the cluster")
        if self.owner.has_left(them.node):
            raise refused(Code.LEFT, f"node {them.node} left the cluster")
        if them.node == self._us.node:
            raise refused(Code.ITSELF, "this address leads back to the host itself")

    def _judge_incarnation(self, incarnation: int) -> None:
        ours = self._us.incarnation
        if incarnation != ours:
            one, other = incarnations.name(ours), incarnations.name(incarnation)
            raise refused(
                Code.OTHER_INCARNATION, f"one side is of the cluster's incarnation {one}, the other of {other}"
            )

    def words(self) -> Greeting:
        """What we say in HELLO and WELCOME."""
        self._moment += 1
        us = self._us
        return Greeting(
            PEER_PROTOCOL,
            us.cluster,
            us.incarnation,
            us.node,
            self._started,
            self._moment,
            __version__,
            self.addresses[:ADDRESSES_MAX],
            (str(Code.MOVED),) if self.has_moved else (),
            self.life,
        )

    def read_greeting(self, identity: PeerIdentity, kind: int, payload: memoryview) -> Greeting:
        """HELLO or WELCOME of who has this certificate. Raises PeerRefused and ProtocolError."""
        check_protocol(payload)
        words: Greeting = decode(kind, payload)
        if words.cluster != self._us.cluster:
            raise refused(
                Code.OTHER_CLUSTER, f"one side is of cluster {self._us.cluster}, the other of {words.cluster}"
            )
        self._judge_incarnation(words.incarnation)
        if words.node != identity.node:
            raise refused(Code.PROTOCOL, f"node {identity.node} greets as {words.node}")
        self._check_moved(words)
        return words

    def _check_moved(self, words: Greeting) -> None:
        """Whoever is connected is asked whether it is there, and needs no time to come back."""
        if Code.MOVED not in words.features or words.node in self.connected:
            return
        was_here = self._loop.time() < self._was_here.get(words.node, 0.0)
        if was_here or self.owner.was_there(words.node, MOVED_S):
            raise refused(Code.MOVED, f"node {words.node} was here less than {MOVED_S:g} s ago, on another machine")

    # The other side dialled.

    def on_hello(self, link: Link, payload: memoryview) -> None:
        """Over an accepted link that has been judged. Raises PeerRefused and ProtocolError."""
        assert link.identity is not None
        words = self.read_greeting(link.identity, PeerKind.HELLO, payload)
        old = self.connected.get(words.node)
        if old is not None:
            if (words.started, words.moment) <= old.said:
                raise refused(Code.DUPLICATE, "there is a connection already")
            self._test(self._replace(old, link, words))
        elif words.node in self._greeting and self.node < words.node:
            raise refused(Code.DUPLICATE, "both dialled at once; the other connection stays")
        else:
            self._welcome(link, words)

    def _test(self, test: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(test)
        self._tests.add(task)
        task.add_done_callback(self._tests.discard)

    async def _replace(self, old: Peer, link: Link, words: Greeting) -> None:
        """The peer seems to have lost its connection with us, which is there for all we know."""
        answers = await old.answers(PROBE_S)
        if link.state is not State.OPEN:
            return
        now = self.connected.get(words.node)
        if now is not None and now is not old:
            link.refuse(refused(Code.DUPLICATE, "there is a connection already"))
        elif now is old and answers:
            code = Code.COPY if self.owner.is_let_in(old) else Code.CONTENDED
            link.refuse(refused(code, f"another host is alive that is node {words.node}, too"))
            self.owner.on_copy(old, link.address)
        else:
            old.abandon(refused(Code.SILENT, "it dialled anew, and the connection that was there is dead"))
            try:
                self._check_moved(words)
                self._welcome(link, words)
            except AbiError as error:
                link.refuse(error)

    def _welcome(self, link: Link, words: Greeting) -> None:
        assert link.identity is not None
        self.judge(link.identity)  # again: some time has passed since TLS was up
        link.send(PeerKind.WELCOME, self.words())
        self._door.hand_over(link)
        self.connect(link, words)

    # We dialled.

    def on_dialled(self, outgoing: Outgoing, link: Link) -> None:
        """Judged, and not greeted yet."""
        assert link.identity is not None
        node = link.identity.node
        peer = self.connected.get(node)
        if peer is not None:
            outgoing.succeed(peer)
        elif node in self._greeting:
            self._following.setdefault(node, []).append(outgoing)
            link.close()
        else:
            self._greeting[node] = outgoing
            link.send(PeerKind.HELLO, self.words())

    def on_dial_ended(self, outgoing: Outgoing, node: str, why: AbiError) -> None:
        """Before it was welcomed."""
        if self._greeting.get(node) is not outgoing:
            return
        del self._greeting[node]
        if why.code == Code.DUPLICATE:  # the other side's HELLO is on its way to us
            self._following.setdefault(node, []).append(outgoing)
            return
        outgoing.fail(why)
        for follower in self._following.pop(node, []):
            follower.fail(why)

    def _forget_dial(self, outgoing: Outgoing) -> None:
        """It is over, whether well or not."""
        outgoing.give_up()
        for node, followers in list(self._following.items()):
            if outgoing in followers:
                followers.remove(outgoing)
            if not followers:
                del self._following[node]

    # Connected, and not any more.

    def connect(self, link: Link, words: Greeting) -> None:
        """Both have greeted."""
        assert link.identity is not None
        node = link.identity.node
        peer = self.connected[node] = Peer(self, link, link.identity, words)
        outgoing = self._greeting.pop(node, None)
        for dial in [*([outgoing] if outgoing else []), *self._following.pop(node, [])]:
            dial.succeed(peer)
        self.owner.on_connected(peer)

    def on_peer_ended(self, peer: Peer) -> None:
        if self.connected.get(peer.node) is peer:
            del self.connected[peer.node]
            if Code.MOVED not in peer.words.features:
                self._was_here[peer.node] = self._loop.time() + MOVED_S
            self.owner.on_closed(peer, peer.orderly)
