"""Large payloads on the program's side: memfds to send, and views of those that came."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Iterable
from errno import ENOMEM
from typing import Any

from abi.errors import AbiError
from abi.objects.blob import Blob
from abi.objects.memfd import open_view
from abi.wire.codec import encode_failure
from abi.wire.schema import End, EndKind, Failure, Kind, Part, Put


def put_of(end: End) -> tuple[Any, ...]:
    """The outbox's entry that gives a daemon the value of ``end`` as an object."""
    if end.parts is not None:
        parts = [Part(b"" if part.size else part.payload, part.size) for part in end.parts]
        return Kind.PUT, Put(end.seq, b"", 0, end.nested, parts), [memoryview(p.payload) for p in end.parts if p.size]
    if not end.size:
        return Kind.PUT, Put(end.seq, end.payload, 0, end.nested)
    return Kind.PUT, Put(end.seq, b"", end.size, end.nested), memoryview(end.payload)


def view_of(blob: Blob) -> memoryview:
    return open_view(blob.fd, blob.size)


def adopt_views(ends: Iterable[End], fds: list[int]) -> None:
    """Map what came beside a frame: the objects then own the memory, and the descriptors are closed.

    An end whose result cannot be mapped becomes an ERROR that says so: the tasks beside it have ended all the same.
    """
    waiting = deque(fds)
    try:
        for end in ends:
            problem: tuple[int, Exception] | None = None
            parts: Iterable[End | Part] = (end, *(end.parts or ()))
            for part in parts:
                if part.size:
                    fd = waiting.popleft()
                    try:
                        # A memoryview where the schema says bytes: only on this side of the wire.
                        part.payload = open_view(fd, part.size)  # type: ignore[assignment]
                    except (OSError, MemoryError, AbiError) as error:
                        problem = part.size, error
                    finally:
                        os.close(fd)
            if problem is not None:
                _fail(end, *problem)
    finally:
        for fd in waiting:
            os.close(fd)


def _fail(end: End, size: int, problem: Exception) -> None:
    text = f"it ended well, but its result of {size} bytes cannot be mapped into this process: {problem}"
    known: Exception | None = None
    if isinstance(problem, MemoryError) or getattr(problem, "errno", 0) == ENOMEM:
        known = MemoryError(text)
    elif isinstance(problem, OSError):
        known = OSError(problem.errno, text)
    name = type(known or problem).__name__
    end.kind, end.size, end.nested, end.parts = EndKind.ERROR, 0, None, None
    end.payload = encode_failure(Failure(name, text, pickled=pickle.dumps(known) if known else None))
