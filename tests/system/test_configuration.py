"""What a daemon was told, and what it does about mistakes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import BIN, Daemon, Place, eventually


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon(config="[jobs]\nkeep_max = 7\n")
    yield made
    made.close()


def test_a_wrong_key_names_itself_its_file_and_the_nearest_right_one(place: Place) -> None:
    place.config_file.write_text("[jobs]\nkeep_max = 3\nkep_max = 5\n")
    for command in (
        ("abid", "start"),
        ("abid", "start", "-d"),
        ("abi", "config", "check"),
        ("abi", "config", "show"),
    ):
        done = place.run(*command, "-c", str(place.config_file))
        assert done.returncode == 78, command
        assert f"{place.config_file}:3" in done.stderr
        assert "'jobs.kep_max'" in done.stderr
        assert "did you mean 'jobs.keep_max'?" in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[jobs]\nkeep_max = 'many'\n", "jobs.keep_max must be an integer, not 'many'"),
        ("[jobs]\nkeep_max = -1\n", "jobs.keep_max is -1, the least is 0"),
        ("[jbos]\nkeep_max = 1\n", "did you mean 'jobs'?"),
        ("[daemon]\nlog_level = 'loud'\n", "daemon.log_level cannot be 'loud'"),
        ("[jobs\n", "is no TOML"),
    ],
)
def test_a_wrong_value(place: Place, text: str, said: str) -> None:
    place.config_file.write_text(text)
    done = place.run("abid", "start", "-c", str(place.config_file))
    assert done.returncode == 78
    assert said in done.stderr
    assert str(place.config_file) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_variable_and_a_wrong_flag(place: Place) -> None:
    done = place.run("abid", "start", env={"ABI_JOBS_KEPP_MAX": "5"})
    assert done.returncode == 78
    assert "did you mean 'ABI_JOBS_KEEP_MAX'?" in done.stderr
    done = place.run("abid", "start", "--cpus", "-1")
    assert done.returncode == 78
    assert "workers.cpus is -1" in done.stderr
    done = place.run("abid", "start", "-c", str(place.folder / "nowhere.toml"))
    assert done.returncode == 78
    assert "cannot read" in done.stderr


def test_every_value_and_where_it_came_from() -> None:
    made = Daemon(config="[jobs]\nkeep_max = 7\n[queue]\naging_ms = 100\n", ABI_QUEUE_TASKS_MAX="50")
    try:
        drop_ins = made.folder / "abid.d"
        drop_ins.mkdir()
        (drop_ins / "10-more.toml").write_text("[queue]\naging_ms = 200\n")
        assert made.run("abid", "reload").returncode == 0
        values = made.json("abi", "config", "show")["values"]
        assert values["jobs.keep_max"] == {"value": 7, "origin": f"{made.config_file}:2"}
        assert values["queue.aging_ms"] == {"value": 200, "origin": f"{drop_ins}/10-more.toml:2"}
        assert values["queue.tasks_max"] == {"value": 50, "origin": "environment ABI_QUEUE_TASKS_MAX"}
        assert values["workers.cpus"] == {"value": 2.0, "origin": "flag"}
        assert values["daemon.log_level"] == {"value": "info", "origin": "default"}
        assert made.json("abi", "status")["config_file"] == str(made.config_file)
    finally:
        made.close()


def shown(daemon: Daemon, key: str) -> object:
    return daemon.json("abi", "config", "show")["values"][key]["value"]


def test_a_reload_takes_effect(daemon: Daemon) -> None:
    daemon.config_file.write_text("[jobs]\nkeep_max = 1\n[queue]\ntasks_max = 1\n")
    done = daemon.run("abid", "reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "configuration reloaded; changed: queue.tasks_max, jobs.keep_max\n"
    assert shown(daemon, "jobs.keep_max") == 1
    assert daemon.run("abi", "submit", "-d", "--", "sleep", "100").returncode == 0
    assert daemon.run("abi", "submit", "--", "true").returncode == 75
    assert daemon.run("abi", "cancel", "last").returncode == 0
    assert daemon.run("abi", "wait", "last").returncode == 130
    daemon.config_file.write_text("[jobs]\nkeep_max = 1\n")
    daemon.kill(signal.SIGHUP)
    eventually(lambda: shown(daemon, "queue.tasks_max") != 1, "the signal does the same")
    for _ in range(3):
        assert daemon.run("abi", "submit", "--", "true").returncode == 0
    assert len(daemon.json("abi", "jobs", "--all")["jobs"]) == 1


def test_an_invalid_new_one_leaves_the_old_one(daemon: Daemon) -> None:
    daemon.config_file.write_text("[jobs]\nkeep_max = 3\nkep_max = 5\n")
    daemon.kill(signal.SIGHUP)
    daemon.await_log("the old one stays")
    error = [json.loads(line) for line in daemon.log().splitlines()][-1]
    assert error["level"] == "error"
    assert "kep_max" in error["message"]
    assert shown(daemon, "jobs.keep_max") == 7
    done = daemon.run("abid", "reload")
    assert done.returncode == 78
    assert "did you mean 'jobs.keep_max'?" in done.stderr
    assert shown(daemon, "jobs.keep_max") == 7
    daemon.config_file.unlink()
    assert daemon.run("abid", "reload").returncode == 78
    assert shown(daemon, "jobs.keep_max") == 7


def test_what_needs_a_restart_is_said_to(daemon: Daemon) -> None:
    text = "[workers]\nresources = { license = 1 }\n[jobs]\nkeep_max = 8\n[daemon]\nlog_format = 'text'\n"
    daemon.config_file.write_text(text)
    done = daemon.run("abid", "reload")
    assert done.returncode == 0
    assert "changed: jobs.keep_max\n" in done.stdout
    assert "only a restart makes it so: daemon.log_format, workers.resources" in done.stdout
    assert (shown(daemon, "workers.resources"), shown(daemon, "jobs.keep_max")) == ({}, 8)
    assert daemon.run("abi", "submit", "--resource", "license=1", "--", "true").returncode == 1
    last = [json.loads(line) for line in daemon.log().splitlines()][-1]
    assert (last["level"], "workers.resources" in last["message"]) == ("warning", True)
    daemon.kill(signal.SIGTERM)
    assert daemon.wait() == 0
    daemon.start()
    assert shown(daemon, "workers.resources") == {"license": 1.0}


def test_a_relative_file_is_found_again(place: Place) -> None:
    """The daemon leaves the directory that it was started in."""
    place.config_file.write_text("[jobs]\nkeep_max = 3\n")
    done = place.run("abid", "start", "-d", "-c", place.config_file.name, cwd=place.folder)
    assert done.returncode == 0, done.stderr
    place.config_file.write_text("[jobs]\nkeep_max = 4\n")
    assert "changed: jobs.keep_max" in place.run("abid", "reload").stdout
    assert place.run("abid", "stop").returncode == 0


def test_more_detail_on_demand(daemon: Daemon) -> None:
    assert '"debug"' not in daemon.log()
    daemon.config_file.write_text("[jobs]\nkeep_max = 7\n[daemon]\nlog_level = 'debug'\n")
    assert daemon.run("abid", "reload").returncode == 0
    daemon.config_file.write_text("[jobs]\nkeep_max = 7\n[daemon]\nlog_level = 'error'\n")
    assert daemon.run("abid", "reload").returncode == 0
    before = daemon.log()
    assert daemon.run("abid", "reload").returncode == 0
    assert daemon.log() == before


def test_a_state_directory_that_is_no_directory(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [BIN / "abid", "start"],
        env=place.environment | {"ABI_STATE_DIR": str(tmp_path / "file" / "state")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 78
    assert "cannot make the directory" in done.stderr
    assert "ABI_STATE_DIR" in done.stderr
