"""Asking the daemon what may take a while, or cannot be taken back.

Who waits at a terminal is told after a second what for; who might be sorry is asked first. Programs (`--json`, a pipe)
get neither: they read answers, and say `--yes` when they mean it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from abi.control import Object, connect
from abi.errors import AbiError
from abi_cli.output import text

PATIENCE_S = 1.0
"""Longer than any answer of a cluster that is well takes."""
STATUS_S = 2.0
"""For the daemon to say what is waited for; it answers at once, or we say nothing."""


def ask(op: str, answer_s: float, *, as_json: bool, **words: object) -> Object:
    """One request to the daemon. Raises what it answers."""
    with _told_what_for(op, is_quiet=as_json or not _is_terminal(sys.stderr)), connect() as control:
        return control.request(op, answer_timeout=answer_s, **words)


def ask_if_sure(op: str, answer_s: float, *, as_json: bool, sure: bool, **words: object) -> Object:
    """The same for what cannot be taken back: the daemon says what would come of it, and a person decides.

    Raises AbiError with the code ``unsure`` where nobody can be asked, or whoever was asked did not say yes.
    """
    try:
        return ask(op, answer_s, as_json=as_json, sure=sure, **words)
    except AbiError as error:
        if error.code != "unsure" or as_json or not (_is_terminal(sys.stdin) and _is_terminal(sys.stderr)):
            raise
        if not _says_yes(error.message):
            raise AbiError("nothing was done", code="unsure") from None
    return ask(op, answer_s, as_json=as_json, sure=True, **words)


def _says_yes(what: str) -> bool:
    text.note(what)
    print("     go on? [y/N] ", end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline()
    if not said.endswith("\n"):  # the input ended, and the line with the question did not
        print(file=sys.stderr)
    return said.strip().lower() in ("y", "yes")


@contextlib.contextmanager
def _told_what_for(op: str, *, is_quiet: bool) -> Iterator[None]:
    """Meanwhile another thread waits a second, and asks the daemon how its cluster stands."""
    answered = threading.Event()

    def tell() -> None:
        if answered.wait(PATIENCE_S):
            return
        with contextlib.suppress(AbiError, OSError), connect(STATUS_S) as control:
            said = _what_for(op, control.request("network-status", answer_timeout=STATUS_S))
            if not answered.is_set():
                text.note(said)

    if not is_quiet:
        threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        answered.set()


def _what_for(op: str, status: Object) -> str:
    if op == "network-register":
        return "waiting for whoever is there to answer"
    if not status.get("joined"):
        return "waiting for a member of the cluster" if op == "cluster-join" else "waiting for the daemon"
    if status.get("leader"):
        return f"waiting for node {status['leader']}, which leads the cluster"
    voters = status.get("voters") or []
    up = [node for node in status.get("nodes") or [] if node["id"] in voters and node["connected"]]
    return (
        f"waiting for a leader: {len(voters) // 2 + 1} of the cluster's {len(voters)} voters must be up, and this "
        f"host knows of {len(up)}"
    )


def _is_terminal(stream: object) -> bool:
    is_one = getattr(stream, "isatty", None)  # a stream may be closed, or missing
    try:
        return bool(is_one and is_one())
    except ValueError:
        return False
