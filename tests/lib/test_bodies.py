"""Large payloads on the program's side: what is mapped, what cannot be, and how many files that takes."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable

import pytest

import abi
from abi import errors
from abi.objects import memfd, payload
from abi.objects.blob import Blob
from abi.pickling import dumps_value
from abi.wire.schema import End, EndKind, Kind, Part, Task
from tests.lib.conftest import Connected
from tests.lib.fake_daemon import FakeDaemon


@abi.remote
def nothing() -> None: ...


def never(_daemon: FakeDaemon, _task: Task) -> list[End]:
    return []


def blob_of(value: bytes) -> Blob:
    blob = dumps_value(value)[2]
    assert blob is not None
    return blob


def descriptors() -> int:
    gc.collect()  # what earlier tests left
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError),
        (MemoryError("no address space"), MemoryError),
        (OSError(errno.EINVAL, "Invalid argument"), OSError),
        (errors.ProtocolError("a payload's memfd holds 5 bytes"), errors.TaskError),
    ],
)
def test_a_result_that_cannot_be_mapped_is_an_end(
    connect: Callable[..., Connected], monkeypatch: pytest.MonkeyPatch, problem: Exception, kind: type[Exception]
) -> None:
    connected = connect(never)
    large = [blob_of(bytes([number]) * 200_000) for number in range(3)]

    def open_view(fd: int, size: int) -> memoryview:
        if os.fstat(fd).st_ino == second:
            raise problem
        return memfd.open_view(fd, size)

    second = os.fstat(large[1].fd).st_ino
    monkeypatch.setattr("abi.bodies.open_view", open_view)
    refs = [nothing.remote() for _ in range(4)]
    connected.daemon.until(lambda: len(connected.daemon.of(Kind.SUBMIT)) == 4)
    open_before = descriptors()
    ends = [End(ref.seq, EndKind.OK, b"", 1, blob.size) for ref, blob in zip(refs, large, strict=False)]
    connected.daemon.say(Kind.END, *ends, End(refs[3].seq, EndKind.OK), fds=tuple(blob.fd for blob in large))
    assert abi.get(refs[0], timeout=10) == bytes([0]) * 200_000
    assert abi.get(refs[2:], timeout=10) == [bytes([2]) * 200_000, None]
    with pytest.raises(kind, match=f"its result of {large[1].size} bytes cannot be mapped") as caught:
        abi.get(refs[1], timeout=10)
    assert isinstance(caught.value, errors.TaskError)
    assert descriptors() == open_before


def test_one_of_several_results_that_cannot_be_mapped(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    first, second = blob_of(b"a" * 200_000), payload.pack(b"b" * 10, [])
    refs = nothing.options(num_returns=3).remote()
    after = nothing.remote()
    connected.daemon.until(lambda: len(connected.daemon.of(Kind.SUBMIT)) == 2)
    open_before = descriptors()
    parts = [Part(b"", second.size + 1), Part(dumps_value(1)[0]), Part(b"", first.size)]  # more than there is
    ends = End(refs[0].seq, EndKind.OK, parts=parts), End(after.seq, EndKind.OK)  # type: ignore[index]
    connected.daemon.say(Kind.END, *ends, fds=(second.fd, first.fd))
    assert abi.get(after, timeout=10) is None
    with pytest.raises(errors.TaskError, match="cannot be mapped"):
        abi.get(refs[2], timeout=10)  # type: ignore[index]
    assert descriptors() == open_before
