"""The seed's row "Circuit breaker" inside the daemon, one for each peer; `NodeUnreachable` and `Timeout`, and who
raises them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from abi.breaker import FAILURE_THRESHOLD, RESET_TIMEOUT_NS
from abi.errors import NodeUnreachable, Timeout
from abid.web import SOCKET_NAME
from tests.daemon import promlint
from tests.ports import free_tcp_port
from tests.seed.members import QUIET, Making, Member, elapsed, invented_token
from tests.system.harness import WAIT_S

AT_ONCE_S = 20.0
"""For what takes a millisecond, on a machine that has other things to do: less than a request's 30 s."""
PATIENT = f"port = 0\n{QUIET}"
IMPATIENT = f"{PATIENT}request_timeout_ms = 100\n"


class Pair:
    """``leader`` is asked by ``asker``, which has no vote."""

    def __init__(self, leader: Member, asker: Member) -> None:
        self.leader, self.asker = leader, asker

    def ask(self) -> None:
        assert self.asker.ask("name-get", name="n")["owner"] == "o"

    def breaker(self) -> dict[str, object]:
        found: dict[str, object] = self.asker.sees(self.leader)["breaker"]
        return found


@pytest.fixture(scope="module")
def made() -> Iterator[Pair]:
    making = Making()
    try:
        pair = Pair(*making.cluster(2, PATIENT))
        pair.leader.ask("name-claim", name="n", owner="o")
        yield pair
    finally:
        making.close()


@pytest.fixture
def pair(made: Pair) -> Iterator[Pair]:
    """The leader is stopped, and does not answer; who asks it has no patience."""
    made.leader.freeze()
    made.asker.reload(IMPATIENT)
    yield made
    made.leader.up()
    made.asker.reload(PATIENT)
    made.asker.until(lambda told: told["leader"] == made.leader.node, "it follows again")
    made.ask()


def test_timeout_is_raised_where_a_node_takes_a_request_and_does_not_answer(pair: Pair) -> None:
    with pytest.raises(Timeout, match=rf"{pair.leader.node} did not answer 'read' within -?\d+ ms") as caught:
        pair.ask()
    assert isinstance(caught.value, TimeoutError)
    assert pair.breaker() == {"state": "closed", "failures": 1, "retry_after_ms": 0}


def test_node_unreachable_is_raised_where_nobody_listens(making: Making) -> None:
    (newcomer,) = making.add()
    place = f"127.0.0.1:{free_tcp_port()}"
    with pytest.raises(NodeUnreachable, match=f"{place}: Connection refused") as caught:
        newcomer.ask("cluster-join", token=invented_token(place))
    assert isinstance(caught.value, ConnectionError)


def test_five_failures_and_a_node_is_refused_at_once_until_it_connects(pair: Pair) -> None:
    """And it stands in `abi network list`, in what --json prints, in the metrics, and in the log."""
    asker, leader = pair.asker, pair.leader
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(Timeout):
            pair.ask()
    asker.reload(PATIENT)

    def refused() -> None:
        with pytest.raises(NodeUnreachable, match=f"the circuit breaker of node {leader.node} is open"):
            pair.ask()

    assert elapsed(refused) < AT_ONCE_S
    assert pair.breaker()["state"] == "open"
    assert 0 < int(str(pair.breaker()["retry_after_ms"])) <= RESET_TIMEOUT_NS // 1_000_000
    (row,) = [line for line in asker.run("abi", "network", "list").stdout.splitlines() if line.startswith(leader.node)]
    assert "open, " in row
    (shown,) = [node for node in asker.json("abi", "network", "list")["nodes"] if node["id"] == leader.node]
    assert shown["breaker"]["state"] == "open"
    assert breakers_in_metrics(asker) == {"closed": 0, "open": 1, "half-open": 0}
    leader.kill()
    leader.wait()
    leader.start()
    asker.until(lambda told: pair.breaker()["state"] == "closed", "it connects, which closes it")
    asker.until(lambda told: told["leader"] == leader.node, "it follows again")
    assert breakers_in_metrics(asker)["closed"] == 1
    name = f"the circuit breaker of node {leader.node} is"
    assert [f"{name} {state}" in asker.log() for state in ("open: ", "closed: ")] == [True, True]


def breakers_in_metrics(member: Member) -> dict[str, float]:
    """`abi_peer_breakers`, by state."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(WAIT_S)
        sock.connect(str(member.runtime_dir / SOCKET_NAME))
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        said = b"".join(iter(lambda: sock.recv(1 << 16), b"")).decode()
    samples = promlint.parse(said.partition("\r\n\r\n")[2])["abi_peer_breakers"].samples
    return {labels[0][1]: value for labels, value in samples.items()}
