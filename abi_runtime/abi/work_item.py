"""A task as bytes: what `abi.network.serialize_task` makes and `deserialize_task` reads.

    magic 4 "ABIT" · version 2 (major, minor) · body's length 4 · CRC-32 of the body 4      (little endian, 14 bytes)
    body: msgpack array [payload type, user data, work item]

The user data are bytes that nobody here looks into: **nothing is unpickled**, neither now nor by whoever reads the
frame. A later minor version may append fields, which are ignored; a later major one is refused by name.

The checksum finds accidents (every burst of up to 32 bits, every other change but one in four thousand million). It
proves nothing about who wrote the bytes: that is what the connection is for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Annotated, Final, Literal, cast

import msgspec

from abi.errors import PayloadCorrupt, PayloadError, PayloadTooLarge, PayloadTooNew, PayloadTruncated

MAGIC: Final = b"ABIT"
VERSION: Final = (1, 0)
HEADER: Final = struct.Struct("<4sBBII")
TASK_BYTES_MAX: Final = 256 << 20
"""A matrix of 5,000 by 5,000 doubles and some. More would stand in memory several times on its way."""
PAYLOAD_TYPE_BYTES_MAX: Final = 255
"""A name, to be read by people and compared by programs."""

Bytes = bytes | bytearray | memoryview
Priority = Literal["low", "normal", "high", "critical"]


class WorkItem(msgspec.Struct, array_like=True, frozen=True):
    """What is known of a task besides its data.

    `id` names it for its owner. `remaining_ms` is the time left until its deadline, None without one: no clock is
    shared by two hosts, so it is what remains that travels. `attempt` counts from 1. `node` is the id of the node that
    ran it, "" as long as none did, and `error` the text of its failure, "" for none.
    """

    id: str = ""
    priority: Priority = "normal"
    remaining_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None
    attempt: Annotated[int, msgspec.Meta(ge=1)] = 1
    node: str = ""
    error: str = ""


class TaskData(msgspec.Struct, array_like=True, frozen=True):
    """A task as it is serialized: what kind of payload, the payload, and the rest."""

    payload_type: str
    user_data: bytes
    work_item: WorkItem = WorkItem()


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(TaskData)


def serialize(task: TaskData) -> bytes:
    """The bytes of a task, the same for the same task.

    Raises `PayloadTooLarge`, TypeError for a field of the wrong type, and ValueError for a payload type that is too
    long or no text (lone surrogates), or a number that no 64 bits hold.
    """
    _check(task)
    user_data = cast(Bytes, task.user_data)  # what a caller has need not be what a reader gets
    if not isinstance(user_data, bytes):
        task = msgspec.structs.replace(task, user_data=bytes(user_data))
    try:
        body = _ENCODER.encode(task)
    except OverflowError as problem:
        raise ValueError(f"a number in {task.work_item!r} has more than 64 bits") from problem
    if len(body) > TASK_BYTES_MAX:
        raise _too_large(len(body))
    return HEADER.pack(MAGIC, *VERSION, len(body), zlib.crc32(body)) + body


def deserialize(data: Bytes) -> TaskData:
    """The task that `serialize` wrote. Raises a `PayloadError` for anything else, and TypeError for no bytes at all."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"a serialized task is bytes, not {type(data).__name__}")
    view = memoryview(data)
    view = view.cast("B") if view.c_contiguous else memoryview(bytes(view))
    _check_magic(view)
    if len(view) < HEADER.size:
        raise PayloadTruncated(f"{len(view)} bytes are not even the {HEADER.size} of a task's header")
    _, major, minor, length, checksum = HEADER.unpack_from(view)
    if major > VERSION[0]:
        raise PayloadTooNew(
            f"the task is in format {major}.{minor}, this version of abi reads {VERSION[0]}.x",
            hint="upgrade abi here",
        )
    if major < VERSION[0]:
        raise PayloadCorrupt(f"there is no task format {major}.{minor}")
    if length > TASK_BYTES_MAX:
        raise _too_large(length)
    body = view[HEADER.size :]
    if len(body) < length:
        raise PayloadTruncated(f"the task has {length} bytes behind its header, of which {len(body)} are there")
    if len(body) > length:
        raise PayloadCorrupt(f"{len(body) - length} bytes follow the end of the task")
    if zlib.crc32(body) != checksum:
        raise PayloadCorrupt("the task's checksum does not fit: its bytes were changed")
    return _decoded(body)


def task_of(data: TaskData | Mapping[str, object] | Bytes) -> TaskData:
    """A task of what a caller has: a `TaskData`, a mapping of its fields, or bytes without a type."""
    if isinstance(data, TaskData):
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return TaskData("", bytes(data))
    if isinstance(data, Mapping):
        unknown = [name for name in data if name not in TaskData.__struct_fields__]
        if unknown:
            raise TypeError(f"a task has no field {unknown[0]!r}; it has {', '.join(TaskData.__struct_fields__)}")
        if not {"payload_type", "user_data"} <= data.keys():
            raise TypeError("a task needs payload_type and user_data")
        return TaskData(**cast(dict[str, object], data))  # type: ignore[arg-type]  # checked by serialize
    raise TypeError(f"a task is TaskData, a mapping of its fields or bytes, not {type(data).__name__}")


def _check(task: TaskData) -> None:
    if not isinstance(task.payload_type, str):
        raise TypeError(f"payload_type is a text, not {type(task.payload_type).__name__}")
    if not isinstance(task.user_data, bytes | bytearray | memoryview):
        raise TypeError(f"user_data is bytes, not {type(task.user_data).__name__}; nothing is pickled here")
    if not isinstance(task.work_item, WorkItem):
        raise TypeError(f"work_item is a WorkItem, not {type(task.work_item).__name__}")
    size = memoryview(task.user_data).nbytes
    if size > TASK_BYTES_MAX:  # before it is copied
        raise _too_large(size)
    try:
        name = task.payload_type.encode()
        # Through the types of the reader, so that what is written can be read.
        msgspec.convert(msgspec.structs.astuple(task.work_item), WorkItem)
        "".join((task.work_item.id, task.work_item.node, task.work_item.error)).encode()
    except UnicodeEncodeError as problem:
        raise ValueError(f"a task holds text that is no Unicode: {problem}") from None
    except msgspec.ValidationError as problem:
        raise TypeError(f"not a work item: {problem}") from None
    if len(name) > PAYLOAD_TYPE_BYTES_MAX:
        raise ValueError(f"a payload type of {len(name)} bytes is longer than {PAYLOAD_TYPE_BYTES_MAX}")


def _check_magic(view: memoryview) -> None:
    start = bytes(view[: len(MAGIC)])
    if not MAGIC.startswith(start):
        raise PayloadCorrupt(f"a serialized task begins with {MAGIC!r}, this with {start!r}")


def _decoded(body: memoryview) -> TaskData:
    try:
        task = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise PayloadCorrupt(f"the checksum fits, but this is no task: {problem}") from None
    if len(task.payload_type.encode()) > PAYLOAD_TYPE_BYTES_MAX:
        raise PayloadCorrupt("the checksum fits, but the payload type is longer than one may be")
    return task


def _too_large(size: int) -> PayloadError:
    return PayloadTooLarge(
        f"a task of {size} bytes is larger than the {TASK_BYTES_MAX} that one may have",
        hint="move its data by a file or `abi.put`, and serialize where it is found",
    )
