"""Certificates end: they are renewed in time, and once afterwards with proof."""

from __future__ import annotations

import signal
import time

from tests.system.clusters import Hosts, await_status, listening, refused, status
from tests.system.harness import Daemon, eventually

SHORT_LIVED = """
import abid.cluster.authority, abid.cluster.renewal
abid.cluster.authority.CERTIFICATE_S = 6
abid.cluster.renewal.LOOK_S = 0.1
abid.cluster.renewal.AGAIN_S = 0.5
"""
RENEWED_EARLY = """
abid.cluster.authority.CERTIFICATE_S = 60
abid.cluster.authority.RENEW_SHARE = 1 / 30
"""
"""After two seconds, long before they end."""
ASKED_OFTEN = "import abid.cluster.waking\nabid.cluster.waking.ASK_AGAIN_MS_MAX = 500\n"


def connections(host: Daemon) -> set[str]:
    """The TCP connections of its process, by inode."""
    lines = (line.split() for line in listening(host.pid))
    return {words[10] for words in lines if words[4] == "01"}


def await_renewal(host: Daemon) -> None:
    ends = status(host)["certificate_ends_ms"]
    await_status(host, lambda told: told["certificate_ends_ms"] > ends, "its certificate is renewed")


def test_certificates_are_renewed_in_time(hosts: Hosts) -> None:
    one, two = hosts.cluster(2, before=SHORT_LIVED + RENEWED_EARLY)
    first = connections(two)
    for host in (one, two, one, two):
        await_renewal(host)
    eventually(lambda: connections(two) and not first & connections(two), "their connection was made anew")
    leader = status(one)["node"]
    await_status(
        two, lambda told: told["leader"] == leader and all(n["connected"] for n in told["nodes"]), "all goes on"
    )
    for host in (one, two):
        assert "is ended" not in host.log(), "the connection, for a certificate that has run out"
        assert "said goodbye" not in host.log()


def test_a_host_that_slept_through_the_end_of_its_certificate_is_renewed_once(hosts: Hosts) -> None:
    """It comes back before all others, and says what it waits for until it meets a member."""
    one, two = hosts.cluster(2, before=SHORT_LIVED + ASKED_OFTEN)
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
