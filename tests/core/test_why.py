"""Why a task waits, in the words that people read."""

from __future__ import annotations

import re

from abi.wire.schema import ROOT, UNITS, Options
from abid.core.task import Record
from tests.core.fake_shell import FakeShell


def test_what_runs_what_waits_and_for_what() -> None:
    shell = FakeShell(cpus=1)
    session = shell.session()
    shell.define(session, ROOT, Options(1, cpus=UNITS, priority=3), Options(2, cpus=UNITS // 2))
    shell.submit(session, Record(1, 0, 0, b""))
    (process,) = shell.live()
    assert shell.start(process)
    shell.submit(session, *[Record(n, 0, 1, b"") for n in (2, 3)], Record(4, 0, 2, b""))
    said = {seq: shell.core.why(session, session.tasks[seq], shell.now) for seq in (1, 2, 3, 4)}
    assert said[1] == "runs on worker 1"
    assert said[2].startswith(
        "waits for 1 CPU; 0 of 1 are free; held by f; first of 2 in the queue at priority critical;"
    )
    assert "; number 2 of 2 in the queue at priority critical; waiting for " in said[3]
    assert re.match(r"waits for 0\.5 CPUs; .*; first of 1 in the queue; waiting", said[4])


def test_a_gpu_and_two() -> None:
    shell = FakeShell(cpus=4, gpus=("a", "b"))
    session = shell.session()
    shell.define(session, ROOT, Options(1, gpus=UNITS), Options(2, gpus=2 * UNITS), Options(3, gpus=3 * UNITS))
    shell.submit(session, Record(1, 0, 2, b""))
    shell.submit(session, Record(2, 0, 1, b""))
    assert "waits for 1 GPU; 0 of 2 are free" in shell.core.why(session, session.tasks[2], shell.now)
    assert session.options[3].refused == "asks for 3 GPUs; this node has 2"
