"""Which member a person means: by its whole id, its whole name, or a beginning of its id that is long enough.

What is done to it may be for good (`abi network remove`), so a slip of the finger must not fit: an empty word, one
letter, or what stands for two members names nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from abi.errors import Ambiguous, NotFound, UsageError
from abid.core.cluster.facts import Member

ID_CHARS_MIN: Final = 4
"""Of eight: in a cluster of a hundred hosts a beginning of four fits one other in seven hundred times."""
_LISTED: Final = "`abi network list` shows them"


def member_called(word: str, members: Iterable[Member]) -> Member:
    """Raises UsageError, Ambiguous or NotFound."""
    word, members = word.strip(), list(members)
    if not word:
        raise UsageError("an empty word names no host", hint=f"its id or its name: {_LISTED}")
    begin = [one for one in members if one.node.startswith(word)]
    found = (
        [one for one in begin if one.node == word]
        or [one for one in members if one.name == word]
        or [one for one in begin if len(word) >= ID_CHARS_MIN]
    )
    if len(found) > 1:
        ids = ", ".join(sorted(one.node for one in found))
        raise Ambiguous(f"{len(found)} members are called {word!r}: {ids}", hint="name one of them by its id")
    if found:
        return found[0]
    if begin:
        raise UsageError(f"{word!r} is too short: {ID_CHARS_MIN} characters of an id, or a whole name", hint=_LISTED)
    raise NotFound(f"no member is called {word!r}", hint=_LISTED)
