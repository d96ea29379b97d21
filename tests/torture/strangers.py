"""Those who must not come in knock and knock, and a program of the daemon's notices nothing.

A cluster of three, and a fourth host that was a member and was sent away: from there the wrong peers come, each kind in
rounds of its own. A program calls all the time and writes down how long each call took. A quiet round stands beside
each round under attack, now before it and now after it, so that what the machine itself does to the program is in both.

What the attack takes of the processors for itself must not be taken for the daemon's doing: the program that knocks
runs in the kernel's idle class, and at a stated rate (``knocking``).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from abi.wire import join_token
from abid.cluster import certificates, credentials
from abid.cluster.certificates import Subject
from abid.cluster.link import LINGER_S
from tests.daemon.cluster.hosts import Ca
from tests.system.harness import WAIT_S, Place, clean_environment, eventually
from tests.torture.caller import Round
from tests.torture.figures import Figure, percentile, seen
from tests.torture.fleet import Fleet
from tests.torture.knocking import KINDS, NOBODY, Order, Told
from tests.torture.scenario import Options, Scenario

ROOT: Final = Path(__file__).parent.parent.parent
ROUND_S: Final = 1.0
"""Short, and many of them: what the machine has to do besides falls into both of a pair, and into few pairs."""
MEMBERS: Final = 3
OTHER_CLUSTER: Final = "c1a57e5000000002"
OTHER_INCARNATION: Final = 9
KNOCKS_PER_S: Final = 100.0
"""Five times what the daemon shakes hands with."""
PLAIN_PER_S: Final = 500.0
SLOW_PER_S: Final = 1_000.0
RATES: Final = {"plain text": PLAIN_PER_S, "slow handshakes": SLOW_PER_S}
NAMED: Final = {
    "wrong CA": {"wrong_ca"},
    "revoked": {"revoked"},
    "other cluster": {"other_cluster"},
    "other incarnation": {"other_incarnation"},
    "newer major": {"version"},
    "wrong token": {"wrong_token"},
    "used-up token": {"wrong_token"},
    "expired token": {"expired_token"},
    "plain text": {"plain_text"},
    "over 4 KiB": {"oversized"},
    "slow handshakes": {"busy", "silent"},
}
"""As what the daemon counts each kind; whoever is one too many is "busy"."""
RATIO_MAX: Final = 2.0
"""The project's promise."""
MEMORY_MB_MAX: Final = 8.0
"""Of growth in all rounds: what lies in the heap's gaps is a few, a leak of a kilobyte a knock would be far more."""


class Wardrobe:
    """What wrong peers show, in a folder by kind. The cluster's own authority signs what only a voter could make."""

    def __init__(self, fleet: Fleet, leader: int, removed: int, folder: Path) -> None:
        self.folder = folder
        place = fleet.daemons[leader].state_dir / "cluster"
        authority, us = credentials.load_authority(place), credentials.load(place)
        assert authority is not None
        assert us is not None
        self._fleet, self._leader, self._authority, self._secret = fleet, leader, authority, us.secret
        cluster, incarnation = us.subject.cluster, us.subject.incarnation
        foreign = Ca(folder, OTHER_CLUSTER)
        foreign.member(NOBODY, name="wrong CA")
        self._member("newer major", Subject(NOBODY, cluster, incarnation))
        self._member("other incarnation", Subject(NOBODY, cluster, OTHER_INCARNATION))
        authority.cluster = OTHER_CLUSTER
        self._member("other cluster", Subject(NOBODY, OTHER_CLUSTER, incarnation))
        authority.cluster = cluster
        shutil.copytree(fleet.daemons[removed].state_dir / "cluster", folder / "revoked")

    def _member(self, kind: str, subject: Subject) -> None:
        key, request = certificates.new_key_and_request(subject)
        certificate = self._authority.sign(request, subject, time.time())
        credentials.store_member(self.folder / kind, self._authority.certificate, certificate, key, self._secret)

    def tokens(self, used_up: str) -> None:
        read = join_token.parse(used_up)
        wrong = join_token.to_text(read._replace(identity="00000000"))
        short = str(self._fleet.ask(self._leader, "cluster-token", valid_s=1)["token"])
        ends = time.monotonic() + 1.1
        eventually(lambda: time.monotonic() > ends, "its second is over")
        for kind, text in {"wrong token": wrong, "used-up token": used_up, "expired token": short}.items():
            (self.folder / kind).write_text(text)


