"""From words to addresses: `HOST[:PORT]` as people write it, names through the resolver, and the hook's output."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import shlex
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, NamedTuple

from abi import addresses
from abi.errors import AbiError, UsageError
from abid.core.dialling import Address

ADDRESSES_PER_NAME_MAX: Final = 64
"""A name may stand for many hosts (a headless service); these are enough to meet one."""
NAME_S: Final = 10
"""For one name. The system's resolver gives up on a dead server after some five seconds, and tries others."""
NAMES_AT_ONCE_MAX: Final = 8
"""Names are few; of those whose servers are dead, as many keep others waiting for as long as one may take."""
THREADS_MAX: Final = 64
"""In all. A resolver that never returns keeps its thread; beyond that many the host cannot look up names."""
HOOK_S: Final = 10
"""An inventory that takes longer is asked again later."""
HOOK_BYTES_MAX: Final = 1 << 16
HOOK_ADDRESSES_MAX: Final = 256
"""One that answers is enough."""


_threads: Final[set[threading.Thread]] = set()
"""That are asking the resolver."""


class HookFailed(AbiError):
    """The hook could not be run, failed, took too long, or printed what is no list of addresses."""


class NameUnknown(AbiError):
    """No address is known for a host's name. Nothing was dialled."""

    code = "not_found"


class Place(NamedTuple):
    """What a person wrote."""

    host: str
    """A name or an address."""
    port: int


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def parse(text: str, default_port: int) -> Place:
    """`HOST`, `HOST:PORT`, an IPv6 address, or `[ADDRESS]:PORT`. Raises UsageError."""
    try:
        host, port = addresses.split(text.strip())
    except ValueError as problem:
        raise UsageError(
            f"{text!r} is no HOST[:PORT]: {problem}",
            hint="a name or an address, as in node7.example.org:8081 or [fd00::7]:8081",
        ) from None
    return Place(host, default_port if port is None else port)


def address_of(place: Place) -> Address:
    """Of a place whose host is an address, in the one spelling that the rules compare."""
    return Address(str(ipaddress.ip_address(place.host)), place.port)


async def resolved(places: Iterable[Place], within_s: float = NAME_S) -> list[Address]:
    """What these stand for, in their order. A name that is not found in time is left out; ``within_s`` is for each."""
    places = list(places)
    found = {place: answer async for place, answer in each_resolved(places, within_s)}
    return list(dict.fromkeys(address for place in places for address in found[place]))


async def each_resolved(
    places: Iterable[Place], within_s: float = NAME_S
) -> AsyncIterator[tuple[Place, list[Address]]]:
    """What each stands for, as soon as it is known: a name whose server is dead holds up nobody else's."""
    gate = asyncio.Semaphore(NAMES_AT_ONCE_MAX)

    async def one(place: Place) -> tuple[Place, list[Address]]:
        if is_address(place.host):
            return place, [address_of(place)]
        async with gate:
            return place, await _resolved(place, within_s)

    answers = [asyncio.ensure_future(one(place)) for place in dict.fromkeys(places)]
    try:
        for answer in asyncio.as_completed(answers):
            yield await answer
    finally:
        for one_of_them in answers:
            one_of_them.cancel()


async def _resolved(place: Place, within_s: float) -> list[Address]:
    """The resolver blocks for as long as it likes, so it does in a thread that nobody waits for at the end of the
    process. Where too many threads wait for it already, nothing is asked."""
    if len(_threads) >= THREADS_MAX:
        return []
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Address]] = loop.create_future()

    def tell(found: list[Address]) -> None:
        if not done.done():
            done.set_result(found)

    def look_up() -> None:
        try:
            found = _look_up(place)
        finally:
            _threads.discard(thread)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, found)

    thread = threading.Thread(target=look_up, name="abid names", daemon=True)
    _threads.add(thread)
    try:
        thread.start()
    except RuntimeError:  # the system has none left
        _threads.discard(thread)
        return []
    try:
        return await asyncio.wait_for(done, within_s)
    except TimeoutError:
        return []


def _look_up(place: Place) -> list[Address]:
    """Of a name."""
    try:
        answers = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    hosts = dict.fromkeys(str(answer[4][0]) for answer in answers)
    return [Address(host, place.port) for host in hosts if is_address(host)][:ADDRESSES_PER_NAME_MAX]


async def run_hook(command: str, default_port: int, within_s: float = HOOK_S) -> list[Place]:
    """Run a command that prints one `HOST[:PORT]` a line; empty lines and those that begin with # do not count. Raises
    HookFailed. One that takes too long is ended with whatever it started."""
    starting = asyncio.ensure_future(_start(command))
    try:
        # Not to be given up half-way: what is started must also be ended, and only who has it can do so.
        process = await asyncio.shield(starting)
        async with asyncio.timeout(within_s):
            output, complaint = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await process.wait()
    except (TimeoutError, asyncio.CancelledError) as ended:
        process = await starting
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(ended, asyncio.CancelledError):
            raise
        raise HookFailed(f"the hook {command!r} took longer than {within_s:g} s and was ended") from None
    if code != 0:
        last = (complaint.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise HookFailed(f"the hook {command!r} ended with {code}: {last}")
    if len(output) == HOOK_BYTES_MAX:
        output = output.rpartition(b"\n")[0]  # the last line may be half of one
    return parsed_output(command, output.decode(errors="replace").splitlines(), default_port)


async def _start(command: str) -> asyncio.subprocess.Process:
    """In a session, and so a process group, of its own."""
    try:
        return await asyncio.create_subprocess_exec(
            *shlex.split(command.removeprefix("exec:")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError, TypeError) as error:
        raise HookFailed(f"the hook {command!r} cannot be run: {error}", hint="it must be an executable file") from None


def parsed_output(command: str, lines: Sequence[str], default_port: int) -> list[Place]:
    """Raises HookFailed for a line that is no place: half an inventory would pass for a whole one."""
    said = [line.strip() for line in lines]
    try:
        places = [parse(line, default_port) for line in said if line and not line.startswith("#")]
    except UsageError as error:
        raise HookFailed(f"the hook {command!r} printed a line that is no address: {error.message}") from None
    return places[:HOOK_ADDRESSES_MAX]


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """To its end; what is beyond the bound is read and forgotten, so that the writer does not wait for ever."""
    kept = b""
    while stream is not None and (piece := await stream.read(HOOK_BYTES_MAX)):
        kept += piece[: HOOK_BYTES_MAX - len(kept)]
    return kept
