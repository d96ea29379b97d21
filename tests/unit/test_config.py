"""Where values come from, and what is said of a wrong one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from abi import config, options
from abi.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
DRAIN = "daemon.drain_timeout_ms"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "abid.d").mkdir()
    return tmp_path / "abid.toml"


def load(file: Path, **environ: str) -> config.Config:
    return config.load(str(file), environ=environ)


def complaint(file: Path, text: str, **environ: str) -> str:
    """All that is said of a file with this text."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, **environ)
    return str(caught.value)


def test_the_shown_file_is_the_table() -> None:
    assert (ROOT / "configs" / "abid.toml").read_text() == options.as_toml()


def test_the_shown_file_holds_every_option_at_its_default(file: Path) -> None:
    lines = options.as_toml().splitlines()
    assert tomllib.loads("\n".join(lines)) == {section: {} for section in options.SECTIONS}
    # What is a setting and not a sentence: "# name = value" of a known name.
    names = {option.name for option in options.OPTIONS}
    file.write_text("\n".join(line[2:] if line[2:].split(" = ")[0] in names else line for line in lines))
    loaded = load(file)
    assert {key: setting.value for key, setting in loaded.settings.items()} == {
        option.key: option.default for option in options.OPTIONS
    }
    assert all(setting.origin.startswith(str(file)) for setting in loaded.settings.values())


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.key)
def test_every_row_is_sound(option: options.Option) -> None:
    assert config.checked(option, option.default, "default") == option.default
    assert option.sentence.endswith(".")
    assert option.key.endswith("_ms") == (option.unit == "milliseconds")
    assert option.key == f"{option.section}.{option.name}"


def test_keys_are_unique() -> None:
    assert len(options.BY_KEY) == len(options.OPTIONS)


def test_defaults_without_any_file(tmp_path: Path) -> None:
    loaded = config.load(environ={"HOME": str(tmp_path)})
    assert loaded.integer(DRAIN) == 30_000
    assert loaded.settings[DRAIN].origin == "default"
    assert loaded.file == ""


def test_precedence(file: Path) -> None:
    file.write_text(
        "[daemon]\ndrain_timeout_ms = 1\n[queue]\naging_ms = 1\n[jobs]\nkeep_max = 1\n[workers]\ncpus = 1\n"
    )
    (file.parent / "abid.d" / "20-b.toml").write_text("[daemon]\ndrain_timeout_ms = 3\n")
    (file.parent / "abid.d" / "10-a.toml").write_text("jobs.keep_max = 2\n[daemon]\ndrain_timeout_ms = 2\n")
    (file.parent / "abid.d" / "30-c.toml.bak").write_text("nonsense")
    environ = {"ABI_QUEUE_AGING_MS": "4", "ABI_WORKERS_CPUS": "4", "ABI_SOCKET": "/x", "ABI_TASK_ID": "ours, no option"}
    loaded = config.load(str(file), {"workers.cpus": 5}, environ)
    assert {key: (loaded.settings[key].value, loaded.settings[key].origin) for key in (
        DRAIN, "jobs.keep_max", "queue.aging_ms", "workers.cpus", "daemon.log_level"
    )} == {
        DRAIN: (3, f"{file.parent}/abid.d/20-b.toml:2"),
        "jobs.keep_max": (2, f"{file.parent}/abid.d/10-a.toml:1"),
        "queue.aging_ms": (4, "environment ABI_QUEUE_AGING_MS"),
        "workers.cpus": (5.0, "flag"),
        "daemon.log_level": ("info", "default"),
    }  # fmt: skip
    assert loaded.file == str(file)


def test_default_files() -> None:
    assert config.default_file({"XDG_CONFIG_HOME": "/c"}) == "/c/abi/abid.toml"
    assert config.default_file({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}) == "/h/.config/abi/abid.toml"
    assert config.default_file({}, system=True) == "/etc/abi/abid.toml"


def test_the_default_file_is_read_and_so_are_drop_ins_without_it(tmp_path: Path) -> None:
    directory = tmp_path / "abi" / "abid.d"
    directory.mkdir(parents=True)
    (directory / "a.toml").write_text("[jobs]\nkeep_max = 7\n")
    loaded = config.load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert (loaded.integer("jobs.keep_max"), loaded.file) == (7, "")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(str(tmp_path / "missing.toml"), environ={})


