"""What a task may know about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from abi.wire.schema import Call

call: Call | None = None
"""The call that runs in this worker. The worker sets it, together with ``task_name``, before each."""
task_name: str = ""
"""The option's, or the function's: what people see everywhere else."""
namespace: str = "default"
host: str = ""


class TaskInfo(NamedTuple):
    id: str
    """All 26 letters; ``abi show`` takes any unique beginning."""
    short: str
    """As it stands before the lines that the task prints."""
    name: str
    attempt: int
    """Counts from 1: above that, the task was started before."""
    host: str
    namespace: str


def current_task() -> TaskInfo | None:
    """The task that this code runs in; None in the program itself."""
    running = call
    if running is None:
        return None
    from abi import ids
    from abi.session import current

    text = ids.to_text(ids.task_id(current().prefix, running.seq))
    return TaskInfo(text, text[: ids.SHORT_LETTERS], task_name, running.attempt, host, namespace)