class Companion:
    """A program that answers each line with one of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._line() == "ready", "it did not start"

    def tell(self, words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def told(self) -> Any:
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, f"{self._process.args!r} ended with {self._process.wait(WAIT_S)}"
        return line


@contextlib.contextmanager
def companion(
    command: Sequence[str], open_it: Callable[..., subprocess.Popen[str]], **options: Any
) -> Iterator[Companion]:
    """Started, and ended with what is done here."""
    process = open_it(
        [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, **options
    )
    with process:
        try:
            yield Companion(process)
        finally:
            process.kill()


@dataclass
class Rounds:
    """Of one kind."""

    quiet_us: list[float] = field(default_factory=list)
    """The 99th percentile of each round."""
    attacked_us: list[float] = field(default_factory=list)
    made: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By code, as the daemon counts."""
    seconds: float = 0.0

    @property
    def ratio(self) -> float:
        return median(attacked / quiet for quiet, attacked in zip(self.quiet_us, self.attacked_us, strict=True))


class Stage:
    """A cluster of three with a program that calls, and where the wrong peers come from. The leader is attacked."""

    def __init__(self, fleet: Fleet, leader: int, caller: Companion, attacker: Companion) -> None:
        self.fleet, self.leader = fleet, leader
        self._caller, self._attacker = caller, attacker
        self.calls_us: dict[bool, list[int]] = {False: [], True: []}
        """By whether somebody knocked."""
        self.batches_us: dict[bool, list[int]] = {False: [], True: []}
        self.lost = 0

    def quiet(self, rounds: Rounds) -> None:
        self._caller.tell(ROUND_S)
        rounds.quiet_us.append(self._called(False))

    def attacked(self, kind: str, rounds: Rounds) -> None:
        before = self.refusals()
        self._attacker.tell(Order(kind=kind, per_s=RATES.get(kind, KNOCKS_PER_S), seconds=ROUND_S))
        self._caller.tell(ROUND_S)
        rounds.attacked_us.append(self._called(True))
        told: Told = self._attacker.told()
        rounds.made += told["made"]
        rounds.seconds += ROUND_S
        refused = self.refusals() - before
        assert NAMED[kind] & refused.keys(), f"{kind}: counted {dict(refused)}, seen from outside {told}"
        rounds.refused += refused

    def _called(self, is_attacked: bool) -> float:
        told: Round = self._caller.told()
        self.lost += told["lost"]
        self.calls_us[is_attacked] += told["calls_us"]
        self.batches_us[is_attacked] += told["batches_us"]
        return percentile(told["calls_us"], 99)

    def refusals(self) -> Counter[str]:
        return Counter(self.fleet.status(self.leader)["refused"])

    def agreed(self) -> list[Any]:
        """What knocking must not change, as each member sees it."""
        return [
            (told["term"], told["leader"], told["voters"], sorted(node["id"] for node in told["nodes"]))
            for told in map(self.fleet.status, range(MEMBERS))
        ]


@contextlib.contextmanager
def stage(*, is_idle: bool = True) -> Iterator[Stage]:
    """``is_idle``: who knocks takes only what nobody else wants of the processors."""
    with Fleet(MEMBERS + 1) as fleet, contextlib.ExitStack() as stack:
        fleet.form(range(MEMBERS))
        leader, _ = fleet.await_leader(among=range(MEMBERS))
        used_up = str(fleet.ask(leader, "cluster-token", uses=1)["token"])
        fleet.ask(MEMBERS, "cluster-join", token=used_up)
        fleet.kill(MEMBERS)
        fleet.ask(leader, "network-remove", target=fleet.nodes[MEMBERS])
        fleet.await_settled(range(MEMBERS))
        place = Place()
        stack.callback(place.close)
        Wardrobe(fleet, leader, MEMBERS, place.folder).tokens(used_up)
        own = next(node for node in fleet.status(leader)["nodes"] if node["id"] == fleet.nodes[leader])
        environment = fleet.daemons[leader].environment
        caller = companion(["tests.torture.caller"], subprocess.Popen, env=environment)
        command = ["tests.torture.knocking", own["address"], str(place.folder), *(["idle"] if is_idle else [])]
        attacker = companion(command, fleet.hosts[MEMBERS].open, env=clean_environment())
        yield Stage(fleet, leader, stack.enter_context(caller), stack.enter_context(attacker))


