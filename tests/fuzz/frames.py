"""Frames that a client, a worker or a supervisor might send, and what becomes of them in bad hands.

A frame is made as a structure that makes sense where it is sent, so that it gets past the decoder and into the rules;
then, more or less often, something in it is replaced by what nobody expects, or its bytes are damaged.
"""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any, NamedTuple

import msgspec

from abi.wire.schema import Kind

HEADER = struct.Struct("<IBBH")
MSGPACK, JSON = 1, 2
WEIRD: list[Any] = [
    None, True, -1, 0, 1, 2, 127, 128, 255, 65_535, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 1, -(1 << 63), 0.5, -1.0, 1e308, float("inf"), float("nan"), "", "x", "\x00", "é" * 10, "last",
    b"", b"\x80\x04.",
    b"x" * 300, [], [[]], [[[[]]]], [0], [1, 2, 3], {}, {"cpus": 1}, {"a": -5}, {1: 2},
]  # fmt: skip
_pack = msgspec.msgpack.Encoder().encode


class Frame(NamedTuple):
    kind: int
    codec: int
    words: Any
    descriptors: int = 0


class Speaker:
    """What one client says, knowing what it said before."""

    def __init__(self, rng: Random, submitter: int = 0) -> None:
        self.rng = rng
        self.base = submitter << 40
        self.functions = 0
        self.options = 0
        self.next = 1

    def seq(self) -> int:
        """A task that may exist."""
        return self.base + self.rng.randrange(max(1, self.next - 30), self.next + 2)

    def frame(self) -> Frame:
        rng = self.rng
        if not self.functions or rng.random() < 0.03:
            return self._function()
        if not self.options or rng.random() < 0.05:
            return self._options()
        makers = (self._submit, self._submit, self._submit, self._release, self._release, self._put, self._want,
                  self._borrow, self._cancel)  # fmt: skip
        return rng.choice(makers)()

    def _function(self) -> Frame:
        index, self.functions = self.functions, self.functions + 1
        digest = bytes([self.rng.randrange(20)]) * 16
        if self.rng.random() < 0.2:
            return Frame(Kind.FUNCTION, MSGPACK, [[index, digest, "f", None, 500]], 1)
        return Frame(Kind.FUNCTION, MSGPACK, [[index, digest, "f", b"pickle"]])

    def _options(self) -> Frame:
        rng = self.rng
        index, self.options = self.options, self.options + 1
        often = rng.random() < 0.8  # else it may ask for what no node has
        resources = {rng.choice(("slot", "slot", "slo")): rng.choice((0, 5000, 20_000))} if rng.random() < 0.2 else {}
        wire: list[Any] = [index, rng.choice(("", "name")), rng.choice((0, 1, 5000, 10_000, 10_000, 20_000, 40_000))]
        wire += [0 if often else rng.choice((1 << 20, 1 << 60)), 0 if often else rng.choice((10_000, 20_000, 90_000))]
        wire += [resources, rng.choice((-1, 0, 1, 3)), rng.random() < 0.2, None, rng.choice((0, 0, 10_000_000))]
        wire += [rng.randrange(4), rng.choice((1, 1, 1, 2, 0)), rng.choice((0, 0, 0, 1, 2))]
        return Frame(Kind.OPTIONS, MSGPACK, [wire])

    def _submit(self) -> Frame:
        rng = self.rng
        items: list[Any] = []
        descriptors = 0
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            if rng.random() < 0.9:
                seq, self.next = self.base + self.next, self.next + 1
            else:
                seq = self.seq()
            item: list[Any] = [seq, rng.randrange(self.functions), rng.randrange(self.options)]
            if rng.random() < 0.4:
                size = rng.choice((0, 0, 200_000))
                descriptors += bool(size)
                dependencies = [[n, self.seq(), rng.choice((0, 0, 1))] for n in range(rng.randrange(3))] or None
                nested = [self.seq() for _ in range(rng.randrange(3))] or None
                item += [b"" if size else b"arguments", size, dependencies, nested, rng.choice((0, self.seq()))]
            items.append(item)
        return Frame(Kind.SUBMIT, MSGPACK, items, descriptors)

    def _put(self) -> Frame:
        seq, self.next = self.base + self.next, self.next + 1
        size = self.rng.choice((0, 0, 200_000))
        nested = [self.seq()] if self.rng.random() < 0.3 else None
        return Frame(Kind.PUT, MSGPACK, [[seq, b"" if size else b"object", size, nested]], bool(size))

    def _release(self) -> Frame:
        return Frame(Kind.RELEASE, MSGPACK, [self.seq() for _ in range(self.rng.randrange(1, 12))])

    def _want(self) -> Frame:
        return Frame(Kind.WANT, MSGPACK, [[self.seq()] for _ in range(self.rng.randrange(1, 4))])

    def _borrow(self) -> Frame:
        return Frame(Kind.BORROW, MSGPACK, [[self.seq()] for _ in range(self.rng.randrange(1, 4))])

    def _cancel(self) -> Frame:
        return Frame(Kind.CANCEL, MSGPACK, [[self.seq(), self.rng.random() < 0.3, self.rng.random() < 0.5]])


