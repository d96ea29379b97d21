"""What clients were told about names, and whether all of it can be true.

For each name the ledger keeps who may hold it, by all that was answered so far: one owner or nobody, and more than one
possibility only while a request is open whose answer never came, which may yet come to pass. An answer that none of
the possibilities allows is wrong. About one name one thing is asked at a time, so answers have one order, and this is
all that a linearizable cluster promises (Herlihy and Wing 1990): nothing has to be searched for.

Epochs say more: each claim that found a name free has one of its own, above all that were told before it was asked
for. Two leaders at a time would hand out the same.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import Any, Final

from abi.errors import AbiError

TAKEN: Final = "taken"
UNKNOWN: Final = "unknown"
"""The cluster's words for a name that another holds, and for one that nobody does."""

Owner = str | None


class Said(enum.Enum):
    DONE = "done"
    REFUSED = "refused"
    NOTHING = "nothing"
    """It was not answered, or without saying whether it was done."""


class Ledger:
    """``ask(host, verb, **words)`` raises AbiError. Safe for threads that ask about different names."""

    def __init__(self, ask: Callable[..., dict[str, Any]]) -> None:
        self._ask = ask
        self.wrong: list[str] = []
        """What cannot be true, in words."""
        self.acknowledged = 0
        """Claims and releases."""
        self.open: set[str] = set()
        """Names about which something is being asked."""
        self._may: dict[str, set[Owner]] = {}
        self._open_claims: dict[str, set[str]] = {}
        self._open_releases: dict[str, set[str]] = {}
        self._epochs: dict[int, tuple[str, str]] = {}
        self._held: dict[str, int] = {}
        """The epoch of each name's last claim that was answered."""
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self._may)

    def may_hold(self, name: str) -> set[Owner]:
        return set(self._may.get(name, {None}))

    def claim(self, host: int, name: str, owner: str) -> Said:
        newest = max(self._epochs, default=0)
        code, words = self._asked(host, "name-claim", name, owner=owner)
        with self._lock:
            may = self.may_hold(name)
            if code == "":
                if not may & {owner, None}:
                    self._is_wrong(f"host {host} gave {name} to {owner}, and {may} may hold it")
                self._note_epoch(host, name, owner, int(words["epoch"]), may, newest)
                self.acknowledged += 1
                self._settle(name, {owner})
                return Said.DONE
            if code == TAKEN:
                others = may - {owner, None}
                if not others:
                    self._is_wrong(f"host {host} refused {name} to {owner} as taken, and {may} may hold it")
                self._settle(name, others or may)
                return Said.REFUSED
            self._open_claims.setdefault(name, set()).add(owner)
            self._settle(name, may)
            return Said.NOTHING

    def release(self, host: int, name: str, owner: str) -> Said:
        code, _ = self._asked(host, "name-release", name, owner=owner)
        with self._lock:
            may = self.may_hold(name)
            if code == "":
                if owner not in may:
                    self._is_wrong(f"host {host} let {owner} release {name}, and {may} may hold it")
                self.acknowledged += 1
                self._settle(name, {None})
                return Said.DONE
            if code in (TAKEN, UNKNOWN):
                left = may & {None} if code == UNKNOWN else may - {owner, None}
                if not left:
                    self._is_wrong(f"host {host} said {code} when {owner} released {name}, and {may} may hold it")
                self._settle(name, left or may)
                return Said.REFUSED
            self._open_releases.setdefault(name, set()).add(owner)
            self._settle(name, may)
            return Said.NOTHING

    def look(self, host: int, name: str) -> Said:
        code, words = self._asked(host, "name-get", name)
        with self._lock:
            if code not in ("", UNKNOWN):
                return Said.NOTHING
            owner = None if code else str(words["owner"])
            may = self.may_hold(name)
            if owner not in may:
                self._is_wrong(f"host {host} said that {owner or 'nobody'} holds {name}, and {may} may hold it")
            self._settle(name, {owner} if owner in may else may)
            return Said.DONE

    def _asked(self, host: int, verb: str, name: str, **words: Any) -> tuple[str, dict[str, Any]]:
        """The code of the refusal, or none, and the answer."""
        assert name not in self.open, f"two requests at a time about {name}"
        self.open.add(name)
        try:
            return "", self._ask(host, verb, name=name, **words)
        except AbiError as error:
            return error.code, {}
        finally:
            self.open.discard(name)

    def _note_epoch(self, host: int, name: str, owner: str, epoch: int, may: set[Owner], newest: int) -> None:
        known = self._held.get(name)
        first = self._epochs.setdefault(epoch, (name, owner))
        if first != (name, owner):
            self._is_wrong(f"host {host} gave epoch {epoch} to {name} for {owner}, and before to {first}")
        if may == {owner} and known is not None and known != epoch:
            self._is_wrong(f"host {host} gave {name} to {owner} in epoch {epoch}, who holds it from epoch {known} on")
        if owner not in may and epoch <= newest:
            self._is_wrong(f"host {host} gave {name} to {owner} in epoch {epoch}, when {newest} had been given")
        self._held[name] = epoch

    def _settle(self, name: str, may: set[Owner]) -> None:
        """And what open requests may still make of it."""
        grown, may = may, set()
        while may != grown:
            may, grown = grown, set(grown)
            if None in grown:
                grown |= self._open_claims.get(name, set())
            if grown & self._open_releases.get(name, set()):
                grown.add(None)
        self._may[name] = may

    def _is_wrong(self, words: str) -> None:
        self.wrong.append(words)
