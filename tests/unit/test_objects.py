"""Shared memory: what is written is what is read, and nothing that lies about its size is ever mapped."""

from __future__ import annotations

import os
import pickle
import struct

import pytest

from abi.errors import ProtocolError
from abi.objects import fence, memfd, payload
from abi.objects.blob import Blob
from abi.objects.slot_page import EPOCH, PAGE_BYTES, RUNNING, SlotPage


def test_parts_are_read_back_as_one() -> None:
    blob = memfd.create([b"ab", memoryview(b"cd"), b"", bytearray(b"e" * 5000)])
    assert blob.size == 5004
    view = memfd.open_view(blob.fd, blob.size)
    blob.close()
    blob.close()
    assert bytes(view) == b"abcd" + b"e" * 5000
    assert view.readonly


def test_more_parts_and_bytes_than_one_write_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memfd, "CHUNK_BYTES_MAX", 1000)
    parts = [os.urandom(size) for size in (0, 1, 999, 1000, 1001, 5000)] + [b"x"] * 3000
    blob = memfd.create(parts)
    assert bytes(memfd.open_view(blob.fd, blob.size)) == b"".join(parts)


def test_an_empty_object() -> None:
    blob = memfd.create([])
    assert bytes(memfd.open_view(blob.fd, 0)) == b""


def test_a_sealed_object_cannot_shrink_under_its_reader() -> None:
    blob = memfd.create([b"x" * 100])
    with pytest.raises(PermissionError):
        os.ftruncate(blob.fd, 0)


def test_a_size_that_was_made_up_is_refused() -> None:
    blob = memfd.create([b"x" * 100])
    with pytest.raises(ProtocolError, match="holds 100 bytes, 101"):
        memfd.open_view(blob.fd, 101)


def test_what_is_no_sealed_memfd_is_refused(tmp_path: os.PathLike[str]) -> None:
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    read_end, write_end = os.pipe()
    for fd in (unsealed, read_end):
        with pytest.raises(ProtocolError, match="memfd"):
            memfd.open_view(fd, 0)
    for fd in (unsealed, read_end, write_end):
        os.close(fd)


def test_pickle_and_buffers_come_back_aligned_and_uncopied() -> None:
    buffers = [pickle.PickleBuffer(bytes([n % 256]) * n) for n in (0, 1, 63, 64, 65, 200_000)]
    blob = payload.pack(b"the pickle", buffers)
    view = memfd.open_view(blob.fd, blob.size)
    stream, got = payload.unpack(view)
    assert bytes(stream) == b"the pickle"
    assert [bytes(part) for part in got] == [bytes(buffer.raw()) for buffer in buffers]
    assert bytes(view).index(b"A" * 65) % 64 == 0


@pytest.mark.parametrize(
    "data",
    [
        b"short",
        b"not-ours" + bytes(16),
        struct.pack("<8sQQ", payload.MAGIC, 0, 1),
        struct.pack("<8sQQ", payload.MAGIC, 1 << 60, 0),
        struct.pack("<8sQQQ", payload.MAGIC, 1, 0, 1 << 63),
    ],
)
def test_a_damaged_object_is_a_named_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        payload.unpack(memoryview(data))


def test_two_mappings_of_a_page_see_one_another() -> None:
    daemon, fd = SlotPage.create()
    worker = SlotPage.attach(fd)
    os.close(fd)
    daemon.epoch = 7
    worker.running = 2**64 - 1
    assert worker.words[EPOCH] == 7
    assert daemon.words[RUNNING] == 2**64 - 1
    assert len(daemon.words) * 8 == PAGE_BYTES
    worker.close()
    worker.close()
    assert "running" in repr(daemon)
    assert "closed" in repr(worker)


def test_the_barrier_is_the_kernels_here_or_says_so() -> None:
    assert fence.register() == fence.proven()
    fence.barrier()


def test_a_blob_closes_what_it_owns_and_not_what_it_gave_away() -> None:
    blob = memfd.create([b"x"])
    fd = blob.detach()
    blob.close()
    os.close(fd)
    assert repr(Blob(-1, 3)) == "<Blob of 3 bytes, closed>"
