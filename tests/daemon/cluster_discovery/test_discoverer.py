"""Discovery around its rules, in this process, on a host without a network."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from abid.cluster import remembered
from abid.cluster.beacon import Seals
from abid.cluster.discovery import DialOut, Discoverer, Options
from abid.core.dialling import Address
from abid.core.discovery import Beacon, Peer, ResolveNames

OWN, OTHER = b"\0\0\0\1", b"\0\0\0\2"
KEY = b"k" * 32
WAIT_S = 30


async def nobody(_address: Address, _node: bytes) -> bytes:
    raise OSError("nobody is there")


def discoverer(folder: Path, dial: DialOut = nobody, **options: Any) -> Discoverer:
    words: dict[str, Any] = {"port": 18_081, "interval_ms": 20, **options}
    return Discoverer(
        asyncio.get_running_loop(), Options(**words), node=OWN, boot=1, keys=[KEY], listening=9000, folder=folder,
        dial=dial, find=lambda _bind: [],
    )  # fmt: skip


def test_beacons_go_on_after_whatever_anybody_says_in_our_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        one, again, sent = discoverer(tmp_path), asyncio.Event(), list[bytes]()

        def broadcast(packet: bytes) -> None:
            sent.append(packet)
            again.set()

        monkeypatch.setattr(one._lan, "broadcast", broadcast)
        one.start()
        for number in ((1 << 64) - 1, (1 << 63) - 1):
            one._on_packet(Seals([KEY]).seal(OWN, number, Beacon(1, ())), ("127.0.0.1", 18_081))
            again.clear()
            await asyncio.wait_for(again.wait(), WAIT_S)
        await one.stop()
        assert Seals([KEY]).open(sent[-1]) is not None

    asyncio.run(story())


def test_a_beacon_that_fails_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        told = list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
        one, again, count = discoverer(tmp_path), asyncio.Event(), 0

        def broadcast(_packet: bytes) -> None:
            nonlocal count
            count += 1
            if count == 2:
                raise ValueError("a fault of ours")
            if count == 3:
                again.set()

        monkeypatch.setattr(one._lan, "broadcast", broadcast)
        one.start()
        await asyncio.wait_for(again.wait(), WAIT_S)
        await one.stop()
        assert [str(context["exception"]) for context in told] == ["a fault of ours"]

    asyncio.run(story())


def test_a_seed_is_dialled_while_another_one_s_name_is_looked_up_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, dead = threading.Event(), list[str]()

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host == "dead":
            dead.append(host)
            assert answer.wait(WAIT_S)
            return []
        return [(0, 0, 0, "", ("10.0.0.2", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def story() -> None:
        dialled: asyncio.Future[Address] = asyncio.get_running_loop().create_future()

        async def dial(address: Address, _node: bytes) -> bytes:
            dialled.set_result(address)
            return OTHER

        one = discoverer(tmp_path, dial, seeds=["dead:9", "good:9"])
        one.start()
        assert await asyncio.wait_for(dialled, WAIT_S) == Address("10.0.0.2", 9)
        for _ in range(3):
            one._perform_one(ResolveNames())
            await asyncio.sleep(0)
        assert dead == ["dead"], "nobody asks again for what is being looked up"
        answer.set()
        await one.stop()

    asyncio.run(story())


def test_what_rests_while_discovery_is_off_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def said(**options: Any) -> list[str]:
        caplog.clear()
        one = discoverer(tmp_path, **options)
        one.start()
        await one.stop()
        return caplog.messages

    async def story() -> None:
        assert await said(enabled=False) == []
        everything = {"seeds": ["10.0.0.2"], "subnets": ["10.0.0.0/28"], "exec_hook": "/bin/echo 10.0.0.2"}
        assert await said(**everything) == []
        remembered.save(tmp_path, [Peer(Address("10.0.0.3", 9)), Peer(Address("10.0.0.4", 9), OTHER, True)])
        told = "network.seeds, network.subnets, network.exec_hook, what was registered"
        assert await said(enabled=False, **everything) == [
            f"nobody is looked for by {told}: network.discovery_enabled is false"
        ]

    asyncio.run(story())
