"""The table of everything that can be configured: key, kind, default, unit, meaning, limits.

One row is one option. `configs/abid.toml` is printed from this table (`python -m
abi.config`), `abi.config` checks values against it, and nothing is here that nothing uses.
Times are integers in milliseconds and sizes integers in bytes, with the unit last in the
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from abi import addresses

Value = int | float | str | Mapping[str, float] | tuple[str, ...]
Kind = Literal["integer", "number", "boolean", "text", "table", "texts"]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Option:
    """One row: `minimum` and `maximum` bound numbers, `choices` a text; `complaint` says what is wrong with a text, or
    with each of several ("" for nothing)."""

    key: str  # section.name
    kind: Kind
    default: Value
    unit: str  # "" where it has none
    sentence: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    reloadable: bool = True  # takes effect on SIGHUP, not only at start
    complaint: Callable[[str], str] | None = None

    @property
    def section(self) -> str:
        """What stands before the dot: the TOML table."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """What stands behind the dot: the key inside its table."""
        return self.key.partition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"ABI_{self.section}_{self.name}".upper()


def _duration(key: str, default: int, sentence: str, minimum: int = 0, *, reloadable: bool = True) -> Option:
    return Option(key, "integer", default, "milliseconds", sentence, minimum, DAY_MS, reloadable=reloadable)


OPTIONS: tuple[Option, ...] = (
    _duration(
        "daemon.drain_timeout_ms", 30_000,
        "How long a daemon that was told to stop lets running work finish.",
    ),
    Option(
        "daemon.log_level", "text", "info", "",
        "The least important message that is logged.",
        choices=("debug", "info", "warning", "error"),
    ),
    Option(
        "daemon.log_format", "text", "auto", "",
        "How messages look; auto goes by what stderr is (terminal, journal or file).",
        choices=("auto", "text", "journal", "json"), reloadable=False,
    ),
    _duration(
        "daemon.watchdog_lag_ms", 10_000,
        "A loop that lags more than this stops feeding systemd's watchdog.", 100,
    ),
    Option(
        "workers.cpus", "number", 0.0, "CPUs",
        "CPUs to share out; 0 means those this host lets the daemon use.",
        0, 4096, reloadable=False,
    ),
    Option(
        "workers.memory_bytes", "integer", 0, "bytes",
        "Memory to share out; 0 means what this host lets the daemon use.",
        0, 1 << 50, reloadable=False,
    ),
    Option(
        "workers.resources", "table", {}, "amount of each",
        "Further resources by name, which tasks may ask for, such as { license = 2 }.",
        0, 1e12, reloadable=False,
    ),
    Option(
        "workers.processes_max", "integer", 512, "processes",
        "Worker processes at one time, counting those that wait in get().", 1, 65_536,
    ),
    _duration(
        "workers.idle_timeout_ms", 60_000,
        "A worker with nothing to do for this long is ended.", 100,
    ),
    _duration(
        "workers.interrupt_grace_ms", 2_000,
        "From the interrupt of a task that ran out of time, or of a cancelled command, to its kill.",
    ),
    _duration(
        "workers.start_timeout_ms", 30_000,
        "A zygote that has not forked a worker after this long is killed, its workers too.", 100,
    ),
    Option(
        "queue.tasks_max", "integer", 2_000_000, "tasks",
        "Unfinished tasks that one session may have; then .remote() blocks.", 1, 100_000_000,
    ),
    Option(
        "queue.bytes_max", "integer", 2 * GIB, "bytes",
        "Arguments that one session may have waiting; then .remote() blocks.", MIB, 1 << 50,
    ),
    Option(
        "queue.nested_reserve", "integer", 10_000, "tasks",
        "Places above tasks_max for tasks submitted by tasks, which would else deadlock.",
        0, 100_000_000,
    ),
    _duration(
        "queue.aging_ms", 5_000,
        "Work that waited this long rises by one step of priority, and again each time.", 1,
    ),
    Option(
        "queue.unread_results_bytes_max", "integer", 64 * MIB, "bytes",
        "Results that a client has not read yet; then its tasks are held back.", MIB, 1 << 50,
    ),
    Option(
        "tasks.uncharged_starts_max", "integer", 16, "starts",
        "Starts of one task after losses that were not its fault, such as a daemon's death.",
        0, 1_000_000,
    ),
    _duration(
        "tasks.session_grace_ms", 10_000,
        "How long a client that lost its connection has to return before its work ends.",
    ),
    Option(
        "jobs.keep_max", "integer", 1_000, "jobs",
        "Finished jobs that abi jobs and abi logs still know, for as long as the daemon lives.", 0, 1_000_000,
    ),
    Option(
        "jobs.log_bytes_max", "integer", GIB, "bytes",
        "Output kept of one job, a sixteenth (at most 1 MiB) for stderr alone; the rest is counted and dropped.",
        4 * KIB, 1 << 50,
    ),
    Option(
        "network.enabled", "boolean", True, "",
        "Whether this host may join a cluster; if not, no port is opened, whatever else is set here.",
        reloadable=False,
    ),
    Option(
        "network.port", "integer", 8081, "",
        "Where peers connect (TCP) and look for us (UDP). Left at its default and taken, the next free one; 0: any.",
        0, addresses.PORT_MAX, reloadable=False,
    ),
    Option(
        "network.bind", "text", "", "",
        "The address to listen on; empty means those of all interfaces that peers may use.",
        reloadable=False, complaint=addresses.wrong_ip,
    ),
    Option(
        "network.address", "text", "", "",
        "What peers are told to dial, as HOST or HOST:PORT; empty means the addresses of the interfaces, in turn.",
        reloadable=False, complaint=addresses.wrong_host,
    ),
    Option(
        "network.discovery_enabled", "boolean", True, "",
        "Whether peers are looked for; if not, no beacon or probe leaves, and seeds, hook and registered hosts rest.",
        reloadable=False,
    ),
    _duration(
        "network.broadcast_interval_ms", 5_000,
        "From one beacon on the local network to the next.", 100, reloadable=False,
    ),
    Option(
        "network.seeds", "texts", (), "",
        "Peers to dial, as HOST or HOST:PORT; all addresses of a DNS name are tried.",
        reloadable=False, complaint=addresses.wrong_host,
    ),
    Option(
        "network.subnets", "texts", (), "",
        "Networks whose addresses are asked one after the other, such as 10.0.3.0/24, where no broadcast reaches.",
        reloadable=False, complaint=addresses.wrong_subnet,
    ),
    Option(
        "network.exec_hook", "text", "", "",
        "A program, by its whole path and with its arguments, that prints peers, one HOST or HOST:PORT a line.",
        reloadable=False, complaint=addresses.wrong_command,
    ),
    _duration(
        "network.connection_timeout_ms", 10_000,
        "How long dialling a peer and greeting it may take together.", 10,
    ),
    _duration(
        "network.request_timeout_ms", 30_000,
        "How long one request to a peer or the cluster may take, all its tries together; not how long a task may run.",
        10,
    ),
    Option(
        "network.max_retries", "integer", 3, "retries",
        "How often a lost request is sent again, if it may be; waits for a leader and a task's own retries are apart.",
        0, 100,
    ),
    Option(
        "network.metrics_port", "integer", 0, "",
        "Metrics for Prometheus at http://127.0.0.1:PORT/metrics; 0 means only on metrics.sock beside the socket.",
        0, addresses.PORT_MAX, reloadable=False,
    ),
)  # fmt: skip

BY_KEY: Mapping[str, Option] = {option.key: option for option in OPTIONS}
SECTIONS: tuple[str, ...] = tuple(dict.fromkeys(option.section for option in OPTIONS))


def as_toml() -> str:
    """The text of `configs/abid.toml`: every option, commented out, at its default."""
    lines = [
        "# Every option of abid, at its default: take the # away from what you change.",
        "# Times are in milliseconds, sizes in bytes. A flag wins over ABI_<SECTION>_<NAME> in",
        "# the environment, that over abid.d/*.toml beside this file, and those over this file.",
        "# In the environment a list is written with commas: ABI_NETWORK_SEEDS=host1,host2:9000.",
        "# `abi config show` tells each value and where it came from, `abi config check` finds",
        "# mistakes. Options marked (restart) are read only when the daemon starts.",
    ]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for option in OPTIONS:
            if option.section == section:
                lines += ["", *_as_toml(option)]
    return "\n".join(lines) + "\n"


def _as_toml(option: Option) -> list[str]:
    facts = [f"default {spelled(option.default)}"]
    if option.unit:
        facts.append(f"in {option.unit}")
    if option.choices:
        facts.append(f"one of {', '.join(option.choices)}")
    restart = "" if option.reloadable else " (restart)"
    return [
        f"# {option.sentence}{restart}",
        f"# {'; '.join(facts)}",
        f"# {option.name} = {spelled(option.default)}",
    ]


def spelled(value: Value) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(spelled(each) for each in value)}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        inside = ", ".join(f"{name} = {amount:g}" for name, amount in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return repr(value)
