"""Certificates end: they are renewed in time, and once afterwards with proof."""

from __future__ import annotations

import signal
import time

from tests.system.clusters import Hosts, await_status, refused, status
from tests.system.harness import eventually

SHORT_LIVED = """
import abid.cluster.authority, abid.cluster.renewal
abid.cluster.authority.CERTIFICATE_S = 6
abid.cluster.renewal.LOOK_S = 0.1
abid.cluster.renewal.AGAIN_S = 0.5
"""


def test_certificates_are_renewed_in_time(hosts: Hosts) -> None:
    one, two = hosts.cluster(2, before=SHORT_LIVED)
    ends = {host: status(host)["certificate_ends_ms"] for host in (one, two)}
    for host in (one, two):
        later = ends[host] + 6000
        await_status(host, lambda told, later=later: told["certificate_ends_ms"] > later, "renewed, and again")
    told = await_status(two, lambda told: all(node["connected"] for node in told["nodes"]), "connected still, or again")
    assert told["leader"] == status(one)["node"]
    for host in (one, two):
        assert "is ended: the certificate" not in host.log(), "connections were made anew before that"
        assert "is left" not in host.log()


def test_a_host_that_slept_through_the_end_of_its_certificate_is_renewed_once(hosts: Hosts) -> None:
    """It comes back before all others, and says what it waits for until it meets a member."""
    one, two = hosts.cluster(2, before=SHORT_LIVED)
    for host in (one, two):
        host.kill(signal.SIGKILL)
        host.wait()
    (two.state_dir / "cluster" / "ca.key").unlink(missing_ok=True)
    ended = time.time() + 6.5
    eventually(lambda: time.time() > ended, "its certificate has run out")
    two.start()
    assert "asking for one renewal" in two.log()
    told = await_status(two, lambda told: told["failed"], "it says what it waits for")
    assert (told["joined"], told["removed"], told["leader"]) == (True, "", None)
    assert "certificate" in two.run("abi", "network", "status").stdout
    error = refused(two, "abi", "cluster", "token")
    assert (error["code"], "certificate" in error["message"]) == ("out_of_cluster", True)
    one.start()
    told = await_status(two, lambda told: told.get("leader"), "it is a member as before")
    assert (told["leader"], told["failed"]) == (status(one)["node"], "")
