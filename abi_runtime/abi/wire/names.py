"""Names of files and variables on the wire: they need be no Unicode, and arrive as the very strings they were.

Python holds bytes that its locale does not decode as lone surrogates (PEP 383), which UTF-8 refuses, and so do JSON and
msgpack. As plain bytes they would be decoded by the reader's locale; so they pass as they are.
"""

from __future__ import annotations


def to_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def to_text(name: bytes) -> str:
    """What ``to_bytes`` was given. Raises UnicodeDecodeError for anything else."""
    return name.decode("utf-8", "surrogatepass")


def is_name(text: str) -> bool:
    """Whether the kernel could be told: text without NUL, or bytes as Python holds them. No other lone surrogate stands
    for anything."""
    if "\0" in text:
        return False
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """For people, and for messages, which hold nothing but text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
