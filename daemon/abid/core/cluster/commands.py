"""What can be asked of a cluster, as it stands in the log: tagged structs, for ever readable.

Every member applies the same commands in the same order and must come to the same facts, whatever its clock says and
whichever release it runs. So a command carries the time of the leader that proposed it (``at_ms``, since the epoch),
its meaning never changes, and a new meaning is a new command.
"""

from __future__ import annotations

from typing import Final

import msgspec

from abi.errors import UsageError

BYTES_MAX: Final = 8 * 1024
"""Of one command in the log. A host with a dozen addresses of the longest names has five KiB."""


class Command(msgspec.Struct, frozen=True, array_like=True, tag=True, kw_only=True):
    """``origin`` and ``serial`` name the request: one that is proposed twice, since the first answer was lost, has its
    effect once (thesis, 6.3). An origin counts its requests upwards and has one under way at a time."""

    origin: int
    serial: int
    at_ms: int


class Found(Command, frozen=True, tag="found"):
    """The first command of every cluster, and of every incarnation of it."""

    cluster: str
    incarnation: int
    number: int
    node: str
    name: str
    addresses: tuple[str, ...]


class Admit(Command, frozen=True, tag="admit"):
    """A host that showed a token joins. The result is its number."""

    token: str
    digest: bytes
    """Of the secret that it said."""
    node: str
    name: str
    addresses: tuple[str, ...]


class AdmitOnce(Admit, frozen=True, tag="admit-once"):
    """The same; and who shows the same ticket again, since the answer was lost, is the member that it is by then, and
    no use of the token goes for it."""

    ticket: bytes
    """The digest of the token's secret and of the host's key, together. Nobody else has both."""


class Readmit(Command, frozen=True, tag="readmit"):
    """A member lost what it had stored, wholly or in part: its disk was restored. It must not vote again for what it
    may have voted for, so it goes on under another number, as a learner. The result is that number."""

    number: int
    """Its number until now."""


class Announce(Command, frozen=True, tag="announce"):
    """A member's addresses or name are others."""

    number: int
    name: str
    addresses: tuple[str, ...]


class Remove(Command, frozen=True, tag="remove"):
    """A member leaves or is sent away; one that is sent away is refused from then on."""

    number: int
    revoke: bool


class NoteRenewal(Command, frozen=True, tag="note-renewal"):
    """A certificate that ran out is renewed, once, for this key: noted before the new one is handed out."""

    serial_number: str
    """Of the old certificate, in hex."""
    key: bytes
    """The digest of the new one's key."""


class CreateToken(Command, frozen=True, tag="create-token"):
    token: str
    digest: bytes
    uses: int
    ends_ms: int


class DropToken(Command, frozen=True, tag="drop-token"):
    token: str


class ClaimName(Command, frozen=True, tag="claim-name"):
    name: str
    owner: str


class ReleaseName(Command, frozen=True, tag="release-name"):
    name: str
    owner: str


AnyCommand = (
    Found | Admit | AdmitOnce | Readmit | Announce | Remove | NoteRenewal
    | CreateToken | DropToken | ClaimName | ReleaseName
)  # fmt: skip


def proposed_at(command: AnyCommand, at_ms: int) -> AnyCommand:
    """The same command, of this moment; what it says of moments to come moves with it. The clock of whoever leads is
    the cluster's: a member that is an hour behind would make tokens that are over when they come, and with one that is
    ahead all tokens would end."""
    if isinstance(command, CreateToken):
        command = msgspec.structs.replace(command, ends_ms=command.ends_ms + at_ms - command.at_ms)
    return msgspec.structs.replace(command, at_ms=at_ms)


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(AnyCommand).decode
"""Raises msgspec.DecodeError, for example for a command that a newer release knows."""


def checked(command: AnyCommand) -> bytes:
    """As it stands in the log, where nobody could pass over one that others cannot read. Raises UsageError."""
    try:
        data = encode(command)
        decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise UsageError(f"the cluster cannot be asked for this: {error}") from None
    if len(data) > BYTES_MAX:
        raise UsageError(f"what the cluster is asked for has {len(data)} bytes; it may have {BYTES_MAX}")
    return data
