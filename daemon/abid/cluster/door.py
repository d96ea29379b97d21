"""Who knocks at our port: a member that greets, a stranger with one wish, or somebody that is refused by name."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from abi.errors import AbiError, ConfigError
from abi.wire.peers import (
    PEER_PROTOCOL,
    AskAuthority,
    AuthorityAnswer,
    Join,
    PeerKind,
    PeerMessage,
    Renew,
    decode,
    protocol_of,
)
from abid.cluster.link import Link, Owner
from abid.cluster.refusal import Code, refused
from abid.cluster.strangers import Strangers

if TYPE_CHECKING:
    from abid.cluster.peers import Peers

log = logging.getLogger(__name__)

ANSWER_S: Final = 30.0
"""What an answer to a stranger may take: the cluster has to agree on it, and may be electing a leader."""
PORTS_TRIED_MAX: Final = 64
"""After a default port that is taken: as many daemons of different users as one host will see."""
LOG_S: Final = 10.0
"""Between two lines about refusals of one sort: a flood of them must not become a flood of lines."""


class Stranger:
    """Somebody without a certificate that is good now, and its one message. Answer it, or refuse it, once."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def address(self) -> str:
        return self._link.address

    def answer(self, kind: PeerKind, message: PeerMessage) -> None:
        self._link.send(kind, message)
        self._link.close()

    def refuse(self, error: AbiError) -> None:
        self._link.refuse(error)


class Door(Owner):
    """The owner of accepted links until they are members'. ``refusals`` counts by code whom we sent away."""

    def __init__(self, loop: asyncio.AbstractEventLoop, peers: Peers) -> None:
        self.strangers = Strangers(loop, self._is_expected)
        self.refusals: Counter[str] = Counter()
        self._loop = loop
        self._peers = peers
        self._asked: set[Link] = set()
        """Strangers that have said their message."""
        self._servers: dict[str, asyncio.Server] = {}
        """By address."""
        self._is_closed = False
        self._silent_until: dict[str, float] = {}
        """By code of refusal: when the next line about it may be logged."""

    @property
    def hosts(self) -> list[str]:
        """The addresses on which the port is open."""
        return list(self._servers)

    async def listen(self, hosts: Sequence[str], port: int, *, may_move: bool, or_any: bool = False) -> int:
        """Open the port on these addresses, or, if it ``may_move`` since nobody set it by hand, the next that is free;
        with ``or_any``, in the end any that is free. Returns the port. Raises ConfigError."""
        error: OSError | None = None
        last = min(port + PORTS_TRIED_MAX, 65_535) if may_move and port else port
        for candidate in (*range(port, last + 1), *([0] if or_any else [])):
            try:
                self._servers = await opened(self._loop, self._on_knock, hosts, candidate)
            except OSError as problem:
                error = problem
                if problem.errno == errno.EADDRINUSE:
                    continue
                break
            return port_of(self._servers)
        where, why = ", ".join(hosts), error.strerror if error is not None else ""
        raise ConfigError(
            f"port {port} cannot be opened on {where}: {why}",
            hint="set network.port to one that is free, or leave it out: then the next free one is taken",
        )

    async def follow(self, hosts: Sequence[str], port: int) -> dict[str, str]:
        """Listen on these addresses from now on, and on no others; connections stay. Where that fails, and why."""
        for host in [host for host in self._servers if host not in hosts]:
            self._servers.pop(host).close()
        failed: dict[str, str] = {}
        for host in hosts:
            if host in self._servers:
                continue
            try:
                server = await _server(self._loop, self._on_knock, host, port)
            except OSError as error:
                failed[host] = error.strerror or str(error)
                continue
            if self._is_closed:
                server.close()
                break
            self._servers[host] = server
        return failed

    def close(self) -> None:
        self._is_closed = True
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        self.strangers.close()

    def _is_expected(self, address: str) -> bool:
        return self._peers.is_expected(address)

    def _on_knock(self) -> Link:
        return Link(self._loop, self, self._peers.accepting_context, accepted=True)

    # The owner of the links.

    def on_accepted(self, link: Link) -> None:
        self.strangers.add(link)

    def on_first_bytes(self, link: Link) -> None:
        self.strangers.wait_for_turn(link)

    def on_secured(self, link: Link) -> None:
        if link.identity is not None:
            self._peers.judge(link.identity)

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        if link.identity is None:
            self._hear_stranger(link, kind, payload)
        elif kind == PeerKind.HELLO:
            self._peers.on_hello(link, payload)
        elif kind == PeerKind.REFUSED:
            link.close()  # it looked for another host, say
        else:
            raise refused(Code.PROTOCOL, f"a connection begins with HELLO, not with a frame of kind {kind}")

    def on_ended(self, link: Link, why: AbiError | None) -> None:
        self._asked.discard(link)
        if why is not None:
            self.note(link, why)

    def on_gone(self, link: Link) -> None:
        self.strangers.discard(link)

    def hand_over(self, link: Link) -> None:
        """It is a member's now."""
        self.strangers.discard(link)

    def _hear_stranger(self, link: Link, kind: int, payload: memoryview) -> None:
        if link in self._asked:
            raise refused(Code.PROTOCOL, "a stranger may say one message")
        if kind not in (PeerKind.ASK_AUTHORITY, PeerKind.JOIN, PeerKind.RENEW):
            raise refused(Code.NO_CERTIFICATE, "without a certificate one may ask for the authority's, join, or renew")
        if kind == PeerKind.JOIN:
            check_protocol(payload)
        message = decode(kind, payload)
        self._asked.add(link)
        stranger = Stranger(link)
        match message:
            case AskAuthority():
                stranger.answer(PeerKind.AUTHORITY, AuthorityAnswer(self._peers.authority_certificate))
            case Join() | Renew():
                self.strangers.give_time(link, ANSWER_S)
                self._peers.owner.on_stranger(stranger, message)

    def note(self, link: Link, why: AbiError) -> None:
        """Count who was refused, and log it, but not each of ten thousand."""
        self.refusals[why.code] += 1
        now = self._loop.time()
        if now >= self._silent_until.get(why.code, now):
            self._silent_until[why.code] = now + LOG_S
            log.warning(
                "refused a connection from %s (%s, %d so far): %s",
                link.address, why.code, self.refusals[why.code], why.message,
            )  # fmt: skip


