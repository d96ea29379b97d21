"""The network as a program sees it: the nodes, tasks as bytes, and care with those who may not answer.

    from abi import network

    network.NodeRegistry().get_active_nodes()
    data = network.serialize_task(network.WorkItem(priority="high"), "matrix_multiply", matrices)
    network.deserialize_task(data).payload_type
    network.CircuitBreaker().call(fetch, "https://inventory.example/hosts")

The daemon of this host is what discovers, connects and decides; a program asks it. So what is shown here is what the
`abi` command shows, and a program that ends takes no knowledge of the cluster with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

from abi.circuit import CircuitBreaker
from abi.errors import (
    CircuitOpen,
    NetworkDisabled,
    NodeUnreachable,
    PayloadCorrupt,
    PayloadError,
    PayloadTooLarge,
    PayloadTooNew,
    PayloadTruncated,
    Timeout,
)
from abi.nodes import NodeInfo, NodeRegistry
from abi.retrying import Retry
from abi.work_item import Bytes, TaskData, WorkItem, deserialize, serialize, task_of

__all__ = [
    "CircuitBreaker",
    "CircuitOpen",
    "NetworkDisabled",
    "NodeInfo",
    "NodeRegistry",
    "NodeUnreachable",
    "PayloadCorrupt",
    "PayloadError",
    "PayloadTooLarge",
    "PayloadTooNew",
    "PayloadTruncated",
    "Retry",
    "TaskData",
    "Timeout",
    "WorkItem",
    "deserialize_task",
    "serialize_task",
]


@overload
def serialize_task(data: TaskData | Mapping[str, object] | Bytes, /) -> bytes: ...
@overload
def serialize_task(work_item: WorkItem, /, payload_type: str, user_data: Bytes) -> bytes: ...
def serialize_task(
    data: WorkItem | TaskData | Mapping[str, object] | Bytes,
    /,
    payload_type: str | None = None,
    user_data: Bytes | None = None,
) -> bytes:
    """A task as bytes, to be read by `deserialize_task`; the same task gives the same bytes.

    Of one argument: a `TaskData`, a mapping with `payload_type`, `user_data` and maybe `work_item`, or plain bytes,
    which become the user data of a task without a type. Of three: a work item, the type of the payload and the payload.

    The payload is bytes, of 256 MiB at most (`PayloadTooLarge`), and travels untouched: nothing is pickled. Raises
    TypeError for what is no such task, ValueError for a type of more than 255 bytes.
    """
    if isinstance(data, WorkItem):
        if payload_type is None or user_data is None:
            raise TypeError("beside a work item a task needs its payload_type and user_data")
        return serialize(TaskData(payload_type, user_data, data))  # type: ignore[arg-type]  # made bytes there
    if payload_type is not None or user_data is not None:
        raise TypeError(f"the three are a WorkItem, a payload_type and user_data; the first is {type(data).__name__}")
    return serialize(task_of(data))


def deserialize_task(data: Bytes) -> TaskData:
    """The task in these bytes: `payload_type`, `user_data` exactly as they were, and `work_item`.

    Nothing is unpickled, and nothing else can be run by reading. Raises `PayloadCorrupt`, `PayloadTruncated`,
    `PayloadTooLarge` or `PayloadTooNew` (all `PayloadError`), and TypeError for what is not bytes.
    """
    return deserialize(data)
