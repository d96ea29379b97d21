"""The facts that a cluster agrees on: what is so when the log up to some index has been applied.

``apply`` is a function of the facts and the command alone; the same log makes the same facts everywhere. A command that
cannot be has no effect, and its result says why.

All that is kept is bounded, so that it fits into one frame between daemons, by which a member that is far behind gets
it: what people add by its bytes together (HELD_BYTES_MAX), all else by its number and size. Where something has to go
it is what came first, never what is oldest by somebody's clock: a host whose clock is a year ahead must not make all
the others forget whom they sent away.
"""

from __future__ import annotations

import hmac
from typing import Any, Final

import msgspec

from abid.core.cluster import commands
from abid.core.cluster.commands import AnyCommand

STALE: Final = "stale"
TOKENS_MAX: Final = 1_000
"""Tokens that are neither used up nor over: far more than anybody hands out, and bounded all the same."""
NAMES_MAX: Final = 100_000
NAME_CHARS_MAX: Final = 255
MEMBERS_MAX: Final = 5_000
"""Five times the largest cluster that we think of."""
HELD_BYTES_MAX: Final = 6 << 20
"""Of members, tokens and names, as ``_room`` counts them: 2,500 hosts with all addresses that they may have, or a
thousand of them and 50,000 names."""
RECORD_BYTES: Final = 72
"""Of one of them beside its texts: what its fields are called, and its numbers."""
TEXT_BYTES: Final = 5
"""Before each text, for its length."""
TOLD_BYTES_MAX: Final = 300
"""Of a result, in words: it is kept."""
KEY_BYTES_MAX: Final = 64
"""Of a node's id, a certificate's serial number in hex, a digest: none of ours is longer."""
ADDRESSES_MAX: Final = 12
"""Of one member, the best ones: as many as it may name when it joins."""
GONE_MAX: Final = 1_000
"""Of those that are no members any more, the last request is remembered of so many: an answer that was lost is asked
for again within seconds, in which nowhere near so many leave."""
REVOKED_MAX: Final = 10_000
"""Beyond it, who was sent away first is forgotten. What it shows at a handshake runs out within a month of that day."""
PAST_MAX: Final = 10_000
"""Beyond it, who left first is forgotten, and is let in again for as long as its certificate is good: a month at most,
since it renews none, and without a say."""
RENEWALS_MAX: Final = 20_000
"""Beyond it, the first are forgotten: each member would have slept through the end of two certificates since."""


class Member(msgspec.Struct):
    """One host. ``number`` is Raft's, never used twice; ``node`` is the host's own and stays with it."""

    number: int
    node: str
    name: str
    addresses: tuple[str, ...]
    joined_ms: int
    ticket: bytes = b""
    """By which it was let in (``commands.AdmitOnce``)."""


class Token(msgspec.Struct):
    digest: bytes
    uses: int
    ends_ms: int


class Name(msgspec.Struct):
    """``epoch`` grows with every claim: who claimed earlier can be told apart from who claimed again."""

    owner: str
    epoch: int


class Applied(msgspec.Struct):
    """The last request of one origin, and what came of it."""

    serial: int
    result: Result


class Result(msgspec.Struct):
    """``refused`` is a code, "" when it was done; ``told`` says it in words; ``value`` depends on the command."""

    refused: str = ""
    told: str = ""
    value: int | str | None = None


