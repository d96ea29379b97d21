"""The demo: what it counts, what it checks, and the whole of it on a few files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from abi_cli.demo import alone, checks, library
from abi_cli.demo.measure import Measure, Report, measure_source
from abi_cli.demo.show import Show

SOURCE = b"""\
import os

class Outer:
    class Inner:
        async def short(self): pass

    def long(self):
        if os:
            def nested():
                return lambda: 1
        try:
            pass
        except OSError:
            def in_handler(): ...
        match os:
            case _:
                def in_case(): ...
"""


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def test_every_definition_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "one.py", SOURCE)
    assert measure_source(path) == Measure(path, 17, functions=5, classes=2, longest="long", longest_lines=11)


@pytest.mark.parametrize("content", [b"def f(:\n", b"x = 'a\0b'\n", b"\xff\xfe\n", b"(" * 300 + b"\n"])
def test_what_is_no_python_is_counted_too(content: bytes, tmp_path: Path) -> None:
    measure = measure_source(write(tmp_path / "bad.py", content))
    assert measure.problem in ("SyntaxError", "ValueError", "MemoryError", "RecursionError")
    assert (measure.lines, measure.functions) == (1, 0)


def test_lines_are_those_of_wc(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.py", b"a = 1\r\nb = 2\x0c\nc = 3")
    assert measure_source(path).lines == int(subprocess.check_output(["wc", "-l", path]).split()[0]) == 2


def test_the_library_is_all_of_it_and_nothing_else(tmp_path: Path) -> None:
    for name, size in (("a.py", 10), ("pkg/b.py", 30), ("pkg/test/c.py", 20), ("site-packages/d.py", 99), ("e.txt", 5)):
        write(tmp_path / name, b"#" * size)
    found = library.find(root=str(tmp_path))
    assert [found.short(path) for path in found.paths] == ["pkg/b.py", "pkg/test/c.py", "a.py"]
    assert found.size_bytes == 60
    assert [found.short(path) for path in library.find(2, str(tmp_path)).paths] == ["pkg/b.py", "a.py"]


def test_one_process_alone_finds_the_same(tmp_path: Path) -> None:
    paths = [write(tmp_path / "one.py", SOURCE), write(tmp_path / "bad.py", b"def")]
    (tmp_path / "list").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
    found = alone.run(str(tmp_path / "list"), str(tmp_path))
    assert found.measures == tuple(measure_source(path) for path in paths)
    assert found.seconds > 0


def report(path: str, lines: int = 1, pid: int = 1, attempt: int = 1) -> Report:
    return Report(Measure(path, lines), pid, attempt, 0.0)


def test_each_way_to_lose_a_result_is_found() -> None:
    paths = ["a", "b", "c"]
    assert checks.one_result_each(paths, [report(path) for path in "abc"]).holds
    found = checks.one_result_each(paths, [report("a"), report("a"), report("z"), report("b")])
    assert not found.holds
    assert found.told == "1 missing: c; 1 more than once: a; 1 never asked for: z"


def test_a_result_that_differs_is_found() -> None:
    singles = [Measure("a", 1), Measure("b", 2)]
    assert checks.same_as_alone([report("a"), report("b", 2)], singles).holds
    found = checks.same_as_alone([report("a"), report("b", 3)], singles)
    assert (found.holds, found.told) == (False, "1 differ: b")


def test_the_killed_worker_must_be_dead_and_others_alive() -> None:
    reports = [report("a", pid=5), report("b", pid=6, attempt=2)]
    assert checks.worker_died(5, [6, 7], reports).told == "1 other workers reported, 1 task was started again"
    assert checks.worker_died(5, [6, 7], reports).holds
    assert not checks.worker_died(5, [5, 6], reports).holds
    assert not checks.worker_died(0, [6], reports).holds
    assert not checks.worker_died(5, [6], reports[:1]).holds


def test_the_job_must_exit_well_and_count_the_same() -> None:
    assert checks.job_counted(0, "  17\n", 17).holds
    assert not checks.job_counted(0, "18\n", 17).holds
    assert not checks.job_counted(7, "17\n", 17).holds
    assert not checks.nobody_left(3, ["sleep 300"]).holds


def test_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    show = Show(Console(file=out, markup=False, highlight=False))
    with show.progress(10) as progress:
        for done in (1, 2, 3, 9, 10):
            progress(done)
    show.table(("MODULE", "LINES"), [["pkg/[x].py", "1,234"], ["a.py", "7"]])
    show.check(checks.Check("it", False, "was not so"))
    assert out.getvalue() == (
        "          2 of 10 files\n          9 of 10 files\n          10 of 10 files\n"
        "          MODULE       LINES\n          pkg/[x].py   1,234\n          a.py             7\n"
        "          FAILS  it: was not so\n"
    )


def test_a_limit_must_be_a_number_of_files() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "abi_cli.demo", "--limit", "0"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "0 is no number of files" in done.stderr


def test_the_whole_demo_on_a_few_files(tmp_path: Path) -> None:
    """A real daemon, a real kill, a real job; in directories of its own, of which nothing is left."""
    see(tmp_path, "--limit", "120")


def test_the_demo_of_three_hosts(tmp_path: Path) -> None:
    see(tmp_path, "--hosts", "3")


def see(folder: Path, *options: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "abi_cli.demo", *options],
        env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9" in done.stdout
    assert done.stdout.count("  holds  ") == 5
    assert list(folder.iterdir()) == []


def test_a_demo_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-u", "-m", "abi_cli.demo", "--hosts", "2"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        while "abid start -d, on each host" not in (line := demo.stdout.readline()):
            assert line, "it goes on until it is told to end"
        demo.terminate()
        said = demo.stdout.read()
    assert demo.returncode == 130
    assert "everything that was started has been stopped" in said
    assert list(tmp_path.iterdir()) == []
