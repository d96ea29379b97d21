"""Which addresses are announced, in what order."""

from __future__ import annotations

import socket
from typing import NamedTuple

import pytest

from abi.errors import ConfigError
from abid.cluster.interfaces import INTERFACES_MAX, chosen, found


class Address(NamedTuple):
    family: int
    address: str
    netmask: str | None = None


class Stats(NamedTuple):
    isup: bool


def v4(address: str, netmask: str | None = "255.255.255.0") -> Address:
    return Address(socket.AF_INET, address, netmask)


def v6(address: str) -> Address:
    return Address(socket.AF_INET6, address, "ffff:ffff:ffff:ffff::")


LO = [v4("127.0.0.1", "255.0.0.0"), v6("::1"), Address(17, "00:00:00:00:00:00")]


def announced(addresses: dict[str, list[Address]], *, down: tuple[str, ...] = (), only: str = "") -> list[str]:
    stats = {name: Stats(name not in down) for name in addresses}
    return [one.address for one in chosen(addresses, stats, only, lambda name: sorted(addresses).index(name) + 1)]


def test_real_networks_come_first_then_guests_then_tunnels() -> None:
    addresses = {
        "tailscale0": [v4("100.64.0.1", "255.255.255.255")],
        "docker0": [v4("172.17.0.1", "255.255.0.0")],
        "lo": LO,
        "br-0123456789ab": [v4("172.18.0.1", "255.255.0.0")],
        "wg0": [v4("10.8.0.2")],
        "veth12ab": [v4("169.254.7.7", "255.255.0.0")],
        "eth0": [v6("fd00::2"), v6("fe80::2%eth0"), v4("10.0.0.2")],
        "wlp3s0": [v4("192.168.1.7")],
    }
    assert announced(addresses) == [
        *("10.0.0.2", "192.168.1.7", "fd00::2", "169.254.7.7", "172.18.0.1", "172.17.0.1", "100.64.0.1", "10.8.0.2"),
    ]


def test_what_is_down_or_gone_is_left_out() -> None:
    addresses = {"lo": LO, "eth0": [v4("10.0.0.2")], "eth1": [v4("10.1.0.2")]}
    assert announced(addresses, down=("eth1",)) == ["10.0.0.2"]
    assert [one.address for one in chosen(addresses, {"eth1": Stats(True)}, "", lambda _: 1)] == ["10.1.0.2"]


def test_loopback_is_used_where_there_is_nothing_else() -> None:
    assert announced({"lo": LO}) == ["127.0.0.1", "::1"]
    assert announced({"lo": LO, "eth0": [v4("10.0.0.2")]}, down=("eth0",)) == ["127.0.0.1", "::1"]


def test_one_interface_or_one_address_can_be_asked_for() -> None:
    addresses = {"lo": LO, "eth0": [v4("10.0.0.2"), v4("10.0.0.3")], "docker0": [v4("172.17.0.1")]}
    assert announced(addresses, only="eth0") == ["10.0.0.2", "10.0.0.3"]
    assert announced(addresses, only="10.0.0.3") == ["10.0.0.3"]
    assert announced(addresses, only="127.0.0.1") == ["127.0.0.1"]
    with pytest.raises(ConfigError, match=r"'eth7' is neither") as caught:
        announced(addresses, only="eth7")
    assert "10.0.0.3 (eth0)" in caught.value.hint
    with pytest.raises(ConfigError):
        announced(addresses, only="docker0", down=("docker0",))


BROADCASTS = [
    (v4("10.0.0.2"), "10.0.0.255"),
    (v4("10.1.2.3", "255.255.252.0"), "10.1.3.255"),
    (v4("127.0.0.1", "255.0.0.0"), "127.255.255.255"),
    (v4("10.0.0.2", "255.255.255.254"), ""),
    (v4("10.0.0.2", "255.255.255.255"), ""),
    (v4("10.0.0.2", None), ""),
    (v6("fd00::2"), ""),
]


@pytest.mark.parametrize(("address", "broadcast"), BROADCASTS)
def test_where_everybody_hears(address: Address, broadcast: str) -> None:
    [interface] = chosen({"eth0": [address]}, {"eth0": Stats(True)}, "", lambda _: 1)
    assert interface.broadcast == broadcast


def test_hundreds_of_virtual_interfaces_do_not_push_out_the_real_one() -> None:
    addresses = {f"veth{n}": [v4(f"10.9.{n}.1")] for n in range(200)} | {"eth0": [v4("10.0.0.2")]}
    said = announced(addresses)
    assert len(said) == INTERFACES_MAX
    assert said[0] == "10.0.0.2"


def test_this_host_has_some() -> None:
    here = found()
    assert here
    assert all(socket.if_indextoname(one.number) == one.name for one in here)
