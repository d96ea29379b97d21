"""Who is to be told of a task's end: event loops and futures, each once, by the thread that records the end.

There is no lock: a signal's handler may come here in the middle of any step, with ``abi.shutdown()`` in it, and would
wait for what the code below it holds. Instead, every step is a single operation on a dict or a deque, and each watch is
called by the one thread that takes it out of its dict.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from abi.ref import Ref, record_of

Watch = tuple[Callable[[Ref[Any]], None], Ref[Any]]
"""What to call, and with which reference: one of several results is not its task's record."""


class Watchers:
    """The watches of one session. ``by_seq`` is empty while nobody watches: the hot path looks at that alone."""

    def __init__(self) -> None:
        self.by_seq: dict[int, dict[int, Watch]] = {}
        self._due: deque[Watch] = deque()

    def __len__(self) -> int:
        """Watches that wait for an end."""
        return sum(map(len, list(self.by_seq.values())))

    def add(self, ref: Ref[Any], callback: Callable[[Ref[Any]], None]) -> Watch:
        """Have ``callback(ref)`` called once its end is there: in any thread, maybe before this returns."""
        record = record_of(ref)
        watch = (callback, ref)
        ours = self.by_seq.setdefault(record.seq, {})
        ours[id(watch)] = watch
        # 1. the end is set, and no watch is found. 2. we add one. Or: 1. we have ``ours``. 2. the end is set, and
        # ``ours`` taken out. 3. we add to what nobody looks at any more. So look again after adding.
        if record.end is not None:
            self.settle(record.seq)
            self._claim(ours)
            self.deliver()
        return watch

    def remove(self, watch: Watch) -> None:
        """Do not call any more. The caller has kept ``watch``, so nothing else has its id."""
        ours = self.by_seq.get(record_of(watch[1]).seq)
        if ours is not None:
            # Left empty it stays until the end: another thread may be about to add to it.
            ours.pop(id(watch), None)

    def settle(self, seq: int) -> None:
        """The end of task ``seq`` is set: its watches are due at the next ``deliver``."""
        watches = self.by_seq.pop(seq, None)
        if watches:
            self._claim(watches)

    def deliver(self) -> None:
        """Call what is due. Callbacks pass the news on to loops and other threads: none runs user code."""
        while self._due:
            try:
                callback, ref = self._due.popleft()
            except IndexError:  # another thread was faster
                return
            callback(ref)

    def _claim(self, watches: dict[int, Watch]) -> None:
        for key in list(watches):
            watch = watches.pop(key, None)
            if watch is not None:
                self._due.append(watch)
