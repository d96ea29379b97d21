"""mypy and pyright agree on what `@abi.remote` promises: `good.py` passes, and each line of `bad.py` is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = [str(HERE / "good.py"), str(HERE / "bad.py")]


def test_mypy() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", *FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_pyright(tmp_path: Path) -> None:
    if shutil.which("pyright", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("pyright is not installed beside this Python")
    config = tmp_path / "pyrightconfig.json"
    config.write_text(
        json.dumps(
            {
                "include": FILES,
                "extraPaths": [str(ROOT / "abi_runtime")],
                "typeCheckingMode": "strict",
                "reportUnnecessaryTypeIgnoreComment": "error",
                "enableTypeIgnoreComments": False,
                "reportUnusedCallResult": False,
            }
        )
    )
    said = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--project", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout + said.stderr
