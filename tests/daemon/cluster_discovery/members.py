"""Members as processes, here or on hosts for tests, and what they say."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_S = 30
"""Bounds every wait; nothing is timed by it."""
ROOT = Path(__file__).parents[3]
_MEMBER = str(Path(__file__).with_name("member.py"))


class Running:
    """One ``member.py``. ``start(command, **options)`` starts a process: ``subprocess.Popen``, or a host's ``open``."""

    def __init__(self, start: Callable[..., subprocess.Popen[Any]], folder: Path, number: int, **words: Any) -> None:
        self.node = f"{number:08x}"
        folder.mkdir(exist_ok=True, parents=True)
        told = {"node": self.node, "folder": str(folder)} | words
        self.process = start(
            [sys.executable, _MEMBER, json.dumps(told)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.dials: list[tuple[float, str]] = []
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.next("ready")

    def _read(self) -> None:
        with self.process.stdout as said:
            for line in said:
                words = json.loads(line)
                if words["event"] == "dial":
                    self.dials.append((words["at"], words["address"]))
                self._said.put(words)

    def next(self, event: str, within_s: float = WAIT_S) -> dict[str, Any]:
        """The next of this kind; others are passed over. Raises queue.Empty."""
        deadline = time.monotonic() + within_s
        while True:
            said = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            if said["event"] == event:
                return said

    def ask(self, *words: str, answer: str) -> dict[str, Any]:
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self.next(answer)

    def stop(self) -> None:
        """In order; it must end well."""
        self.ask("stop", answer="stopped")
        assert self.process.wait(WAIT_S) == 0
        self.process.stdin.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        if not self.process.stdin.closed:
            self.process.stdin.close()


@contextmanager
def running() -> Iterator[Callable[..., Running]]:
    """Makes members, and ends them."""
    made: list[Running] = []

    def make(*arguments: Any, **words: Any) -> Running:
        made.append(Running(*arguments, **words))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.close()
