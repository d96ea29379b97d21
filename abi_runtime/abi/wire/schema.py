"""Every message between programs, daemon and workers, and nothing else; between daemons there is ``abi.wire.peers``.

*Control* is JSON, so that the command line needs only the standard library; *sessions*, *workers* and *zygotes* speak
msgpack. There a frame carries a **list** of items of the one type that its kind names (``ITEMS``), because batching
decides everything: one frame of hundreds of tasks costs little more than a frame of one.

Within a session numbers are local: a task is its ``seq``, functions and options are small indexes, defined once.
Structs are arrays on the wire and untracked by the garbage collector, since a million of them may wait at once.
Durations are nanoseconds, sizes are bytes, resources are units of 1/10000.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

PROTOCOL: Final = (1, 0)
"""Major and minor. A daemon accepts its own major with any minor, and refuses another major by name."""

INLINE_BYTES_MAX: Final = 100 * 1024
"""A payload above this travels in a memfd beside the frame: copying it through two sockets would cost more."""

UNITS: Final = 10_000
"""Resources are counted in ten-thousandths, as integers, so that a thousand additions and removals end at zero."""

ROOT: Final = 0
"""The submitter number of the program itself."""


class Kind(enum.IntEnum):
    """What a frame carries. Numbers are for ever: a number that is given up is not used again."""

    # Control, and the first frame of every connection (JSON).
    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    REQUEST = 4
    RESPONSE = 5
    EVENT = 6
    # A submitter (program or worker) to the daemon.
    FUNCTION = 16
    OPTIONS = 17
    SUBMIT = 18
    PUT = 19
    WANT = 20
    BORROW = 21
    RELEASE = 22
    CANCEL = 23
    BYE = 24
    # The daemon to a submitter.
    END = 32
    OUTPUT = 33
    STARTING = 34
    # The daemon to a worker.
    SETUP = 48
    RUN = 49
    STOP = 50
    VALUES = 51
    # A worker to the daemon.
    RESULT = 64
    DROPPED = 65
    PRINTED = 66
    BLOCKED = 67
    UNBLOCKED = 68
    # The daemon and its zygote.
    FORK = 80
    FORKED = 81
    EXITED = 82
    READY = 83
    # The daemon and the supervisor of one command.
    COMMAND = 96
    COMMAND_STARTED = 97
    COMMAND_GREW = 98
    COMMAND_ENDED = 99
    COMMAND_SIGNAL = 100


class EndKind(enum.IntEnum):
    """The one typed end of a task."""

    OK = 0
    ERROR = 1
    """User code raised; the payload is a ``Failure``."""
    CRASHED = 2
    """The worker died more often than ``max_retries`` allows; the payload is a ``Failure``."""
    CANCELLED = 3
    TIMED_OUT = 4
    LOST = 5
    """It may have run, may not be started again, and its result is gone (``max_retries=0``)."""
    REFUSED = 6
    """It was never started: nothing here could ever run it, or the queue was full."""
    RELEASED = 7
    """It ended, and nobody held a reference any more: no payload."""


class Item(msgspec.Struct, array_like=True, gc=False):
    """A message inside a frame."""


class Function(Item):
    """What can be called, said once per connection. ``pickled`` is None when it travels in the frame's next
    descriptor."""

    index: int
    digest: bytes
    """blake2b-128 of the pickled function: the same function has the same learned run time."""
    name: str
    """Module and qualified name, as people see it."""
    pickled: bytes | None
    size: int = 0
    """Bytes of the pickle in the descriptor, when ``pickled`` is None."""


class Options(Item):
    """How tasks are to be treated, said once per connection and named by ``index`` from then on."""

    index: int
    name: str = ""
    cpus: int = UNITS
    memory: int = 0
    """Bytes, counted at admission; no limit is enforced."""
    gpus: int = 0
    resources: dict[str, int] = {}
    """Custom resources, in units."""
    max_retries: int = 3
    """Deaths of the worker it may survive; -1: any number; 0: it is started once, whatever happens."""
    retry_exceptions: bool = False
    """Whether failures that the worker marks as retryable start it again."""
    retry_types: bytes | None = None
    """A pickled tuple of exception types; None with ``retry_exceptions`` means every Exception. For the worker only."""
    timeout_ns: int = 0
    """Longest run of one attempt; 0: none."""
    priority: int = 1
    """0 low, 1 normal, 2 high, 3 critical."""
    returns: int = 1
    max_calls: int = 0
    """A worker leaves after this many calls of the function; 0: never."""


class Dependency(Item):
    """A reference at top level of the arguments: the daemon puts the object's payload beside the task."""

    position: int
    """Index in the positional arguments; keyword arguments are counted after them, in their order."""
    seq: int
    index: int = 0


