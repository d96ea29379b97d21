"""What tasks print reaches their program before their end does: each line whole, once, with its task's name and id."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import abi
from abi import errors
from abid.output import LINE_BYTES_MAX
from tests.system.harness import Daemon, eventually, rss_bytes
from tests.system.inside import run, session, start
from tests.system.scripts import status
from tests.system.words import Ear, hold, let_go, say

LINE = re.compile(r"\((?P<name>\S+) (?P<id>[0-9a-z]{8})\) (?P<text>.*)")
Lines = dict[str, list[str]]


def by_task(text: str, name: str) -> Lines:
    """Texts by the short id of their task. Fails for a line that is not labelled."""
    found: Lines = defaultdict(list)
    for line in text.split("\n")[:-1]:
        match = LINE.fullmatch(line)
        assert match is not None, f"a line without its task: {line!r}"
        assert match["name"] == name
        found[match["id"]].append(match["text"])
    assert text.endswith("\n") or not text
    return found


@pytest.fixture
def program(shared: Daemon) -> Iterator[Daemon]:
    with session(shared):
        yield shared


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path)
    yield made
    made.close()


def test_every_way_of_printing(program: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    @abi.remote
    def speaks() -> None:
        print("by print")
        print("in two ", end="")
        print("steps")
        sys.stdout.write("by write\n")
        os.write(1, b"by descriptor\n")
        subprocess.run(["echo", "by a child"], check=True)
        subprocess.run("sh -c 'echo by a grandchild'", shell=True, check=True)
        libc = ctypes.CDLL(None)
        libc.puts(b"by C")
        libc.printf(b"by C, formatted %d\n", 7)
        print("zwölf Boxkämpfer 🥊")
        print()
        print("two\nlines")
        print("to stderr", file=sys.stderr)
        os.write(2, b"to descriptor 2\n")
        print("without an end", end="")

    ref = speaks.remote()
    abi.get(ref)
    out, err = capsys.readouterr()
    assert by_task(out, "speaks")[ref.short] == [
        "by print", "in two steps", "by write", "by descriptor", "by a child", "by a grandchild", "by C",
        "by C, formatted 7", "zwölf Boxkämpfer 🥊", "", "two", "lines", "without an end",
    ]  # fmt: skip
    assert by_task(err, "speaks")[ref.short] == ["to stderr", "to descriptor 2"]


def test_ten_thousand_lines_of_two_thousand_short_tasks(program: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """They follow each other within microseconds in two workers: no line is lost, merged, or given to a neighbour."""

    @abi.remote
    def speaks(n: int) -> None:
        print(n, "first")
        os.write(1, f"{n} second\n".encode())
        print(n, "third\n" + f"{n} fourth")
        print(n, "fifth, partial", end="")

    refs = [speaks.remote(n) for n in range(2000)]
    abi.get(refs, timeout=30)
    out, err = capsys.readouterr()
    assert not err
    lines = by_task(out, "speaks")
    for n, ref in enumerate(refs):
        assert lines[ref.short] == [f"{n} {word}" for word in ("first", "second", "third", "fourth", "fifth, partial")]
    assert len(lines) == 2000


def test_lines_are_there_while_the_task_still_runs(
    program: Daemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")

    @abi.remote
    def speaks() -> None:
        print("early")
        print("and half a li", end="", flush=True)
        hold(gate)
        print("ne")

    ref = speaks.remote()
    seen = ""

    def early() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return seen != ""

    eventually(early, "the first line, from the helper thread while nobody waits")
    assert by_task(seen, "speaks")[ref.short] == ["early"]
    let_go(gate)
    abi.get(ref)
    assert by_task(capsys.readouterr().out, "speaks")[ref.short] == ["and half a line"]


def test_two_that_print_at_once_in_pieces_are_not_mixed(program: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    @abi.remote
    def mumbles(letter: str) -> None:
        for n in range(200):
            for piece in (letter, str(n), letter):
                os.write(1, piece.encode())
            os.write(1, b"\n")

    refs = {letter: mumbles.remote(letter) for letter in "ab"}
    abi.get(list(refs.values()), timeout=30)
    lines = by_task(capsys.readouterr().out, "mumbles")
    for letter, ref in refs.items():
        assert lines[ref.short] == [f"{letter}{n}{letter}" for n in range(200)]


def test_characters_and_lines_split_across_writes(
    program: Daemon, capsys: pytest.CaptureFixture[str], ear: Ear, tmp_path: Path
) -> None:
    path, gates = ear.path, [str(tmp_path / f"gate{n}") for n in range(5)]

    @abi.remote
    def dribbles() -> None:
        for gate, byte in zip(gates, "né🥊".encode()[:5], strict=True):
            os.write(1, bytes([byte]))
            say(path, "written")
            hold(gate)
        os.write(1, "né🥊".encode()[5:] + b"\xff\n")

    ref = dribbles.remote()
    for gate in gates:  # so that each byte is read by itself
        ear.hear()
        time.sleep(0.01)
        let_go(gate)
    abi.get(ref)
    assert by_task(capsys.readouterr().out, "dribbles")[ref.short] == ["né🥊\ufffd"]


def test_a_very_long_line_comes_in_pieces_and_a_large_output_whole(
    program: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    @abi.remote
    def speaks() -> None:
        print("x" * 1_000_000)
        for n in range(20_000):
            print(f"{n:06} " + "y" * 50)

    ref = speaks.remote()
    abi.get(ref, timeout=30)
    lines = by_task(capsys.readouterr().out, "speaks")[ref.short]
    pieces = [line for line in lines if "x" in line]
    assert [len(piece) for piece in pieces[:-1]] == [LINE_BYTES_MAX] + [len("… ") + LINE_BYTES_MAX] * (len(pieces) - 2)
    assert "".join(piece.removeprefix("… ") for piece in pieces) == "x" * 1_000_000
    assert len(lines) == len(pieces) + 20_000, "and none that was not printed"
    assert [line for line in lines if "y" in line] == [f"{n:06} " + "y" * 50 for n in range(20_000)]


@pytest.mark.parametrize("how", ["exit", "segfault", "kill"])
def test_the_last_words_before_a_crash(program: Daemon, capsys: pytest.CaptureFixture[str], how: str) -> None:
    @abi.remote(max_retries=1)
    def crashes() -> None:
        task = abi.current_task()
        assert task is not None
        print("attempt", task.attempt)
        os.write(1, b"said, and then ")
        print("last words", file=sys.stderr)
        if how == "exit":
            os._exit(1)
        elif how == "segfault":
            ctypes.string_at(0)
        os.kill(os.getpid(), 9)

    ref = crashes.remote()
    with pytest.raises(errors.WorkerCrashedError, match="last words"):
        abi.get(ref, timeout=20)
    out, err = capsys.readouterr()
    expected = ["attempt 1", "said, and then ", "attempt 2", "said, and then "]
    assert by_task(out, "crashes")[ref.short] == expected
    assert by_task(err, "crashes")[ref.short] == ["last words"] * 2


def test_a_failure_after_a_partial_line(program: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    @abi.remote
    def fails() -> None:
        print("about to", end=" ")
        raise ValueError("mine")

    ref = fails.remote()
    with pytest.raises(ValueError, match="mine"):
        abi.get(ref)
    assert by_task(capsys.readouterr().out, "fails")[ref.short] == ["about to "]


def test_nested_tasks_print_in_the_program(program: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    @abi.remote(name="the-child")
    def child() -> str:
        print("from the child")
        task = abi.current_task()
        assert task is not None
        return task.short

    @abi.remote
    def parent() -> str:
        return abi.get(child.remote())

    short = abi.get(parent.remote())
    assert capsys.readouterr().out == f"(the-child {short}) from the child\n"


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_thread_of_a_task_says_after_its_end_is_said_in_its_name(
    program: Daemon, capsys: pytest.CaptureFixture[str], ear: Ear, tmp_path: Path, kept: bool
) -> None:
    """Whether or not the program has let go of the task."""
    path, gate = ear.path, str(tmp_path / "gate")

    @abi.remote
    def leaves_a_thread() -> None:
        def later() -> None:
            hold(gate)
            print("later")
            say(path, "said")

        threading.Thread(target=later, daemon=True).start()

    refs = [leaves_a_thread.remote()]
    short = refs[0].short
    abi.get(refs)
    if not kept:
        refs.clear()
        eventually(lambda: status(program)["tasks"]["held"] == 0, "it is let go")
    let_go(gate)
    ear.hear()
    seen = ""

    def there() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return seen != ""

    eventually(there, "the line of the thread")
    assert by_task(seen, "leaves_a_thread")[short] == ["later"]


def test_a_task_that_replaces_the_streams(program: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    @abi.remote
    def replaces() -> int:
        import io

        print("before")
        sys.stdout = io.StringIO()
        print("caught by the task itself")
        os.write(1, b"to the descriptor all the same\n")
        return os.getpid()

    @abi.remote
    def closes() -> int:
        sys.stdout.close()
        sys.stderr.close()
        return os.getpid()

    @abi.remote
    def next_one() -> int:
        print("I can speak")
        return os.getpid()

    with session(program):
        for spoiler in (replaces, closes):
            ref = spoiler.remote()
            worker = abi.get(ref)
            after = next_one.remote()
            assert abi.get(after) == worker, "the worker goes on"
            lines = capsys.readouterr().out
            assert f"(next_one {after.short}) I can speak\n" in lines, "and the next task has streams of its own"


def test_a_program_may_ask_for_silence(shared: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    @abi.remote
    def speaks() -> None:
        print("unheard")

    with session(shared, log_to_driver=False):
        abi.get(speaks.remote())
    assert capsys.readouterr().out == ""


def test_a_program_that_prints_to_a_slow_reader_loses_nothing_and_the_daemon_does_not_grow(shared: Daemon) -> None:
    """Its own stdout is a pipe that nobody reads for a while: 40 MB wait in tasks that are blocked in print, not in the
    memory of the daemon."""
    text = """
