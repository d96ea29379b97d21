"""Addresses as people write them: HOST, HOST:PORT, [IPv6]:PORT, a subnet; and what is wrong with one.

The `wrong_…` functions return a sentence's end ("… is no address: WHAT IS WRONG"), "" where nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

PORT_MAX: Final = 65_535
NAME_LETTERS_MAX: Final = 253  # RFC 1035, 2.3.4, without the length bytes
SUBNET_ADDRESSES_MAX: Final = 65_536
"""A /16. Dialled at a pace that disturbs nobody that takes hours; a larger one would never be done."""

# RFC 952 and 1123; the underscore is in neither, and in many private zones.
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


def split(text: str) -> tuple[str, int | None]:
    """Host and port of HOST, HOST:PORT, [IPv6] or [IPv6]:PORT; None where no port is said. A bare IPv6 address is all
    host. Raises ValueError with what is wrong."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address with a port is [ADDRESS]:PORT")
        port = rest[1:] if rest else None
        _check_ip(host)
    elif text.count(":") > 1:
        host, port = text, None
        _check_ip(host)
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
        _check_name(host)
    return host, None if port is None else _port(port)


def wrong_host(text: str) -> str:
    """What is wrong with HOST or HOST:PORT."""
    return _complaint(split, text)


def wrong_ip(text: str) -> str:
    """What is wrong with an IP address."""
    return _complaint(_check_ip, text)


def wrong_subnet(text: str) -> str:
    """What is wrong with a subnet in CIDR notation."""
    import ipaddress

    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            whole = ipaddress.ip_network(text, strict=False)
        except ValueError:
            return "a subnet is ADDRESS/BITS, such as 10.0.3.0/24"
        return f"it is an address inside of {whole}"
    if network.num_addresses > SUBNET_ADDRESSES_MAX:
        return f"it has {network.num_addresses} addresses, {SUBNET_ADDRESSES_MAX} are the most"
    return ""


def wrong_command(text: str) -> str:
    """What is wrong with a command line (after `exec:`, if that is said): it is split into words as a shell does, and
    run without one."""
    import shlex

    try:
        words = shlex.split(text.removeprefix("exec:"))
    except ValueError as problem:
        return str(problem).lower()
    return "" if words and words[0].startswith("/") else "its program must be named by its whole path"


def _complaint(check: Callable[[str], object], text: str) -> str:
    try:
        check(text)
    except ValueError as problem:
        return str(problem)
    return ""


def _check_ip(host: str) -> None:
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is no IP address") from None


def _check_name(host: str) -> None:
    if not _NAME.fullmatch(host) or len(host.rstrip(".")) > NAME_LETTERS_MAX:
        raise ValueError(f"{host!r} is no host's name")
    if host.rstrip(".").rpartition(".")[2].isdigit():  # no top-level domain is a number, so an address was meant
        _check_ip(host)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= PORT_MAX and len(text) < 6):
        raise ValueError(f"{text!r} is no port: 1 to {PORT_MAX} are")
    return int(text)
