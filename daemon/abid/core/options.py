"""How tasks are to be treated: options of a session, checked once, and the shape that follows from them."""

from __future__ import annotations

from typing import Final

from abi.errors import ProtocolError
from abi.wire.schema import UNITS, Options
from abid.core.queues import Queue
from abid.core.resources import CPUS, MEMORY, RESERVED_NAMES, Shape

PRIORITY_MAX: Final = 3


class OptionsRecord:
    """Options of a session, under the session's own index, with the queues of the tasks that have them."""

    __slots__ = ("nested_queue", "queue", "refused", "shape", "wire")

    def __init__(self, wire: Options, shape: Shape, refused: str, queue: Queue, nested_queue: Queue) -> None:
        self.wire = wire
        self.shape = shape
        self.refused = refused
        """Why no task with these can ever run here; empty: they can."""
        self.queue = queue
        self.nested_queue = nested_queue


def value_of(wire: Options) -> tuple[object, ...]:
    """All but the index: equal options are one."""
    return (
        wire.name, wire.cpus, wire.memory, wire.gpus, tuple(sorted(wire.resources.items())), wire.max_retries,
        wire.retry_exceptions, wire.retry_types, wire.timeout_ns, wire.priority, wire.returns, wire.max_calls,
    )  # fmt: skip


def check_values(wire: Options) -> None:
    """Raises ProtocolError for what no honest client sends: a negative amount would create resources."""
    if min(wire.cpus, wire.memory, wire.gpus, wire.timeout_ns, wire.max_calls, *wire.resources.values(), 0) < 0:
        raise ProtocolError(f"options {wire.index} hold a negative amount")
    if wire.max_retries < -1 or not 0 <= wire.priority <= PRIORITY_MAX:
        raise ProtocolError(f"options {wire.index} hold max_retries {wire.max_retries}, priority {wire.priority}")
    taken = RESERVED_NAMES.intersection(wire.resources)
    if taken:
        raise ProtocolError(
            f"options {wire.index} name a custom resource {min(taken)!r}, which has a meaning of its own"
        )


def shape_key(wire: Options, commands: bool) -> tuple[int, int, tuple[tuple[str, int], ...], bool]:
    """The arguments of the Shape of these options."""
    needs = [(CPUS, wire.cpus), (MEMORY, wire.memory), *sorted(wire.resources.items())]
    # What may start only once, is watched by a clock, or ends its worker must not wait behind another call, nor another
    # behind it; several results say that the call is no small one.
    alone = commands or wire.max_retries == 0 or wire.timeout_ns > 0 or wire.returns != 1 or wire.max_calls > 0
    return wire.cpus, wire.gpus // UNITS, tuple((name, amount) for name, amount in needs if amount), alone
