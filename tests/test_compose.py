"""configs/compose.yaml: no container is started here; what can go wrong unseen is a name or a path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from abi import config
from tests.daemon import plain_yaml

ROOT = Path(__file__).parent.parent


def test_three_hosts_of_our_image_each_with_a_state_of_its_own() -> None:
    told = plain_yaml.read((ROOT / "configs" / "compose.yaml").read_text())
    dockerfile = (ROOT / "Dockerfile").read_text()
    state_dir = re.search(r"ABI_STATE_DIR=(\S+)", dockerfile)
    assert state_dir is not None
    assert list(told["services"]) == ["one", "two", "three"]
    for name, host in told["services"].items():
        assert (ROOT / "configs" / host["build"]["context"] / "Dockerfile").exists()
        (volume,) = host["volumes"]
        assert (volume["source"], volume["target"]) == (name, state_dir[1])
        assert name in told["volumes"]
        assert host["hostname"] == name


def test_its_settings_are_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = plain_yaml.read((ROOT / "configs" / "compose.yaml").read_text())
    empty = tmp_path / "abid.toml"
    empty.touch()
    for host in told["services"].values():
        for name, value in host["environment"].items():
            monkeypatch.setenv(name, value)
        loaded, mistakes = config.load_all(str(empty))
        assert mistakes == []
        origins = [setting.origin for setting in loaded.settings.values()]
        assert {f"environment {name}" for name in host["environment"]} <= set(origins)
        drain_s = loaded.integer("daemon.drain_timeout_ms") / 1000
        assert int(host["stop_grace_period"].removesuffix("s")) > drain_s, "it is killed before it has drained"
