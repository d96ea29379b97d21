"""Addresses as people write them."""

from __future__ import annotations

import pytest

from abi import addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("host", "host", None),
        ("host:8081", "host", 8081),
        ("a-b.c_d.example.", "a-b.c_d.example.", None),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("fe80::1", "fe80::1", None),
        ("fe80::1%eth0", "fe80::1%eth0", None),
        ("::1", "::1", None),
        ("[::1]", "::1", None),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
    ],
)
def test_host_and_port(text: str, host: str, port: int | None) -> None:
    assert addresses.split(text) == (host, port)
    assert addresses.wrong_host(text) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no host's name"),
        (":80", "'' is no host's name"),
        ("-a", "'-a' is no host's name"),
        ("a b", "'a b' is no host's name"),
        ("http://a", "'//a' is no port: 1 to 65535 are"),
        ("a/b", "'a/b' is no host's name"),
        ("a..b", "'a..b' is no host's name"),
        ("a" * 64, f"{'a' * 64!r} is no host's name"),
        (".".join(["a" * 63] * 4), f"{'.'.join(['a' * 63] * 4)!r} is no host's name"),
        ("10.0.0.256", "'10.0.0.256' is no IP address"),
        ("1:2:3", "'1:2:3' is no IP address"),
        ("[::1", "an IPv6 address with a port is [ADDRESS]:PORT"),
        ("[::1]80", "an IPv6 address with a port is [ADDRESS]:PORT"),
        ("[host]:80", "'host' is no IP address"),
        ("[::1]:", "'' is no port: 1 to 65535 are"),
        ("a:", "'' is no port: 1 to 65535 are"),
        ("a:0", "'0' is no port: 1 to 65535 are"),
        ("a:65536", "'65536' is no port: 1 to 65535 are"),
        ("a:" + "9" * 5000, f"{'9' * 5000!r} is no port: 1 to 65535 are"),
        ("a:+1", "'+1' is no port: 1 to 65535 are"),
        ("a:٣", "'٣' is no port: 1 to 65535 are"),
    ],
)
def test_what_is_no_address(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        addresses.split(text)
    assert str(caught.value) == addresses.wrong_host(text) == said


@pytest.mark.parametrize(
    ("check", "text", "said"),
    [
        (addresses.wrong_ip, "::", ""),
        (addresses.wrong_ip, "0.0.0.0", ""),
        (addresses.wrong_ip, "host", "'host' is no IP address"),
        (addresses.wrong_subnet, "10.0.0.0/16", ""),
        (addresses.wrong_subnet, "fd00::/112", ""),
        (addresses.wrong_subnet, "10.0.0.7", ""),
        (addresses.wrong_subnet, "10.0.0.0/15", "it has 131072 addresses, 65536 are the most"),
        (addresses.wrong_subnet, "10.0.0.7/24", "it is an address inside of 10.0.0.0/24"),
        (addresses.wrong_subnet, "here", "a subnet is ADDRESS/BITS, such as 10.0.3.0/24"),
        (addresses.wrong_subnet, "10.0.0.0/33", "a subnet is ADDRESS/BITS, such as 10.0.3.0/24"),
        (addresses.wrong_command, "/bin/echo 'a b' c", ""),
        (addresses.wrong_command, "exec:/bin/echo a", ""),
        (addresses.wrong_command, "exec:", "its program must be named by its whole path"),
        (addresses.wrong_command, "echo a", "its program must be named by its whole path"),
        (addresses.wrong_command, " ", "its program must be named by its whole path"),
        (addresses.wrong_command, "/bin/echo 'a", "no closing quotation"),
    ],
)
def test_other_forms(check: object, text: str, said: str) -> None:
    assert callable(check)
    assert check(text) == said
