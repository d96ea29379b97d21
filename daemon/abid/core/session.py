"""A session: a program and its workers, their tasks, and everything that is numbered within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.errors import ProtocolError
from abi.wire.schema import ROOT
from abid.core.functions import FunctionRecord
from abid.core.options import OptionsRecord
from abid.core.queues import Account, Queue
from abid.core.resources import Shape
from abid.core.task import Record

if TYPE_CHECKING:
    from abid.core.workers import Worker


class Holder:
    """A submitter: the program (``ROOT``) or one of its workers. It numbers functions and options on its own."""

    __slots__ = ("functions", "held", "identity", "options", "submitter", "worker")

    def __init__(self, submitter: int, worker: Worker | None) -> None:
        self.submitter = submitter
        self.worker = worker
        self.functions: list[int] = []
        """Its index → the session's."""
        self.options: list[int] = []
        self.identity = True
        """Both lists map every index to itself, as a program's do that never said a thing twice."""
        self.held: dict[int, int] = {}
        """What a worker holds: sequence → count, each counted in ``Record.pins`` once. The program's holds are
        counted in ``Record.holds`` alone, for it may have a million."""


class Session:
    """Core's record of a session."""

    __slots__ = (
        "account", "closed", "commands", "defined_bytes", "functions", "functions_by_digest", "holders", "idle",
        "namespace", "nested_bytes", "nested_tasks", "number", "open_bytes", "open_tasks", "options",
        "options_by_value", "outbox", "queues", "stalled", "submitter_next", "tasks", "user", "user_account", "wants",
        "workers",
    )  # fmt: skip

    def __init__(self, number: int, user: int, user_account: Account, commands: bool, namespace: str) -> None:
        self.number = number
        self.user = user
        self.user_account = user_account
        self.account = Account()
        self.commands = commands
        self.namespace = namespace
        self.closed = False
        self.stalled = False
        """Set by the shell while more than ``unread_results_bytes_max`` wait for the program to read: nothing
        starts."""
        self.tasks: dict[int, Record] = {}
        self.open_tasks = 0
        """Those that have not ended."""
        self.nested_tasks = 0
        """Of these, those that tasks submitted: the program is not told of them, so they leave its own limit alone."""
        self.open_bytes = 0
        """Of their arguments."""
        self.nested_bytes = 0
        self.functions: list[FunctionRecord] = []
        self.defined_bytes = 0
        """Of the functions' pickles, which stay as long as the session."""
        self.functions_by_digest: dict[bytes, FunctionRecord] = {}
        self.options: list[OptionsRecord] = []
        self.options_by_value: dict[tuple[object, ...], OptionsRecord] = {}
        self.holders: dict[int, Holder] = {ROOT: Holder(ROOT, None)}
        self.submitter_next = 1
        self.queues: dict[tuple[int, Shape, bool], Queue] = {}
        self.workers: dict[int, Worker] = {}
        self.idle: dict[int, dict[int, Worker]] = {}
        """Workers with nothing to do, by their number of cards and their own number, the longest idle first."""
        self.wants: dict[int, list[int]] = {}
        """Unended tasks → submitters, other than their own, that asked for the end."""
        self.outbox: dict[int, list[Record]] = {}
        """Ends to be delivered, by submitter."""

    def __repr__(self) -> str:
        return f"<session {self.number} of user {self.user}: {self.open_tasks} open tasks, {len(self.workers)} workers>"

    def holder(self, submitter: int) -> Holder:
        """Raises ProtocolError for a submitter that is not, or no longer, here."""
        holder = self.holders.get(submitter)
        if holder is None:
            raise ProtocolError(f"session {self.number} has no submitter {submitter}")
        return holder
