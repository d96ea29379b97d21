"""Who gets a certificate, for what, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from abid.cluster.authority import (
    BACKDATE_S,
    CERTIFICATE_S,
    DAY_S,
    Authority,
    Ended,
    is_renewal_due,
)
from abid.cluster.certificates import (
    RENEWAL,
    REQUEST_BYTES_MAX,
    CertificateError,
    Subject,
    load_certificate,
    new_key_and_request,
    prove,
    request_for,
    subject_of,
    subject_of_certificate,
)

CLUSTER = "c1a57e5000000001"
NODE = Subject("0000000a", CLUSTER, 1)
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.found(CLUSTER, NOW)


def code_of(call: Any) -> str:
    with pytest.raises(CertificateError) as caught:
        call()
    return caught.value.code


def test_a_certificate_names_the_member_and_its_days(authority: Authority) -> None:
    key, request = new_key_and_request(NODE)
    found = load_certificate(authority.sign(request, NODE, NOW))
    assert subject_of_certificate(found) == NODE
    assert found.not_valid_before_utc.timestamp() == NOW - BACKDATE_S
    assert found.not_valid_after_utc.timestamp() == NOW + 30 * DAY_S
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"node-0000000a.{CLUSTER}.abi"]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert b"PRIVATE KEY" in key


def test_what_a_request_says_of_its_subject_counts_for_nothing(authority: Authority) -> None:
    _, request = new_key_and_request(Subject("ffffffff", CLUSTER, 99))
    assert subject_of_certificate(load_certificate(authority.sign(request, NODE, NOW))) == NODE


def test_the_authority_of_one_cluster_signs_for_no_other(authority: Authority) -> None:
    _, request = new_key_and_request(NODE)
    assert code_of(lambda: authority.sign(request, NODE._replace(cluster="f" * 16), NOW)) == "bad_certificate"


def _signed_by(key: Any, algorithm: Any) -> bytes:
    name = x509.Name([])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.DER)


def _tampered() -> bytes:
    """The signature's last byte is another one."""
    _, request = new_key_and_request(NODE)
    return request[:-1] + bytes([request[-1] ^ 1])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"", "not readable"),
        (b"nonsense" * 20, "not readable"),
        (bytes(REQUEST_BYTES_MAX + 1), f"of {REQUEST_BYTES_MAX + 1} bytes"),
        (_signed_by(ed25519.Ed25519PrivateKey.generate(), None), "another sort"),
        (_signed_by(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()), "another sort"),
        (_tampered(), "not signed by its key"),
    ],
    ids=["empty", "nonsense", "large", "ed25519", "p384", "tampered"],
)
def test_what_is_no_request_of_ours_is_not_signed(authority: Authority, request_: bytes, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        authority.sign(request_, NODE, NOW)


def test_an_authority_is_the_same_after_it_was_stored(authority: Authority) -> None:
    again = Authority.load(authority.certificate, authority.key_pem())
    assert (again.certificate, again.cluster) == (authority.certificate, CLUSTER)
    _, request = new_key_and_request(NODE)
    load_certificate(again.sign(request, NODE, NOW)).verify_directly_issued_by(load_certificate(authority.certificate))
    stranger = Authority.found(CLUSTER, NOW)
    assert code_of(lambda: Authority.load(authority.certificate, stranger.key_pem())) == "bad_certificate"
    assert code_of(lambda: Authority.load(authority.certificate, b"no key")) == "bad_certificate"
    assert code_of(lambda: Authority.load(b"no certificate", authority.key_pem())) == "bad_certificate"


@pytest.mark.parametrize(("age_days", "is_due"), [(0, False), (19.99, False), (20, True), (29, True), (31, True)])
def test_a_certificate_is_renewed_after_two_thirds_of_its_life(age_days: float, is_due: bool) -> None:
    issued = NOW
    assert is_renewal_due(issued - BACKDATE_S, issued + CERTIFICATE_S, issued + age_days * DAY_S) == is_due


@pytest.mark.parametrize(
    "names",
    [
        ("", "", ""),
        ("node-0000000a", CLUSTER, "incarnation-"),
        ("node-0000000a", CLUSTER, "1"),
        ("0000000a", CLUSTER, "incarnation-1"),
        ("node-0000000A", CLUSTER, "incarnation-1"),
        ("node-00000a", CLUSTER, "incarnation-1"),
        ("node-0000000a", CLUSTER[1:], "incarnation-1"),
        ("abi cluster", CLUSTER, ""),
    ],
)
def test_names_that_are_not_a_members(names: tuple[str, str, str]) -> None:
    assert subject_of("node-0000000a", CLUSTER, "incarnation-12") == Subject("0000000a", CLUSTER, 12)
    assert code_of(lambda: subject_of(*names)) == "bad_certificate"


# A certificate that ran out while its host slept.


class Ledger:
    """What the cluster remembers."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.renewed: dict[str, bytes] = {}

    def is_revoked(self, node: str) -> bool:
        return node in self.revoked

    def renewed_for(self, serial: str) -> bytes | None:
        return self.renewed.get(serial)


class Sleeper:
    """A host with a certificate that ends at NOW."""

    def __init__(self, authority: Authority) -> None:
        self.key, request = new_key_and_request(NODE)
        self.certificate = authority.sign(request, NODE, NOW - CERTIFICATE_S)

    def asks(self) -> Ended:
        _, request = new_key_and_request(NODE)
        return Ended(self.certificate, request, prove(self.key, request, RENEWAL))


def test_a_certificate_that_ran_out_is_renewed_once(authority: Authority) -> None:
    sleeper, ledger = Sleeper(authority), Ledger()
    asked = sleeper.asks()
    renewal = authority.renew_ended(asked, 1, NOW + 100 * DAY_S, ledger)
    assert subject_of_certificate(load_certificate(renewal.certificate)) == renewal.subject == NODE
    assert load_certificate(renewal.certificate).not_valid_after_utc.timestamp() == NOW + 130 * DAY_S
    assert renewal.serial == f"{load_certificate(sleeper.certificate).serial_number:x}"
    ledger.renewed[renewal.serial] = renewal.key
    # The answer was lost on its way: the same key is certified again. Another key is not.
    assert authority.renew_ended(asked, 1, NOW + 100 * DAY_S, ledger).key == renewal.key
    assert code_of(lambda: authority.renew_ended(sleeper.asks(), 1, NOW + 100 * DAY_S, ledger)) == "renewed_before"


def test_a_lost_answer_is_asked_for_with_another_request_for_the_same_key(authority: Authority) -> None:
    sleeper, ledger = Sleeper(authority), Ledger()
    key, request = new_key_and_request(NODE)
    first = authority.renew_ended(
        Ended(sleeper.certificate, request, prove(sleeper.key, request, RENEWAL)), 1, NOW, ledger
    )
    ledger.renewed[first.serial] = first.key
    again = request_for(key, NODE)
    assert again != request
    ended = Ended(sleeper.certificate, again, prove(sleeper.key, again, RENEWAL))
    assert authority.renew_ended(ended, 1, NOW, ledger).key == first.key


def test_a_renewal_needs_the_key_the_authority_and_a_good_name(authority: Authority) -> None:
    sleeper, ledger = Sleeper(authority), Ledger()
    asked, thief = sleeper.asks(), new_key_and_request(NODE)[0]

    def refusal(ended: Ended, incarnation: int = 1, now: float = NOW) -> str:
        return code_of(lambda: authority.renew_ended(ended, incarnation, now, ledger))

    assert refusal(asked, now=NOW - 1) == "not_ended"
    assert refusal(asked, incarnation=2) == "other_incarnation"
    assert refusal(asked._replace(proof=prove(thief, asked.request, RENEWAL))) == "no_proof"
    assert refusal(asked._replace(proof=b"")) == "no_proof"
    assert refusal(asked._replace(request=sleeper.asks().request)) == "no_proof"
    assert refusal(asked._replace(certificate=authority.certificate)) == "bad_certificate"
    assert refusal(asked._replace(certificate=b"nonsense")) == "bad_certificate"
    assert refusal(Sleeper(Authority.found(CLUSTER, NOW)).asks()) == "wrong_ca"
    ledger.revoked.add(NODE.node)
    assert refusal(asked) == "revoked"


def test_an_authority_fits_one_of_its_certificates_into_what_a_stranger_may_say(authority: Authority) -> None:
    from abi.wire.peers import STRANGER_BYTES_MAX, Renew, encode

    asked = Sleeper(authority).asks()
    assert len(encode(Renew(asked.request, asked.certificate, asked.proof))) < STRANGER_BYTES_MAX / 2
