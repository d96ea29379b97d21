"""Sends packets to one address as fast as told, as a program of its own.

    python flood.py KIND HOST PORT PER_SECOND SECONDS [PACKET_HEX]

With `inf` for SECONDS it says "begun" after the first packets, and goes on until its standard input ends.

KIND: `noise` random bytes; `strange` right in form, of another cluster; `forged` of this cluster by its tag, a new
number each time, not sealed by anybody; `replayed` PACKET over and over. Prints how many it sent a second.
"""

from __future__ import annotations

import math
import os
import select
import socket
import struct
import sys
import time

BURST_S = 0.001


def packets(kind: str, example: bytes) -> list[bytes]:
    """A thousand of the kind, sent in turn; forged ones get their number when they are sent."""
    if kind == "noise":
        return [os.urandom(1 + n % 600) for n in range(1000)]
    if kind == "strange":
        return [example[:2] + os.urandom(8) + example[10:]] * 1000
    return [example] * 1000


def is_over(end: float) -> bool:
    if end == math.inf:
        return bool(select.select([sys.stdin], [], [], 0)[0])
    return time.monotonic() >= end


def main(kind: str, host: str, port: str, per_second: str, seconds: str, packet_hex: str = "") -> None:
    ready, number = packets(kind, bytes.fromhex(packet_hex)), 1 << 40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, int(port)))
        start = time.monotonic()
        sent, end = 0, start + float(seconds)
        while not is_over(end):
            due = int((time.monotonic() - start) * int(per_second)) - sent
            for _ in range(due):
                packet = ready[sent % 1000]
                if kind == "forged":
                    packet = packet[:14] + struct.pack(">Q", number + sent) + packet[22:-1] + b"?"
                sock.send(packet)
                sent += 1
            if sent == due > 0 and end == math.inf:
                print("begun", flush=True)
            time.sleep(BURST_S)
        print(int(sent / (time.monotonic() - start)))


if __name__ == "__main__":
    main(*sys.argv[1:])
