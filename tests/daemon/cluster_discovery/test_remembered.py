"""Peers on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from abid.cluster import remembered
from abid.core.dialling import Address
from abid.core.discovery import REMEMBERED_MAX, Peer

PEERS = [
    Peer(Address("10.0.0.2", 8081), b"\0\0\0\2"),
    Peer(Address("fd00::3", 9000), is_registered=True),
    Peer(Address("10.0.0.4", 1), b"\xff\0\0\1", is_registered=True),
]


def test_what_was_saved_is_loaded_in_its_order(tmp_path: Path) -> None:
    remembered.save(tmp_path, PEERS)
    assert remembered.load(tmp_path) == PEERS
    remembered.save(tmp_path, PEERS[:1])
    assert remembered.load(tmp_path) == PEERS[:1]
    assert [path.name for path in tmp_path.iterdir()] == [remembered.FILE]
    assert (tmp_path / remembered.FILE).stat().st_mode & 0o777 == 0o600


def test_nothing_there_is_nobody_remembered(tmp_path: Path) -> None:
    assert remembered.load(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def entry(**changed: object) -> dict[str, object]:
    return {"host": "10.0.0.2", "port": 8081, "node": "00000002", "registered": False} | changed


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    json.dumps({"layout": 2, "peers": []}).encode(),
    json.dumps({"layout": 1}).encode(),
    json.dumps({"layout": 1, "peers": {}}).encode() + b" " * remembered.BYTES_MAX,
    *(
        json.dumps({"layout": 1, "peers": [one]}).encode()
        for one in (
            entry(host="name.example.org"),
            entry(host=7),
            entry(port=0),
            entry(port=70_000),
            entry(port="8081"),
            entry(node="0"),
            entry(node="0002"),
            entry(node=None),
            {},
            None,
        )
    ),
]


@pytest.mark.parametrize("words", DAMAGED)
def test_a_damaged_file_is_put_aside_and_named(tmp_path: Path, words: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / remembered.FILE).write_bytes(words)
    assert remembered.load(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["peers.damaged"]
    assert (tmp_path / "peers.damaged").read_bytes() == words
    assert str(tmp_path / remembered.FILE) in caplog.text
    remembered.save(tmp_path, PEERS)
    assert remembered.load(tmp_path) == PEERS


def test_a_full_table_fits(tmp_path: Path) -> None:
    longest = "fd00:1111:2222:3333:4444:5555:6666:7777"
    many = [Peer(Address(longest, 10_000 + n), b"\xff\xff\xff\xff", is_registered=True) for n in range(REMEMBERED_MAX)]
    remembered.save(tmp_path, many)
    assert (tmp_path / remembered.FILE).stat().st_size < remembered.BYTES_MAX / 4
    assert remembered.load(tmp_path) == many


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    remembered.save(tmp_path, PEERS)
    (tmp_path / f"{remembered.FILE}.new").mkdir()  # so that the new one cannot be made, not even by root
    with pytest.raises(OSError):
        remembered.save(tmp_path, [])
    os.rmdir(tmp_path / f"{remembered.FILE}.new")
    assert remembered.load(tmp_path) == PEERS