class Task(Item):
    """One call. The daemon's own record of a task (``abid.core.task``) extends this struct, so decoding makes the
    record."""

    seq: int
    function: int
    options: int
    arguments: bytes = b""
    """Pickle of ``(args, kwargs)``; empty for a call without any. Empty too when ``size`` is not 0."""
    size: int = 0
    """Bytes in the frame's next descriptor (see ``abi.objects``), 0: inline."""
    dependencies: list[Dependency] | None = None
    nested: list[int] | None = None
    """Sequences of references inside the arguments' containers: held until the task ends."""
    parent: int = 0
    """The task that submitted this one; 0: the program."""


class Part(Item):
    """One of several results of a task with ``returns`` other than 1."""

    payload: bytes
    size: int = 0


class End(Item):
    """How a task ended: from the worker to the daemon, and the same object on to whoever holds a reference.

    ``payload`` is the result's pickle, or a ``Failure`` in msgpack. With ``size`` it lies in the frame's next
    descriptor.
    """

    seq: int
    kind: int
    payload: bytes = b""
    attempt: int = 1
    size: int = 0
    ran_ns: int = 0
    nested: list[int] | None = None
    """References inside the result: held as long as the result is."""
    parts: list[Part] | None = None
    retry: bool = False
    """ERROR from a worker: whether the failure is of a kind that is to be retried."""


class Failure(Item):
    """Why a task has no result, in words that need nothing unpickled; travels as the payload of an ``End``."""

    type_name: str
    text: str
    traceback: str = ""
    pickled: bytes | None = None
    """The exception itself, if the worker proved that it loads again."""
    host: str = ""
    task_name: str = ""
    notes: list[str] = []
    stderr: str = ""
    """The last lines the worker wrote to stderr, when it died."""
    retry_after_ms: int = 0
    """REFUSED because a queue was full: when there may be room again."""


class Put(Item):
    """An object without a task; or, to a daemon that came after it, what a task had returned."""

    seq: int
    payload: bytes = b""
    size: int = 0
    nested: list[int] | None = None
    parts: list[Part] | None = None


class Reference(Item):
    """One object by its task: for WANT (send me its end) and BORROW (one hold more)."""

    seq: int


class Cancel(Item):
    """Cancel a task. ``force`` kills its worker; ``recursive`` takes its children along."""

    seq: int
    force: bool = False
    recursive: bool = True


class Output(Item):
    """Whole lines that a task printed. ``stream`` is 1 for stdout, 2 for stderr; ``text`` ends in a newline."""

    seq: int
    name: str
    stream: int
    text: bytes


class Starting(Item):
    """Noted by the program before a task with ``max_retries=0`` starts: if the daemon is gone later, it is lost."""

    seq: int


class Setup(Item):
    """A worker's first frame: whose it is and what world it is to run in. Names of files and variables need be no text:
    see ``abi.wire.names``."""

    session: bytes
    """8 bytes: node and session."""
    submitter: int
    namespace: str
    sys_path: list[bytes]
    directory: bytes
    environment: dict[bytes, bytes]
    main_path: bytes
    """File of the program's ``__main__``, or empty."""
    gpu_ids: list[str]
    host: str
    socket_path: bytes
    """The daemon's socket, for children that connect on their own (``ABI_SOCKET``)."""


class Call(Item):
    """One task as a worker gets it. ``values`` are the payloads for its ``dependencies``, in their order."""

    number: int
    """Counts a worker's calls: what the slot page speaks of."""
    seq: int
    attempt: int
    function: int
    options: int
    arguments: bytes
    size: int = 0
    dependencies: list[Dependency] | None = None
    values: list[Part] | None = None


class Run(Item):
    """Calls for a worker, in order. Those of an ``epoch`` below the slot page's have been recalled and must not
    start."""

    epoch: int
    calls: list[Call]


class Values(Item):
    """Payloads for the dependencies of a call that is too large for one frame: they come ahead of its RUN, in order."""

    number: int
    values: list[Part]


class Dropped(Item):
    """The worker did not start this call, because it found it recalled."""

    number: int


class Printed(Item):
    """Bytes that a call left in the worker's pipes, drained by the worker itself after it, before the next."""

    number: int
    stream: int
    data: bytes


class Blocked(Item):
    """The worker's running task waits for others: its processors are free meanwhile."""

    number: int


class Fork(Item):
    """Ask the zygote for a process. Descriptors, in order: its socket, its slot page, its stdout, its stderr;
    for a worker the read ends of both pipes follow."""

    worker: int
    command: bool = False
    """A supervisor of one command rather than a worker of Python tasks."""
    process_name: str = "abi_worker"


class Forked(Item):
    """The process is there; its pidfd is the frame's next descriptor."""

    worker: int
    pid: int


