"""Directories, modules and variables whose names are no UTF-8: old home directories and disks are full of them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.system.harness import WAIT_S, Daemon, Place

LATIN = b"caf\xe9"

SCRIPT = """
import os, sys
import abi, beside

@abi.remote
def world(data):
    import beside
    names = os.environb.get(b"LATIN"), os.environb.get(b"KEY_\\xe9"), os.getcwdb(), os.fsencode(sys.argv[0])
    return names, os.environ.get("LATIN"), beside.double(data), os.path.samefile(beside.__file__, there)

there = beside.__file__
names = os.environb[b"LATIN"], os.environb[b"KEY_\\xe9"], os.getcwdb(), os.path.abspath(os.fsencode(sys.argv[0]))
assert abi.get(world.remote(4)) == (names, os.environ["LATIN"], 8, True), (abi.get(world.remote(4)), names)
assert abi.get(beside.remote_double.remote(5)) == 10
print("the same world")
"""
BESIDE = """
import abi

def double(number):
    return number * 2

remote_double = abi.remote(double)
"""


def latin_folder(place: Place) -> bytes:
    folder = os.path.join(os.fsencode(place.folder), b"of " + LATIN)
    os.mkdir(folder)
    for name, text in ((b"program.py", SCRIPT), (b"beside.py", BESIDE)):
        with open(os.path.join(folder, name), "w") as file:
            file.write(textwrap.dedent(text))
    return folder


def run(place: Place, folder: bytes, executable: bytes | str = sys.executable, **variables: Any) -> str:
    environment: dict[Any, Any] = {os.fsencode(key): os.fsencode(value) for key, value in place.environment.items()}
    environment |= {b"LATIN": LATIN + " é".encode(), b"KEY_\xe9": b"\xff", b"PYTHONPATH": folder}
    environment |= {name.encode(): value.encode() for name, value in variables.items()}
    done = subprocess.run(
        [executable, b"program.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_program_in_a_world_that_is_no_utf8(daemon: Daemon, ascii_only: bool) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if ascii_only else {}
    assert run(daemon, latin_folder(daemon), **locale) == "the same world\n"


def test_an_interpreter_in_such_a_directory(daemon: Daemon) -> None:
    folder = latin_folder(daemon)
    os.symlink(sys.prefix, os.path.join(folder, b"python"))
    executable = os.path.join(folder, b"python", os.fsencode(os.path.relpath(sys.executable, sys.prefix)))
    alone = subprocess.run([executable, "-c", "import msgspec"], capture_output=True, text=True, timeout=60)
    if "surrogates not allowed" in alone.stderr:
        pytest.skip("this Python (3.12 and newer) loads no extension module from such a directory")
    assert run(daemon, folder, executable) == "the same world\n"


def test_a_daemon_in_such_a_directory() -> None:
    daemon = Daemon(runtime_dir=os.fsdecode(LATIN))
    try:
        assert run(daemon, latin_folder(daemon)) == "the same world\n"
    finally:
        daemon.close()