def strangers(options: Options) -> list[Figure]:
    with stage() as scene:
        return knocked(scene, options)


def knocked(scene: Stage, options: Options) -> list[Figure]:
    warm = {kind: Rounds() for kind in KINDS}
    for kind, rounds in warm.items():
        scene.attacked(kind, rounds)
    scene.calls_us[True].clear()
    scene.batches_us[True].clear()
    descriptors, rss = _at_rest(scene, 0, 1.5 * LINGER_S)
    agreed = scene.agreed()
    found = {kind: Rounds() for kind in KINDS}
    for kind, rounds in found.items():
        for number in range(options.times):
            if number % 2:
                scene.attacked(kind, rounds)
                scene.quiet(rounds)
            else:
                scene.quiet(rounds)
                scene.attacked(kind, rounds)
        options.tell(f"{kind}: {rounds.ratio:.2f} times the quiet p99, {dict(rounds.refused)} of {rounds.made}")
    descriptors_after, rss_after = _at_rest(scene, descriptors, WAIT_S)
    return [
        *(figure for kind, rounds in found.items() for figure in figures_of(kind, rounds)),
        *_of_all_calls(scene),
        Figure("calls that did not come back right", scene.lost, "", 0),
        Figure("changes of term, leader, voters or members", scene.agreed() != agreed, "", 0),
        Figure("descriptors more than before", descriptors_after - descriptors, "", 0),
        Figure("memory more than before", (rss_after - rss) / 2**20, "MiB", MEMORY_MB_MAX),
        seen("memory of the daemon", rss_after / 2**20, "MiB"),
    ]


def _at_rest(scene: Stage, descriptors: int, within_s: float) -> tuple[int, int]:
    """Descriptors and memory of the daemon when all last words have been said: when it has no more descriptors than
    these, or when so many seconds are over. Unless it is busy, nothing of a stranger is left after ``LINGER_S``."""
    fleet, leader = scene.fleet, scene.leader
    over = time.monotonic() + within_s
    eventually(
        lambda: fleet.descriptors(leader) <= descriptors or time.monotonic() > over, "they have gone", 2 * within_s
    )
    return fleet.descriptors(leader), fleet.rss(leader)


def figures_of(kind: str, rounds: Rounds) -> list[Figure]:
    return [
        seen(f"{kind}: knocks", rounds.made / rounds.seconds, "/s"),
        *(seen(f"{kind}: refused as {code}", n / rounds.seconds, "/s") for code, n in rounds.refused.items()),
        seen(f"{kind}: p99 of a call, quiet", median(rounds.quiet_us), "µs"),
        seen(f"{kind}: p99 of a call, attacked", median(rounds.attacked_us), "µs"),
        Figure(f"{kind}: p99 attacked by quiet", rounds.ratio, "×", RATIO_MAX),
    ]


def _of_all_calls(scene: Stage) -> list[Figure]:
    figures = []
    for name, by_state in {"a call": scene.calls_us, "a batch": scene.batches_us}.items():
        for is_attacked, values in by_state.items():
            for percent in (50, 99) if values else ():
                state = "attacked" if is_attacked else "quiet"
                figures.append(seen(f"all: p{percent} of {name}, {state}", percentile(values, percent), "µs"))
    return figures


SCENARIOS: Final = (
    Scenario("strangers", "who must not come in knocks without end: a program notices nothing", strangers, times=9),
)
