"""The seed's row "Configuration": its six options, their defaults, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from abi import config
from abi.errors import ConfigError
from abi.options import BY_KEY

SEED = {
    "port": 8081,
    "discovery_enabled": True,
    "broadcast_interval_ms": 5000,
    "connection_timeout_ms": 10_000,
    "request_timeout_ms": 30_000,
    "max_retries": 3,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "abid.d").mkdir()
    (tmp_path / "abid.toml").write_text("")
    return tmp_path / "abid.toml"


def test_the_seeds_options_have_the_seeds_defaults(file: Path) -> None:
    shown = config.load(str(file), environ={}).shown()
    assert {name: shown[f"network.{name}"] for name in SEED} == {
        name: {"value": value, "origin": "default"} for name, value in SEED.items()
    }


@pytest.mark.parametrize("name", SEED)
def test_each_says_where_its_value_came_from(file: Path, name: str) -> None:
    key, variable = f"network.{name}", f"ABI_NETWORK_{name.upper()}"
    # A different one in each place; of a boolean there are only two.
    others = [False, True, False, True] if name == "discovery_enabled" else [1001, 1002, 1003, 1004]
    if name == "max_retries":
        others = [11, 12, 13, 14]
    in_file, in_drop_in, in_environment, in_flag = others
    spelled = [str(value).lower() for value in others]

    def found(environ: dict[str, str], flags: dict[str, object]) -> dict[str, object]:
        return config.load(str(file), flags, environ).shown()[key]

    file.write_text(f"[network]\n{name} = {spelled[0]}\n")
    assert found({}, {}) == {"value": in_file, "origin": f"{file}:2"}
    drop_in = file.parent / "abid.d" / "10-site.toml"
    drop_in.write_text(f"[network]\n{name} = {spelled[1]}\n")
    assert found({}, {}) == {"value": in_drop_in, "origin": f"{drop_in}:2"}
    environ = {variable: spelled[2]}
    assert found(environ, {}) == {"value": in_environment, "origin": f"environment {variable}"}
    assert found(environ, {key: in_flag}) == {"value": in_flag, "origin": "flag"}


def test_the_network_is_switched_off_by_file_or_variable(file: Path) -> None:
    assert config.load(str(file), environ={}).boolean("network.enabled") is True
    assert config.load(str(file), environ={"ABI_NETWORK_ENABLED": "false"}).boolean("network.enabled") is False
    file.write_text("[network]\nenabled = false\n")
    assert config.load(str(file), environ={}).boolean("network.enabled") is False


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ABI_NETWORK_ENABLED", "maybe", "network.enabled must be true or false, not 'maybe'"),
        ("ABI_NETWORK_PORT", "-1", "network.port is -1, the least is 0"),
        ("ABI_NETWORK_PORT", "http", "network.port must be an integer, not 'http'"),
        ("ABI_NETWORK_BROADCAST_INTERVAL_MS", "99", "the least is 100"),
        ("ABI_NETWORK_CONNECTION_TIMEOUT_MS", "9", "the least is 10"),
        ("ABI_NETWORK_REQUEST_TIMEOUT_MS", "0", "the least is 10"),
        ("ABI_NETWORK_MAX_RETRIES", "101", "the most is 100"),
        ("ABI_NETWORK_MAX_RETRY", "1", "did you mean 'ABI_NETWORK_MAX_RETRIES'?"),
    ],
)
def test_a_wrong_value_is_named(file: Path, variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        config.load(str(file), environ={variable: value})
    assert said in str(caught.value)


def test_units_are_said() -> None:
    for name in SEED:
        assert (BY_KEY[f"network.{name}"].unit == "milliseconds") == name.endswith("_ms")
