"""Dockerfile: no image is built here; what can go wrong unseen is a path that .dockerignore keeps out, or root."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_path_that_it_copies_exists_and_is_let_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names
    assert names == let_in
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []


def test_it_does_not_run_as_root() -> None:
    final = (ROOT / "Dockerfile").read_text().rsplit("\nFROM ", 1)[1]
    instructions = [line.split()[0] for line in final.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert instructions.index("USER") < instructions.index("CMD")
    assert re.search(r"^USER (?!root|0)", final, re.MULTILINE)
