"""The lines by which README makes three hosts one cluster, as they stand there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import BIN, WAIT_S, Place, eventually

README = Path(__file__).parents[2] / "README.md"
NAMES = ("one", "two", "three")
ON_THIS_MACHINE = {
    "ABI_NETWORK_BIND": "127.0.0.1",
    "ABI_NETWORK_PORT": "0",
    "ABI_NETWORK_DISCOVERY_ENABLED": "false",
}
COPY = 'scp() { cp "$1" "../${2%:}/"; }\n'
"""Between hosts that are folders."""


def lines() -> list[tuple[list[str], str]]:
    """On which hosts, and what."""
    section = README.read_text().partition("\n## Many hosts\n")[2].partition("\n## ")[0]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block is not None
    told = (line.partition("$ ") for line in block[1].splitlines())
    return [(hosts.split(", "), command) for hosts, _, command in told]


@pytest.fixture
def places() -> Iterator[dict[str, Place]]:
    made = {name: Place(**ON_THIS_MACHINE) for name in NAMES}
    try:
        yield made
    finally:
        for place in made.values():
            place.run("abid", "stop", "--now")
        for place in made.values():
            eventually(lambda place=place: not place.processes(), "everything is gone")  # type: ignore[misc]
            place.close()


def test_three_hosts_become_one_cluster_by_the_lines_of_the_readme(places: dict[str, Place], tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
    for hosts, command in lines():
        for name in hosts:
            environment = places[name].environment
            done = subprocess.run(
                ["sh", "-c", COPY + command],
                env=environment | {"PATH": f"{BIN}:{environment['PATH']}"},
                cwd=tmp_path / name,
                capture_output=True,
                text=True,
                timeout=WAIT_S,
            )
            assert done.returncode == 0, f"{name}$ {command}\n{done.stdout}{done.stderr}"

    def are_one() -> bool:
        told = [places[name].ask("network-status") for name in NAMES]
        return len({one["cluster"] for one in told}) == 1 and {len(one["nodes"]) for one in told} == {3}

    eventually(are_one, "all know of three hosts of one cluster")
