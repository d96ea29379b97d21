"""``./dev torture raft`` says what failed and how to see it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.raft import torture
from tests.core.raft.faults import FAULTS

ROOT = Path(__file__).parents[3]


def test_what_holds_ends_with_zero() -> None:
    command = [sys.executable, "-m", "tests.core.raft.torture", "--seeds", "45", "--first", "100", "--nodes", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "raft: 45 seeds from 100 on" in done.stdout
    assert done.stdout.endswith("all that must hold held in each of them\n")


def test_what_fails_is_told_with_the_way_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FAULTS["two_votes_are_given_in_one_term"](monkeypatch)
    results = map(torture.run_block, torture.blocks(0, 25, 5))
    assert torture.tell(results, 0, 25, 5) == 1
    said = capsys.readouterr().out
    assert "election safety: nodes" in said
    first = next(line for line in said.splitlines() if line.startswith("seed "))
    seed = int(first.removeprefix("seed ").partition(":")[0])
    assert f"./dev torture raft --seeds 1 --first {seed} --nodes 5 --trace" in said
    assert "seeds failed: " in said
    assert torture.main(["--first", str(seed), "--nodes", "5", "--trace"]) == 1
    assert first in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--first", "-1"], ["--nodes", "1"], ["--seeds", "many"]])
def test_numbers_that_mean_nothing_are_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        torture.main(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
