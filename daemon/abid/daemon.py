"""The life of a daemon around its node: signals, readiness, reload, draining, the end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from abi import paths
from abi.config import Config, Reloaded, load
from abi.errors import AbiError, ConfigError
from abi.transport import listen
from abi.wire.schema import Interpreter
from abid import held, logs, state
from abid.clients import Listener
from abid.metrics import pages
from abid.network import Network
from abid.node import Node, limits_of
from abid.notify import Pulse, notify
from abid.terminal import Terminal
from abid.web import Web
from abid.zygote_process import ZygoteProcess

log = logging.getLogger(__name__)

GOODBYE_S = 1.0
"""How long clients get to read the last words before their connections close. Only those count that have not yet."""
LOOK_FOR_TERMINAL_S = 0.5
"""After a hang-up that came while the terminal was there."""
END_S = 5.0
"""How long zygotes may take to end all below them before we kill them ourselves."""


class Daemon:
    """One daemon process."""

    def __init__(
        self, arguments: argparse.Namespace, config: Config, flags: dict[str, Any], runtime_dir: Path, state_dir: Path
    ) -> None:
        self.arguments = arguments
        self.config = config
        self.flags = flags
        self.runtime_dir = runtime_dir
        self.state_dir = state_dir
        self.loop = uvloop.new_event_loop()
        self._stopping: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._woken = asyncio.Event()
        self._owner_fd = -1

    def run(self, own: Interpreter, first: ZygoteProcess, estate_fd: int, tell_ready: Callable[[], None]) -> int:
        """Serve until stopped; the exit code."""
        asyncio.set_event_loop(self.loop)
        socket_path = paths.socket_path(system=self.arguments.system)
        identity = state.next_incarnation(self.state_dir)
        self.node = Node(self.loop, self.config, self.runtime_dir, self.state_dir, socket_path, identity)
        self.node.system = self.arguments.system
        self.node.on_reload = self.reload
        self.node.on_stop = self.stop
        self.node.open_pool(own, first, estate_fd)
        self.node.network = Network(self.loop, lambda: self.config, identity, self.node.host, self.state_dir)
        self.web = Web(self.loop, pages(self.node.status, self.node.network.status))
        lag_max_s = self.config.integer("daemon.watchdog_lag_ms") / 1000
        core = self.node.core
        self.node.pulse = Pulse(
            self.loop, lag_max_s, lambda: notify("WATCHDOG=1"), is_busy=lambda: core.running_count > 0
        )
        sock = listen(socket_path)
        if self.arguments.system:
            os.chmod(socket_path, 0o660)  # the directory, 0750, lets only the group come so far
        self.listener = Listener(self.node, sock)
        self._watch_owner()
        # What is loaded by now stays for ever: the collector need not walk over it again.
        gc.collect()
        gc.freeze()
        try:
            self.loop.run_until_complete(self._serve(tell_ready))
        finally:
            self.loop.close()
        return 0

    async def _serve(self, tell_ready: Callable[[], None]) -> None:
        """The loop runs. Not before: a signal that came between its handler and the loop would be lost."""
        self._watch_signals()
        if self._stopping is None:  # whom it belongs to may be gone already
            self._opening = self.loop.create_task(self._open())
            await asyncio.wait([self._opening])  # it may take long, and the end may come meanwhile
            if not self._opening.cancelled():
                self._opening.result()
        if self._stopping is None:
            log.info("ready: pid %d, node %s, %s", os.getpid(), self.node.identity.hex(), self.node.socket_path)
            notify("READY=1", f"STATUS=serving {self.node.socket_path}", f"MAINPID={os.getpid()}")
            tell_ready()
        await self._ended.wait()

    async def _open(self) -> None:
        """A host that cannot take part in its cluster still runs tasks: it says why, and goes on alone."""
        try:
            await self.node.network.open()
        except (AbiError, OSError) as error:
            log.error("this host cannot take part in its cluster: %s", error)
        await self.web.open(self.runtime_dir, self.config)

    def _watch_signals(self) -> None:
        # From C code, so that it works even in a loop that hangs.
        faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
        self.loop.add_signal_handler(signal.SIGTERM, self._on_stop_signal, "SIGTERM")
        self.loop.add_signal_handler(signal.SIGINT, self._on_stop_signal, "SIGINT")
        self._terminal = Terminal()
        self.loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _watch_owner(self) -> None:
        """A daemon that belongs to a program ends with it."""
        if not self.arguments.owner:
            return
        try:
            self._owner_fd = os.pidfd_open(self.arguments.owner)
        except ProcessLookupError:
            self.stop(now=True)
            return
        self.loop.add_reader(self._owner_fd, self._on_owner_gone)

    def _on_owner_gone(self) -> None:
        self.loop.remove_reader(self._owner_fd)
        log.info("the program that this daemon belongs to is gone")
        self.stop(now=True)

    def _on_stop_signal(self, name: str) -> None:
        log.info("%s: %s", name, "ending at once" if self._stopping else "draining")
        self.stop(now=self._stopping is not None)

    def _on_hangup(self) -> None:
        if self._terminal.is_gone:
            self._on_stop_signal("SIGHUP, and the terminal is gone")
            return
        if self._terminal.is_ours:  # a shell that exits says so a moment before the terminal is taken from us
            self.loop.call_later(LOOK_FOR_TERMINAL_S, self._look_for_terminal)
        with contextlib.suppress(ConfigError):  # which has been logged
            self.reload()

    def _look_for_terminal(self) -> None:
        if self._terminal.is_gone and self._stopping is None:
            self._on_stop_signal("the terminal is gone")

    def reload(self) -> Reloaded:
        """Read the configuration again. Raises ConfigError, and the old one stays."""
        notify("RELOADING=1", f"MONOTONIC_USEC={self.node.now() // 1000}")
        try:
            new = load(self.arguments.config, flags=self.flags, system=self.arguments.system)
        except ConfigError as error:
            log.error("the configuration was not reloaded, the old one stays: %s", error)
            raise
        else:
            return self._take_on(self.config.reloaded(new))
        finally:
            notify("READY=1")

    def _take_on(self, reloaded: Reloaded) -> Reloaded:
        config = self.config = self.node.config = reloaded.config
        self.node.core.board.limits = limits_of(config)
        held.set_limit(config.integer("workers.processes_max"))
        self.node.network.reload()
        self.node.pulse.lag_max_s = config.integer("daemon.watchdog_lag_ms") / 1000
        self.node.touch()  # there may be more room now
        logs.configure(config.text("daemon.log_level"), config.text("daemon.log_format"))
        log.info("configuration reloaded; changed: %s", ", ".join(reloaded.changed) or "nothing")
        if reloaded.restart:
            log.warning("changed, but only a restart makes it so: %s", ", ".join(reloaded.restart))
        return reloaded

    def stop(self, now: bool) -> None:
        """Drain and end, or end at once. A second word overtakes the first."""
        if now:
            self.node.stopping = True
            self._woken.set()
        if self._stopping is None:
            notify("STOPPING=1", "STATUS=draining")
            self._stopping = self.loop.create_task(self._stop())

    async def _stop(self) -> None:
        node = self.node
        node.draining = True
        node.core.drain(node.now())
        node.touch()
        deadline = self.loop.time() + self.config.integer("daemon.drain_timeout_ms") / 1000
        node.on_settled = self._woken.set
        # What has ended must also have been told: to its program it would else have started, and been lost.
        while not (node.stopping or self.loop.time() > deadline or (node.is_settled and not node.core.running_count)):
            await self._sleep_until(deadline)
        while self.listener.readers_of_ended_jobs() and not node.stopping and self.loop.time() < deadline:
            await self._sleep_until(deadline)  # the last words of a job are part of it
        unfinished = node.core.running_count + node.core.queued_count + node.core.waiting_count
        if unfinished:
            log.info("%d unfinished tasks stay with their programs", unfinished)
        node.stopping = True
        await self._give_up_opening()
        node.network.close()
        for session in list(node.sessions.values()):
            session.say_goodbye()
        self.listener.close()
        self.web.close()
        deadline = self.loop.time() + GOODBYE_S
        while self.listener.connections and self.loop.time() < deadline:
            await self._sleep_until(deadline)
        node.pool.close()
        deadline = self.loop.time() + END_S
        node.pool.on_zygote_gone = self._woken.set
        while not node.pool.empty and self.loop.time() < deadline:
            await self._sleep_until(deadline)
        node.pulse.stop()
        try:
            os.unlink(node.socket_path)
        except FileNotFoundError:
            log.debug("the socket was removed by somebody else")
        log.info("stopped")
        self._ended.set()

    async def _give_up_opening(self) -> None:
        """What it opened after this would never be closed."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait([self._opening])

    async def _sleep_until(self, deadline: float) -> None:
        """Until something happened, or ``deadline``."""
        self._woken.clear()
        timer = self.loop.call_at(deadline, self._woken.set)
        await self._woken.wait()
        timer.cancel()
