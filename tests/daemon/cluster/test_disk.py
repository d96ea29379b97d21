"""A member whose disk, or whose log, keeps it from taking part: it says so, and what else runs on its host runs on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from abi.errors import AbiError
from abid.core.raft.messages import HardState
from tests.seed.members import Making

BEFORE = """
import os, sqlite3
from abid import raft_store
from abid.cluster import consensus

path = os.environ["ABI_STATE_DIR"] + "/disk"
works, pump = raft_store._transact, consensus.Consensus._pump

def impatient(member):
    consensus.SILENT_AFTER_S = 0.2 if os.path.exists(path) else 60.0
    pump(member)

consensus.Consensus._pump = impatient

def fails(database, write):
    if not os.path.exists(path):
        return works(database, write)
    name = open(path).read()
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error

raft_store._transact = fails
"""
"""A disk that fails as the file ``disk`` says; nobody has patience with it then, and much with a slow one."""


def test_neither_a_full_disk_nor_one_that_fails_ends_what_runs_on_this_host() -> None:
    making = Making()
    try:
        (host,) = making.add(1, before=BEFORE)
        host.ask("cluster-init")
        disk = host.state_dir / "disk"
        disk.write_text("SQLITE_FULL")
        with pytest.raises(AbiError, match=r"disk keeps it from taking part: .*, and no other host votes"):
            host.ask("cluster-token")
        host.until(lambda told: "SQLITE_FULL" in str(told["notes"]), "it says why")
        assert "SQLITE_FULL" in host.run("abi", "network", "status").stdout
        disk.unlink()
        host.until(lambda told: told["role"] == "leader" and not told["notes"], "there is room again")
        assert host.ask("cluster-token")["token"]
        disk.write_text("SQLITE_IOERR_FSYNC")
        with pytest.raises(AbiError):
            host.ask("cluster-token")
        with pytest.raises(AbiError, match="out of it: what the cluster agreed on could not be written") as caught:
            host.ask("cluster-token")
        assert caught.value.code == "out_of_cluster"
        assert host.run("abi", "submit", "--", "true").returncode == 0, "tasks run on"
    finally:
        making.close()


def test_a_host_that_has_to_be_upgraded_says_so_and_runs_on() -> None:
    """Another release led, and proposed what this one does not know."""
    making = Making()
    try:
        (host,) = making.add(1)
        host.ask("cluster-init")
        host.ask("cluster-token")  # so that there is an entry on its disk
        host.kill()
        host.wait()
        _append(host.state_dir / "cluster" / "raft-1.sqlite", msgspec.msgpack.encode(["of-release-2", 1, 2, 3]))
        host.start()
        with pytest.raises(AbiError, match=r"out of it: entry .* cannot be applied by abi") as caught:
            host.ask("cluster-token")
        assert "upgrade abi on this host" in caught.value.hint
        assert host.run("abi", "submit", "--", "true").returncode == 0
    finally:
        making.close()


def _append(path: Path, data: bytes) -> None:
    database = sqlite3.connect(path)
    (found,) = database.execute("SELECT value FROM facts WHERE name = 'hard_state'").fetchone()
    stored = msgspec.msgpack.decode(found, type=HardState)
    (last,) = database.execute("SELECT max(place) FROM entries").fetchone()
    database.execute("INSERT INTO entries VALUES (?, ?, 0, ?)", (last + 1, stored.term, data))
    committed = msgspec.msgpack.encode(HardState(stored.term, stored.vote, last + 1))
    database.execute("UPDATE facts SET value = ? WHERE name = 'hard_state'", (committed,))
    database.commit()
    database.close()