def request(rng: Random) -> Frame:
    """What the command line asks."""
    words: dict[str, Any] = {"id": rng.randrange(100), "op": rng.choice(_OPERATIONS)}
    match words["op"]:
        case "submit":
            words |= {"command": ["true"], "cwd": "/", "env": {"A": "b"}, "cpus": rng.choice((0.5, 1, 99)),
                      "priority": "high", "time_limit_ms": rng.choice((0, 5)), "resources": {}}  # fmt: skip
        case "jobs":
            words["all"] = True
        case "wait":
            words |= {"ids": [rng.choice(("last", "0", "z"))], "timeout_ms": 5}
        case _:
            words |= {"target": rng.choice(("last", "0", "zz")), "follow": rng.random() < 0.5, "offset": 0}
    return Frame(Kind.REQUEST, JSON, words)


_OPERATIONS = ("ping", "status", "jobs", "show", "submit", "submit", "logs", "wait", "cancel", "config", "fly")


def of_worker(rng: Random, outstanding: list[tuple[int, int]]) -> Frame:
    """What a worker says of its calls, given as (number, seq)."""
    number, seq = rng.choice(outstanding) if outstanding else (rng.randrange(5), rng.randrange(50))
    match rng.randrange(10):
        case 0:
            return Frame(Kind.DROPPED, MSGPACK, [[number]])
        case 1:
            return Frame(Kind.PRINTED, MSGPACK, [[number, rng.choice((1, 2, 3)), b"some\nlines"]])
        case 2:
            return Frame(Kind.BLOCKED, MSGPACK, [[number]])
        case 3:
            return Frame(Kind.UNBLOCKED, MSGPACK, [[number]])
    size = rng.choice((0, 0, 0, 200_000))
    end: list[Any] = [seq, rng.choice((0, 0, 0, 1, 1, 3, 5)), b"" if size else b"result", 1, size, rng.randrange(10**7)]
    if rng.random() < 0.2:
        end += [[rng.randrange(50)], [[b"part", 0]] * rng.randrange(3), rng.random() < 0.5]
    return Frame(Kind.RESULT, MSGPACK, [end], bool(size))


# What becomes of them.


def encode(frame: Frame) -> bytes:
    payload = _pack(frame.words) if frame.codec == MSGPACK else json.dumps(frame.words, default=repr).encode()
    return HEADER.pack(len(payload), frame.kind, frame.codec, frame.descriptors) + payload


def damaged(rng: Random, frame: Frame) -> bytes:
    """The frame's bytes with something wrong, most often inside, so that the frame itself still is one."""
    dice = rng.random()
    if dice < 0.6:
        words = _replaced(rng, frame.words)
        try:
            return encode(frame._replace(words=words))
        except (OverflowError, ValueError, TypeError):
            return encode(frame)
    if dice < 0.7:
        return encode(frame._replace(kind=rng.choice((0, 3, 4, 16, 18, 20, 24, 32, 48, 64, 80, 96, 255))))
    if dice < 0.75:
        return encode(frame._replace(descriptors=rng.choice((0, 1, 2, 5))))
    data = encode(frame)
    head, payload = bytearray(data[:8]), bytearray(data[8:])
    if dice < 0.95:
        _damage(rng, payload)
        head[:4] = len(payload).to_bytes(4, "little")
    else:
        _damage(rng, head)
    return bytes(head + payload)


def _replaced(rng: Random, words: Any) -> Any:
    """A copy in which one value, anywhere, is another one."""
    if isinstance(words, list) and words and rng.random() < 0.9:
        at = rng.randrange(len(words))
        if rng.random() < 0.1:
            return words[:at] + words[at + 1 :] if rng.random() < 0.5 else [*words, rng.choice(WEIRD)]
        return [*words[:at], _replaced(rng, words[at]), *words[at + 1 :]]
    if isinstance(words, dict) and words and rng.random() < 0.9:
        key = rng.choice(list(words))
        return {**words, key: _replaced(rng, words[key])}
    return rng.choice(WEIRD)


def _damage(rng: Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 0x7F, 0x80, 0xC0, 0xC1, 0xDD, 0xDF, 0xFF, 0x90, 0x91))
            case 2:
                del data[at : at + rng.randrange(1, 5)]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 5))
            case _:
                data += data[at : at + 20]
