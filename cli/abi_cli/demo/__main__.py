"""`python -m abi_cli.demo [--limit N | --hosts N]`: the demo. Exit code 0 if every check holds, 1 if one does not."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import abi
from abi.errors import AbiError
from abi_cli.bench import procs
from abi_cli.bench.own_daemon import OwnDaemon, program
from abi_cli.demo import alone, checks, hosts, library, scene
from abi_cli.demo.measure import Measure
from abi_cli.demo.show import Show

LARGEST = 8
GONE_S = 10.0
JOB_S = 60.0
COUNT_LINES = 'xargs -0 cat < "$0" | wc -l'


def main(words: Sequence[str] | None = None) -> int:
    """Run the demo; its exit code."""
    parser = argparse.ArgumentParser(prog="./dev demo", description="abi on a real job, in under a minute.")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N files of the standard library")
    parser.add_argument("--hosts", type=_hosts, metavar="N", help="N hosts become a cluster, and lose their leader")
    arguments = parser.parse_args(words)
    show = Show()
    begin = time.monotonic()
    try:
        with procs.subreaper(), tempfile.TemporaryDirectory(prefix="abi-demo-") as directory:
            try:
                if arguments.hosts:
                    held = hosts.HostsDemo(show, directory, arguments.hosts).run()
                else:
                    held = _Demo(show, directory, arguments.limit).run()
            finally:
                procs.end_descendants(GONE_S)
    except KeyboardInterrupt:
        show.say("interrupted; everything that was started has been stopped")
        return 130
    except (AbiError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        show.step("failed", f"{type(error).__name__}: {error}")
        return 1
    show.step(
        "end", f"{'every check holds' if held else 'NOT every check holds'}; {time.monotonic() - begin:.1f} s in all"
    )
    return 0 if held else 1


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM ends it as Ctrl-C does: what was started is stopped, and its directories go."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


class _Demo:
    """One run, with a daemon of its own inside `directory`."""

    def __init__(self, show: Show, directory: str, limit: int | None) -> None:
        self._show = show
        self._directory = directory
        self._library = library.find(limit)
        self._list = os.path.join(directory, "files")
        self._daemon = OwnDaemon(directory)
        self._cores = len(os.sched_getaffinity(0))
        self._seen: dict[int, str] = {}

    def run(self) -> bool:
        """The story, told from start to end; whether every check holds."""
        self._introduce()
        with open(self._list, "wb") as file:
            file.writelines(os.fsencode(path) + b"\0" for path in self._library.paths)
        with self._daemon_running():
            played = self._play()
            single = self._alone(played)
            self._tables(single.measures, played, single.seconds)
            counted = self._submit(sum(report.measure.lines for report in played.reports))
            found = [
                checks.one_result_each(self._library.paths, played.reports),
                checks.same_as_alone(played.reports, single.measures),
                checks.worker_died(played.killed, procs.descendants(os.getpid()), played.reports),
                counted,
            ]
        self._show.say("abid stopped")
        found.append(checks.nobody_left(len(self._seen), self._left()))
        self._show.step("checks", "what must hold, as it was found")
        for check in found:
            self._show.check(check)
        return all(check.holds for check in found)

    def _introduce(self) -> None:
        files, megabytes = len(self._library.paths), self._library.size_bytes / 1e6
        self._show.title(f"abi demo: {files:,} Python files, {megabytes:.1f} MB, on {self._cores} cores")
        self._show.say(f"all .py files of the standard library of Python {platform.python_version()}, tests included:")
        self._show.say(self._library.root)

    @contextlib.contextmanager
    def _daemon_running(self) -> Iterator[None]:
        """A daemon, and this program attached to it; whatever happens, nothing of it runs afterwards."""
        try:
            self._daemon.start()
            self._seen[self._daemon.pid] = "abid"
            self._show.step("start", f"abid start -d: process {self._daemon.pid}, ready in "
                            f"{self._daemon.seconds_to_start:.2f} s, in directories of its own")  # fmt: skip
            os.environ.update(self._daemon.addresses)
            abi.init()
            yield
            self._show.step("stop", "abid stop")
        finally:
            try:
                abi.shutdown()
            finally:
                self._daemon.stop()

    def _play(self) -> scene.Scene:
        paths = self._library.paths
        self._show.step("run", f"{len(paths):,} tasks, one a file: parse it, count what is in it")
        with self._show.progress(len(paths)) as progress:
            played = scene.play(paths, self._daemon.pid, progress, self._show.say)
        self._seen |= played.processes
        busy = sum(report.cpu_s for report in played.reports) / (played.seconds * self._cores)
        workers = len({report.pid for report in played.reports})
        again = [report for report in played.reports if report.attempt > 1]
        self._show.say(f"{len(paths):,} files in {played.seconds:.2f} s by {workers} workers with the killed one; "
                       f"the {self._cores} cores were {100 * busy:.0f} % busy with it")  # fmt: skip
        self._show.say(f"started again because their worker was killed: {len(again)}"
                       + "".join(f" ({self._library.short(report.measure.path)})" for report in again[:3]))  # fmt: skip
        return played

    def _alone(self, played: scene.Scene) -> alone.Alone:
        self._show.step("compare", "the same files in one fresh process, without abi")
        single = alone.run(self._list, self._directory)
        self._show.say(f"one process {single.seconds:.2f} s, abi {played.seconds:.2f} s: "
                       f"{single.seconds / played.seconds:.2f} × as fast on {self._cores} cores")  # fmt: skip
        return single

    def _tables(self, measures: Sequence[Measure], played: scene.Scene, alone_s: float) -> None:
        found = [report.measure for report in played.reports]
        self._show.step("found", "in all files, and in the largest")
        self._show.table(
            ("FILES", "LINES", "FUNCTIONS", "CLASSES", "NO PYTHON", "ABI S", "ALONE S"),
            [[f"{len(found):,}", *(f"{number:,}" for number in _totals(found)),
              f"{played.seconds:.2f}", f"{alone_s:.2f}"]],
        )  # fmt: skip
        self._show.say("")
        largest = sorted(found, key=lambda measure: (-measure.lines, measure.path))[:LARGEST]
        self._show.table(
            ("MODULE", "LINES", "FUNCTIONS", "CLASSES", "LONGEST FUNCTION", "ITS LINES"),
            [[self._library.short(each.path), f"{each.lines:,}", f"{each.functions:,}", f"{each.classes:,}",
              each.longest, f"{each.longest_lines:,}"] for each in largest],
        )  # fmt: skip

    def _submit(self, lines: int) -> checks.Check:
        command = ["submit", "--name", "count-lines", "--", "sh", "-c", COUNT_LINES, self._list]
        self._show.step("submit", f"abi submit --name count-lines -- sh -c '{COUNT_LINES}' FILES")
        done = subprocess.run([program("abi"), *command], env=self._daemon.environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True, timeout=JOB_S, check=False)  # fmt: skip
        for line in done.stdout.splitlines():
            self._show.say(line.strip())
        self._show.say(f"exit code {done.returncode}")
        return checks.job_counted(done.returncode, done.stdout, lines)

    def _left(self) -> list[str]:
        """What still runs some seconds after the stop: our descendants, and whatever names our directory."""
        left = procs.end_descendants(GONE_S)
        return left + [line for line in procs.command_lines() if self._directory in line]


def _totals(measures: Sequence[Measure]) -> tuple[int, int, int, int]:
    lines = sum(measure.lines for measure in measures)
    functions = sum(measure.functions for measure in measures)
    classes = sum(measure.classes for measure in measures)
    return lines, functions, classes, sum(1 for measure in measures if measure.problem)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of files")
    return int(text)


def _hosts(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= hosts.HOSTS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is no number of hosts from 2 to {hosts.HOSTS_MAX}")
    return int(text)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
