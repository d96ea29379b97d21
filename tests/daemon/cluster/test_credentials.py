"""What makes a member of a host: on disk whole, private, and only what belongs together."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from abid.cluster import credentials as stored
from abid.cluster.authority import CERTIFICATE_S, Authority
from abid.cluster.certificates import CertificateError, Subject, new_key_and_request
from abid.cluster.credentials import Credentials, CredentialsDamaged
from tests.daemon.cluster.hosts import CLUSTER, Ca

NODE = "0000000a"
SECRET = bytes(range(32))


def member(folder: Path) -> Credentials:
    return Ca(folder).member(NODE, name="m")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_host_that_never_joined_has_none(tmp_path: Path) -> None:
    assert stored.load(tmp_path) is None
    assert stored.load(tmp_path / "missing") is None
    assert stored.load_authority(tmp_path) is None


def test_what_was_stored_is_found_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    now = float(int(time.time()))
    ca = Ca(tmp_path)
    credentials = ca.member(NODE, 3, now=now)
    stored.store_authority_key(credentials.folder, ca.authority.key_pem())
    assert stored.load(credentials.folder) == credentials
    assert credentials.subject == Subject(NODE, CLUSTER, 3)
    assert credentials.not_after == now + CERTIFICATE_S
    assert credentials.authority_certificate == ca.authority.certificate
    authority = stored.load_authority(credentials.folder)
    assert authority is not None
    assert authority.certificate == ca.authority.certificate
    modes = {path.name: path.stat().st_mode & 0o777 for path in credentials.folder.iterdir()}
    assert modes == dict.fromkeys(["ca.pem", "ca.key", "node.pem", "secret"], 0o600)
    assert credentials.folder.stat().st_mode & 0o077 == 0


def test_what_does_not_belong_together_is_not_stored(tmp_path: Path) -> None:
    ca, other = Ca(tmp_path), Authority.found(CLUSTER, time.time())
    credentials = ca.member(NODE)
    before = contents(credentials.folder)
    subject = credentials.subject
    key, request = new_key_and_request(subject)
    foreign, ours = other.sign(request, subject, time.time()), ca.authority.sign(request, subject, time.time())
    with pytest.raises(CertificateError, match="of another authority"):
        stored.store_member(credentials.folder, ca.authority.certificate, foreign, key, SECRET)
    with pytest.raises(CertificateError, match="for another key"):
        stored.store_member(credentials.folder, ca.authority.certificate, ours, new_key_and_request(subject)[0], SECRET)
    with pytest.raises(CertificateError, match="not readable"):
        stored.store_member(credentials.folder, ca.authority.certificate, b"", key, SECRET)
    assert contents(credentials.folder) == before


def test_half_a_file_of_a_life_that_died_is_not_read_and_not_trusted(tmp_path: Path) -> None:
    folder = member(tmp_path).folder
    half = folder / "node.pem.new"
    half.write_text("half")
    half.chmod(0o666)
    assert stored.load(folder) is not None
    stored.write_private(folder / "node.pem", b"whole")
    assert (folder / "node.pem").read_bytes() == b"whole"
    assert (folder / "node.pem").stat().st_mode & 0o777 == 0o600
    assert not half.exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("node.pem", b""),
        ("node.pem", b"[]\n"),
        ("node.pem", b'{"node": "0000000a"}\n'),
        ("secret", b"short"),
        ("secret", None),
    ],
)
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, name: str, damage: bytes | None) -> None:
    folder = member(tmp_path).folder
    if damage is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage)
    before = contents(folder)
    with pytest.raises(CredentialsDamaged, match=str(folder)) as caught:
        stored.load(folder)
    assert "join again" in caught.value.hint
    assert contents(folder) == before


def test_a_request_whose_answer_never_came_is_made_again_for_the_same_key(tmp_path: Path) -> None:
    credentials = member(tmp_path)
    key, _ = stored.next_request(credentials.folder, credentials.subject)
    assert stored.next_request(credentials.folder, credentials.subject)[0] == key
    assert (credentials.folder / "next.key").stat().st_mode & 0o777 == 0o600


def test_the_next_certificate_ends_the_request(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    credentials = ca.member(NODE)
    key, request = stored.next_request(credentials.folder, credentials.subject)
    certificate = ca.authority.sign(request, credentials.subject, time.time() + 1000)
    renewed = stored.store_member(credentials.folder, ca.authority.certificate, certificate, key, ca.secret)
    assert renewed.not_after > credentials.not_after
    assert stored.load(credentials.folder) == renewed
    assert stored.member_pair(credentials.folder) == (certificate, key)
    assert stored.next_request(credentials.folder, credentials.subject)[0] != key


def test_who_has_left_is_no_member(tmp_path: Path) -> None:
    credentials = member(tmp_path)
    stored.next_request(credentials.folder, credentials.subject)
    stored.forget(credentials.folder)
    assert contents(credentials.folder) == {}
    assert stored.load(credentials.folder) is None
    stored.forget(credentials.folder)
