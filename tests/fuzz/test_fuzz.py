"""A suite-sized run; the million is `python -m tests.fuzz` (run it after any change to what reads frames)."""

from __future__ import annotations

import os
import pickle
import sys
from random import Random

import pytest

from abi.errors import ProtocolError
from abi.wire.frames import FrameReader, pack
from tests.fuzz.run import GROWTH_MAX_BYTES, UNPICKLED, run
from tests.system.harness import Daemon, Program

INPUTS = 6_000
# The same inputs each time, so that what fails fails for everybody; or others, and the failure says which.
SEED = int(os.environ.get("ABI_TEST_SEED", "1"))


def test_the_daemon_survives_whatever_is_said_to_it() -> None:
    found = run(INPUTS, SEED, check_every=50)
    assert found.checks == INPUTS // 50
    assert found.refused > 50
    assert found.connections > found.refused
    assert found.growth_bytes <= GROWTH_MAX_BYTES, f"resident bytes after each quarter: {found.rss}"


def test_the_hook_would_have_seen_it() -> None:
    UNPICKLED.clear()
    pickle.loads(pickle.dumps(os.getpid))
    assert UNPICKLED == ["posix.getpid"]


def test_a_stream_cut_anywhere_gives_the_same_frames() -> None:
    rng = Random(SEED)
    for _ in range(200):
        said = [(rng.randrange(256), rng.randbytes(rng.choice((0, 1, 7, 300)))) for _ in range(rng.randrange(1, 12))]
        stream = b"".join(pack(kind, payload) for kind, payload in said)
        reader = FrameReader()
        heard = []
        at = 0
        while at < len(stream):
            size = rng.choice((1, 2, 8, 9, 100, 1000))
            heard += [(frame.kind, bytes(frame.payload)) for frame in reader.feed(stream[at : at + size])]
            at += size
        assert heard == said
        assert reader.pending == 0


def test_what_a_reader_holds_is_bounded() -> None:
    reader = FrameReader(limit=1000)
    list(reader.feed(pack(1, bytes(1000))[:900]))
    assert reader.pending == 900
    with pytest.raises(ProtocolError, match="length 1001"):
        list(FrameReader(limit=1000).feed(pack(1, bytes(1001))))


DISARMED = """
import _pickle, pickle, sys

def never(*_, **__):
    print("UNPICKLED", file=sys.stderr, flush=True)
    raise SystemExit("the daemon was about to unpickle")

for module in (pickle, _pickle):
    for name in ("load", "loads", "_load", "_loads", "Unpickler", "_Unpickler"):
        if hasattr(module, name):
            setattr(module, name, never)
sys.addaudithook(lambda event, _: never() if event == "pickle.find_class" else None)
"""
PROGRAM = """
import abi

class Unusual(Exception):
    pass

@abi.remote
def fail(x):
    raise Unusual(x)

@abi.remote
def add(a, b):
    print("adding")
    return a + b

big = abi.put(bytes(1_000_000))
assert abi.get(add.remote(big, b"x")) == bytes(1_000_000) + b"x"
assert abi.get(add.remote(add.remote(1, 2), 3)) == 6
try:
    abi.get(fail.remote(7))
except Unusual:
    print("well")
"""


def test_the_running_daemon_unpickles_nothing() -> None:
    """In its process every way to unpickle is closed; real programs and commands do not miss it."""
    daemon = Daemon(before=DISARMED)
    try:
        program = Program([sys.executable, "-c", PROGRAM], daemon.environment)
        assert program.wait() == 0, program.err
        assert program.out.endswith(b"well\n")
        assert daemon.run("abi", "submit", "--", "echo", "hi").stdout == "hi\n"
        assert "UNPICKLED" not in daemon.log()
    finally:
        daemon.close()
