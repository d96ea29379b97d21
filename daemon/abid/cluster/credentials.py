"""By what this host shows that it is a member: certificates, keys and the cluster's secret, in files of mode 0600.

    ca.pem     the authority's certificate: the only one that we believe
    ca.key     the authority's key, where this host votes
    node.pem   this host's certificate and its key, in one file, so that one rename changes both
    next.key   the key of a renewal that is under way: an answer that was lost is asked for again with it
    join.key   the same of a join, after a line that says by which token (``knocking``)
    secret     the cluster's, from which the beacons' key is derived

A file is there whole, old or new, at every moment. ``node.pem`` begins with a line that says when the certificate ends
(text before a certificate is allowed, RFC 7468, 2), so that nothing has to take it apart at each start.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from abi.errors import AbiError
from abid.cluster.certificates import (
    CertificateError,
    Subject,
    fingerprint,
    is_issued_by,
    load_certificate,
    load_key,
    new_key_and_request,
    request_for,
    subject_of_certificate,
    to_pem,
)
from abid.cluster.secret import SECRET_BYTES
from abid.state import FILE as IDENTITY

if TYPE_CHECKING:
    from abid.cluster.authority import Authority

AUTHORITY: Final = "ca.pem"
AUTHORITY_KEY: Final = "ca.key"
MEMBER: Final = "node.pem"
NEXT_KEY: Final = "next.key"
JOIN_KEY: Final = "join.key"
SECRET: Final = "secret"
NOTHING: Final[Mapping[str, bytes]] = {}


class CredentialsDamaged(AbiError):
    """The files are there and are not what they should be."""

    code = "bad_config"


class Credentials(NamedTuple):
    """What is needed to speak with members. Times are seconds since the epoch."""

    folder: Path
    subject: Subject
    not_before: float
    not_after: float
    secret: bytes

    @property
    def member_path(self) -> Path:
        return self.folder / MEMBER

    @property
    def authority_path(self) -> Path:
        return self.folder / AUTHORITY

    @property
    def authority_certificate(self) -> bytes:
        """DER. Raises OSError and CredentialsDamaged."""
        try:
            return ssl.PEM_cert_to_DER_cert(self.authority_path.read_text())
        except (ValueError, FileNotFoundError) as error:
            raise damaged(self.authority_path, error) from None

    @property
    def authority_fingerprint(self) -> bytes:
        return fingerprint(self.authority_certificate)


def load(folder: Path) -> Credentials | None:
    """What is there; None where there is no certificate. Raises CredentialsDamaged and OSError."""
    try:
        words = json.loads((folder / MEMBER).read_text().partition("\n")[0])
        subject = Subject(str(words["node"]), str(words["cluster"]), int(words["incarnation"]))
        times = float(words["not_before"]), float(words["not_after"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder / MEMBER, error) from None
    try:
        secret = (folder / SECRET).read_bytes()
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the cluster's secret has {len(secret)} bytes, not {SECRET_BYTES}")
    except (ValueError, FileNotFoundError) as error:
        raise damaged(folder / SECRET, error) from None
    return Credentials(folder, subject, *times, secret)


def check_owner(found: Credentials, node: str) -> None:
    """That they are of this host. Raises CredentialsDamaged where it lost its identity since: it would take part under
    two names, and the others know only the one."""
    ours = found.subject.node
    if ours != node:
        raise CredentialsDamaged(
            f"the certificate in {found.member_path} is of node {ours}, and this host is node {node} by "
            f"{found.folder.parent / IDENTITY}: that file was lost since, or is another host's",
            hint=f"`abi cluster leave --force` here, `abi network remove {ours}` on another member, and join again "
            "with a token; or restore that file from a backup",
        )


def store_member(
    folder: Path,
    authority: bytes,
    certificate: bytes,
    key_pem: bytes,
    secret: bytes,
    then: Mapping[str, bytes] = NOTHING,
) -> Credentials:
    """Become a member, or the same member with a new certificate, after all has been found to belong together.
    ``then``: files of this folder that hold with this certificate only, and take their places after it.

    Certificates in DER. Raises CertificateError for what does not belong together, OSError where the disk does not take
    it (a full one: nothing has changed).
    """
    found = load_certificate(certificate)
    if not is_issued_by(found, load_certificate(authority)):
        raise CertificateError("the certificate that came is of another authority", code="wrong_ca")
    if found.public_key() != load_key(key_pem).public_key():
        raise CertificateError("the certificate that came is for another key")
    subject = subject_of_certificate(found)
    times = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    words = {"not_before": times[0], "not_after": times[1], **subject._asdict()}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {
        AUTHORITY: to_pem(authority).encode(),
        SECRET: secret,
        # After these, since its being there makes a member of this host.
        MEMBER: f"{json.dumps(words)}\n{to_pem(certificate)}".encode() + key_pem,
    }
    _write_together({folder / name: data for name, data in {**files, **then}.items()})
    for name in (NEXT_KEY, JOIN_KEY):
        (folder / name).unlink(missing_ok=True)
    _sync(folder)
    return Credentials(folder, subject, *times, secret)


def next_request(folder: Path, subject: Subject) -> tuple[bytes, bytes]:
    """The key (PEM) and request (DER) for our next certificate: those of an attempt whose answer never came, if there
    are. Raises CertificateError and OSError."""
    path = folder / NEXT_KEY
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key, request = new_key_and_request(subject)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, key)
        return key, request
    return key, request_for(key, subject)


def member_pair(folder: Path) -> tuple[bytes, bytes]:
    """The certificate (DER) and the key (PEM) in ``node.pem``, as one read of it found them: to prove who we are, also
    with a certificate that ran out. Raises CredentialsDamaged and OSError."""
    try:
        text = (folder / MEMBER).read_text()
    except (ValueError, FileNotFoundError) as error:
        raise damaged(folder / MEMBER, error) from None
    before, mark, rest = text.partition("-----BEGIN PRIVATE KEY-----")
    if not mark:
        raise damaged(folder / MEMBER, "it has no key")
    try:
        certificate = ssl.PEM_cert_to_DER_cert(before[max(before.find("-----BEGIN CERTIFICATE-----"), 0) :])
    except ValueError as error:
        raise damaged(folder / MEMBER, error) from None
    return certificate, (mark + rest).encode()


def store_authority_key(folder: Path, key_pem: bytes) -> None:
    """This host votes from now on. Each leader hands out the key, and mostly it is there. Raises OSError."""
    path = folder / AUTHORITY_KEY
    try:
        is_there = path.read_bytes() == key_pem
    except FileNotFoundError:
        is_there = False
    if not is_there:
        write_private(path, key_pem)


def load_authority(folder: Path) -> Authority | None:
    """The authority with its key, where this host holds it. Raises CertificateError, CredentialsDamaged and OSError."""
    from abid.cluster.authority import Authority

    try:
        key = (folder / AUTHORITY_KEY).read_bytes()
    except FileNotFoundError:
        return None
    try:
        certificate = ssl.PEM_cert_to_DER_cert((folder / AUTHORITY).read_text())
    except (ValueError, FileNotFoundError) as error:
        raise damaged(folder / AUTHORITY, error) from None
    return Authority.load(certificate, key)


def forget(folder: Path) -> None:
    """This host has left its cluster. What makes it a member goes first. Raises OSError."""
    for name in (MEMBER, AUTHORITY_KEY, NEXT_KEY, JOIN_KEY, SECRET, AUTHORITY):
        (folder / name).unlink(missing_ok=True)


def write_private(path: Path, data: bytes) -> None:
    """The old file or the new one is there at every moment, on disk, and nobody else can read it. Raises OSError."""
    _write_together({path: data})


def _write_together(files: Mapping[Path, bytes]) -> None:
    """All of them are on the disk before the first takes its place, and they do that in this order: where there is no
    room, nothing has changed."""
    temporaries = {path.with_name(path.name + ".new"): path for path in files}
    try:
        for temporary, path in temporaries.items():
            _write_new(temporary, files[path])
    except OSError:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise
    for temporary, path in temporaries.items():
        os.replace(temporary, path)
        _sync(path.parent)


def _write_new(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # of a life that died here: its mode is not ours to trust
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def damaged(path: Path, error: object) -> CredentialsDamaged:
    """A file of this host's membership is not what it should be, or missing."""
    return CredentialsDamaged(
        f"{path} is damaged or missing ({error})",
        hint="restore it from a backup; or `abi cluster leave --force`, and join again with a token",
    )