def test_resources_from_file_environment_and_flag(file: Path) -> None:
    file.write_text("[workers.resources]\nlicense = 2\n")
    assert load(file).table("workers.resources") == {"license": 2.0}
    assert load(file, ABI_WORKERS_RESOURCES="a=1, b=0.5").table("workers.resources") == {"a": 1.0, "b": 0.5}
    assert load(file, ABI_WORKERS_RESOURCES="").table("workers.resources") == {}


def test_booleans_and_lists_from_file_environment_and_flag(file: Path) -> None:
    file.write_text("[network]\nenabled = false\nseeds = ['a', 'b:9000', '[fe80::1]:80']\n")
    loaded = load(file)
    assert (loaded.boolean("network.enabled"), loaded.texts("network.seeds")) == (
        False,
        ("a", "b:9000", "[fe80::1]:80"),
    )
    for text, value in (("true", True), ("Yes", True), ("on", True), ("1", True), ("no", False), ("OFF", False)):
        assert load(file, ABI_NETWORK_ENABLED=text).boolean("network.enabled") is value
    assert load(file, ABI_NETWORK_SEEDS=" c , d:1,").texts("network.seeds") == ("c", "d:1")
    assert load(file, ABI_NETWORK_SEEDS="").texts("network.seeds") == ()
    flagged = config.load(str(file), {"network.seeds": ["e"], "network.enabled": True}, {})
    assert (flagged.texts("network.seeds"), flagged.boolean("network.enabled")) == (("e",), True)
    assert load(file).changes(flagged) == ["network.enabled", "network.seeds"]


def test_a_value_as_toml_writes_it() -> None:
    for value in (True, False, (), ("a", 'b"\\'), 3, 0.5, "x"):
        text = f"value = {options.spelled(value)}"
        assert tomllib.loads(text)["value"] == (list(value) if isinstance(value, tuple) else value)


def test_wrong_keys_name_themselves_their_line_and_the_nearest_right_one(file: Path) -> None:
    said = complaint(file, "[daemon]\n\n# why\ndrain_timeout = 1\n")
    assert f"{file}:4" in said
    assert "'daemon.drain_timeout'" in said
    assert "did you mean 'daemon.drain_timeout_ms'?" in said
    said = complaint(file, "[worker]\ncpus = 1\n")
    assert f"{file}:1: there is no section 'worker'" in said
    assert "did you mean 'workers'?" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[daemon]\ndrain_timeout_ms = '1'", ":2: daemon.drain_timeout_ms must be an integer, not '1'"),
        ("[daemon]\ndrain_timeout_ms = true", "must be an integer, not True"),
        ("[daemon]\ndrain_timeout_ms = 1.5", "must be an integer, not 1.5"),
        ("daemon.drain_timeout_ms = -1", ":1: daemon.drain_timeout_ms is -1, the least is 0"),
        ("[daemon]\ndrain_timeout_ms = 99999999999", "the most is 86400000"),
        ("[daemon]\nlog_level = 'wanring'", "did you mean 'warning'?"),
        ("[daemon]\nlog_level = 'xyz'", "one of debug, info, warning, error"),
        ("[workers]\ncpus = nan", "must be a finite number"),
        ("[workers]\nresources = 3", "must be a table of name = number, not 3"),
        ("[workers.resources]\nlicense = 'two'", "workers.resources.license must be a number"),
        ("[workers.resources]\n'a b' = 1", "is no name"),
        ("daemon = 3", ":1: daemon must be a table"),
        ("[daemon\n", "is no TOML"),
        ("[[daemon]]\nlog_level = 'info'", "daemon must be a table"),
        ("[network]\nenabled = 1", ":2: network.enabled must be true or false, not 1"),
        ("[network]\nenabled = 'yes'", "must be true or false, not 'yes'"),
        ("[network]\nport = true", "network.port must be an integer, not True"),
        ("[network]\nport = 65536", "network.port is 65536, the most is 65535"),
        ("[network]\nseeds = 'a'", "network.seeds must be a list of texts, not 'a'"),
        ("[network]\nseeds = [1]", "each of network.seeds must be a text, not 1"),
        ("[network]\nseeds = ['']", "network.seeds cannot be '': '' is no host's name"),
        ("[network]\nseeds = ['a:b']", "'b' is no port: 1 to 65535 are"),
        ("[network]\nsubnets = ['10.0.3.7/24']", "cannot be '10.0.3.7/24': it is an address inside of 10.0.3.0/24"),
        ("[network]\nbind = 'eth0'", "network.bind cannot be 'eth0': 'eth0' is no IP address"),
        ("[network]\nexec_hook = 'hosts.sh'", "its program must be named by its whole path"),
    ],
)
def test_wrong_values(file: Path, text: str, said: str) -> None:
    assert said in complaint(file, text)


