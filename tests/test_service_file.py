"""configs/abid.service: systemd accepts it, it says why on every line, and jobs are left out of any sandbox."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

SERVICE = Path(__file__).parent.parent / "configs" / "abid.service"

# Jobs inherit these, and break on them.
HARDENINGS = {
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "ProtectSystem",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "PrivateNetwork",
    "ProtectProc",
    "RestrictNamespaces",
    "SystemCallFilter",
    "DevicePolicy",
}


def directives() -> dict[str, str]:
    lines = SERVICE.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))


def verify(text: str, folder: Path) -> str:
    """What systemd-analyze has against the unit. abid is not installed here, so ExecStart names a program that is."""
    unit = folder / "abid.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=" + str(shutil.which("true")), text, flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    # Other units of this machine may have faults of their own.
    ours = [line for line in said.splitlines() if "abid.service" in line]
    return "\n".join(ours)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_accepts_it(tmp_path: Path) -> None:
    text = SERVICE.read_text()
    assert verify(text, tmp_path) == ""
    # The examination is a real one: it sees a misspelt key.
    assert "OOMPolize" in verify(text.replace("OOMPolicy=", "OOMPolize="), tmp_path)


def test_a_comment_stands_over_every_line() -> None:
    lines = SERVICE.read_text().splitlines()
    for above, line in pairwise(lines):
        if re.match(r"[A-Z]\w+=", line):
            assert above.startswith("# "), f"nothing says why: {line}"


def test_it_says_what_a_daemon_with_workers_needs() -> None:
    said = directives()
    assert said["Type"] == "notify"
    assert said["Delegate"] == "yes"
    assert said["OOMPolicy"] == "continue"
    assert said["KillMode"] == "mixed", "SIGTERM must reach the daemon alone, or there is nothing to drain"
    assert int(said["OOMScoreAdjust"]) < 0, "workers are at 0"
    assert int(said["TasksMax"]) > 4915, "the default on a small machine"
    assert int(said["LimitNOFILE"].split(":")[0]) > 1024
    assert said["RestartPreventExitStatus"] == "78"


def test_jobs_inherit_no_sandbox() -> None:
    assert not HARDENINGS & directives().keys()
