"""What this host has to give: processors and memory as the kernel limits *us*, not as the machine has them.

Cores are the smaller of our affinity and our cgroup's quota; memory is the smallest limit on the way up the cgroup
tree, or the machine's. Both cgroup versions are read, since containers on older hosts still bring the first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from abi.wire.schema import UNITS

CGROUP = Path("/sys/fs/cgroup")


def cpu_units() -> int:
    """Processors in units of 1/10000; at least one whole processor's worth of a thousandth."""
    count = float(len(os.sched_getaffinity(0)))
    quota = min(_quotas(), default=math.inf)
    return max(UNITS // 1000, int(min(count, quota) * UNITS))


def memory_bytes() -> int:
    """Memory that we may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_memory_limits()])


def oom_kills() -> int:
    """How often the kernel's out-of-memory killer struck in our cgroup, or on the machine if we have none of our
    own."""
    for path in _cgroup_files("memory.events", "memory/memory.oom_control"):
        for line in _lines(path):
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    for line in _lines(Path("/proc/vmstat")):
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0


def _quotas() -> Iterator[float]:
    for path in _cgroup_files("cpu.max", "cpu/cpu.cfs_quota_us"):
        words = " ".join(_lines(path)).split()
        if len(words) == 2 and words[0] != "max":
            yield int(words[0]) / int(words[1])
        elif len(words) == 1 and int(words[0]) > 0:
            period = _lines(path.with_name("cpu.cfs_period_us"))
            yield int(words[0]) / int(period[0])


def _memory_limits() -> Iterator[int]:
    for path in _cgroup_files("memory.max", "memory/memory.limit_in_bytes"):
        words = _lines(path)
        if words and words[0].isdigit():
            yield int(words[0])


def _cgroup_files(unified: str, legacy: str) -> Iterator[Path]:
    """The file of each cgroup from ours up to the root, where it exists."""
    controller, _, name = legacy.partition("/")
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, place = line.split(":", 2)
        if not controllers:
            base, leaf = CGROUP, unified
        elif controller in controllers.split(","):
            base, leaf = CGROUP / controller, name
        else:
            continue
        folder = base / place.lstrip("/")
        while True:
            if (folder / leaf).is_file():
                yield folder / leaf
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
