"""The rule of a circuit breaker: after failures in a row a callee is left alone for a while, then tried with care.

                 failure_threshold failures in a row
      ┌────────┐ ─────────────────────────────────▶ ┌──────┐
      │ Closed │                                    │ Open │ ◀─────────────┐
      └────────┘                                    └──────┘               │
          ▲                                            │ reset_timeout     │ one probe failed
          │            all probes succeeded            ▼                   │
          └───────────────────────────────────── ┌──────────┐              │
                                                 │ HalfOpen │ ─────────────┘
                                                 └──────────┘

Prior art: Nygard, *Release It!* (2007), chapter 5. Who wants to call asks ``admit`` and gets a ``Permit``, or a
``Refusal`` that says when to ask again; the permit is handed back with what became of the call. What earlier code on
this specification got wrong decides the rest:

- A permit belongs to one **era**, the time between two transitions, and may be handed back once. So a success or
  failure from before counts nothing later, and no call counts twice.
- A success while closed clears the failures: the threshold counts failures in a row.
- ``half_open_max_calls`` probes, all told, and *all* must succeed: one that got through proves little. A failure among
  them opens again.
- A probe's place is lent for one ``reset_timeout``. If its caller died and never says what became of it, the place is
  free again, so the breaker is never stuck half-open. If the caller was only slow, its word still counts.

No IO: the clock is a parameter (monotonic nanoseconds), and who calls from several threads brings a lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FAILURE_THRESHOLD: Final = 5
"""Fewer would take a restart of the peer for its death; more would make more callers wait out a dead one."""
RESET_TIMEOUT_NS: Final = 30_000_000_000
"""Thirty seconds: longer than a daemon takes to restart, so that the first probe is likely to succeed."""
HALF_OPEN_MAX_CALLS: Final = 3
"""Enough to tell a peer that is back from one that answers now and then; few enough not to hurt it."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Every call is let through; so many failed in a row."""

    failures: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    """No call is let through before this time."""

    until_ns: int


@dataclass(slots=True)
class HalfOpen:
    """Probes are let through: those that are out, and how many came back well."""

    probes: list[Permit] = field(default_factory=list)
    succeeded: int = 0


State = Closed | Open | HalfOpen


@dataclass(slots=True, eq=False)
class Permit:
    """Leave to make one call; to be handed back once, as ``succeeded``, ``failed`` or ``abandoned``."""

    era: int
    until_ns: int
    """Until when a probe holds its place; of no meaning for a call of a closed breaker."""
    is_spent: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """No call now; ask again in so many nanoseconds."""

    retry_after_ns: int


class Breaker:
    """One callee's breaker. Raises ValueError if a limit is below 1."""

    def __init__(
        self,
        failure_threshold: int = FAILURE_THRESHOLD,
        reset_timeout_ns: int = RESET_TIMEOUT_NS,
        half_open_max_calls: int = HALF_OPEN_MAX_CALLS,
    ) -> None:
        for name, value in (
            ("failure_threshold", failure_threshold),
            ("the reset timeout", reset_timeout_ns),
            ("half_open_max_calls", half_open_max_calls),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.failure_threshold = failure_threshold
        self.reset_timeout_ns = reset_timeout_ns
        self.half_open_max_calls = half_open_max_calls
        self.state: State = Closed()
        self._era = 0

    def admit(self, now_ns: int) -> Permit | Refusal:
        """Leave to call now, or when to ask again."""
        if isinstance(self.state, Open) and now_ns >= self.state.until_ns:
            self._become(HalfOpen())
        match self.state:
            case Closed():
                return Permit(self._era, 0)
            case Open(until_ns):
                return Refusal(until_ns - now_ns)
            case HalfOpen() as state:
                return self._admit_probe(state, now_ns)

    def _admit_probe(self, state: HalfOpen, now_ns: int) -> Permit | Refusal:
        state.probes = [probe for probe in state.probes if probe.until_ns > now_ns]
        if state.succeeded + len(state.probes) >= self.half_open_max_calls:
            return Refusal(min(probe.until_ns for probe in state.probes) - now_ns)
        probe = Permit(self._era, now_ns + self.reset_timeout_ns)
        state.probes.append(probe)
        return probe

    def succeeded(self, permit: Permit) -> None:
        """The callee answered. An error that is an answer is a success, too."""
        if not self._take_back(permit):
            return
        match self.state:
            case Closed(failures) if failures:
                self.state = Closed()
            case HalfOpen() as state:
                state.succeeded += 1
                if state.succeeded >= self.half_open_max_calls:
                    self._become(Closed())
            case _:
                pass

    def failed(self, permit: Permit, now_ns: int) -> None:
        """The callee did not answer, or not as one that works."""
        if not self._take_back(permit):
            return
        match self.state:
            case Closed(failures) if failures + 1 < self.failure_threshold:
                self.state = Closed(failures + 1)
            case _:
                self._become(Open(now_ns + self.reset_timeout_ns))

    def abandoned(self, permit: Permit) -> None:
        """The caller gave up, was cancelled or died: that says nothing of the callee, and gives the place back."""
        self._take_back(permit)

    def name(self, now_ns: int) -> str:
        """ "closed", "open" or "half-open", as the next caller will find it."""
        match self.state:
            case Closed():
                return "closed"
            case Open(until_ns) if now_ns < until_ns:
                return "open"
            case _:
                return "half-open"

    def described(self, now_ns: int) -> dict[str, str | int]:
        """For status and metrics: `state`, `failures` in a row, `retry_after_ms` (0 if not open)."""
        state = self.state
        return {
            "state": self.name(now_ns),
            "failures": state.failures if isinstance(state, Closed) else self.failure_threshold,
            "retry_after_ms": max(0, -((now_ns - state.until_ns) // 1_000_000)) if isinstance(state, Open) else 0,
        }

    def _take_back(self, permit: Permit) -> bool:
        """Whether this permit's call counts: handed back for the first time, in the era that it was given in."""
        counts = not permit.is_spent and permit.era == self._era
        permit.is_spent = True
        if counts and isinstance(self.state, HalfOpen) and permit in self.state.probes:
            self.state.probes.remove(permit)
        return counts

    def _become(self, state: State) -> None:
        self.state = state
        self._era += 1
