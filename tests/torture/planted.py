"""Faults planted in the daemons, each of which a scenario must see: a test of the tests.

A fault is Python that runs in each daemon before its own main, and breaks one promise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.torture import leaders
from tests.torture.figures import Figure
from tests.torture.fleet import Fleet
from tests.torture.scenario import Options

STOPPED_S: Final = 1.5


class Planted(NamedTuple):
    says: str
    before: str
    run: Callable[[Fleet, Options], list[Figure]]
    times: int


def _stop(fleet: Fleet, options: Options) -> list[Figure]:
    return leaders.stop(fleet, options, STOPPED_S)


_STALE_READ: Final = """
from abid.cluster import asking
async def look(self, what, words):
    return asking.LOOKS[what](self._consensus, **words)
asking.Asking.look = look
"""
_EARLY_WORD: Final = """
from abid.cluster import consensus as the
def propose(self, command, told):
    if not self.is_leader:
        raise the.NotLeader(self.leader)
    self.raft.propose(the.commands.encode(command))
    told(the.Facts.decoded(self.facts.encoded()).apply(command))
    self._pump()
the.Consensus.propose = propose
"""
_LAZY_DISK: Final = """
import time
from abid import raft_store
store, write = raft_store.RaftStore.store, raft_store._write_fact
def lazy(self, output, done):
    store(self, output, lambda error: None)
    done(None)
def slow(*what):
    time.sleep(0.05)
    write(*what)
raft_store.RaftStore.store, raft_store._write_fact = lazy, slow
"""

PLANTED: Final[dict[str, Planted]] = {
    "stale_read": Planted("a leader reads without asking whether it still is one", _STALE_READ, _stop, 1),
    "early_word": Planted("a leader acknowledges what only itself has", _EARLY_WORD, _stop, 1),
    "lazy_disk": Planted("what is to be stored is called so before it is", _LAZY_DISK, leaders.kill_all, 2),
}


def see(tell: Callable[[str], None]) -> list[str]:
    """Plant one after the other; those that were not seen."""
    missed = []
    for name, planted in PLANTED.items():
        with Fleet(len(leaders.MEMBERS) + 1, before=planted.before) as fleet:
            fleet.form(leaders.MEMBERS)
            figures = planted.run(fleet, Options(planted.times, 0, 1, lambda _: None))
        failed = [f"{figure.name}: {figure.value:g}" for figure in figures if figure.fails]
        tell(f"{name} ({planted.says}): {'; '.join(failed) or 'NOT SEEN'}")
        if not failed:
            missed.append(name)
    return missed
