"""A link over a socketpair: who receives, what a timeout leaves, what a lost connection says."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from abi import errors
from abi import link as link_module
from abi.guard import SigintGuard
from abi.link import Link
from abi.wire.codec import decode_items, decoders, encode_items
from abi.wire.frames import BATCH_BYTES, FrameReader, pack
from abi.wire.schema import End, Kind, Output, Put, Task
from tests.lib.conftest import close


class Pair:
    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.got: list[Any] = []
        self.fds: list[int] = []
        self.losses = 0
        self.others = threading.enumerate()
        self.link = Link(
            ours,
            decoders((Kind.END, Kind.OUTPUT)),
            {Kind.END: self.on_items, Kind.OUTPUT: self.on_items},
            self.on_lost,
            guard=SigintGuard(),
        )

    def on_items(self, items: list[Any], fds: list[int]) -> None:
        self.got += items
        self.fds += fds

    def on_lost(self) -> None:
        self.losses += 1
        self.link.close()

    def end(self, seq: int) -> bytes:
        return pack(Kind.END, encode_items([End(seq, 0)]))

    def has(self, *sequences: int) -> bool:
        return {item.seq for item in self.got}.issuperset(sequences)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    close(made.link)
    made.peer.close()


def test_frames_in_pieces(pair: Pair) -> None:
    stream = pair.end(1) + pair.end(2)
    for at in range(len(stream)):
        pair.peer.sendall(stream[at : at + 1])
        pair.link.wait(lambda: False, 0)
    assert pair.link.wait(lambda: pair.has(1, 2), 10)  # the helper may be about to deliver them
    assert [item.seq for item in pair.got] == [1, 2]


def test_a_timeout_takes_what_is_there(pair: Pair) -> None:
    assert not pair.link.wait(lambda: pair.has(1), 0.01)
    pair.peer.sendall(pair.end(1))
    deadline = time.monotonic() + 10
    while not pair.link.wait(lambda: pair.has(1), 0):  # the helper may be about to deliver it
        assert time.monotonic() < deadline


def test_threads_follow_and_take_over(pair: Pair) -> None:
    """Each waits for its own end; they come in an order that makes leaders leave before followers."""
    count = 8
    done = [False] * count

    def wait(seq: int) -> None:
        done[seq] = pair.link.wait(lambda: pair.has(seq), 20)

    threads = [threading.Thread(target=wait, args=(seq,)) for seq in range(count)]
    for thread in threads:
        thread.start()
    for seq in (3, 0, 7, 1, 6, 2, 5, 4):
        pair.peer.sendall(pair.end(seq))
    for thread in threads:
        thread.join(20)
    assert done == [True] * count


def test_a_follower_has_its_own_timeout(pair: Pair) -> None:
    leader = threading.Thread(target=pair.link.wait, args=(lambda: pair.has(9), 20))
    leader.start()
    while not pair.link.is_led:
        os.sched_yield()
    assert not pair.link.wait(lambda: pair.has(1), 0.02)
    pair.peer.sendall(pair.end(9))
    leader.join(20)
    assert not leader.is_alive()


def test_descriptors_find_their_frames(pair: Pair) -> None:
    pipes = [os.pipe() for _ in range(3)]
    ends = pack(Kind.END, encode_items([End(1, 0, size=1), End(2, 0, size=1)]), descriptors=2)
    socket.send_fds(pair.peer, [ends], [pipes[0][0], pipes[1][0]])
    socket.send_fds(pair.peer, [pack(Kind.END, encode_items([End(3, 0, size=1)]), descriptors=1)], [pipes[2][0]])
    assert pair.link.wait(lambda: pair.has(1, 2, 3), 10)
    assert [os.fstat(fd).st_ino for fd in pair.fds] == [os.fstat(read).st_ino for read, _write in pipes]
    assert not any(os.get_inheritable(fd) for fd in pair.fds)
    for fd in (*pair.fds, *(fd for both in pipes for fd in both)):
        os.close(fd)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "closed by the other side"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a frame of this protocol"),
        (pack(Kind.SUBMIT, encode_items([Task(1, 1, 1)])), "has no place on this connection"),
        (pack(Kind.END, b"\xc1"), "does not decode"),
        (pack(Kind.END, encode_items([End(1, 0)]), descriptors=1), "without its 1 descriptors"),
    ],
)
def test_what_ends_a_connection(pair: Pair, data: bytes, why: str) -> None:
    pair.peer.sendall(data)
    if not data:
        pair.peer.close()
    assert not pair.link.wait(lambda: False, 10)
    assert pair.losses == 1
    assert why in pair.link.why


@pytest.mark.parametrize("reads", [True, False], ids=["broken pipe", "reset"])
def test_what_came_before_a_send_failed_counts(pair: Pair, reads: bool) -> None:
    """The other side goes with our words read, or not; what it had said lies in our socket, and is worth having."""
    if not reads:
        pair.link.outbox.append((Kind.PUT, Put(1, b"v")))
        pair.link.flush()
    pair.peer.sendall(pair.end(1) + pair.end(2))
    pair.peer.close()
    pair.link.outbox.append((Kind.PUT, Put(2, b"v")))
    assert pair.link.wait(lambda: pair.has(1, 2), 10)
    assert not pair.link.wait(lambda: False, 10)
    assert pair.losses == 1


@pytest.mark.parametrize("timeout", [math.inf, 30 * 86_400.0])
def test_timeouts_that_no_call_of_the_kernel_takes(pair: Pair, timeout: float) -> None:
    done: list[bool] = []
    leader = threading.Thread(target=lambda: done.append(pair.link.wait(lambda: pair.has(9), timeout)))
    leader.start()
    while not pair.link.is_led:
        os.sched_yield()
    follower = threading.Thread(target=lambda: done.append(pair.link.wait(lambda: pair.has(1), timeout)))
    follower.start()
    pair.peer.sendall(pair.end(1))
    follower.join(20)
    pair.peer.sendall(pair.end(9))
    leader.join(20)
    assert done == [True, True]


def test_a_wait_that_is_cut_in_pieces_is_as_long(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "SLEEP_S_MAX", 0.002)
    began = time.monotonic()
    assert not pair.link.wait(lambda: False, 0.02)
    assert time.monotonic() - began >= 0.02


def test_a_wait_goes_on_while_another_connection_is_sought(pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(pair.end(1))
    is_there = False

    def on_lost() -> float | None:
        if not is_there:
            return 0.002
        pair.link.replace(ours, lambda unsent: unsent)
        return None

    pair.link.on_lost = on_lost
    pair.peer.close()
    began = time.monotonic()
    assert not pair.link.wait(lambda: pair.has(1), 0.02)
    assert time.monotonic() - began >= 0.02
    is_there = True
    assert pair.link.wait(lambda: pair.has(1), 10)
    theirs.close()


def test_a_link_without_hope_closes_and_its_helper_ends(pair: Pair) -> None:
    pair.link.outbox.append((Kind.PUT, Put(1, b"v")))
    pair.link.arm()
    helper = next(thread for thread in threading.enumerate() if thread.name == "abi" and thread not in pair.others)
    pair.peer.close()
    pair.link.on_lost = lambda: None
    pair.link.outbox.append((Kind.PUT, Put(2, b"v")))  # never to be sent
    pair.link.arm()
    helper.join(10)
    assert not helper.is_alive()
    assert pair.link.closed


def test_runs_of_a_kind_share_frames_in_order(pair: Pair) -> None:
    tasks = [Task(seq, 1, 1) for seq in range(1, 1001)]
    pair.link.outbox += [(Kind.SUBMIT, task) for task in tasks[:500]]
    pair.link.outbox.append((Kind.PUT, Put(2000, b"v")))
    pair.link.outbox += [(Kind.SUBMIT, task) for task in tasks[500:]]
    pair.link.releases.append(77)
    pair.link.flush()
    table = decoders((Kind.SUBMIT, Kind.PUT, Kind.RELEASE))
    reader = FrameReader()
    heard: list[tuple[int, list[int]]] = []
    while not heard or heard[-1][0] != Kind.RELEASE:
        heard += [
            (frame.kind, [getattr(item, "seq", item) for item in decode_items(table, frame.kind, frame.payload)])
            for frame in reader.feed(pair.peer.recv(1 << 20))
        ]
    assert heard == [
        (Kind.SUBMIT, list(range(1, 501))),
        (Kind.PUT, [2000]),
        (Kind.SUBMIT, list(range(501, 1001))),
        (Kind.RELEASE, [77]),
    ]


def test_two_full_buffers_do_not_wait_for_each_other(pair: Pair) -> None:
    """Both sides send 20 MB before they read: the link receives while it cannot send."""
    count = 200
    block = b"x" * 100_000
    pair.link.outbox += [(Kind.PUT, Put(seq, block)) for seq in range(count)]
    heard: list[int] = []

    def peer() -> None:
        for seq in range(count):
            pair.peer.sendall(pack(Kind.OUTPUT, encode_items([Output(seq, "f", 1, block)])))
        reader, table = FrameReader(), decoders((Kind.PUT,))
        while len(heard) < count:
            for frame in reader.feed(pair.peer.recv(1 << 20)):
                assert len(frame.payload) <= BATCH_BYTES + len(block)
                heard.extend(item.seq for item in decode_items(table, frame.kind, frame.payload))

    thread = threading.Thread(target=peer)
    thread.start()
    assert pair.link.wait(lambda: len(pair.got) == count, 30)
    thread.join(30)
    assert heard == list(range(count))


def test_the_helper_sends_what_waits_and_receives_while_nobody_does(pair: Pair) -> None:
    came = threading.Event()
    pair.link.delivered = came.set
    pair.link.outbox.append((Kind.PUT, Put(5, b"v")))
    pair.link.arm()
    pair.peer.settimeout(10)
    assert pair.peer.recv(1024)
    pair.peer.sendall(pair.end(1))
    assert came.wait(10)
    assert pair.has(1)


def test_ctrl_c_in_wait_loses_nothing(pair: Pair) -> None:
    previous = signal.getsignal(signal.SIGINT)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        while not pair.link.is_led:
            os.sched_yield()
        pair.peer.sendall(pair.end(1)[:5])
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pair.link.wait(lambda: pair.has(1), 20)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is previous
    pair.peer.sendall(pair.end(1)[5:])
    assert pair.link.wait(lambda: pair.has(1), 20)


@contextmanager
def interrupted(pair: Pair, handler: Callable[[int, object], None], when: Callable[[], object]) -> Iterator[None]:
    """``handler`` interrupts what the main thread does with the link, once, when that is so."""
    main = threading.main_thread().ident
    assert main is not None
    over = threading.Event()

    def interrupt() -> None:
        while not (main in pair.link._busy and when()):
            if over.is_set():
                return
            os.sched_yield()
        signal.pthread_kill(main, signal.SIGALRM)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGALRM, handler)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("leads", [True, False])
def test_a_handler_does_not_wait_in_the_middle_of_a_wait(pair: Pair, leads: bool) -> None:
    """Leader or follower: nobody would receive, or wake it."""
    said: list[object] = []

    def on_alarm(_number: int, _frame: object) -> None:
        said.append(pair.link.wait(lambda: False, 0))
        with pytest.raises(errors.ReentrantWait, match="after the handler has returned"):
            pair.link.wait(lambda: False, 30)
        said.append("raised")
        pair.peer.sendall(pair.end(1))

    other = threading.Thread(target=pair.link.wait, args=(lambda: pair.has(2), 30))
    if not leads:
        other.start()
        while not pair.link.is_led:
            os.sched_yield()
    with interrupted(pair, on_alarm, lambda: pair.link.is_led if leads else pair.link._followers):
        assert pair.link.wait(lambda: pair.has(1), 30)
    assert said == [False, "raised"]
    pair.peer.sendall(pair.end(2))
    assert pair.link.wait(lambda: pair.has(2), 30), "and from then on it may again"
    if not leads:
        other.join(30)


def test_a_handler_may_send_in_the_middle_of_a_send(pair: Pair) -> None:
    """The kernel takes no more, so it interrupts the thread that has the sending lock and the lead."""
    said: list[object] = []

    def on_alarm(_number: int, _frame: object) -> None:
        pair.link.outbox.append((Kind.PUT, Put(2, b"late")))
        pair.link.flush()
        pair.link.flush_now()
        with pytest.raises(errors.ReentrantWait):
            pair.link.wait(lambda: False, 30)
        said.append("raised")
        reader.start()

    received = bytearray()

    def read() -> None:
        while not received.endswith(pack(Kind.PUT, encode_items([Put(2, b"late")]))):
            received.extend(pair.peer.recv(1 << 20))

    reader = threading.Thread(target=read)
    pair.link.outbox.append((Kind.PUT, Put(1, bytes(4 << 20))))
    # Who sends takes the lead when the kernel takes no more, and not before.
    with interrupted(pair, on_alarm, lambda: pair.link.is_led):
        pair.link.flush()
    reader.join(20)
    assert not reader.is_alive()
    assert said == ["raised"]
    assert len(received) > 4 << 20


def test_a_handler_may_close_in_the_middle_of_a_wait(pair: Pair) -> None:
    def on_alarm(_number: int, _frame: object) -> None:
        pair.link.close()

    with interrupted(pair, on_alarm, lambda: pair.link.is_led):
        assert not pair.link.wait(lambda: False, 20)
    assert pair.link.sock.fileno() == -1, "and its descriptor is given back"


def test_many_interrupts_at_any_moment(pair: Pair) -> None:
    """A stream of ends and a stream of signals: every end arrives once, whatever the signals hit."""
    main = threading.main_thread().ident
    assert main is not None
    count, interrupts = 2000, 0
    inside, begun, over = threading.Event(), threading.Event(), threading.Event()

    def on_signal(_number: int, _frame: Any) -> None:
        # Once per entry, and never in the test's own code, which is not made for it.
        if inside.is_set():
            inside.clear()
            raise KeyboardInterrupt

    def send() -> None:
        for seq in range(count):
            if seq == count // 2:
                begun.wait(30)  # else all may be through before the first interrupt
            pair.peer.sendall(pair.end(seq))

    def interrupt() -> None:
        while not over.wait(0.0005):
            signal.pthread_kill(main, signal.SIGINT)

    threads = [threading.Thread(target=send), threading.Thread(target=interrupt)]
    old = signal.signal(signal.SIGINT, on_signal)
    try:
        for thread in threads:
            thread.start()
        while len(pair.got) < count:
            try:
                inside.set()
                pair.link.wait(lambda: len(pair.got) >= count, 0.05)
                inside.clear()
            except KeyboardInterrupt:
                interrupts += 1
                begun.set()
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
        signal.signal(signal.SIGINT, old)
    assert [item.seq for item in pair.got] == list(range(count))
    assert interrupts


def test_close_wakes_who_waits(pair: Pair) -> None:
    thread = threading.Thread(target=pair.link.wait, args=(lambda: False, None))
    thread.start()
    while not pair.link.is_led:
        os.sched_yield()
    pair.link.close()
    thread.join(10)
    assert not thread.is_alive()
