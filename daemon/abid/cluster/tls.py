"""TLS between daemons: 1.3 alone, one authority, both sides certified, and no session ever resumed.

A member is whom its certificate names; nothing that it says of itself counts. Host names are not looked at, since
members are known by their ids and come and go by address. Resumption is off: a resumed session would not look at the
certificate again, and a member that was removed would be let in.

Four contexts, by what each side knows of the other::

    accepting     believes our authority; takes strangers without a certificate, who may then say one message
    member        shows our certificate, believes our authority
    newcomer      shows none, believes the authority that a token named: the secret is said on this one
    unverified    shows none, believes nobody: to ask for the authority's certificate, and for nothing else
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from abid.cluster.certificates import CertificateError, Subject, subject_of, to_pem
from abid.cluster.credentials import Credentials, damaged
from abid.cluster.refusal import Code, refused


class PeerIdentity(NamedTuple):
    """Who a verified certificate says that a peer is."""

    subject: Subject
    serial: str
    """Lower-case hex, no leading zeros."""
    not_after: float
    """Seconds since the epoch."""

    @property
    def node(self) -> str:
        return self.subject.node


def accepting(credentials: Credentials) -> ssl.SSLContext:
    """For the listening side."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return _with_certificate(context, credentials)


def member(credentials: Credentials) -> ssl.SSLContext:
    """For dialling as a member."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    return _with_certificate(context, credentials)


def newcomer(authority: bytes) -> ssl.SSLContext:
    """For dialling with a token, or with a certificate that ran out. ``authority``: DER."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=to_pem(authority))
    return context


def unverified() -> ssl.SSLContext:
    """For ASK_AUTHORITY alone: whoever answers may be anybody, and is told nothing."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_NONE
    return context


def identity_of(certificate: dict[str, Any] | None) -> PeerIdentity | None:
    """Of what ``getpeercert()`` says after a handshake that verified it; None for a peer that showed none.

    Raises PeerRefused for a certificate of our authority that names no member: the authority's own, say.
    """
    if not certificate:
        return None
    names: dict[str, str] = {}
    for part in certificate.get("subject", ()):
        for name, value in part:
            names[name] = value if name not in names else ""
    try:
        subject = subject_of(
            names.get("commonName", ""), names.get("organizationName", ""), names.get("organizationalUnitName", "")
        )
    except CertificateError as error:
        raise refused(Code.WRONG_CA, error.message) from None
    if ("DNS", subject.dns_name) not in certificate.get("subjectAltName", ()):
        raise refused(Code.WRONG_CA, "the names in its certificate contradict each other")
    serial = certificate["serialNumber"].lstrip("0").lower()
    return PeerIdentity(subject, serial, ssl.cert_time_to_seconds(certificate["notAfter"]))


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    return context


def _with_certificate(context: ssl.SSLContext, credentials: Credentials) -> ssl.SSLContext:
    """Raises CredentialsDamaged and OSError."""
    try:
        context.load_cert_chain(credentials.member_path)
    except (ssl.SSLError, FileNotFoundError) as error:
        raise damaged(credentials.member_path, error) from None
    try:
        context.load_verify_locations(credentials.authority_path)
    except (ssl.SSLError, FileNotFoundError) as error:
        raise damaged(credentials.authority_path, error) from None
    return context
