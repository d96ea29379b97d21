"""A pickle and its out-of-band buffers in one memfd.

    magic 8 · number of buffers 8 · bytes of the pickle 8 · bytes of each buffer 8×n · the pickle · the buffers

Little endian. Every buffer begins at a multiple of 64 bytes (a cache line, and what numpy and AVX-512 like best), so
its place follows from the sizes and need not be said. Nothing here is unpickled; all sizes are checked against the
view.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import Final

from abi.errors import ProtocolError
from abi.objects import memfd
from abi.objects.blob import Blob

MAGIC: Final = b"abi-obj1"
ALIGNMENT: Final = 64
BUFFERS_MAX: Final = 1_000_000
"""More than any real object has; bounds what a damaged header can make us allocate."""
_HEAD: Final = struct.Struct("<8sQQ")


def pack(stream: bytes, buffers: Sequence[PickleBuffer]) -> Blob:
    """Raises BufferError for a buffer that is not contiguous, OSError when there is no memory."""
    if len(buffers) > BUFFERS_MAX:
        raise ProtocolError(f"{len(buffers)} out-of-band buffers in one object; {BUFFERS_MAX} are possible")
    views = [buffer.raw() for buffer in buffers]
    head = _HEAD.pack(MAGIC, len(views), len(stream)) + struct.pack(f"<{len(views)}Q", *(v.nbytes for v in views))
    parts: list[bytes | bytearray | memoryview] = [head, stream]
    at = len(head) + len(stream)
    for view in views:
        padding = -at % ALIGNMENT
        parts += (bytes(padding), view)
        at += padding + view.nbytes
    return memfd.create(parts)


def unpack(view: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The pickle and its buffers, without a copy. Raises ProtocolError when the sizes do not fit the view."""
    if len(view) < _HEAD.size:
        raise ProtocolError(f"an object of {len(view)} bytes is shorter than its header")
    magic, count, stream_bytes = _HEAD.unpack_from(view)
    if magic != MAGIC:
        raise ProtocolError("an object in shared memory does not begin as ours do")
    at = _HEAD.size + 8 * count
    if count > BUFFERS_MAX or at + stream_bytes > len(view):
        raise ProtocolError(f"an object of {len(view)} bytes says {count} buffers and {stream_bytes} bytes of pickle")
    sizes = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    stream = view[at : at + stream_bytes]
    at += stream_bytes
    buffers = []
    for number, size in enumerate(sizes):
        at += -at % ALIGNMENT
        if at + size > len(view):
            raise ProtocolError(f"buffer {number} of an object reaches past its end ({at + size} of {len(view)} bytes)")
        buffers.append(view[at : at + size])
        at += size
    return stream, buffers