class Exited(Item):
    """The process is gone and was reaped. ``status`` is what ``waitpid`` gave."""

    worker: int
    pid: int
    status: int


class Command(Item):
    """What a supervisor runs, in bytes as the kernel wants it: a file's name need be no text. Output goes into the log
    file that came with its FORK (see ``abi_worker.supervisor``), behind the ``remark``, if there is one."""

    argv: list[bytes]
    directory: bytes
    environment: dict[bytes, bytes]
    log_bytes_max: int
    remark: str = ""
    """Why it is started again."""


class CommandStarted(Item):
    pid: int


class CommandGrew(Item):
    """The log is now this long, and so many bytes more were ``discarded``."""

    size: int
    discarded: int = 0


class CommandEnded(Item):
    """``status`` as of ``waitpid``. ``error`` when it could not be started at all; the code in ``status`` is then a
    shell's: 127 for what is not there, 126 for what cannot be run. ``discarded`` bytes of output are not in the log,
    for the reason in ``why_discarded``."""

    status: int
    size: int
    error: str = ""
    discarded: int = 0
    why_discarded: str = ""


class CommandSignal(Item):
    """The daemon asks the supervisor to send ``signal`` to the command's process group."""

    signal: int


class Empty(Item):
    """A frame that says all by its kind."""


ITEMS: Final[dict[Kind, type[Item] | type[int]]] = {
    Kind.FUNCTION: Function,
    Kind.OPTIONS: Options,
    Kind.SUBMIT: Task,
    Kind.PUT: Put,
    Kind.WANT: Reference,
    Kind.BORROW: Reference,
    Kind.RELEASE: int,
    Kind.CANCEL: Cancel,
    Kind.BYE: Empty,
    Kind.END: End,
    Kind.OUTPUT: Output,
    Kind.STARTING: Starting,
    Kind.SETUP: Setup,
    Kind.RUN: Run,
    Kind.STOP: Empty,
    Kind.VALUES: Values,
    Kind.RESULT: End,
    Kind.DROPPED: Dropped,
    Kind.PRINTED: Printed,
    Kind.BLOCKED: Blocked,
    Kind.UNBLOCKED: Blocked,
    Kind.FORK: Fork,
    Kind.FORKED: Forked,
    Kind.EXITED: Exited,
    Kind.READY: Empty,
    Kind.COMMAND: Command,
    Kind.COMMAND_STARTED: CommandStarted,
    Kind.COMMAND_GREW: CommandGrew,
    Kind.COMMAND_ENDED: CommandEnded,
    Kind.COMMAND_SIGNAL: CommandSignal,
}
"""A frame of kind K carries ``list[ITEMS[K]]``. A RELEASE is bare sequences (one hold less each): there is one for
every task, and a struct would cost more than it says."""


class Interpreter(msgspec.Struct):
    """The submitter's own Python: what a zygote is keyed by, and what its workers are to import from."""

    executable: str
    flags: list[str]
    """Start-up options that reproduce ``sys.flags`` and ``sys.warnoptions``."""
    variables: dict[str, str]
    """Python's own environment variables (``PYTHON*``)."""
    package_path: list[str]
    """Folders that hold ``abi`` and ``abi_worker``, for an interpreter in which they are not installed."""


class Program(msgspec.Struct):
    """The world of a program: what its workers take on after the fork."""

    interpreter: Interpreter
    sys_path: list[str]
    directory: str
    environment: dict[str, str]
    main_path: str
    name: str
    """As people see it: the script's file name."""


class Hello(msgspec.Struct):
    """The first frame of every connection (JSON)."""

    protocol: tuple[int, int]
    role: str
    """``control`` or ``session``."""
    version: str
    python: str
    uid: int
    pid: int
    features: list[str] = []
    namespace: str = "default"
    environment: str = ""
    """Identifies the installed distributions; empty: not said."""
    trace: str = ""
    program: Program | None = None
    """Sessions only."""
    resume: str = ""
    """Session prefix in hex, when a program returns after a lost connection."""
    token: str = ""
    """The secret that ``Welcome`` gave to this session."""


class Welcome(msgspec.Struct):
    """The daemon's answer to ``Hello``."""

    protocol: tuple[int, int]
    version: str
    node: str
    host: str
    pid: int
    runtime_dir: str = ""
    session: str = ""
    """8-byte prefix of all ids of the session, in hex."""
    token: str = ""
    resumed: bool = False
    """The daemon still has this session's tasks; otherwise everything unfinished is to be sent again."""
    tasks_max: int = 0
    bytes_max: int = 0
    cpus: int = 0
    """Units of 1/10000."""


class Refused(msgspec.Struct):
    """Why a connection is closed: what, and what to do."""

    code: str
    message: str
    hint: str = ""
