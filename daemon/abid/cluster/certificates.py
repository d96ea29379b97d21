"""Keys, requests and certificates: what they say, how they are read and written.

A member's certificate names it in the subject, where ``ssl`` shows it without a library of ours::

    CN node-<node> · O <cluster> · OU incarnation-<n>       SAN node-<node>.<cluster>.abi

Certificates are X.509 (RFC 5280), requests PKCS #10 (RFC 2986), keys ECDSA on P-256, since every OpenSSL is fast at it
and a certificate stays under a KiB. ``cryptography`` is imported only where one is made or taken apart: it takes 5 MB
and 50 ms, and a daemon in a cluster needs it twice a month.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from abi.errors import AbiError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

REQUEST_BYTES_MAX: Final = 2048
"""A request of ours has 250 bytes."""
RENEWAL: Final = b"abi: renew this certificate\0"
"""A purpose of ``prove``. Said again by somebody else, a request to renew gains them nothing: what it brings forth is a
certificate for the requester's key."""
ALIVE: Final = b"abi: this life is alive\0"
"""A purpose of ``prove``: see ``elsewhere``."""


class CertificateError(AbiError):
    """A request, a certificate or a proof is not what it should be. ``code`` says which."""

    code = "bad_certificate"


class Subject(NamedTuple):
    """Whom a certificate is for."""

    node: str
    """8 hex digits."""
    cluster: str
    """16 hex digits."""
    incarnation: int
    """Of the cluster."""

    @property
    def dns_name(self) -> str:
        return f"node-{self.node}.{self.cluster}.abi"


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of a certificate in DER: what a token carries."""
    return hashlib.sha256(certificate).digest()


def to_pem(certificate: bytes) -> str:
    """The text form of a certificate in DER (RFC 7468)."""
    text = base64.b64encode(certificate).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


def new_key_and_request(subject: Subject) -> tuple[bytes, bytes]:
    """A fresh private key (PKCS #8, PEM, not encrypted) and a request for a certificate of it (DER)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(subject_name(subject)).sign(key, hashes.SHA256())
    return to_key_pem(key), request.public_bytes(serialization.Encoding.DER)


def request_for(key_pem: bytes, subject: Subject) -> bytes:
    """A request (DER) for a key that is there already: an answer was lost. Raises CertificateError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    request = x509.CertificateSigningRequestBuilder().subject_name(subject_name(subject))
    return request.sign(load_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def prove(key_pem: bytes, statement: bytes, purpose: bytes) -> bytes:
    """That who says this has the key of a certificate: the statement, signed by that key, for this purpose only."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return load_key(key_pem).sign(purpose + statement, ec.ECDSA(hashes.SHA256()))


def proof_holds(certificate: x509.Certificate, statement: bytes, proof: bytes, purpose: bytes) -> bool:
    """Whether ``prove`` made this proof with the key of this certificate."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(proof, purpose + statement, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed it; its time is not looked at."""
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_good(certificate: x509.Certificate, authority: x509.Certificate, subject: Subject, now: float) -> bool:
    """Whether the authority issued it for this subject, and it is valid now (seconds since the epoch). Raises
    CertificateError for one that names no member."""
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    is_ours = is_issued_by(certificate, authority) and subject_of_certificate(certificate) == subject
    return is_ours and begins <= now < ends


def subject_name(subject: Subject) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    names = [
        x509.NameAttribute(NameOID.COMMON_NAME, f"node-{subject.node}"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.cluster),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"incarnation-{subject.incarnation}"),
    ]
    return x509.Name(names)


def subject_of(common_name: str, organization: str, unit: str) -> Subject:
    """What ``subject_name`` wrote. Raises CertificateError."""
    node, incarnation = common_name.removeprefix("node-"), unit.removeprefix("incarnation-")
    is_hex = set(node) | set(organization) <= set("0123456789abcdef") and (len(node), len(organization)) == (8, 16)
    if not is_hex or not incarnation.isdecimal() or node == common_name or incarnation == unit:
        raise CertificateError("this certificate does not name a member of a cluster")
    return Subject(node, organization, int(incarnation))


def subject_of_certificate(certificate: x509.Certificate) -> Subject:
    from cryptography.x509.oid import NameOID

    wanted = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)
    found = [[str(name.value) for name in certificate.subject.get_attributes_for_oid(oid)] for oid in wanted]
    if any(len(values) != 1 for values in found):
        raise CertificateError("this certificate does not name a member of a cluster")
    return subject_of(found[0][0], found[1][0], found[2][0])


def key_of_request(request: bytes) -> EllipticCurvePublicKey:
    """The key of a request that is signed by it, of the one sort that we sign. Raises CertificateError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    if len(request) > REQUEST_BYTES_MAX:
        raise CertificateError(f"a certificate request of {len(request)} bytes; {REQUEST_BYTES_MAX} at most")
    try:
        found = x509.load_der_x509_csr(request)
        key = found.public_key()
        is_signed = found.is_signature_valid
    except Exception as error:  # a parser in another language, fed by a stranger: it raises what it likes
        raise CertificateError(f"the certificate request is not readable: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the certificate request has a key of another sort than ECDSA P-256")
    if not is_signed:
        raise CertificateError("the certificate request is not signed by its key")
    return key


def key_digest(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).digest()


def to_key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def load_key(pem: bytes) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(pem, None)
    except Exception as error:
        raise CertificateError(f"a private key is not readable: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("a private key is of another sort than ECDSA P-256")
    return key


def load_certificate(certificate: bytes) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        found = x509.load_der_x509_certificate(certificate)
        key = found.public_key()
    except Exception as error:
        raise CertificateError(f"a certificate is not readable: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateError("a certificate has a key of another sort than ECDSA P-256")
    return found