import abi
@abi.remote
def speaks(n):
    for k in range(1000):
        print(n, k, "z" * 1000)
abi.get([speaks.remote(n) for n in range(40)])
"""
    before = rss_bytes(shared.pid)
    program = start(shared, "-c", text)
    try:

        def printing_stalls() -> bool:
            """The same tasks are under way in two looks, half a second apart."""
            first = shared.ask("status")["tasks"]
            time.sleep(0.5)
            return bool(first["running"] > 0 and first == shared.ask("status")["tasks"])

        eventually(printing_stalls, "everybody waits for the reader")
        assert rss_bytes(shared.pid) - before < 32 << 20
        assert program.wait() == 0, program.err.decode()
        texts = by_task(program.out.decode(), "speaks")
        assert len(texts) == 40
        for lines in texts.values():
            n = lines[0].split()[0]
            assert lines == [f"{n} {k} {'z' * 1000}" for k in range(1000)]
    finally:
        program.close()


def test_a_program_whose_own_stdout_is_closed(shared: Daemon) -> None:
    text = """
import os, sys, abi
os.close(1)
@abi.remote
def speaks():
    print("into nothing")
    return 5
assert abi.get(speaks.remote()) == 5
os.write(2, b"went well\\n")
"""
    program = start(shared, "-c", text)
    assert program.wait() == 0, program.err.decode()
    assert b"went well" in program.err
    program.close()


def test_a_program_that_ends_at_once_has_heard_what_ended_before(shared: Daemon) -> None:
    said = run(shared, "-c", "import abi\nabi.get(abi.remote(print).remote('the whole program'))")
    assert said.endswith("the whole program\n")
    assert said.startswith("(print ")