def test_all_mistakes_at_once(file: Path) -> None:
    file.write_text("[daemon]\nlog_level = 'loud'\ndrain = 1\n[jbos]\n[jobs]\nkeep_max = 3\n")
    (file.parent / "abid.d" / "a.toml").write_text("[workers.resources]\nright = 1\nwrong = -1\n'a b' = 1\n")
    (file.parent / "abid.d" / "b.toml").write_text("[queue\n")
    (file.parent / "abid.d" / "c.toml").write_text("[network]\nseeds = ['a b', 'right', 'c:0']\n")
    loaded, mistakes = config.load_all(str(file), {"ABI_JOBS_KEEPP": "1", "ABI_WORKERS_CPUS": "many"})
    said = [mistake.message for mistake in mistakes]
    wanted = [
        "daemon.log_level cannot be 'loud'", "'daemon.drain'", "'jbos'", "resources.wrong is -1", "a b is no name",
        "b.toml is no TOML", "seeds cannot be 'a b'", "seeds cannot be 'c:0'", "'ABI_JOBS_KEEPP'",
        "workers.cpus must be a number",
    ]  # fmt: skip
    assert len(said) == len(wanted)
    assert all(words in line for words, line in zip(wanted, said, strict=True)), said
    assert loaded.integer("jobs.keep_max") == 3
    assert loaded.table("workers.resources") == {}
    file.write_text("")
    assert config.load_all(str(file), {})[1][0].message.startswith(f"{file.parent}/abid.d/a.toml:")


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no TOML"):
        load(file)


def test_wrong_variables(file: Path) -> None:
    assert "did you mean 'ABI_WORKERS_CPUS'?" in complaint(file, "", ABI_WORKERS_CPU="1")
    said = complaint(file, "", ABI_DAEMON_DRAIN_TIMEOUT_MS="soon")
    assert "environment ABI_DAEMON_DRAIN_TIMEOUT_MS" in said
    assert "must be an integer, not 'soon'" in said


def test_wrong_flags() -> None:
    with pytest.raises(ConfigError, match=r"flag: there is no option 'workers\.cpu'"):
        config.load(None, {"workers.cpu": 1}, {"HOME": "/dev/null"})


def test_changes_between_two_configurations(file: Path) -> None:
    file.write_text("")
    old = load(file)
    new = load(file, ABI_JOBS_KEEP_MAX="5", ABI_DAEMON_LOG_LEVEL="info")
    assert old.changes(new) == ["jobs.keep_max"]
    assert old.changes(old) == []


def test_reading_an_option_as_what_it_is_not(file: Path) -> None:
    file.write_text("")
    loaded = load(file)
    assert loaded.number(DRAIN) == 30_000.0
    assert loaded.text("daemon.log_level") == "info"
    for read in (loaded.text, loaded.table, loaded.boolean, loaded.texts):
        with pytest.raises(TypeError):
            read(DRAIN)
    for read_number in (loaded.integer, loaded.number):
        with pytest.raises(TypeError):
            read_number("network.enabled")  # though Python takes a truth for a number
    with pytest.raises(TypeError):
        loaded.integer("daemon.log_level")
    with pytest.raises(KeyError):
        loaded.integer("daemon.nothing")
