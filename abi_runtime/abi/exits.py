"""What `abi` and `abid` exit with: one number for each way to end, the same for every command."""

from __future__ import annotations

from abi.errors import AbiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from abi.control import Object

OK = 0
FAILURE = 1
USAGE = 2
NOT_FOUND = 3
TIMED_OUT = 4
UNREACHABLE = 69  # EX_UNAVAILABLE
OUTPUT_LOST = 74  # EX_IOERR: a job that ended well, and not all that it wrote was kept
BUSY = 75  # EX_TEMPFAIL
DENIED = 77  # EX_NOPERM
BAD_CONFIG = 78  # EX_CONFIG
INTERRUPTED = 130  # 128 + SIGINT
PIPE_CLOSED = 141  # 128 + SIGPIPE, as any other tool before `| head`
SIGNAL_BASE = 128
CUT_OFF = 75  # a worker's, when it lost its daemon or a task closed the connection to it

_CODES = {
    USAGE: "usage ambiguous unsure",
    NOT_FOUND: "not_found",
    TIMED_OUT: "timed_out request_timed_out",
    UNREACHABLE: "unreachable node_unreachable unavailable out_of_cluster",
    BUSY: "busy",
    DENIED: "denied wrong_token expired_token revoked copy wrong_ca other_cluster other_incarnation "
    "certificate_expired",
    BAD_CONFIG: "bad_config network_disabled",
}
"""By what can be done about it: say it otherwise; nothing of this name; it took too long; start or reach who should
answer; come again later; be somebody else, or show something else; configure it. All other codes are ``FAILURE``."""
BY_CODE = {code: number for number, codes in _CODES.items() for code in codes.split()}
_BY_END = {"ok": OK, "cancelled": INTERRUPTED, "timed_out": TIMED_OUT}


def of_error(error: AbiError) -> int:
    """The exit code for an error of ours."""
    return of_code(error.code)


def of_code(code: str) -> int:
    """The same, by the error's code."""
    return BY_CODE.get(code, FAILURE)


def of_job(job: Object) -> int:
    """The exit code for a job: its own, 128 + n for a signal; 0 while it has not ended; ``OUTPUT_LOST`` instead
    of 0 when output of it was discarded.

    A cancelled or timed out job has been killed, but it is the reason that counts.
    """
    end = job.get("end")
    if end is None:
        return OK
    if end == "ok" and job.get("discarded_bytes"):
        return OUTPUT_LOST
    if end in _BY_END:
        return _BY_END[end]
    if name := job.get("signal"):
        return SIGNAL_BASE + _signal_number(str(name))
    code = job.get("code")
    return code if isinstance(code, int) and code else FAILURE


def _signal_number(name: str) -> int:
    """The number of "SIGKILL"; of "signal 35", which has no name, the number in it; else 0."""
    import signal

    try:
        return int(signal.Signals[name])
    except KeyError:
        number = name.rpartition(" ")[2]
        return int(number) if number.isdigit() else 0
