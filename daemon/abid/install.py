"""`abid install-service`: the systemd unit of configs/, with the path of this very abid in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from abi.errors import AbiError

UNIT = "abid.service"
SYSTEM_FOLDER = Path("/etc/systemd/system")
SYSTEM_ONLY = (
    "User",
    "Group",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "StateDirectory",
    "StateDirectoryMode",
    "ConfigurationDirectory",
    "WorkingDirectory",
    "OOMScoreAdjust",
)
"""Settings that a user's own manager cannot grant or that user mode has no use for."""


def install_service(user: bool) -> int:
    """Write the unit and say what to do next. Raises AbiError where the unit cannot be written."""
    folder = _user_folder() if user else SYSTEM_FOLDER
    text = unit_text(_template().read_text(), _executable(), user)
    path = folder / UNIT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise AbiError(
            f"{path} cannot be written: {error.strerror}",
            code="denied",
            hint="as root, or with --user for a service of your own",
        ) from None
    manager = "systemctl --user" if user else "systemctl"
    print(f"wrote {path}")
    if not user:
        print("people who may submit must be in the group abi: useradd --system --user-group abi, if there is none yet")
    print(f"start it: {manager} daemon-reload && {manager} enable --now {UNIT}")
    if not _systemd_runs():
        print("untested: systemd does not run here, so nothing has read this unit yet")
    elif shutil.which("systemd-analyze"):
        subprocess.run(["systemd-analyze", "verify", *(["--user"] if user else []), str(path)], check=False)
    return 0


def unit_text(template: str, executable: str, user: bool) -> str:
    """The unit for this abid; for a user's manager without what only the system's can grant."""
    start = f"ExecStart={executable} start" + ("" if user else " --system")
    text = re.sub(r"^ExecStart=.*$", lambda _: start, template, flags=re.MULTILINE)
    if user:
        names = "|".join(SYSTEM_ONLY)
        text = re.sub(rf"^(?:#.*\n)?(?:{names})=.*\n", "", text, flags=re.MULTILINE)
        text = text.replace("WantedBy=multi-user.target", "WantedBy=default.target")
    return text


def _template() -> Path:
    """Beside this module where abi is installed; in configs/ in a checkout."""
    beside = Path(__file__).with_name(UNIT)
    return beside if beside.is_file() else Path(__file__).parents[2] / "configs" / UNIT


def _executable() -> str:
    beside = Path(sys.executable).with_name("abid")
    found = str(beside) if beside.is_file() else shutil.which("abid")
    if not found:
        raise AbiError("the abid command is not installed", hint="install the distribution: pip install abid")
    return found


def _user_folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "systemd" / "user"


def _systemd_runs() -> bool:
    """As sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")
