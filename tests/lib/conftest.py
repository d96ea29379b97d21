"""A session of this process that talks to a fake daemon."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from abi.guard import SigintGuard
from abi.link import Link
from abi.session import RECEIVED, Session, set_current
from abi.wire.codec import decoders
from abi.wire.schema import End, Task
from tests.lib.fake_daemon import FakeDaemon

PREFIX = b"node-ses"


class Connected:
    def __init__(self, on_task: Callable[[FakeDaemon, Task], list[End]] | None, tasks_max: int) -> None:
        ours, theirs = socket.socketpair()
        self.daemon = FakeDaemon(theirs, on_task)
        self.session = Session(Link(ours, decoders(RECEIVED), {}, guard=SigintGuard()), PREFIX, 0, tasks_max=tasks_max)
        set_current(self.session)

    def close(self) -> None:
        link = self.session.link
        self.session.close()
        close(link)
        set_current(None)
        self.daemon.close()


def close(link: Link) -> None:
    """And wait for its helper, so that none of its descriptors goes while another test counts them."""
    link.close()
    helper = link.helper._thread
    if helper is not None:
        helper.join(30)
        assert not helper.is_alive(), "the helper of a link that is closed goes on"


@pytest.fixture
def connect() -> Iterator[Callable[..., Connected]]:
    opened: list[Connected] = []

    def make(on_task: Callable[[FakeDaemon, Task], list[End]] | None = None, *, tasks_max: int = 0) -> Connected:
        opened.append(Connected(on_task, tasks_max))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def connected(connect: Callable[..., Connected]) -> Connected:
    return connect()