async def _server(
    loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.BaseProtocol], host: str, port: int
) -> asyncio.Server:
    """On one address. Raises the kernel's own OSError: asyncio's, for an address that is not there, has no number from
    Python 3.13 on."""
    is_v6 = ":" in host
    sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        return await loop.create_server(protocol, sock=sock)
    except OSError:
        sock.close()
        raise


async def opened(
    loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.BaseProtocol], hosts: Sequence[str], port: int
) -> dict[str, asyncio.Server]:
    """A server on each of these addresses, with one port for all; 0: any that is free.

    An address that is not there any more, or not yet (of IPv6, while the kernel asks whether another host has it), is
    left out. Raises OSError where another error is met, or nothing is left; nothing is open then.
    """
    servers: dict[str, asyncio.Server] = {}
    absent = OSError(errno.EADDRNOTAVAIL, "no address of this host is up")
    for host in hosts:
        try:
            servers[host] = await _server(loop, protocol, host, port)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                absent = error
                continue
            for server in servers.values():
                server.close()
                await server.wait_closed()
            raise
        port = port_of(servers)
    if not servers:
        raise absent
    return servers


def port_of(servers: Mapping[str, asyncio.Server]) -> int:
    """The one that they share."""
    return int(next(iter(servers.values())).sockets[0].getsockname()[1])


def check_protocol(payload: memoryview | bytes) -> None:
    """Of HELLO, WELCOME and JOIN. Raises PeerRefused for another major, ProtocolError for what is unreadable."""
    major = protocol_of(payload)[0]
    if major != PEER_PROTOCOL[0]:
        raise refused(Code.VERSION, f"one side speaks protocol {PEER_PROTOCOL[0]}, the other protocol {major}")
