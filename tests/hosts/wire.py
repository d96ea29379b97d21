"""A slow wire: carries Ethernet frames between two interfaces and keeps each for a while. Not every kernel has netem.

    python wire.py IF1 IF2 DELAY_MS JITTER_MS SEED

It says "ready" when it carries. Frames keep their order, as on a wire. They pass with the header in which the kernel
notes what is left to the hardware (checksums, segmentation): frames between virtual interfaces never had either done.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import sys
import time
from collections import deque
from typing import Final

_ETH_P_ALL: Final = 3
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23  # linux/if_packet.h
FRAME_BYTES_MAX: Final = 1 << 17
"""A segmented frame has up to 64 KiB, and its headers."""
FRAMES_MAX: Final = 10_000
"""Under way one way; what comes beyond is lost, as in a full queue."""
RECEIVE_BYTES: Final = 1 << 22


class Direction:
    """From one interface to the other."""

    def __init__(
        self, source: socket.socket, target: socket.socket, delay_s: float, jitter_s: float, seed: int
    ) -> None:
        self._source, self._target = source, target
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self._lots = random.Random(seed)
        self._under_way: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float | None:
        return self._under_way[0][0] if self._under_way else None

    def take(self, now: float) -> None:
        """All that has arrived."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = self._source.recv(FRAME_BYTES_MAX)
                due = now + self._delay_s + self._jitter_s * self._lots.random()
                if self._under_way:
                    due = max(due, self._under_way[-1][0])
                if len(self._under_way) < FRAMES_MAX:
                    self._under_way.append((due, frame))

    def pass_on(self, now: float) -> None:
        while self._under_way and self._under_way[0][0] <= now:
            with contextlib.suppress(OSError):  # the other end is down, or its queue is full: lost
                self._target.send(self._under_way[0][1])
            self._under_way.popleft()


def opened(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    sock.setblocking(False)
    sock.bind((interface, _ETH_P_ALL))
    return sock


def main(one_name: str, other_name: str, delay_ms: str, jitter_ms: str, seed: str) -> None:
    one, other = opened(one_name), opened(other_name)
    delay_s, jitter_s = float(delay_ms) / 1000, float(jitter_ms) / 1000
    ways = {
        one: Direction(one, other, delay_s, jitter_s, int(seed)),
        other: Direction(other, one, delay_s, jitter_s, int(seed) + 1),
    }
    print("ready", flush=True)
    while True:
        dues = [way.due for way in ways.values() if way.due is not None]
        wait_s = max(0.0, min(dues) - time.monotonic()) if dues else None
        readable, _, _ = select.select(list(ways), [], [], wait_s)
        now = time.monotonic()
        for sock in readable:
            ways[sock].take(now)
        for way in ways.values():
            way.pass_on(time.monotonic())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
