"""Plain programs that hosts run to talk to each other. Each says a line for each thing that happens.

python talk.py serve PORT                  accept, echo; "from ADDRESS", then "end" or "broken ERROR"
python talk.py ask HOST PORT TIMEOUT_S     one round trip: its milliseconds, or the error's name
python talk.py hold HOST PORT              connect, "held", then wait for the connection's end
python talk.py push HOST PORT BYTES        send so many bytes and read them back: "equal" or "different"
python talk.py hear PORT                   UDP: "heard WORDS from ADDRESS"
python talk.py shout HOST PORT WORDS       UDP, broadcast allowed
"""

from __future__ import annotations

import hashlib
import random
import socket
import sys
import threading
import time


def say(*words: object) -> None:
    print(*words, flush=True)


def echo(connection: socket.socket, peer: str) -> None:
    say("from", peer)
    try:
        while piece := connection.recv(1 << 16):
            connection.sendall(piece)
    except OSError as error:
        say("broken", type(error).__name__)
        return
    connection.shutdown(socket.SHUT_WR)
    say("end")


def serve(port: str) -> None:
    with socket.create_server(("", int(port))) as server:
        say("ready")
        while True:
            connection, peer = server.accept()
            threading.Thread(target=echo, args=(connection, peer[0]), daemon=True).start()


def ask(host: str, port: str, timeout_s: str) -> None:
    start = time.monotonic()
    try:
        with socket.create_connection((host, int(port)), float(timeout_s)) as connection:
            connection.sendall(b"?")
            assert connection.recv(1) == b"?"
    except OSError as error:
        say(type(error).__name__)
        return
    say((time.monotonic() - start) * 1000)


def hold(host: str, port: str) -> None:
    with socket.create_connection((host, int(port))) as connection:
        say("held")
        try:
            say("end" if not connection.recv(1) else "more")
        except OSError as error:
            say("broken", type(error).__name__)


def push(host: str, port: str, count: str) -> None:
    data = random.Random(7).randbytes(int(count))
    digest = hashlib.sha256()
    with socket.create_connection((host, int(port))) as connection:

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        while piece := connection.recv(1 << 16):
            digest.update(piece)
        sending.join()
    say("equal" if digest.digest() == hashlib.sha256(data).digest() else "different")


def hear(port: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", int(port)))
        say("ready")
        while True:
            words, peer = sock.recvfrom(1500)
            say("heard", words.decode(), "from", peer[0])


def shout(host: str, port: str, words: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(words.encode(), (host, int(port)))


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "hold": hold, "push": push, "hear": hear, "shout": shout}[sys.argv[1]](*sys.argv[2:])
