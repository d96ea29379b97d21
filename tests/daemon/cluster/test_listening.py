"""The port that follows the addresses of a host, which come and go as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import uvloop

from abi.config import load
from abi.errors import AbiError, ConfigError
from abid.cluster.door import Door, opened, port_of
from abid.cluster.interfaces import Interface
from abid.cluster.listening import Listening, free_port, places_at, to_dial
from tests.daemon.cluster.hosts import WAIT_S, Ca, Host, hosts, run

LO, ONE, TWO, FREE = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"
"""All but the first stand for real addresses; the kernel has all of 127.0.0.0/8 on loopback. Nobody takes ports of the
last."""


@pytest.fixture(autouse=True)
def only_the_first_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abid.cluster.listening.is_loopback", lambda host: host == LO)


class World:
    """One host and its door. ``moved`` and ``told`` are what its owner heard."""

    def __init__(self, door: Door, port: int, up: Sequence[str], **options: Any) -> None:
        self.there: list[str] = [*up]
        self.down: list[str] = []
        self.moved: list[bool] = []
        self.told: list[tuple[str, ...]] = []
        self.was_told = asyncio.Event()
        self.port = port
        config = load(None, flags={f"network.{name}": value for name, value in options.items()})
        self.listening = Listening(
            asyncio.get_running_loop(), config, door, port, up, self.moved.append, self._on_told, self._find,
            lambda: frozenset([*self.there, *self.down, LO]),
        )  # fmt: skip
        self.door = door

    def _on_told(self, places: tuple[str, ...]) -> None:
        self.told.append(places)
        self.was_told.set()

    def _find(self, only: str) -> list[Interface]:
        if only and only not in self.there:
            raise ConfigError(f"{only!r} is not up")
        return [Interface("eth0", 2, address, 8) for address in self.there]

    async def has(self, *addresses: str, down: Sequence[str] = ()) -> World:
        """From now on, and it has been seen."""
        self.there, self.down = [*addresses], [*down]
        self.listening.look()
        assert self.listening._task is not None
        await self.listening._task
        return self

    def at(self, *addresses: str) -> tuple[str, ...]:
        return tuple(f"{address}:{self.port}" for address in addresses)


@contextlib.asynccontextmanager
async def world(host: Host, *up: str, **options: Any) -> AsyncIterator[World]:
    door = Door(asyncio.get_running_loop(), host.peers)
    port = await door.listen(up, 0, may_move=False)
    made = World(door, port, up, **options)
    try:
        yield made
    finally:
        made.listening.close()
        door.close()


def scene(ca_folder: Any, *up: str, **options: Any) -> Any:
    """A story with a world in it."""

    def told(story: Any) -> None:
        async def work() -> None:
            async with hosts(Ca(ca_folder).member("0000000a")) as [host], world(host, *up, **options) as made:
                await story(made)

        run(work())

    return told


def test_an_address_that_comes_is_listened_on_and_told(tmp_path: Any) -> None:
    async def story(world: World) -> None:
        assert (world.listening.told, world.listening.reached_at) == ((), ())
        assert world.listening.trouble == f"listens on {LO} only: no other address is up"
        with pytest.raises(AbiError, match="no other address is up") as caught:
            world.listening.checked()
        assert "network.bind" in caught.value.hint
        await world.has(ONE)
        assert world.door.hosts == [ONE]
        assert (world.told, world.moved) == ([world.at(ONE)], [False])
        assert (world.listening.trouble, world.listening.checked()) == ("", world.at(ONE))
        await asyncio.open_connection(ONE, world.port)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LO, world.port)

    scene(tmp_path, LO)(story)


def test_an_address_that_is_gone_is_closed_and_the_others_are_told(tmp_path: Any) -> None:
    async def story(world: World) -> None:
        assert world.listening.told == world.at(ONE)
        await world.has(TWO)
        assert world.door.hosts == [TWO]
        assert (world.told, world.moved) == ([world.at(TWO)], [True])
        await world.has(TWO, ONE)
        assert (world.told[1:], world.moved[1:]) == ([world.at(TWO, ONE)], [False])
        await world.has(TWO, ONE)
        assert (len(world.told), len(world.moved)) == (2, 2), "nothing is another"

    scene(tmp_path, ONE)(story)


def test_a_cable_that_is_pulled_closes_nothing_and_is_not_told(tmp_path: Any) -> None:
    async def story(world: World) -> None:
        await world.has(TWO, down=[ONE])
        assert sorted(world.door.hosts) == [ONE, TWO]
        assert (world.told, world.moved) == ([], [False])
        await world.has(LO, down=[ONE, TWO])
        assert sorted(world.door.hosts) == [LO, ONE, TWO]
        assert (world.told, world.listening.trouble) == ([], f"listens on {LO} only: no other address is up")
        assert world.listening.notes()[0]["message"].startswith("this host listens on")
        with pytest.raises(AbiError):
            world.listening.checked()
        await world.has(ONE, TWO)
        assert sorted(world.door.hosts) == [ONE, TWO]
        assert (world.told, world.listening.notes()) == ([], [])

    scene(tmp_path, ONE, TWO)(story)


def test_loopback_is_told_where_it_is_asked_for(tmp_path: Any) -> None:
    async def story(world: World) -> None:
        assert (world.listening.told, world.listening.trouble) == (world.at(LO), "")
        await world.has(ONE)
        assert "is reached nowhere" in world.listening.trouble
        assert world.door.hosts == [LO]
        assert world.told == []

    scene(tmp_path, LO, bind=LO)(story)


def test_what_others_are_told_may_be_set(tmp_path: Any) -> None:
    async def story(world: World) -> None:
        assert world.listening.told == (f"outside.example:{world.port}",)
        await world.has(TWO)
        assert (world.door.hosts, world.told) == ([TWO], [])

    scene(tmp_path, ONE, address="outside.example")(story)


def test_a_port_that_is_taken_on_one_address_is_said_and_tried_again(tmp_path: Any) -> None:
    async def story(world: World) -> None:
        taken = await asyncio.get_running_loop().create_server(asyncio.Protocol, TWO, world.port)
        await world.has(ONE, TWO)
        assert (world.door.hosts, world.told) == ([ONE], [])
        assert world.listening.trouble.startswith(f"does not listen on {TWO}: ")
        taken.close()
        await taken.wait_closed()
        await world.has(ONE, TWO)
        assert (world.door.hosts, world.told, world.listening.trouble) == ([ONE, TWO], [world.at(ONE, TWO)], "")

    scene(tmp_path, ONE)(story)


def test_it_looks_by_itself(tmp_path: Any) -> None:
    async def story(world: World) -> None:
        world.listening.start()
        world.there = [TWO]
        async with asyncio.timeout(WAIT_S):
            await world.was_told.wait()
        assert world.door.hosts == [TWO]

    scene(tmp_path, ONE, broadcast_interval_ms=100)(story)


def test_a_door_that_closes_while_it_follows_opens_nothing(tmp_path: Any) -> None:
    async def story(world: World) -> None:
        world.there = [ONE, TWO]
        world.listening.look()
        task = world.listening._task
        assert task is not None
        await asyncio.sleep(0)
        world.door.close()
        await task
        assert world.door.hosts == []
        for host in (ONE, TWO):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, world.port)

    scene(tmp_path, ONE)(story)


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_an_address_that_is_not_there_yet_is_left_out(loop_factory: Any) -> None:
    """As those of IPv6 are, while the kernel asks whether another host has them."""

    async def work() -> None:
        loop, absent = asyncio.get_running_loop(), "192.0.2.1"
        servers = await opened(loop, asyncio.Protocol, [absent, ONE, TWO], 0)
        assert list(servers) == [ONE, TWO]
        assert {server.sockets[0].getsockname()[1] for server in servers.values()} == {port_of(servers)}
        with pytest.raises(OSError, match="in use"):
            await opened(loop, asyncio.Protocol, [FREE, TWO], port_of(servers))
        (again := await loop.create_server(asyncio.Protocol, FREE, port_of(servers))).close()
        await again.wait_closed()
        for hosts_there in ([absent], []):
            with pytest.raises(OSError) as caught:
                await opened(loop, asyncio.Protocol, hosts_there, 0)
            assert caught.value.errno == errno.EADDRNOTAVAIL
        for server in servers.values():
            server.close()

    run(work(), loop_factory)


def test_the_port_that_a_host_will_take() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        taken = await loop.create_server(asyncio.Protocol, LO, 0)
        port = taken.sockets[0].getsockname()[1]
        free = await free_port(loop, load(None, flags={"network.bind": LO, "network.port": 0}))
        assert free not in (0, port)
        set_by_hand = load(None, flags={"network.bind": LO, "network.port": port})
        with pytest.raises(AbiError, match="cannot be opened"):
            await free_port(loop, set_by_hand)
        assert places_at(set_by_hand, port) == (f"{LO}:{port}",)
        taken.close()

    run(work())


def test_what_others_are_told() -> None:
    anywhere = load(None, flags={})
    assert to_dial(anywhere, [ONE, LO, "fd77::1"], 1) == (f"{ONE}:1", "[fd77::1]:1")
    assert to_dial(load(None, flags={"network.address": "a.example:2"}), [LO], 1) == ("a.example:2",)
