"""The cluster's own certificate authority.

A member's certificate ends after 30 days and is renewed after 20, so that a host that was removed is refused in the end
even by a member that never heard of its removal. A host that slept longer may renew a certificate that ran out once, if
it can sign with the certificate's key. "Once" is once for another key: an answer that was lost on its way may be asked
for again with the same key (``Renewals``). Times are parameters, in seconds since the epoch.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from abi.wire import incarnations
from abid.cluster.certificates import (
    RENEWAL,
    CertificateError,
    Subject,
    is_issued_by,
    key_digest,
    key_of_request,
    load_certificate,
    load_key,
    proof_holds,
    subject_name,
    subject_of_certificate,
    to_key_pem,
)

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

DAY_S: Final = 86_400
CERTIFICATE_S: Final = 30 * DAY_S
"""Long enough for a host that is off over a holiday, short enough that a stolen disk is worth little next month."""
RENEW_SHARE: Final = 2 / 3
"""Of that, after which a member asks for a new one: ten days are left to find somebody who can sign."""
AUTHORITY_S: Final = 30 * 365 * DAY_S
"""As long as a cluster could live; nothing renews it."""
BACKDATE_S: Final = DAY_S
"""A certificate is good from a day ago: the clocks of two hosts may differ by hours."""


class Renewals(Protocol):
    """What the cluster remembers of certificates that ran out and were renewed."""

    def is_revoked(self, node: str) -> bool: ...

    def renewed_for(self, serial: str) -> bytes | None:
        """The digest of the key for which the certificate of this serial was renewed after it had run out."""


def is_renewal_due(not_before: float, not_after: float, now: float) -> bool:
    """All in seconds since the epoch. Counted from the day of issue, which lies ``BACKDATE_S`` after ``not_before``."""
    issued = not_before + BACKDATE_S
    return now >= issued + (not_after - issued) * RENEW_SHARE


class Ended(NamedTuple):
    """What a host says whose certificate ran out."""

    certificate: bytes
    """DER."""
    request: bytes
    """For its new key, DER."""
    proof: bytes
    """See ``certificates.prove``."""


class Renewal(NamedTuple):
    """The new certificate (DER), and what is to be noted before it is handed out: this serial, for this key."""

    certificate: bytes
    subject: Subject
    serial: str
    key: bytes


class Authority:
    """The authority with its key: only voters have one. Times are seconds since the epoch."""

    def __init__(self, certificate: x509.Certificate, key: EllipticCurvePrivateKey, cluster: str) -> None:
        from cryptography.hazmat.primitives import serialization

        self.cluster = cluster
        self.certificate = certificate.public_bytes(serialization.Encoding.DER)
        """DER."""
        self._certificate = certificate
        self._key = key

    @staticmethod
    def found(cluster: str, now: float) -> Authority:
        """A new one, for a new cluster (16 hex digits)."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.NameAttribute(NameOID.COMMON_NAME, "abi cluster"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
        ]
        name = x509.Name(names)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now - BACKDATE_S))
            .not_valid_after(_time(now + AUTHORITY_S))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return Authority(builder.sign(key, hashes.SHA256()), key, cluster)

    @staticmethod
    def load(certificate: bytes, key_pem: bytes) -> Authority:
        """From DER and PEM. Raises CertificateError if they do not belong together."""
        from cryptography.x509.oid import NameOID

        found, key = load_certificate(certificate), load_key(key_pem)
        names = found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        if found.public_key() != key.public_key() or len(names) != 1:
            raise CertificateError("the authority's key is not the one of its certificate")
        return Authority(found, key, str(names[0].value))

    def key_pem(self) -> bytes:
        """For the disk of a voter, and for another voter over a member's connection."""
        return to_key_pem(self._key)

    def sign(self, request: bytes, subject: Subject, now: float) -> bytes:
        """A member's certificate (DER) for the key of a request (DER). Raises CertificateError.

        What the request says of its subject counts for nothing: whoever calls this knows whom it is for.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.x509.oid import ExtendedKeyUsageOID

        if subject.cluster != self.cluster:
            raise CertificateError(f"this is the authority of cluster {self.cluster}, not of {subject.cluster}")
        key = key_of_request(request)
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject_name(subject))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now - BACKDATE_S))
            .not_valid_after(_time(now + CERTIFICATE_S))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject.dns_name)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer),
                critical=False,
            )
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def renew_ended(self, ended: Ended, incarnation: int, now: float, renewals: Renewals) -> Renewal:
        """A new certificate for a host whose old one ran out while it slept; ``incarnation`` is the cluster's own now.

        Raises CertificateError: ``wrong_ca``, ``not_ended`` (it has a member's connection for this),
        ``other_incarnation``, ``revoked``, ``no_proof``, ``renewed_before``, ``bad_certificate``.
        """
        old = load_certificate(ended.certificate)
        if not is_issued_by(old, self._certificate):
            raise CertificateError("this certificate is of another authority", code="wrong_ca")
        subject, serial = subject_of_certificate(old), f"{old.serial_number:x}"
        if old.not_valid_after_utc.timestamp() > now:
            raise CertificateError("this certificate has not run out", code="not_ended")
        if subject.incarnation != incarnation:
            raise CertificateError(
                f"this certificate is of incarnation {incarnations.name(subject.incarnation)}; the cluster is at "
                f"{incarnations.name(incarnation)}",
                code="other_incarnation",
                hint="join it with a token",
            )
        if renewals.is_revoked(subject.node):
            raise CertificateError("this host was removed from the cluster", code="revoked")
        if not proof_holds(old, ended.request, ended.proof, RENEWAL):
            raise CertificateError("who asks does not have the key of this certificate", code="no_proof")
        key = key_digest(key_of_request(ended.request))
        if renewals.renewed_for(serial) not in (None, key):
            raise CertificateError(
                "this certificate ran out and was renewed before", code="renewed_before", hint="join with a token"
            )
        return Renewal(self.sign(ended.request, subject, now), subject, serial, key)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _time(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))
