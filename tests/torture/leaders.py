"""A cluster that loses its leader: killed, without power, stopped for a while; or loses everybody at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from abi.errors import AbiError
from tests.system.harness import eventually
from tests.torture.figures import Figure, percentile, seen
from tests.torture.fleet import POLL_S, Fleet
from tests.torture.ledger import Ledger, Said
from tests.torture.scenario import Options, Scenario

MEMBERS: Final = (0, 1, 2)
GUEST: Final = 3
KNOWN_S_P99: Final = 1.0
KNOWN_S_WORST: Final = 3.0
WRITTEN_WORST: Final = "first write done, worst"
STOPPED_S: Final = 5.0
CLAIMS_MAX: Final = 40
"""Acknowledged in one turn before everybody is killed; how many, by lot."""
TOLD_EACH: Final = 10


# --- a leader is lost for good, and comes back as a follower ----------------------------------------------------------


def leader_killed(options: Options) -> list[Figure]:
    with Fleet(len(MEMBERS)) as fleet:
        fleet.form()
        return lose(fleet, options, fleet.kill)


def leader_powered_off(options: Options) -> list[Figure]:
    with Fleet(len(MEMBERS)) as fleet:
        fleet.form()
        return lose(fleet, options, fleet.power_off)


def lose(fleet: Fleet, options: Options, off: Callable[[int], None]) -> list[Figure]:
    """The clock runs from before the leader is lost. A client asks a survivor for a name at once after that."""
    known_s: list[float] = []
    written_s: list[float] = []
    back_s: list[float] = []
    terms: list[int] = []
    wrong_voters: list[str] = []
    lots = random.Random(options.seed)
    ledger = Ledger(fleet.ask)
    voters = fleet.status(0)["voters"]
    with ThreadPoolExecutor(1) as client:
        for turn in range(options.times):
            leader, term = fleet.await_leader(among=MEMBERS)
            survivors = [number for number in MEMBERS if number != leader]
            asked = lots.choice(survivors)
            start = time.monotonic()
            off(leader)
            written = client.submit(_first_write, ledger, asked, f"{off.__name__}-{turn}", start)
            _, new_term = fleet.await_leader(leader, among=survivors, above=term)
            known_s.append(time.monotonic() - start)
            terms.append(new_term - term)
            written_s.append(written.result())
            wrong_voters += _wrong_voters(fleet, survivors, voters)
            back = time.monotonic()
            fleet.restart(leader)
            fleet.await_settled(MEMBERS)
            back_s.append(time.monotonic() - back)
            wrong_voters += _wrong_voters(fleet, MEMBERS, voters)
            _tell(options, turn, f"known after {known_s[-1]:.3f} s, written after {written_s[-1]:.3f} s")
    _look_in_turn(ledger)
    return [
        Figure("leader known, p99", percentile(known_s, 99), "s", KNOWN_S_P99),
        Figure("leader known, worst", max(known_s), "s", KNOWN_S_WORST),
        seen("leader known, median", percentile(known_s, 50), "s"),
        seen("first write done, median", percentile(written_s, 50), "s"),
        Figure("first write done, p99", percentile(written_s, 99), "s", KNOWN_S_P99, "target"),
        Figure(WRITTEN_WORST, max(written_s), "s", KNOWN_S_WORST, "target"),
        seen("terms that one change took, most", max(terms), ""),
        seen("back and following, started anew, p99", percentile(back_s, 99), "s"),
        _none("looks that showed wrong voters", wrong_voters, options),
        _wrong_answers(ledger, options),
    ]


def _first_write(ledger: Ledger, host: int, name: str, start: float) -> float:
    """When a name was given, in seconds after ``start``."""
    said = ledger.claim(host, name, f"host-{host}")
    assert said is Said.DONE, f"the claim of {name} ended with {said}"
    return time.monotonic() - start


def _wrong_voters(fleet: Fleet, members: Iterable[int], voters: list[str]) -> list[str]:
    shown = [(number, fleet.status(number)["voters"]) for number in members]
    return [f"host {number} names these voters: {found}" for number, found in shown if found != voters]


# --- a leader is stopped, and wakes -----------------------------------------------------------------------------------


def leader_stopped(options: Options) -> list[Figure]:
    with Fleet(len(MEMBERS)) as fleet:
        fleet.form()
        return stop(fleet, options, STOPPED_S)


def stop(fleet: Fleet, options: Options, stopped_s: float) -> list[Figure]:
    """While it is stopped, names change hands through the others, and what it is asked on waking lies in its sockets
    when it wakes.

    In every second turn beginning with the first its machine is as deaf as one that is suspended: nothing that the
    others send arrives, until it has stepped down by itself. There it wakes, is asked, and still believes that it
    leads. In the other turns what it has missed comes before what it is asked, as it does in most lives.
    """
    known_s: list[float] = []
    written_s: list[float] = []
    resigned_s: list[float] = []
    followed_s: list[float] = []
    answered: list[Said] = []
    ledger = Ledger(fleet.ask)
    with ThreadPoolExecutor(len(_ON_WAKING) + 1) as clients:
        for turn in range(options.times):
            leader, term = fleet.await_leader(among=MEMBERS)
            survivors = [number for number in MEMBERS if number != leader]
            for kind in ("moved", "kept", "freed"):
                ledger.claim(leader, f"{kind}-{turn}", "old")
            with _Asking(fleet, ledger, leader, turn, clients) as asking:
                start = time.monotonic()
                fleet.freeze(leader)
                if turn % 2 == 0:
                    for number in survivors:
                        fleet.hosts.block(fleet.hosts[number], fleet.hosts[leader])
                written = clients.submit(_first_write, ledger, survivors[turn % 2], f"first-{turn}", start)
                fleet.await_leader(leader, among=survivors, above=term)
                known_s.append(time.monotonic() - start)
                written_s.append(written.result())
                _move(ledger, survivors, turn)
                time.sleep(max(0.0, start + stopped_s - time.monotonic()))
                asking.send()
                fleet.thaw(leader)
                woken = time.monotonic()
                if turn % 2 == 0:
                    eventually(lambda: fleet.status(leader)["role"] != "leader", "it steps down by itself")  # noqa: B023
                    resigned_s.append(time.monotonic() - woken)
                    fleet.hosts.heal()
                answered += asking.answers()
            fleet.await_settled(MEMBERS)
            followed_s.append(time.monotonic() - woken)
            _look_everywhere(ledger, [name for name in ledger.names if name.endswith(f"-{turn}")])
            _tell(options, turn, f"known after {known_s[-1]:.3f} s, following {followed_s[-1]:.3f} s after it woke")
    _look_in_turn(ledger)
    return [
        _wrong_answers(ledger, options),
        Figure("questions on waking without an answer", answered.count(Said.NOTHING), "", 0, "target"),
        seen("questions on waking", len(answered), ""),
        seen("another leader known, median", percentile(known_s, 50), "s"),
        seen("another leader known, p99", percentile(known_s, 99), "s"),
        seen("another leader known, worst", max(known_s), "s"),
        seen("first write done, worst", max(written_s), "s"),
        seen("stepped down by itself, deaf, worst", max(resigned_s), "s"),
        seen("following after waking, median", percentile(followed_s, 50), "s"),
        seen("following after waking, worst", max(followed_s), "s"),
    ]


def _move(ledger: Ledger, survivors: list[int], turn: int) -> None:
    """What the old leader does not hear of."""
    one, other = survivors
    ledger.release(one, f"moved-{turn}", "old")
    ledger.claim(other, f"moved-{turn}", "new")
    ledger.release(other, f"freed-{turn}", "old")
    ledger.claim(one, f"taken-{turn}", "new")


_ON_WAKING: Final[dict[str, Callable[[Ledger, int, str], Said]]] = {
    "moved": lambda ledger, host, name: ledger.look(host, name),
    "taken": lambda ledger, host, name: ledger.claim(host, name, "old"),
    "fresh": lambda ledger, host, name: ledger.claim(host, name, "old"),
    "freed": lambda ledger, host, name: ledger.release(host, name, "old"),
    "kept": lambda ledger, host, name: ledger.release(host, name, "old"),
}
"""What is asked of the old leader, and of which name: a stale read, two stale writes, and two that may be done."""


class _Asking:
    """The questions for when it wakes, each on a connection that was made while it could still accept one."""

    def __init__(self, fleet: Fleet, ledger: Ledger, leader: int, turn: int, clients: ThreadPoolExecutor) -> None:
        self._fleet, self._ledger, self._leader = fleet, ledger, leader
        self._go = threading.Event()
        self._is_off = False
        connected = threading.Barrier(len(_ON_WAKING) + 1)
        self._names = {f"{kind}-{turn}" for kind in _ON_WAKING}
        self._answers: list[Future[Said]] = [
            clients.submit(self._ask, ask, f"{kind}-{turn}", connected) for kind, ask in _ON_WAKING.items()
        ]
        connected.wait(timeout=30)

    def _ask(self, ask: Callable[[Ledger, int, str], Said], name: str, connected: threading.Barrier) -> Said:
        self._fleet.connect(self._leader)
        connected.wait(timeout=30)
        self._go.wait()
        return Said.NOTHING if self._is_off else ask(self._ledger, self._leader, name)

    def __enter__(self) -> _Asking:
        return self

    def __exit__(self, *_: object) -> None:
        """Where something broke before they were sent, they are not."""
        self._is_off = True
        self._go.set()

    def send(self) -> None:
        """Returns when all are being asked."""
        self._go.set()
        while not self._names <= self._ledger.open:
            time.sleep(POLL_S)

    def answers(self) -> list[Said]:
        return [answer.result() for answer in self._answers]


# --- everybody is killed ----------------------------------------------------------------------------------------------


def all_killed(options: Options) -> list[Figure]:
    with Fleet(len(MEMBERS) + 1) as fleet:
        fleet.form(MEMBERS)
        return kill_all(fleet, options)


def kill_all(fleet: Fleet, options: Options) -> list[Figure]:
    """Three members and a guest, which joins in every second turn with the token of the turn before, and leaves when
    its membership has outlived everybody. Names are claimed through all members until the moment of the kill, and the
    last fact to be acknowledged before it is the token or the membership.

    A killed process takes nothing of the kernel's with it: what this shows is that nothing is acknowledged that lies in
    a daemon's memory only. What a power cut leaves of the disk is the simulation's matter (torn writes).
    """
    lots = random.Random(options.seed)
    led_s: list[float] = []
    lost: list[str] = []
    token = ""
    ledger = Ledger(fleet.ask)
    for turn in range(options.times):
        before, is_guest = ledger.acknowledged, turn % 2 == 1
        with ThreadPoolExecutor(len(MEMBERS)) as clients:
            claiming = [clients.submit(_claim_on, ledger, number, turn) for number in MEMBERS]
            _await_acknowledged(ledger, before + lots.randint(1, CLAIMS_MAX), claiming)
            if is_guest:
                refusal = _refusal(fleet, GUEST, "cluster-join", token=token)
                lost += refusal
                is_guest = not refusal
            else:
                token = str(fleet.ask(lots.choice(MEMBERS), "cluster-token")["token"])
            everybody = (*MEMBERS, GUEST) if is_guest else MEMBERS
            fleet.kill(*everybody)
            for one in claiming:
                one.result()
        start = time.monotonic()
        fleet.restart(*everybody)
        fleet.await_leader(among=MEMBERS)
        led_s.append(time.monotonic() - start)
        fleet.await_settled(everybody)
        _look_everywhere(ledger, [name for name in ledger.names if name.startswith(f"turn-{turn}-")])
        if is_guest:
            fleet.ask(GUEST, "cluster-leave")
            fleet.await_settled(MEMBERS)
        _tell(options, turn, f"{ledger.acknowledged - before} acknowledged, led again after {led_s[-1]:.3f} s")
    _look_in_turn(ledger)
    return [
        _wrong_answers(ledger, options),
        _none("tokens that were made and are gone", lost, options),
        seen("names acknowledged", ledger.acknowledged, ""),
        seen("led again after the start of all, median", percentile(led_s, 50), "s"),
        seen("led again after the start of all, worst", max(led_s), "s"),
    ]


def _await_acknowledged(ledger: Ledger, count: int, claiming: Sequence[Future[None]]) -> None:
    while ledger.acknowledged < count:
        assert not any(one.done() for one in claiming), "a claim was not answered, and nobody was killed yet"
        time.sleep(POLL_S)


def _claim_on(ledger: Ledger, host: int, turn: int) -> None:
    """Until nobody answers any more."""
    number = 0
    while ledger.claim(host, f"turn-{turn}-{host}-{number}", f"host-{host}") is Said.DONE:
        number += 1


def _refusal(fleet: Fleet, number: int, verb: str, **words: Any) -> list[str]:
    """What was said against it, if anything."""
    try:
        fleet.ask(number, verb, **words)
    except AbiError as error:
        return [f"{verb} of host {number}: {error.code}: {error.message}"]
    return []


# --- for all ----------------------------------------------------------------------------------------------------------


def _look_everywhere(ledger: Ledger, names: Iterable[str]) -> None:
    """Ask every member who holds each name."""
    for name in names:
        for number in MEMBERS:
            _look(ledger, number, name)


def _look_in_turn(ledger: Ledger) -> None:
    """At the end: one member each for all that was ever asked about."""
    for place, name in enumerate(ledger.names):
        _look(ledger, MEMBERS[place % len(MEMBERS)], name)


def _look(ledger: Ledger, number: int, name: str) -> None:
    said = ledger.look(number, name)
    assert said is Said.DONE, f"host {number} does not say who holds {name}"


def _wrong_answers(ledger: Ledger, options: Options) -> Figure:
    assert ledger.acknowledged, "nothing was acknowledged: nothing was examined"
    return _none("answers that cannot be true", ledger.wrong, options)


def _none(name: str, found: Sequence[str], options: Options) -> Figure:
    """A gate of none; what there is all the same is told."""
    for words in found:
        options.tell(words)
    return Figure(name, len(found), "", 0)


def _tell(options: Options, turn: int, words: str) -> None:
    if options.times <= TOLD_EACH or (turn + 1) % TOLD_EACH == 0:
        options.tell(f"{turn + 1} of {options.times}: {words}")


SCENARIOS: Final = (
    Scenario("leader_killed", "kill -9 of the leading daemon: how soon another leads", leader_killed, 100),
    Scenario("leader_powered_off", "the leader's host goes without a packet", leader_powered_off, 100),
    Scenario("leader_stopped", "the leader sleeps for 5 s while others lead: nothing stale", leader_stopped, 50),
    Scenario("all_killed", "every daemon killed at once: what was acknowledged is there", all_killed, 50),
)
