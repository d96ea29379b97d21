"""Why two daemons do not speak with each other, by name: said over the wire, counted, logged and raised."""

from __future__ import annotations

import enum
import ssl
from typing import Final

import msgspec

from abi.errors import AbiError
from abi.wire.peers import Refused

TEXT_CHARS_MAX: Final = 500
"""Of what another daemon gives as its reason; ours are within 200."""


class Code(enum.StrEnum):
    """The stable short word for each reason."""

    WRONG_CA = "wrong_ca"
    """Its certificate is of another authority: another cluster, or an impostor."""
    EXPIRED = "certificate_expired"
    REVOKED = "revoked"
    LEFT = "left"
    """It was a member, and left."""
    OTHER_CLUSTER = "other_cluster"
    OTHER_INCARNATION = "other_incarnation"
    VERSION = "version"
    """It speaks another major of the protocol."""
    PLAIN_TEXT = "plain_text"
    """What it says is not TLS."""
    TLS = "tls"
    """It speaks TLS, and not as we do: an older version, say."""
    OVERSIZED = "oversized"
    """A frame is longer than it may be."""
    PROTOCOL = "protocol"
    """It breaks the protocol in another way."""
    SILENT = "silent"
    """It did not say who it is in time."""
    NO_CERTIFICATE = "no_certificate"
    """It showed no certificate and asked for more than a stranger may."""
    ITSELF = "itself"
    """It is us."""
    OTHER_NODE = "other_node"
    """Another host answers at the address."""
    DUPLICATE = "duplicate"
    """There is a connection between the two, or one is being made."""
    COPY = "copy"
    """Two hosts have the same identity, and both are alive: one is a copy of the other's disk."""
    MOVED = "moved"
    """It woke on another machine, shortly after a host with its identity was here: one may be a copy of the other."""
    CONTENDED = "contended"
    """Two hosts with the same identity came, each to another member: both are sent away, and the first to come again
    stays."""
    BUSY = "busy"
    """There are more strangers than we listen to."""
    # What a host is told that asks to be let in, or for its certificate.
    WRONG_TOKEN = "wrong_token"
    EXPIRED_TOKEN = "expired_token"
    FULL = "full"
    """The cluster has as many members as it may have."""
    UNAVAILABLE = "unavailable"
    """Nobody who leads was found in time."""
    BAD_CERTIFICATE = "bad_certificate"
    """What it sent is no request for a certificate, or no certificate of a member."""
    NOT_ENDED = "not_ended"
    """The certificate that it would have renewed is good."""
    NO_PROOF = "no_proof"
    """It does not have the key of the certificate that it shows."""
    RENEWED_BEFORE = "renewed_before"
    """The certificate ran out and was renewed before, for another key."""
    USAGE = "usage"
    """What it says of itself no log may hold."""
    DENIED = "denied"
    """The leader cannot sign, or knows it no more."""
    INTERNAL = "internal"
    """The member that was asked failed."""


class PeerRefused(AbiError):
    """One of two daemons will not speak with the other. ``code`` is a ``Code``, or the word of a newer release."""

    def __init__(self, message: str = "", *, code: str = Code.PROTOCOL, hint: str = "") -> None:
        super().__init__(message, code=str(code), hint=hint)


class Said(PeerRefused):
    """In the other side's own words."""


HINTS: Final[dict[str, str]] = {
    Code.WRONG_CA: "it belongs to another cluster; `abi cluster join` makes it a member of this one",
    Code.EXPIRED: "its certificate has run out; are the clocks of both hosts right?",
    Code.REVOKED: "it was removed from the cluster; it may join again as a new host",
    Code.LEFT: "on that host: `abi cluster leave --force`, if it does not know yet; `abi cluster join` brings it back",
    Code.OTHER_CLUSTER: "each host belongs to one cluster at a time",
    Code.OTHER_INCARNATION: "the cluster was founded anew by `abi cluster recover`: `abi cluster leave --force` and "
    "`abi cluster join` bring a host from one incarnation to the other",
    Code.VERSION: "upgrade the older of the two",
    Code.PLAIN_TEXT: "something else than abi speaks at that address",
    Code.COPY: "on the copy, `abi cluster leave --force`; a restart of abid gives it an identity of its own",
    Code.CONTENDED: "each tries again, and the first to be let in stays; one of the two is a copy of the other's disk",
    Code.MOVED: "it is let in after a minute, if the other one does not come back",
    Code.UNAVAILABLE: "more than half of the cluster's voters have to be up: `abi network status` on a member says who "
    "is; what was asked can be asked again then",
}


def refused(code: str, message: str) -> PeerRefused:
    """With the hint that belongs to the code."""
    return PeerRefused(message, code=code, hint=HINTS.get(code, ""))


def said(words: Refused) -> Said:
    """A refusal as the other side worded it. Whoever that is: its text is shown, so it is short and plain."""
    code, message, hint = (
        "".join(filter(str.isprintable, text))[:TEXT_CHARS_MAX] for text in msgspec.structs.astuple(words)
    )
    return Said(message, code=code, hint=hint)


# OpenSSL's numbers (x509_vfy.h) for a chain that does not end at our authority, and for a time that is not now.
_EXPIRED: Final = {9, 10}  # not yet valid, has expired
# What the other side's alert says of our certificate (RFC 8446, 6.2), in OpenSSL's words.
_ALERTS: Final = {
    "TLSV1_ALERT_UNKNOWN_CA": (Code.WRONG_CA, "the other side does not know the authority of our certificate"),
    "SSLV3_ALERT_BAD_CERTIFICATE": (Code.WRONG_CA, "the other side does not accept our certificate"),
    "TLSV1_ALERT_DECRYPT_ERROR": (Code.WRONG_CA, "the other side could not verify our certificate"),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": (Code.EXPIRED, "the other side says that our certificate has run out"),
    "TLSV1_ALERT_PROTOCOL_VERSION": (Code.TLS, "the other side does not speak TLS 1.3"),
}
_NOT_TLS: Final = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG"}


def of_tls(error: ssl.SSLError) -> PeerRefused:
    """What an error of OpenSSL says, in our words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _EXPIRED:
            return refused(Code.EXPIRED, "its certificate is not valid now: it has run out, or begins later")
        return refused(Code.WRONG_CA, f"its certificate is not of this cluster's authority ({error.verify_message})")
    reason = error.reason or str(error)
    if reason in _ALERTS:
        return refused(*_ALERTS[reason])
    if reason in _NOT_TLS:
        return refused(Code.PLAIN_TEXT, "what answers does not speak TLS")
    return refused(Code.TLS, f"TLS failed: {reason}")
