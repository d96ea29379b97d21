"""The same files in one process without any runtime: `python -m abi_cli.demo.alone LIST ANSWER`.

LIST names the files, each ended by a zero byte. ANSWER becomes a JSON object with `seconds`, from the first file to the
last, and `measures`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from abi_cli.demo.measure import Measure, measure_source


@dataclass(frozen=True)
class Alone:
    """What one process found, and how long it took."""

    seconds: float
    measures: tuple[Measure, ...]


def run(list_file: str, directory: str) -> Alone:
    """In a fresh process. Raises CalledProcessError if that fails."""
    answer = os.path.join(directory, "alone.json")
    subprocess.run([sys.executable, "-m", __name__, list_file, answer], stdin=subprocess.DEVNULL, check=True)
    with open(answer, encoding="ascii") as file:
        said = json.load(file)
    return Alone(said["seconds"], tuple(Measure(*each) for each in said["measures"]))


def main(list_file: str, answer: str) -> int:
    """Measure all of the list and write the answer."""
    with open(list_file, "rb") as file:
        paths = [os.fsdecode(path) for path in file.read().split(b"\0") if path]
    begin = time.perf_counter()
    measures = [measure_source(path) for path in paths]
    seconds = time.perf_counter() - begin
    with open(answer, "w", encoding="ascii") as file:
        json.dump({"seconds": seconds, "measures": measures}, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
