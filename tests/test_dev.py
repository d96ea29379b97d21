"""./dev: it explains itself wherever it is started, and sets up once."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEV = ROOT / "dev"


def too_old() -> str | None:
    """A Python that runs and is older than 3.11, if this machine has one."""
    for minor in range(6, 11):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return None


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_it_parses_where_python_is_too_old() -> None:
    ast.parse(DEV.read_text(), feature_version=(3, 6))


@pytest.mark.skipif(too_old() is None, reason="no Python older than 3.11 here")
def test_a_python_that_is_too_old_is_told_what_to_do() -> None:
    done = run(str(too_old()), str(DEV), "demo")
    assert done.returncode == 1
    assert "abi needs Python 3.11 or newer" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    done = run(sys.executable, str(DEV), "tset")
    assert done.returncode == 2
    assert "no command 'tset'" in done.stderr


def test_the_lock_names_no_index_and_hashes_everything() -> None:
    entries = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line[:1] not in {"#", ""}]
    pins = [line for line in entries if not line.startswith(" ")]
    assert pins
    assert all("==" in line and line.endswith("\\") for line in pins)
    assert all(line.strip().startswith("--hash=sha256:") for line in entries if line.startswith(" "))


# A Python as Debian ships it without python3-venv: `import ensurepip` fails.
WITHOUT_ENSUREPIP = """
import runpy, sys
sys.modules["ensurepip"] = None
sys.argv = ["dev", "help"]
dev = runpy.run_path(sys.argv[0])
dev["foreign_pip"].__globals__.update(FOREIGN)
dev["venv_with_pip"]()
"""


def test_without_ensurepip_and_without_pip_it_says_what_to_install(tmp_path: Path) -> None:
    shutil.copy(DEV, tmp_path / "dev")
    code = WITHOUT_ENSUREPIP.replace("FOREIGN", "{'foreign_pip': lambda: None}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "ensurepip" in done.stderr
    assert "run ./dev again" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_without_ensurepip_another_pip_installs_into_the_venv(tmp_path: Path) -> None:
    shutil.copy(DEV, tmp_path / "dev")
    code = WITHOUT_ENSUREPIP.replace("FOREIGN", "{}").replace(
        'dev["venv_with_pip"]()', 'print(*dev["venv_with_pip"]())'
    )
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "--python" in done.stdout
    assert (tmp_path / ".venv" / "bin" / "python").exists()
    assert not (tmp_path / ".venv" / "bin" / "pip").exists()


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    shutil.copy(DEV, tmp_path / "dev")
    holder = (
        "import runpy; dev = runpy.run_path('dev')\nwith dev['one_at_a_time'](): print('held', flush=True); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", holder], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    second = None
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        waiter = holder.replace("input()", "pass")
        second = subprocess.Popen(
            [sys.executable, "-c", waiter], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()
        assert second.poll() is None
        first.communicate("\n", timeout=30)
        assert second.communicate(timeout=30)[0] == "held\n"
    finally:
        for process in (first, second):
            if process and process.poll() is None:
                process.kill()
                process.wait()
