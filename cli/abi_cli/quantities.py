"""Durations, sizes and pairs as people write them on a command line."""

from __future__ import annotations

import argparse
import math
import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def duration_ms(text: str) -> int:
    """Milliseconds of "90", "1.5h", "1h30m" or "250ms"; a bare number is seconds.

    Raises ArgumentTypeError, as the others here.
    """
    compact = text.strip().lower()
    try:
        seconds = float(compact)
    except ValueError:
        seconds = _sum_of_parts(compact)
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 5m or 1h30m")
    return max(1, round(seconds * 1000))


def _sum_of_parts(text: str) -> float:
    """Seconds of "1h30m"; NaN if something else stands between the parts."""
    if _DURATION_PART.sub("", text).strip():
        return math.nan
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def size_bytes(text: str) -> int:
    """Bytes of "4GiB", "4G" (the same), "4GB" (by thousands) or "4096"."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512M or 4GiB")
    number, prefix, suffix = match.groups()
    base = 1000 if prefix and (suffix or "").lower() == "b" else 1024
    return int(float(number) * base ** _POWERS[prefix.lower()])


def amount(text: str) -> float:
    """A finite number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount")
    return value


def pair(text: str, form: str = "NAME=VALUE") -> tuple[str, str]:
    """Name and value of "NAME=VALUE"; the value may be empty and hold further signs."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form {form}")
    return name, value


def resource(text: str) -> tuple[str, float]:
    """Name and amount of "NAME=AMOUNT"."""
    name, value = pair(text, "NAME=AMOUNT")
    return name, amount(value)
