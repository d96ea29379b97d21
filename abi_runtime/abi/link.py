"""One framed connection, shared by all threads of a process, without a thread that owns it.

Who waits, receives: the first caller of ``wait`` takes the lead, the others follow it and sleep until what they
wait for has come or the lead is free. So a call that waits for one answer costs no switch between threads. A parked
helper thread (``abi.helper``) sends what waited a millisecond and receives only while no caller does. Prior art:
leader/followers (Schmidt et al., PLoP 2000).

Sending: the hot path appends ``(kind, item)`` to ``outbox`` and nothing else; ``flush`` encodes what is there.

Signals: everything here runs masked (``abi.guard``) but the blocking calls. Received bytes cannot be lost to a
handler that raises, because they are stored by C code before the interpreter looks for signals (``list.extend``
over ``map``).
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from itertools import repeat
from math import ceil
from time import monotonic, monotonic_ns, sleep
from typing import Any, Final

from abi.errors import ProtocolError, ReentrantWait
from abi.follower import Follower
from abi.guard import NO_GUARD, Guard
from abi.helper import LINGER_S, Helper
from abi.outgoing import Outgoing
from abi.spin import Spin
from abi.wire.codec import decode_items
from abi.wire.frames import DESCRIPTORS_MAX, FrameReader
from abi.wire.schema import Kind

RECEIVE_BYTES: Final = 256 * 1024
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(DESCRIPTORS_MAX * 4)
# Plain integers: the module's own are enums, whose `|` and `&` cost a microsecond.
_WAITING: Final = int(socket.MSG_CMSG_CLOEXEC)
_NOT_WAITING: Final = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
_TRUNCATED: Final = int(socket.MSG_CTRUNC)

SLEEP_S_MAX: Final = 86_400.0
"""A wait sleeps no longer at a time, and then looks again: poll(2) counts milliseconds in 32 bits, which is 24 days."""
CROWDED_MS: Final = 5
"""When too many descriptors are in flight, which nothing tells the end of: a daemon takes thousands in that time."""
LOOK_NS: Final = 1_500_000
"""An answer that takes longer is slept for. A single call takes 0.2 ms, where the machine is shared up to 0.7."""

Handler = Callable[[list[Any], list[int]], None]
"""Gets the items of one frame and the descriptors that are theirs; it owns these from then on. Must not wait."""

_links: weakref.WeakSet[Link] = weakref.WeakSet()
_main_thread: Final = threading.main_thread


class Link:
    """See the module. ``outbox``, ``releases`` and ``lost`` may be read and appended to from any thread.

    ``on_lost`` runs in a thread that receives, again and again after a loss: it may ``replace`` the socket, or tell
    in how many seconds it is to be called again, which should be few; when it does neither, or there is none, the link
    closes and every ``wait`` returns. ``delivered`` runs after each batch of frames; it must not wait. ``busy`` says
    whether answers are due.
    """

    def __init__(
        self,
        sock: socket.socket,
        table: dict[int, Any],
        handlers: dict[int, Handler],
        on_lost: Callable[[], float | None] | None = None,
        *,
        guard: Guard = NO_GUARD,
        linger_s: float = LINGER_S,
    ) -> None:
        self.outbox: list[tuple[Any, ...]] = []
        self.releases: list[int] = []
        self.handlers = handlers
        self.on_lost = on_lost
        self.guard = guard
        self._linger_s = linger_s
        self.delivered: Callable[[], None] | None = None
        self.busy: Callable[[], bool] = _always
        self.is_urgent: Callable[[], bool] = _never
        self.lost = False
        self.closed = False
        self.why = ""
        self._table = table
        self._outgoing = Outgoing()
        self._make_locks()
        self._adopt(sock)
        _links.add(self)

    def _make_locks(self) -> None:
        self._lead = threading.Lock()
        self._sending = threading.Lock()
        self._followers: list[Follower] = []
        self._busy: set[int] = set()
        """Threads that send or receive. A signal's handler that interrupted one must not, in the same thread: it would
        wait for a lock, or for a lead, that is given up only after it has returned."""
        self.helper = Helper(self, self._linger_s)

    def _adopt(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self.sock = sock
        self._spin = Spin(sock, LOOK_NS)
        self._buffer = bytearray(RECEIVE_BYTES)
        self._reader = FrameReader()
        self._chunks: list[tuple[int, list[Any], int, Any]] = []
        self._descriptors: deque[int] = deque()
        self.is_unheard = False
        """Whether the other side left, as a failed send told, and what it had said is still to be read."""

    # --- sending ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send everything that waits; if the kernel's buffer is full, receive until it is not, so that two full buffers
        never wait for each other. A connection that breaks here is noticed by the next that receives."""
        if not (self.outbox or self.releases or self._outgoing):
            return
        me = threading.get_ident()
        if me in self._busy:
            self.helper.arm()
            return
        guard = self._own_guard()
        guard.enter()
        try:
            self._busy.add(me)
            self._send_all(guard, leads=False)
        finally:
            self._busy.discard(me)
            guard.leave()

    def _send_all(self, guard: Guard, *, leads: bool) -> None:
        while not self.lost and not self._push():
            self._breathe(guard, leads)

    def flush_now(self) -> None:
        """Send what the kernel takes at once, and no more: for a goodbye."""
        if not self.lost and threading.get_ident() not in self._busy:
            self._push()

    def _push(self) -> bool:
        with self._sending:
            if self.is_unheard:
                return True
            self._take()
            try:
                return self._outgoing.push(self.sock)
            except (BrokenPipeError, ConnectionResetError):
                # The other side left, and what it had said before still lies in our socket: ends, and notes that tasks
                # started. Whoever receives takes all of that, and loses the connection where it ends.
                self.is_unheard = True
                self._outgoing.clear()
                self.helper.watch()
                return True
            except OSError as error:
                self.lose(str(error))
                return True

    def _take(self) -> None:
        # Releases are read first and sent last. 1. a thread unpickles a reference: BORROW joins the outbox. 2. it drops
        # the value that held it: RELEASE. Were the outbox read first, (1) and (2) could come after that and only
        # (2) leave.
        released = self.releases[:]
        batch = self.outbox[:]
        taken = len(batch)
        if released:
            batch.extend(zip(repeat(Kind.RELEASE), released))
        if batch:
            self._outgoing.add(batch)
        # Only now: other threads' tasks are in it, and must not go with what has found no memory to be encoded.
        del self.releases[: len(released)]
        del self.outbox[:taken]
        if self.outbox:
            # 1. the batch was read above. 2. another thread appends, finds a long outbox, and trusts that it is armed.
            # 3. the deletion leaves that one item, which nobody is to send. So arm again.
            self.helper.arm()

    def _breathe(self, guard: Guard, leads: bool) -> None:
        """Wait until there is room to send, receiving meanwhile unless another thread does. ``leads``: this does."""
        leading = leads or self._lead.acquire(blocking=False)
        try:
            poll = select.poll()
            crowded = self._outgoing.is_crowded
            poll.register(self.sock, (0 if crowded else select.POLLOUT) | (select.POLLIN if leading else 0))
            guard.pause()
            events = poll.poll(CROWDED_MS if crowded else 50)
            guard.resume()
            if leading and any(event & ~select.POLLOUT for _fd, event in events):
                self._receive(0.0, guard)
                self._notify()
        finally:
            if leading and not leads:
                self._release_lead()

    def arm(self) -> None:
        """See that the outbox leaves within about ``linger_s``."""
        self.helper.arm()

    # --- receiving ----------------------------------------------------------------------------------------------------

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Receive until ``done()``; whether it holds at the end. ``timeout`` in seconds, 0: take what is there already.

        ``done`` is called from other threads too, and must only look. Returns early when the connection is gone for
        good. Raises ReentrantWait where a thread would wait for itself.
        """
        if done():
            return True
        # A handler came in the middle of a wait. Frames may be half digested below, the lead is taken if it leads, and
        # if it follows, whoever passes the lead on wakes that one.
        me = threading.get_ident()
        if me in self._busy:
            if timeout == 0:
                return False
            raise ReentrantWait
        deadline = None if timeout is None else monotonic() + timeout
        guard = self._own_guard()
        guard.enter()
        try:
            try:
                self._busy.add(me)
                if self.outbox or self.releases or self._outgoing:
                    self._send_all(guard, leads=False)
                if self._lead.acquire(blocking=False):
                    return self._lead_until(done, deadline, guard)
                return self._follow(done, deadline, guard)
            finally:
                self._busy.discard(me)
        finally:
            guard.leave()

    def receive_now(self) -> None:
        """Take what is there unless another thread does so already, or this one below us."""
        me = threading.get_ident()
        if me in self._busy:
            return
        guard = self._own_guard()
        guard.enter()
        try:
            self._busy.add(me)
            if self._lead.acquire(blocking=False):
                try:
                    if self.lost:
                        self._recover(guard)
                    elif self._receive(0.0, guard):
                        self._notify()
                finally:
                    self._release_lead()
        finally:
            self._busy.discard(me)
            guard.leave()

    @property
    def is_led(self) -> bool:
        """Whether some thread receives at this moment."""
        return self._lead.locked()

    def _lead_until(self, done: Callable[[], bool], deadline: float | None, guard: Guard) -> bool:
        try:
            while not done():
                if self.lost:
                    if not self._recover(guard, deadline):
                        return done()
                    continue
                if self.outbox or self._outgoing:
                    self._send_all(guard, leads=True)
                left = None if deadline is None else min(max(0.0, deadline - monotonic()), SLEEP_S_MAX)
                if self._receive(left, guard):
                    self._notify()
                    self.helper.seen += 1
                elif left != SLEEP_S_MAX:
                    return done()
            return True
        finally:
            self._release_lead()

    def _follow(self, done: Callable[[], bool], deadline: float | None, guard: Guard) -> bool:
        # 1. this thread finds the lead taken. 2. the leader leaves and looks for followers. So: register first,
        # then try again; whoever leaves after that finds us.
        me = Follower(done)
        self._followers.append(me)
        try:
            while True:
                if self._lead.acquire(blocking=False):
                    return self._lead_until(done, deadline, guard)
                if done():
                    return True
                if self.closed:
                    return False
                left = -1 if deadline is None else min(deadline - monotonic(), SLEEP_S_MAX)
                if deadline is not None and left <= 0:
                    return done()
                guard.pause()
                me.sleep(left)
                guard.resume()
        finally:
            self._followers.remove(me)
            if not self._lead.locked():
                self._pass_on()

    def _receive(self, timeout: float | None, guard: Guard) -> bool:
        """One round: False if nothing came in time. A lost connection counts as something that came."""
        if not self._chunks:
            guard.pause()
            try:
                if timeout is not None and not self._readable(timeout):
                    return False
                began = self._look() if timeout is None else 0
                flags = _WAITING if timeout is None else _NOT_WAITING
                self._chunks.extend(map(self.sock.recvmsg_into, ((self._buffer,),), (_ANCILLARY_BYTES,), repeat(flags)))
                if began:
                    self._spin.slept(monotonic_ns() - began)
            except BlockingIOError:
                return False
            except OSError as error:
                self.lose(str(error))
                return True
            finally:
                guard.resume()
        while self._chunks:
            self._digest(*self._chunks.pop(0))
        return True

    def _look(self) -> int:
        """Before sleeping: look for the one answer that is due, or begin to measure whether that would be worth it."""
        if not self.is_urgent():
            return 0
        if self._spin.is_worth_it:
            self._spin.look()
            return 0
        return monotonic_ns()

    def _readable(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(ceil(timeout * 1000)))

    def _digest(self, size: int, ancillary: list[Any], flags: int, _address: Any) -> None:
        data = bytes(memoryview(self._buffer)[:size])
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if flags & _TRUNCATED:
            self.lose("descriptors were lost: this process may not open more files (ulimit -n)")
        elif not data:
            self.lose("it was closed by the other side")
        else:
            try:
                self._dispatch(data)
            except ProtocolError as error:
                self.lose(error.message)

    def _dispatch(self, data: bytes) -> None:
        for kind, _codec, payload, count in self._reader.feed(data):
            items = decode_items(self._table, kind, payload)
            if not count:
                self.handlers[kind](items, [])
                continue
            if len(self._descriptors) < count:
                raise ProtocolError(f"a frame of kind {kind} came without its {count} descriptors")
            self.handlers[kind](items, [self._descriptors.popleft() for _ in range(count)])

    def _notify(self) -> None:
        """Wake the followers whose wait is over, and let ``delivered`` tell others. Masked: an interrupt in the
        middle of it would lose what somebody awaits."""
        for follower in tuple(self._followers):
            if follower.done():
                follower.wake()
        if self.delivered is not None:
            self.delivered()

    def _release_lead(self) -> None:
        if self.closed:
            self._discard()
        self._lead.release()
        self._pass_on()
        if not self.helper.state and self.busy():
            self.helper.watch()

    def _pass_on(self) -> None:
        followers = tuple(self._followers)
        if followers:
            followers[0].wake()

    # --- the end of a connection --------------------------------------------------------------------------------------

    def lose(self, why: str) -> None:
        """The connection is of no more use: who receives next tries for another."""
        if not self.lost:
            self.why = why
            self.lost = True
        self._chunks.clear()
        self.helper.watch()

    def _recover(self, guard: Guard, deadline: float | None = None) -> bool:
        """With the lead: try once for another connection, and pause if that failed. Whether to go on waiting."""
        if self.closed:
            return False
        guard.pause()
        pause_s = None if self.on_lost is None else self.on_lost()
        guard.resume()
        if self.lost and pause_s is None:
            self.close()
        self._notify()
        if not self.lost:
            return True
        if pause_s is None:
            return False
        left = pause_s if deadline is None else min(pause_s, deadline - monotonic())
        if left <= 0:
            return False
        guard.pause()
        sleep(left)
        guard.resume()
        return True

    def replace(self, sock: socket.socket, rebuild: Callable[[list[tuple[Any, ...]]], list[tuple[Any, ...]]]) -> None:
        """Go on over ``sock``. ``rebuild`` gets what had not been sent and returns what is to be sent now. Lead
        only."""
        with self._sending:
            self._discard()
            self._adopt(sock)
            self._outgoing.clear()
            unsent = self.outbox[:]
            self.outbox[: len(unsent)] = rebuild(unsent)
            self.why = ""
            self.lost = False

    def close(self) -> None:
        """End the connection. Threads that wait return; the outbox is not sent."""
        if self.closed:
            return
        self.closed = True
        self.lost = True
        _shut(self.sock)
        for follower in tuple(self._followers):
            follower.wake()
        self.helper.stop()
        if threading.get_ident() in self._busy:
            return  # what a handler interrupted, or ``on_lost`` is a part of, discards it when it gives up the lead
        if self._lead.acquire(timeout=1):  # its number must not be another file's while somebody receives on it
            self._discard()
            self._release_lead()

    def _discard(self) -> None:
        self.sock.close()
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors.clear()

    def forget(self) -> None:
        """In a forked child: drop the parent's connection without a word to the other side."""
        self.closed = self.lost = True
        self.helper.abandon()
        self._make_locks()
        self.outbox.clear()
        self._discard()

    def _own_guard(self) -> Guard:
        if self.guard is NO_GUARD or threading.get_ident() != _main_thread().ident:
            return NO_GUARD
        return self.guard


def _always() -> bool:
    return True


def _never() -> bool:
    return False


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone
        sock.shutdown(socket.SHUT_RDWR)


def _forget_in_child() -> None:
    for link in tuple(_links):
        link.forget()


os.register_at_fork(after_in_child=_forget_in_child)
