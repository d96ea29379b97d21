"""One program's (or worker's) conversation with its daemon: what it submitted, what has ended, what it holds.

``pending`` maps the number of every task whose end has not come to its Ref, so a task that nobody refers to goes
on; the Ref is dropped with its end, and its finaliser then releases it. The hot path is in ``abi.remote``: it
appends to ``outbox`` and ``pending`` and looks at ``live``, ``tasks_max`` and nothing else.

Used from any thread: single operations on dicts and lists are atomic, and each task's end is set once, by the thread
that has the lead of the link.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from abi import errors, ids
from abi.bodies import adopt_views, put_of, view_of
from abi.failure import BEGIN_ANEW, error_of, lost
from abi.link import Link
from abi.pickling import dumps_value, loads_value
from abi.printing import print_lines
from abi.ref import Home, Ref, record_of
from abi.watching import Watch, Watchers
from abi.wire.codec import encode_definition
from abi.wire.schema import (
    ROOT,
    Cancel,
    Dependency,
    End,
    EndKind,
    Function,
    Kind,
    Options,
    Put,
    Reference,
    Refused,
    Starting,
    Task,
)

if TYPE_CHECKING:
    from abi.objects.blob import Blob

FLUSH_ITEMS: Final = 256
FLUSH_BYTES: Final = 256 * 1024
"""What waits in the outbox is sent inline above either: large enough to batch, small enough that workers start
early."""
RETRY_AFTER_MS: Final = 50
"""Told to who asked not to block at a full queue: about what a batch takes."""
RECEIVED: Final = (Kind.END, Kind.OUTPUT, Kind.STARTING, Kind.BYE, Kind.REFUSED)
"""Frames that a submitter gets; the table given to its Link must decode them."""


class Hooks:
    """What happens around a wait that really blocks. A worker tells its daemon, which lends out its processors."""

    def blocked(self) -> None: ...

    def unblocked(self) -> None: ...


class Session:
    """``prefix``: 8 bytes of every id; ``submitter``: 0 for a program. Registers its handlers in ``link``.

    ``parent`` is the task whose code runs in this process, 0 in a program. 0 as a limit means none.
    """

    def __init__(
        self,
        link: Link,
        prefix: bytes,
        submitter: int,
        *,
        tasks_max: int = 0,
        bytes_max: int = 0,
        log_to_driver: bool = True,
    ) -> None:
        self.live = True
        self.link = link
        self.outbox = link.outbox
        self.helper = link.helper
        self.prefix = prefix
        self.home = Home(prefix, self, link.releases, link.helper)
        self.next_seq = itertools.count(submitter << ids.COUNTER_BITS | 1).__next__
        self.submitter = submitter
        self.parent = 0
        self.hooks: Hooks | None = None
        self.pending: dict[int, Ref[Any]] = {}
        self.tasks_max = tasks_max or 1 << 62
        self.bytes_max = bytes_max or 1 << 62
        self.bytes_out = 0
        self.failures = 0
        """Counts ends other than OK: who waits for many looks for an early failure only when this has moved."""
        self.cpus = 0
        self.log_to_driver = log_to_driver
        # Kept for sending them again after a lost connection.
        self.functions: dict[bytes, Function] = {}
        self.function_views: dict[int, memoryview] = {}
        self.function_keeps: dict[int, list[Ref[Any]]] = {}
        self.options: dict[bytes, Options] = {}
        self.bodies: dict[int, memoryview] = {}
        self.keeps: dict[int, list[Ref[Any]]] = {}
        self.cancels: dict[int, Cancel] = {}
        self.starting: set[int] = set()
        self.unknown_below = 0
        """A new daemon knows nothing of objects that ended before it came: these numbers, unless in ``supplied``."""
        self.supplied: set[int] = set()
        self.borrowed: weakref.WeakValueDictionary[int, Ref[Any]] = weakref.WeakValueDictionary()
        self.watchers = Watchers()
        self.is_work_lost = False  # whether something was unfinished when it ended
        self.refused = False
        """Whether the daemon ended the connection over something that this program said."""
        self._waiting_bytes = 0
        self._interning = threading.Lock()
        link.handlers.update({Kind.END: self._on_ends, Kind.OUTPUT: self._on_output, Kind.STARTING: self._on_starting})
        link.handlers[Kind.BYE] = lambda _items, _fds: link.lose("the daemon was stopped")
        link.handlers[Kind.REFUSED] = self._on_refused
        link.delivered = self.watchers.deliver
        link.busy = self._is_busy
        if submitter == ROOT:
            link.is_urgent = self._is_urgent

    # --- submitting ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        function: int,
        options: int,
        arguments: bytes,
        size: int = 0,
        blob: Blob | None = None,
        dependencies: list[Dependency] | None = None,
        nested: list[int] | None = None,
        *,
        keep: list[Ref[Any]] | None = None,
        on_full: str = "block",
    ) -> Ref[Any]:
        """A call with arguments. ``keep`` are the references in them. Raises QueueFullError with
        ``on_full="raise"``."""
        weight = size or len(arguments)
        if len(self.pending) >= self.tasks_max or self.bytes_out + weight > self.bytes_max:
            self.admit(weight, on_full)
        seq = self.next_seq()
        task = Task(seq, function, options, arguments, size, dependencies, nested, self.parent)
        entry: tuple[Any, ...] = (Kind.SUBMIT, task)
        if blob is not None:
            self.bodies[seq] = view_of(blob)
            entry = (Kind.SUBMIT, task, self._beside(blob, self.bodies[seq]))
        ref: Ref[Any] = Ref(seq, self.home, task)
        self.bytes_out += weight
        if keep:
            self.keeps[seq] = keep
        self.pending[seq] = ref
        self.outbox.append(entry)
        self._waiting_bytes += weight
        if self._waiting_bytes > FLUSH_BYTES:
            self._waiting_bytes = 0
            self.link.flush()
        else:
            self.posted()
        return ref

    def _beside(self, blob: Blob, view: memoryview) -> Blob | memoryview:
        """What carries ``blob``. While there is no daemon to take it, it waits without a descriptor: thousands may."""
        if not (self.link.lost or self.link.is_unheard):
            return blob
        blob.close()
        return view

    def posted(self) -> None:
        """Something joined the outbox: send it now if nothing else is under way or much waits, soon otherwise."""
        if len(self.pending) <= 1:
            self.link.flush()
            self.helper.watch()
        elif len(self.outbox) >= FLUSH_ITEMS:
            self.link.flush()
        else:
            self.helper.arm()

    def admit(self, weight: int, on_full: str) -> None:
        """Wait until there is room for one task of ``weight`` bytes more."""

        def has_room() -> bool:
            # An argument larger than the whole allowance goes alone.
            fits = self.bytes_out + weight <= self.bytes_max or not self.bytes_out
            return (len(self.pending) < self.tasks_max and fits) or not self.live

        self.link.flush()
        self.link.wait(has_room, 0)
        if not has_room():
            if on_full == "raise":
                raise errors.QueueFullError(
                    f"{len(self.pending)} tasks with {self.bytes_out} bytes are under way, which is all that may be",
                    hint="get some results first, or leave on_full='block'",
                    retry_after_ms=RETRY_AFTER_MS,
                )
            self.wait(has_room, None)
        self.check()

    def put(self, value: Any) -> Ref[Any]:
        """An object of its own. Pickled here and now; raises SerializationError."""
        payload, size, blob, nested = dumps_value(value, "the object")
        seq = self.next_seq()
        # Its end is known from the start. The same bytes serve the next daemon, should this one go.
        ref: Ref[Any] = Ref(seq, self.home, End(seq, EndKind.OK, payload, 1, size, 0, nested))
        if blob is not None:
            view = ref.state.payload = view_of(blob)
            self.outbox.append((Kind.PUT, Put(seq, b"", size, nested), self._beside(blob, view)))
            self.link.flush()
        else:
            self.outbox.append((Kind.PUT, Put(seq, payload, 0, nested)))
            self.posted()
        return ref

    def intern_function(self, digest: bytes, name: str, pickled: bytes, keep: list[Ref[Any]] | None = None) -> int:
        """The function's number on this connection, sent once. ``keep`` are the references in it: as the function can
        be called until the session ends, so long are they held. Raises SessionLost for one of another session."""
        from abi.wire.schema import INLINE_BYTES_MAX

        if keep:
            self.supply_all(keep)
        with self._interning:
            known = self.functions.get(digest)
            if known is not None:
                return known.index
            function = Function(len(self.functions), digest, name, pickled)
            if len(pickled) > INLINE_BYTES_MAX:
                function.pickled, function.size = None, len(pickled)
            encode_definition(function, f"function {name!r:.60}")
            if function.size:
                view = self.function_views[function.index] = memoryview(pickled)
                self.outbox.append((Kind.FUNCTION, function, view))
            else:
                self.outbox.append((Kind.FUNCTION, function))
            self.functions[digest] = function
            if keep:
                self.function_keeps[function.index] = keep
            self.helper.arm()
            return function.index

    def intern_options(self, options: Options) -> int:
        """Likewise for options, whose ``index`` is 0 until they have one."""
        key = encode_definition(options, f"the options of {options.name!r:.60}")
        with self._interning:
            known = self.options.get(key)
            if known is None:
                known = self.options[key] = options
                options.index = len(self.options) - 1
                self.outbox.append((Kind.OPTIONS, options))
                self.helper.arm()
            return known.index

    # --- results ------------------------------------------------------------------------------------------------------

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Receive until ``done()``. Tells the hooks if that is not at once."""
        if done():
            return True
        hooks = self.hooks
        if hooks is None or timeout == 0:
            return self.link.wait(done, timeout)
        hooks.blocked()
        try:
            return self.link.wait(done, timeout)
        finally:
            hooks.unblocked()

    def want(self, ref: Ref[Any]) -> None:
        """See that the end of ``ref`` is on its way: of a borrowed one it has to be asked for. Raises SessionLost for a
        reference of elsewhere: its number means another task here."""
        record = record_of(ref)
        if record.home is not self.home and record.end is None:
            raise _foreign(ref)
        if record.state is None:
            record.state = Reference(record.seq)
            self.pending[record.seq] = record
            self.outbox.append((Kind.WANT, record.state))
            self.posted()

    @staticmethod
    def value_of(ref: Ref[Any], end: End) -> Any:
        """The value that ``end`` brought, which needs no session any more. Raises what ``get`` raises."""
        if end.kind != EndKind.OK:
            raise error_of(end, ref.home.prefix)
        payload: bytes | memoryview = end.payload
        if end.parts is not None:
            payload = end.parts[ref.index].payload
        if not payload:
            return None
        try:
            return loads_value(payload)
        except errors.AbiError:
            raise
        except Exception as problem:
            raise errors.SerializationError(
                f"the result of {ref.short} did not load: {type(problem).__name__}: {problem}",
                hint="what it is made of must be importable here as well",
            ) from problem

    def watch(self, ref: Ref[Any], callback: Callable[[Ref[Any]], None]) -> Watch:
        """Call ``callback(ref)`` once its end is there: in any thread, maybe before this returns. Raises SessionLost
        where none can come. ``unwatch`` takes what it returns."""
        self.want(ref)
        watch = self.watchers.add(ref, callback)
        if record_of(ref).end is None:
            if not self.live:  # it ended since somebody looked, and told whom it knew
                self.unwatch(watch)
                self.check()
            self.link.flush()
            self.helper.watch()
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Nobody waits for it any more."""
        self.watchers.remove(watch)

    def borrow(self, seq: int) -> Ref[Any]:
        """The Ref for a task that was named in a payload: one per process, one hold for all its uses here."""
        known = self.pending.get(seq) or self.borrowed.get(seq)
        if known is not None:
            return known
        ref: Ref[Any] = Ref(seq, self.home)
        self.borrowed[seq] = ref
        self.outbox.append((Kind.BORROW, Reference(seq)))
        self.helper.arm()
        return ref

    def supply_all(self, refs: list[Ref[Any]]) -> None:
        """Raises SessionLost for a reference of another session."""
        for ref in refs:
            if of(ref) is not self:
                raise _foreign(ref)
            self.supply(ref)

    def supply(self, ref: Ref[Any]) -> None:
        """Before a reference is sent: give its value to a daemon that came after it and does not know it."""
        record = record_of(ref)
        if record.seq >= self.unknown_below or record.seq in self.supplied:
            return
        end = record.end
        if end is None or end.kind != EndKind.OK:
            return
        self.supplied.add(record.seq)
        self.outbox.append(put_of(end))

    def cancel(self, ref: Ref[Any], *, force: bool, recursive: bool) -> None:
        """No-op for what has ended."""
        record = record_of(ref)
        if record.end is None:
            item = Cancel(record.seq, bool(force), bool(recursive))
            self.cancels[record.seq] = item
            self.outbox.append((Kind.CANCEL, item))
            self.link.flush()
            self.helper.watch()

    def check(self) -> None:
        """Raises SessionLost if this session has ended."""
        if not self.live:
            raise errors.SessionLost(self.link.why or "the session has ended", hint=BEGIN_ANEW)

    # --- what comes in (lead of the link, masked) ---------------------------------------------------------------------

    def _on_ends(self, ends: list[Any], fds: list[int]) -> None:
        if fds:
            adopt_views(ends, fds)
        pop = self.pending.pop
        slow = self.bytes_out or self.keeps or self.cancels or self.starting or self.bodies
        watched = self.watchers.by_seq
        for end in ends:
            ref = pop(end.seq, None)
            if ref is None:  # told twice after a return: the first stands
                continue
            if slow:
                self._settle(ref)
            ref.state = end
            if end.kind:
                self.failures += 1
            if watched:  # looked at for each: any thread may begin to watch meanwhile
                self.watchers.settle(end.seq)

    def _settle(self, ref: Ref[Any]) -> None:
        task, seq = ref.state, ref.seq
        if type(task) is Task:
            self.bytes_out -= task.size or len(task.arguments)
        self.bodies.pop(seq, None)
        self.keeps.pop(seq, None)
        self.cancels.pop(seq, None)
        self.starting.discard(seq)

    def _on_output(self, items: list[Any], _fds: list[int]) -> None:
        if self.log_to_driver:
            for output in items:
                print_lines(self.prefix, output)

    def _on_starting(self, items: list[Starting], _fds: list[int]) -> None:
        self.starting.update(item.seq for item in items)

    def _on_refused(self, items: list[Refused], _fds: list[int]) -> None:
        self.refused = True
        self.link.lose("; ".join(filter(None, (items[0].message, items[0].hint))))

    def _is_urgent(self) -> bool:
        return len(self.pending) == 1

    def _is_busy(self) -> bool:
        return bool(self.pending)

    # --- the end ------------------------------------------------------------------------------------------------------

    def end_all(self, why: str) -> None:
        """Nothing will come any more: every pending task ends with SessionLost, which tells ``why``."""
        self.is_work_lost = bool(self.pending)
        self.live = False
        self.link.why = why
        self._on_ends([lost(seq, why) for seq in list(self.pending)], [])
        self.watchers.deliver()

    def close(self) -> None:
        """Say goodbye and end. Unfinished work is cancelled by the daemon."""
        if self.live:
            self.live = False
            if not self.link.lost:
                from abi.wire.schema import Empty

                self.outbox.append((Kind.BYE, Empty()))
                self.link.flush_now()
            self.link.close()
            self.end_all("abi.shutdown() was called")
        self.home.session = None
        self.home.helper = None

    def abandon(self) -> None:
        """In a forked child: this is the parent's session. References to it stay, and raise when used."""
        self.live = False
        self.home.session = None
        self.home.helper = None
        self.pending = {}


# --- the session of this process --------------------------------------------------------------------------------------

_active: Session | None = None


def active() -> Session | None:
    """The session of this process, if it has one. Never connects."""
    return _active if _active is not None and _active.live else None


def set_current(session: Session | None) -> None:
    """Makes ``session`` this process's own: ``init`` does so, and a worker at its start."""
    global _active
    _active = session


def current() -> Session:
    """The session of this process; connects, or starts a daemon, at first use."""
    session = _active
    if session is not None and session.live:
        return session
    from abi.program import connect_at_first_use

    return connect_at_first_use(session)


def of(ref: Ref[Any]) -> Session:
    """The session that ``ref`` belongs to. Raises SessionLost if that has ended or was never this process's."""
    session = ref.home.session
    if session is None:
        raise _foreign(ref)
    return session


def _foreign(ref: Ref[Any]) -> errors.SessionLost:
    return errors.SessionLost(
        f"reference {ref.short} belongs to a session that has ended, or to another program",
        hint="references mean something only to the program that made them, and to its tasks",
    )


def _after_fork() -> None:
    global _active
    if _active is not None:
        _active.abandon()
        _active = None


def _register() -> None:
    import os

    os.register_at_fork(after_in_child=_after_fork)


_register()
