"""What the shell is to do, in order."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from abid.core.membership.messages import Message, State


class Send(msgspec.Struct, frozen=True):
    """To this member, on a connection that is made if there is none. If that fails the message is lost: its silence
    is what we listen for."""

    receiver: int
    message: Message


class Became(msgspec.Struct, frozen=True):
    """A member's state changed."""

    member: int
    state: State


class Dial(msgspec.Struct, frozen=True):
    """Connect to a member that we hold for dead, if it can be done, and say ``on_connected``; also where there is a
    connection already."""

    member: int


Effect: TypeAlias = Send | Became | Dial
