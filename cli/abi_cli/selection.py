"""Which job a word on the command line means."""

from __future__ import annotations

from abi.control import Control
from abi.errors import NotFound


def resolve(control: Control, word: str) -> str:
    """The id for `last`, the job submitted last; any other word as it is.

    A unique prefix of an id is an id to the daemon. Raises `NotFound` if there is no job.
    """
    if word != "last":
        return word
    jobs = control.request("jobs", all=True)["jobs"]
    if not jobs:
        raise NotFound("there is no last job: none was submitted, or all are forgotten")
    latest = max(jobs, key=lambda job: job.get("submitted_at") or 0.0)
    return str(latest["id"])
