"""A member with discovery and nothing else, as a program: who meets it says its id over plain TCP.

    python member.py '{"node": "00000001", "boot": 1, "folder": "...", ...}'

Its standard output has a JSON object a line for each thing that happens; its standard input takes commands:
`register HOST[:PORT]`, `unregister HOST PORT`, `peers`, `stop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from abi.errors import AbiError
from abid.cluster import lookup
from abid.cluster.discovery import DEFAULT_PORT, Discoverer, Options
from abid.cluster.interfaces import Interface
from abid.core.dialling import Address

HANDSHAKE_S = 20.0
"""No dial of a test is to fail because the machine is busy."""


def say(**words: Any) -> None:
    print(json.dumps(words | {"at": time.monotonic()}), flush=True)


class Member:
    def __init__(self, words: dict[str, Any]) -> None:
        self.node = bytes.fromhex(words["node"])
        self.listening = words.get("listening", 9000)
        self.only_loopback = words.get("only_loopback", "")
        self.connections: set[asyncio.Task[None]] = set()
        self.counts: Counter[bytes] = Counter()
        options = {"find": self._find} if self.only_loopback else {}
        self.discoverer = Discoverer(
            asyncio.get_running_loop(),
            Options(**words.get("options", {})),
            node=self.node,
            boot=words.get("boot", 1),
            keys=[words.get("key", "k" * 32).encode()],
            listening=self.listening,
            folder=Path(words["folder"]),
            dial=self.dial,
            **options,
        )

    def _find(self, _only: str) -> list[Interface]:
        return [Interface("lo", 1, self.only_loopback, 8, "127.255.255.255")]

    async def serve(self) -> asyncio.Server:
        host = self.only_loopback or None
        return await asyncio.start_server(self._accepted, host, self.listening)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(self.node)
        async with asyncio.timeout(HANDSHAKE_S):
            return await reader.readexactly(4)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            node = await self._greet(reader, writer)
        except (OSError, EOFError):
            writer.close()
            return
        if node == self.node:
            writer.close()
        else:
            self._connected(node, reader, writer, "")

    async def dial(self, address: Address, _expected: bytes) -> bytes:
        say(event="dial", address=str(address))
        async with asyncio.timeout(HANDSHAKE_S):
            reader, writer = await asyncio.open_connection(*address)
        try:
            node = await self._greet(reader, writer)
        except EOFError:
            raise ConnectionResetError("closed before it said who it is") from None
        if node != self.node:
            self._connected(node, reader, writer, str(address))
        return node

    def _connected(self, node: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        say(event="connected", node=node.hex(), address=address)
        self.counts[node] += 1
        self.discoverer.on_connected(node)
        task = asyncio.get_running_loop().create_task(self._until_closed(node, reader, writer))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    async def _until_closed(self, node: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        say(event="closed", node=node.hex())
        self.counts[node] -= 1
        if not self.counts[node]:
            self.discoverer.on_closed(node)

    async def obey(self, words: list[str]) -> None:
        match words:
            case ["register", text]:
                try:
                    found = await lookup.resolved([lookup.parse(text, DEFAULT_PORT)])
                except AbiError as error:
                    say(event="refused", message=error.message)
                    return
                say(event="registered", addresses=[str(one) for one in found])
                await self.discoverer.register(found, len(found))
            case ["unregister", host, port]:
                self.discoverer.unregister(Address(host, int(port)))
                say(event="unregistered")
            case ["peers"]:
                peers = [[str(peer.address), peer.node.hex(), peer.is_registered] for peer in self.discoverer.peers]
                say(event="peers", peers=peers)


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    member = Member(json.loads(sys.argv[1]))
    server = await member.serve()
    member.discoverer.start()
    say(event="ready")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while (words := (await reader.readline()).decode().split()) and words != ["stop"]:
        await member.obey(words)
    await member.discoverer.stop()
    server.close()
    say(event="stopped")


if __name__ == "__main__":
    uvloop.run(main())
