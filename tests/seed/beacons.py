"""Prints what leaves this host from when it says "ready", a word for each packet: "broadcast" for UDP to a broadcast
address, else "udp" or "tcp". The network's own housekeeping counts as nothing. It ends with its host.

    python beacons.py
"""

from __future__ import annotations

import socket

_ALL, _OUTGOING = 3, 4
_NAMES = {6: "tcp", 17: "udp"}


def word(frame: bytes) -> str:
    kind = int.from_bytes(frame[12:14], "big")
    protocol = frame[23] if kind == 0x0800 else frame[20] if kind == 0x86DD else 0
    name = _NAMES.get(protocol, "")
    return "broadcast" if name == "udp" and frame[:6] == b"\xff" * 6 else name


def main() -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as sock:
        sock.bind(("eth0", _ALL))
        print("ready", flush=True)
        while True:
            frame, source = sock.recvfrom(1 << 16)
            if source[2] == _OUTGOING and (said := word(frame)):
                print(said, flush=True)


if __name__ == "__main__":
    main()
