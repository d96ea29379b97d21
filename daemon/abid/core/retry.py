"""Retry words and blame: may a task whose start came to nothing start again? Pure."""

from __future__ import annotations

import enum

import msgspec

from abi.wire.schema import EndKind


class Death(msgspec.Struct):
    """What is known of a worker's end."""

    text: str
    """One sentence: what killed it."""
    signal: int = 0
    exit_code: int = 0
    oom: bool = False
    stderr: str = ""
    """The last lines it wrote."""
    charged: bool = True
    """False when the worker died by no task's fault: a zygote's or the daemon's end, a drain."""
    started: bool = True
    """False when the process never came to be, or had left before: what it was given and has not answered cannot have
    run."""
    last_started: int = 1 << 62
    """Number of the last call that it started, where that is known."""


class Role(enum.IntEnum):
    """What a call was to the worker that died."""

    UNSTARTED = 0
    """Certainly not started: it stood behind the running call."""
    RUNNING = 1
    UNKNOWN = 2
    """Possibly finished, its result lost on the way."""


class Verdict(msgspec.Struct, frozen=True):
    """``end`` None: start it again with these counts."""

    end: EndKind | None
    charged: int
    uncharged: int


def after_death(
    role: Role, max_retries: int, charged: int, uncharged: int, blamed: bool, uncharged_starts_max: int
) -> Verdict:
    """``blamed``: the death may be charged at all. A task is charged only for the death it was running at."""
    if role == Role.UNSTARTED:
        return Verdict(None, charged, uncharged)
    if max_retries == 0:
        return Verdict(EndKind.LOST, charged + (role == Role.RUNNING and blamed), uncharged)
    if role == Role.RUNNING and blamed:
        again = max_retries == -1 or charged + 1 <= max_retries
        return Verdict(None if again else EndKind.CRASHED, charged + 1, uncharged)
    # Not its fault, as far as anybody knows; but a task that takes its host down with it must not do so for ever.
    return Verdict(None if uncharged < uncharged_starts_max else EndKind.LOST, charged, uncharged + 1)


def after_error(retryable: bool, retry_exceptions: bool, max_retries: int, charged: int) -> bool:
    """Whether a task that raised starts again (charged)."""
    return retryable and retry_exceptions and (max_retries == -1 or charged < max_retries)