class Facts(msgspec.Struct):
    cluster: str = ""
    incarnation: int = 0
    next_number: int = 1
    members: dict[int, Member] = {}
    revoked: dict[str, int] = {}
    """When each node was sent away, in ms since the epoch."""
    past: dict[int, str] = {}
    """Which node each number was that is a member's no more: it left, was sent away, or goes on under another."""
    tokens: dict[str, Token] = {}
    names: dict[str, Name] = {}
    next_epoch: int = 1
    renewals: dict[str, bytes] = {}
    """For which key each certificate was renewed that had run out."""
    applied: dict[int, Applied] = {}
    """By origin; who asked last stands at the end."""
    held_bytes: int = 0
    """Of ``members``, ``tokens`` and ``names``."""

    def apply(self, command: AnyCommand) -> Result:
        """Its effect, once, and its result, as often as it comes. One that is STALE is told the serial of the later
        one, above which its origin has to go."""
        before = self.applied.get(command.origin)
        if before is not None and command.serial <= before.serial:
            if command.serial == before.serial:
                return before.result
            return Result(STALE, "this request was overtaken by a later one of the same host; ask again", before.serial)
        result = self._do(command)
        result.told = result.told.encode()[:TOLD_BYTES_MAX].decode(errors="ignore")
        self.applied.pop(command.origin, None)
        self.applied[command.origin] = Applied(command.serial, result)
        self._forget_the_gone()
        return result

    def _forget_the_gone(self) -> None:
        """What was asked by members that left, or that go on under another number, but for the latest of them."""
        over = len(self.applied) - len(self.members) - GONE_MAX
        if over > 0:
            gone = [origin for origin in self.applied if origin not in self.members]
            for origin in gone[:over]:
                del self.applied[origin]

    def _do(self, command: AnyCommand) -> Result:
        match command:
            case commands.Found():
                return self._found(command)
            case commands.Admit():
                return self._admit(command)
            case commands.Readmit():
                return self._readmit(command)
            case commands.Announce():
                return self._announce(command)
            case commands.Remove():
                return self._remove(command)
            case commands.NoteRenewal():
                return self._note_renewal(command)
            case commands.CreateToken():
                return self._create_token(command)
            case commands.DropToken():
                is_known = self._drop_token(command.token)
                return Result() if is_known else Result("not_found", f"there is no token {command.token!r}")
            case commands.ClaimName():
                return self._claim(command)
            case commands.ReleaseName():
                return self._release(command)

    # Members.

    def _found(self, command: commands.Found) -> Result:
        """Also the first word of a new incarnation: whoever has not been taken over into it is no member."""
        if command.incarnation <= self.incarnation:
            return Result("exists", f"the cluster has incarnation {self.incarnation} already")
        self.cluster, self.incarnation = command.cluster, command.incarnation
        for number in list(self.members):
            self._let_go(number)
        for identity in list(self.tokens):
            self._drop_token(identity)
        self._add(command.number, command.node, command.name, command.addresses, command.at_ms)
        return Result(value=command.number)

    def why_not_admit(self, node: str, identity: str, digest: bytes, at_ms: int, ticket: bytes = b"") -> Result | None:
        """What a host would be refused with that shows this token at that time, and has this ticket; None: nothing."""
        if node in self.revoked:
            return Result("revoked", "this host was removed from the cluster: it may come back as a new one")
        if self._admitted_by(node, ticket) is not None:
            return None
        token = self.tokens.get(identity)
        if token is None or not hmac.compare_digest(token.digest, digest):
            return Result("wrong_token", "the cluster does not know this token, or it is used up")
        if at_ms >= token.ends_ms:
            return Result("expired_token", "this token has ended; `abi cluster token` makes another")
        if len(self.members) >= MEMBERS_MAX:
            return Result("full", f"a cluster has {MEMBERS_MAX} members at most")
        return self._why_no_room(0)

    def _why_no_room(self, more: int) -> Result | None:
        """For so many bytes more."""
        if self.held_bytes + more <= HELD_BYTES_MAX:
            return None
        return Result("full", f"the cluster's members, tokens and names take {HELD_BYTES_MAX >> 20} MiB at most")

    def _admitted_by(self, node: str, ticket: bytes) -> Member | None:
        """The member that this host is already, by the same ticket."""
        known = self.of_node(node) if ticket else None
        return known if known is not None and hmac.compare_digest(known.ticket, ticket) else None

    def _admit(self, command: commands.Admit) -> Result:
        ticket = command.ticket if isinstance(command, commands.AdmitOnce) else b""
        refused = self.why_not_admit(command.node, command.token, command.digest, command.at_ms, ticket)
        if refused is not None:
            return refused
        same = self._admitted_by(command.node, ticket)
        if same is not None:
            self._tell(same, command.name, command.addresses)  # it may listen elsewhere by now
            return Result(value=same.number)
        if max(len(command.node.encode()), len(ticket)) > KEY_BYTES_MAX:
            return Result("usage", "no node has an id like this")
        token = self.tokens[command.token]
        token.uses -= 1
        if token.uses == 0:
            self._drop_token(command.token)
        known = self.of_node(command.node)
        if known is not None:  # it was a member and has lost all that it knew, its certificate included
            self._let_go(known.number)
        number = self.next_number
        self._add(number, command.node, command.name, command.addresses, command.at_ms, ticket)
        return Result(value=number)

    def _readmit(self, command: commands.Readmit) -> Result:
        if command.number not in self.members:
            return Result("unknown", f"there is no member {command.number}")
        member = self._let_go(command.number)
        number = self.next_number
        self._add(number, member.node, member.name, member.addresses, command.at_ms)
        return Result(value=number)

    def _add(
        self, number: int, node: str, name: str, addresses: tuple[str, ...], at_ms: int, ticket: bytes = b""
    ) -> None:
        self.next_number = max(self.next_number, number + 1)
        member = self.members[number] = Member(number, node, name, addresses[:ADDRESSES_MAX], at_ms, ticket)
        self.held_bytes += _room_of(member)

    def _let_go(self, number: int) -> Member:
        member = self.members.pop(number)
        self.held_bytes -= _room_of(member)
        self.past[number] = member.node
        _keep_last(self.past, PAST_MAX)
        return member

    def _announce(self, command: commands.Announce) -> Result:
        member = self.members.get(command.number)
        if member is None:
            return Result("unknown", f"there is no member {command.number}")
        return self._tell(member, command.name, command.addresses) or Result()

    def _tell(self, member: Member, name: str, addresses: tuple[str, ...]) -> Result | None:
        """Of a member, what it is called and where it is; why not, if there is no room."""
        told = msgspec.structs.replace(member, name=name, addresses=addresses[:ADDRESSES_MAX])
        more = _room_of(told) - _room_of(member)
        refused = self._why_no_room(more) if more > 0 else None
        if refused is None:
            self.members[member.number] = told
            self.held_bytes += more
        return refused

    def _remove(self, command: commands.Remove) -> Result:
        member = self.members.get(command.number)
        if member is None:
            return Result("unknown", f"there is no member {command.number}")
        if len(self.members) == 1:
            return Result("last", "the last member cannot leave; `abi cluster leave` on it ends the cluster")
        self._let_go(command.number)
        if command.revoke:
            self.revoked[member.node] = command.at_ms
            _keep_last(self.revoked, REVOKED_MAX)
        return Result(value=member.node)

    def of_node(self, node: str) -> Member | None:
        return next((member for member in self.members.values() if member.node == node), None)

    def is_revoked(self, node: str) -> bool:
        return node in self.revoked

    def has_left(self, node: str) -> bool:
        """It was a member, and is none under any number."""
        return self.of_node(node) is None and node in self.past.values()

    def node_of(self, number: int) -> str | None:
        """Whose this number is, or was."""
        member = self.members.get(number)
        return self.past.get(number) if member is None else member.node

    def renewed_for(self, serial: str) -> bytes | None:
        return self.renewals.get(serial)

    def _note_renewal(self, command: commands.NoteRenewal) -> Result:
        if max(len(command.serial_number.encode()), len(command.key)) > KEY_BYTES_MAX:
            return Result("usage", "no certificate of a member is like this")
        key = self.renewals.setdefault(command.serial_number, command.key)
        if key != command.key:
            return Result("renewed_before", "this certificate ran out and was renewed before")
        _keep_last(self.renewals, RENEWALS_MAX)
        return Result()

    # Tokens.

    def _create_token(self, command: commands.CreateToken) -> Result:
        over = [name for name, token in self.tokens.items() if token.ends_ms <= command.at_ms]
        for name in over:
            self._drop_token(name)
        if len(self.tokens) >= TOKENS_MAX:
            return Result("full", f"there are {TOKENS_MAX} tokens that can be used; drop some or let them end")
        if command.token in self.tokens:
            return Result("exists", "there is a token of this name")
        if command.uses < 1:
            return Result("usage", "a token has at least one use")
        room = _room(command.token, command.digest)
        refused = self._why_no_room(room)
        if refused is not None:
            return refused
        self.tokens[command.token] = Token(command.digest, command.uses, command.ends_ms)
        self.held_bytes += room
        return Result(value=command.ends_ms)

    def _drop_token(self, identity: str) -> bool:
        """Whether there was one."""
        token = self.tokens.pop(identity, None)
        if token is not None:
            self.held_bytes -= _room(identity, token.digest)
        return token is not None

    # Names.

    def _claim(self, command: commands.ClaimName) -> Result:
        if not 0 < len(command.name) <= NAME_CHARS_MAX:
            return Result("usage", f"a name has 1 to {NAME_CHARS_MAX} characters")
        if len(command.owner) > NAME_CHARS_MAX or len(command.owner.encode()) > NAME_CHARS_MAX:
            return Result("usage", f"a name's owner is told in {NAME_CHARS_MAX} characters")
        held = self.names.get(command.name)
        if held is not None and held.owner != command.owner:
            return Result("taken", f"{command.name!r} is held by {held.owner}", held.owner)
        if held is None and len(self.names) >= NAMES_MAX:
            return Result("full", f"there are {NAMES_MAX} names already")
        if held is None:
            room = _room(command.name, command.owner)
            refused = self._why_no_room(room)
            if refused is not None:
                return refused
            self.names[command.name] = held = Name(command.owner, self.next_epoch)
            self.held_bytes += room
            self.next_epoch += 1
        return Result(value=held.epoch)

    def _release(self, command: commands.ReleaseName) -> Result:
        held = self.names.get(command.name)
        if held is None:
            return Result("unknown", f"nobody holds {command.name!r}")
        if held.owner != command.owner:
            return Result("taken", f"{command.name!r} is held by {held.owner}", held.owner)
        del self.names[command.name]
        self.held_bytes -= _room(command.name, held.owner)
        return Result()

    # As a snapshot.

    def encoded(self) -> bytes:
        return _encode(self)

    @staticmethod
    def decoded(data: bytes) -> Facts:
        """Raises msgspec.DecodeError. No bytes: nothing has been agreed on yet."""
        return _decode(data) if data else Facts()

    def shown(self) -> dict[str, Any]:
        """For people and tests: without the secrets' digests."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        told["tokens"] = {name: {"uses": t.uses, "ends_ms": t.ends_ms} for name, t in self.tokens.items()}
        for member in told["members"].values():
            del member["ticket"]
        del told["applied"]
        return told


def _room(*texts: str | bytes) -> int:
    """Bytes that a record with these takes at most."""
    lengths = (len(text.encode() if isinstance(text, str) else text) for text in texts)
    return RECORD_BYTES + sum(TEXT_BYTES + length for length in lengths)


def _room_of(member: Member) -> int:
    return _room(member.node, member.name, *member.addresses, *([member.ticket] if member.ticket else []))


def _keep_last(noted: dict[Any, Any], count: int) -> None:
    """So many; what was noted first goes."""
    while len(noted) > count:
        del noted[next(iter(noted))]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Facts).decode
