"""What the shell is to do, in order. A batch of tasks is one effect; no effect is made per task."""

from __future__ import annotations

from typing import Any

import msgspec

from abid.core.session import Session
from abid.core.task import Record
from abid.core.workers import Worker


class Effect(msgspec.Struct, tag=True):
    """One thing to do."""


class Spawn(Effect):
    """Fork this worker (``worker.command``: a supervisor). Calls may follow at once: they wait in its socket."""

    worker: Worker


class Note(Effect):
    """Tell the submitter that these are about to start for their only time (``max_retries=0``); before their
    Dispatch."""

    session: Session
    submitter: int
    seqs: list[int]


class Dispatch(Effect):
    """Send these calls in one RUN. ``record.number``, ``attempt``, ``function`` and ``options`` are set."""

    worker: Worker
    records: list[Record]


class Recall(Effect):
    """Raise the page's epoch, fence, read RUNNING, and say so with ``on_recalled``."""

    worker: Worker


class Interrupt(Effect):
    """Interrupt this call, and again until it ends."""

    worker: Worker
    number: int


class Kill(Effect):
    """SIGKILL; ``on_exit`` follows."""

    worker: Worker


class Stop(Effect):
    """The worker has nothing left: let it go; ``on_exit`` follows."""

    worker: Worker


class Deliver(Effect):
    """Push these ends (``record.end``) to a submitter, in this order."""

    session: Session
    submitter: int
    records: list[Record]


class Discard(Effect):
    """Close these: nobody needs them any more. Always last."""

    blobs: list[Any]
