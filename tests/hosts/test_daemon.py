"""Each host with a daemon of its own."""

from __future__ import annotations

from tests.hosts.daemon import HostDaemon
from tests.hosts.hosts import Hosts


def test_each_host_has_its_own_daemon() -> None:
    with Hosts(2) as hosts:
        daemons = [HostDaemon(host) for host in hosts]
        try:
            shown = [daemon.json("abi", "status") for daemon in daemons]
            assert [status["pid"] for status in shown] == [daemon.pid for daemon in daemons]
            assert shown[0]["node"] != shown[1]["node"]
        finally:
            for daemon in daemons:
                daemon.close()


def test_a_host_that_lost_power_starts_again_as_itself() -> None:
    with Hosts(1) as hosts:
        daemon = HostDaemon(hosts[0])
        try:
            before = daemon.json("abi", "status")
            hosts[0].power_off()
            assert daemon.process.returncode == -9
            hosts[0].link_up()
            daemon.start()
            after = daemon.json("abi", "status")
            assert (after["node"], after["pid"]) == (before["node"], daemon.pid)
        finally:
            daemon.close()
