"""Values that look like secrets are not for showing: names that say so, and passwords in URLs.

What the daemon tells of a job goes through here. It is a courtesy against shoulder-surfing and pasted logs, no
protection from whoever may submit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "***"
_NAMES = re.compile(
    r"secret|token|passw|passphrase|credential|private|cookie|api_?key|access_?key|(^|_)(key|auth|pwd|pat)(_|$)",
    re.IGNORECASE,
)
_NAMES_THAT_ARE_NONE = frozenset({"PWD", "OLDPWD"})
_URL_PASSWORD = re.compile(r"(?P<start>\w://[^/\s:@]*:)[^/\s@]+(?=@)")


def masked_environment(environment: Mapping[str, object]) -> dict[str, object]:
    """A copy with `***` for what looks like a secret."""
    return {name: masked(name, value) for name, value in environment.items()}


def masked(name: str, value: object) -> object:
    """`value`, or `***` if the variable's name says that it is a secret."""
    if name.upper() not in _NAMES_THAT_ARE_NONE and _NAMES.search(name):
        return MASK
    if isinstance(value, str):
        return _URL_PASSWORD.sub(rf"\g<start>{MASK}", value)
    return value
