"""`./dev simulate membership --hosts N --seed N`: what many hosts would say to each other, and how well they judge."""

from __future__ import annotations

import argparse
import gc
import sys
import time

from abid.core.membership.timings import SECOND
from tests.core.membership.simulation import World

HOSTS_MAX = 5_000
"""More would take longer than anybody waits."""
BEGIN_S = 5.0
"""The first thing happens then."""
REST_S = 27.0
"""After the last: 3 s of silence and 14 s of a suspicion that nobody confirms, and time for the news to go round."""


def share(times: list[int], of: float) -> str:
    """A percentile in words; of few values the nearest that is no better."""
    ordered = sorted(times)
    return f"{ordered[min(len(ordered) - 1, int(len(ordered) * of))] / SECOND:.1f} s"


def described(name: str, times: list[int | None]) -> str:
    known = [taken for taken in times if taken is not None]
    missing = f"   {len(times) - len(known)} not by the end" if len(known) < len(times) else ""
    if not known:
        return f"  {name:<24} —{missing}"
    return f"  {name:<24} p50 {share(known, 0.5)}   p99 {share(known, 0.99)}   max {max(known) / SECOND:.1f} s{missing}"


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev simulate membership", description=__doc__)
    parser.add_argument("--hosts", type=int, default=100, help=f"3 to {HOSTS_MAX} (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same run (default 1)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of simulated time, 40 at least (default 60)")
    parser.add_argument("--loss", type=float, default=0.01, help="share of words that are lost (default 0.01)")
    parser.add_argument("--deaths", type=int, help="hosts that die (default: one in twenty, at least one)")
    parser.add_argument("--stops", type=int, help="hosts that stand still for 1 to 9 s (default: one in twenty)")
    said = parser.parse_args(given)
    if not 3 <= said.hosts <= HOSTS_MAX:
        parser.error(f"--hosts {said.hosts}: 3 to {HOSTS_MAX} hosts can be simulated")
    if not said.seconds >= 40:
        parser.error(f"--seconds {said.seconds:g}: a death needs up to {REST_S:g} s to be seen, so 40 at least")
    if not 0 <= said.loss < 1:
        parser.error(f"--loss {said.loss:g}: a share, from 0 to below 1")
    one_in_twenty = max(1, said.hosts // 20)
    said.deaths = one_in_twenty if said.deaths is None else said.deaths
    said.stops = min(one_in_twenty, said.hosts - said.deaths) if said.stops is None else said.stops
    if said.deaths < 0 or said.stops < 0 or said.deaths + said.stops > said.hosts:
        parser.error(f"--deaths {said.deaths} and --stops {said.stops}: not more than {said.hosts} hosts together")
    return said


def main(given: list[str]) -> int:
    said = arguments(given)
    started = time.monotonic()
    world = World(said.hosts, said.seed, loss=said.loss)
    gc.freeze()  # a million objects that stay: the collector need not look at them again and again
    chosen = world.random.sample(sorted(world.hosts), said.deaths + said.stops)
    died: dict[int, tuple[str, int]] = {}
    for place, number in enumerate(chosen):
        second = world.random.uniform(BEGIN_S, said.seconds - REST_S)
        if place < said.deaths:
            killed = place % 2 == 0
            died[number] = ("killed" if killed else "powered off", round(second * SECOND))
            world.at(second, world.kill if killed else world.power_off, number)
        else:
            world.at(second, world.stop, number)
            world.at(second + world.random.uniform(1, 9), world.cont, number)
    world.run(said.seconds)

    tally = world.tally
    seconds_lived = said.hosts * said.seconds - sum(said.seconds - at / SECOND for _, at in died.values())
    words = tally.words / seconds_lived
    size = tally.encoded_bytes / max(1, tally.encoded)
    print(f"{said.hosts} hosts, {said.seconds:g} s, seed {said.seed}, {said.loss:.1%} of words lost")
    print(f"  {'sent':<24} {words:.2f} messages a host a second, {words * size:.0f} bytes, {tally.asks} asks in all")
    for how in ("killed", "powered off"):
        times = [world.times_to_detect(number, at) for number, (kind, at) in died.items() if kind == how]
        if times:
            print(f"  {len(times)} {how}")
            print(described("  first held for dead", [first for first, _ in times]))
            print(described("  by everybody", [everybody for _, everybody in times]))
    print(f"  {said.stops} stopped for 1 to 9 s")
    print(f"  {'false suspicions':<24} {len(tally.false_suspicions)}")
    print(f"  {'false deaths':<24} {len(tally.false_deaths)}")
    print(f"  took {time.monotonic() - started:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
