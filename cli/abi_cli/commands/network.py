"""`abi network list | status | register | remove`: the hosts that this one knows."""

from __future__ import annotations

import argparse

from abi import exits
from abi.control import Object, connect
from abi_cli.output import json, text
from abi_cli.parser import subcommands

SUMMARY = "The hosts of this cluster, and how this one stands with them."
ANSWER_S = 60.0
HEAD = ("NODE", "NAME", "STATE", "ROLE", "CORES", "GPU", "BREAKER", "ADDRESS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `abi network`."""
    add = subcommands(parser)
    add("list", "the hosts, one a line", _list)
    add("status", "the cluster as this host sees it", _status)
    register = add("register", "dial a host, now and after every start", _register)
    register.add_argument("--host", required=True, metavar="HOST[:PORT]", help="where its daemon listens")
    remove = add("remove", "send a host away, for good: its certificate is refused from then on", _remove)
    remove.add_argument("node", metavar="NODE", help="its id, any unique start of it, or its name")


def run(arguments: argparse.Namespace) -> int:
    """Ask the daemon, and print what it says."""
    return int(arguments.action(arguments))


def _ask(op: str, **words: object) -> Object:
    with connect() as control:
        return control.request(op, answer_timeout=ANSWER_S, **words)


def _list(arguments: argparse.Namespace) -> int:
    told = _ask("network-status")
    if arguments.json:
        json.write({"nodes": told["nodes"]})
    else:
        print(_table(told))
        if not told["joined"]:
            text.note(_alone(told))
    return exits.OK


def _status(arguments: argparse.Namespace) -> int:
    told = _ask("network-status")
    if arguments.json:
        json.write(told)
        return exits.OK
    if not told["joined"]:
        print(_alone(told))
        return exits.OK
    leader = told["leader"] or "nobody just now"
    pairs: list[tuple[str, object]] = [
        ("cluster", f"{told['cluster']}, incarnation {told['incarnation']}"),
        ("this host", f"{told['node']}, {told['role']}, port {told['port']}"),
        ("leader", f"{leader}, term {told['term']}"),
        ("voters", ", ".join(told["voters"])),
        ("certificate", f"ends {text.moment(told['certificate_ends_s'])}"),
    ]
    if told["refused"]:
        pairs.append(("refused", ", ".join(f"{count} {code}" for code, count in sorted(told["refused"].items()))))
    print(text.facts(pairs))
    print()
    print(_table(told))
    for node in told["told_removed"]:
        print(f"node {node} says that this host was removed; it is believed when a majority of the voters says so")
    return exits.OK


def _register(arguments: argparse.Namespace) -> int:
    told = _ask("network-register", host=arguments.host)
    if arguments.json:
        json.write(told)
        return exits.OK
    where = ", ".join(told["registered"])
    print(f"{where} is remembered" + (", and dialled" if told["joined"] else ""))
    if not told["joined"]:
        text.note("this host belongs to no cluster yet: `abi cluster join` on it, with a token of theirs, joins")
    return exits.OK


def _remove(arguments: argparse.Namespace) -> int:
    told = _ask("network-remove", target=arguments.node)
    if arguments.json:
        json.write(told)
    else:
        print(f"node {told['removed']} was removed, and is refused from now on")
    return exits.OK


def _table(told: Object) -> str:
    rows = [
        (
            each["id"],
            text.clean(each["name"]),
            each["state"],
            _role(each),
            each["cpu_cores"] or "?",
            "yes" if each["has_gpu"] else "",
            _breaker(each),
            text.clean(each["address"]),
        )
        for each in told["nodes"]
    ]
    return text.table(HEAD, rows)


def _role(each: Object) -> str:
    if each["leader"]:
        return "leader"
    return "voter" if each["voter"] else ""


def _breaker(each: Object) -> str:
    """Of a peer: whether it may be asked, or in how many seconds again."""
    breaker = each.get("breaker")
    if breaker is None:
        return ""
    seconds = -(-breaker["retry_after_ms"] // 1000)
    return f"{breaker['state']}, {seconds} s" if breaker["state"] == "open" else str(breaker["state"])


def _alone(told: Object) -> str:
    if not told["enabled"]:
        return "the network is disabled: network.enabled = true in the configuration, and a restart, enable it"
    if told["waits"]:
        return f"this host does not take part in its cluster just now: {text.clean(told['waits'])}"
    if told["removed"]:
        return f"this host was removed from its cluster: {text.clean(told['removed'])}"
    return "this host belongs to no cluster: `abi cluster init` founds one, `abi cluster join` joins one"
