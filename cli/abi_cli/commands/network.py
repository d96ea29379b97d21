"""`abi network list | status | register | unregister | remove`: the hosts that this one knows."""

from __future__ import annotations

import argparse

from abi import exits
from abi.control import Object
from abi.errors import NodeUnreachable
from abi.wire import incarnations
from abi_cli.asking import ask, ask_if_sure
from abi_cli.output import json, text
from abi_cli.parser import subcommands

SUMMARY = "The hosts of this cluster, and how this one stands with them."
ANSWER_S = 60.0
GONE = ("dead", "stopped", "left", "other_incarnation")
HEAD = ("NODE", "MEMBER", "NAME", "STATE", "ROLE", "CORES", "GPU", "BREAKER", "ADDRESS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `abi network`."""
    add = subcommands(parser)
    add("list", "the hosts, one a line", _list)
    add("status", "the cluster as this host sees it", _status)
    register = add("register", "dial a host, now and after every start", _register)
    register.description = (
        "Dial a host now, and after every start of this daemon. Where network.discovery_enabled is false it is dialled "
        "now, and remembered until that is true."
    )
    either = register.add_mutually_exclusive_group(required=True)
    either.add_argument("--host", metavar="HOST[:PORT]", help="where its daemon listens")
    either.add_argument("--list", action="store_true", help="instead: what was registered here")
    unregister = add("unregister", "take back what was registered", _unregister)
    unregister.add_argument("--host", required=True, metavar="HOST[:PORT]", help="as `register --list` shows it")
    remove = add("remove", "send a host away, for good: its certificate is refused from then on", _remove)
    remove.add_argument("node", metavar="NODE", help="its id, four characters of it or more, or its whole name")
    remove.add_argument("--yes", action="store_true", help="really: it comes back only as a new host")


def run(arguments: argparse.Namespace) -> int:
    """Ask the daemon, and print what it says."""
    return int(arguments.action(arguments))


def _ask(arguments: argparse.Namespace, op: str, **words: object) -> Object:
    return ask(op, ANSWER_S, as_json=arguments.json, **words)


def _list(arguments: argparse.Namespace) -> int:
    told = _ask(arguments, "network-status")
    if arguments.json:
        json.write({"nodes": told["nodes"]})
    else:
        print(_table(told))
        if not told["joined"] or told["failed"]:
            print(_alone(told))
    return exits.OK


def _status(arguments: argparse.Namespace) -> int:
    told = _ask(arguments, "network-status")
    if arguments.json:
        json.write(told)
        return exits.OK
    if not told["joined"] or told["failed"]:
        print(_alone(told))
        return exits.OK
    leader = told["leader"] or "nobody just now"
    pairs: list[tuple[str, object]] = [
        ("cluster", f"{told['cluster']}, incarnation {incarnations.name(told['incarnation'])}"),
        ("this host", f"{told['node']}, {told['role']}, port {told['port']}, member {told['number']}"),
        ("leader", f"{leader}, term {told['term']}"),
        ("voters", ", ".join(told["voters"])),
        ("certificate", f"ends {text.moment(told['certificate_ends_ms'] / 1000)}"),
    ]
    if told["refused"]:
        pairs.append(("refused", ", ".join(f"{count} {code}" for code, count in sorted(told["refused"].items()))))
    print(text.facts(pairs))
    print()
    print(_table(told))
    for node in told["told_removed"]:
        print(f"node {node} says that this host was removed; it is believed when a majority of the voters says so")
    for note in told["notes"]:
        print(f"{text.clean(note['message'])}\n  hint: {text.clean(note['hint'])}")
    return exits.OK


def _register(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _list_registered(arguments)
    told = _ask(arguments, "network-register", host=arguments.host)
    if arguments.json:
        json.write(told)
        return exits.OK
    for each in told["dialled"]:
        print(f"{each['address']} is remembered{_outcome(each, told['is_tried_again'])}")
        if each["hint"]:
            text.note(text.clean(each["hint"]))
    if not told["joined"]:
        print(f"{', '.join(told['registered'])} is remembered")
        text.note("this host belongs to no cluster yet: `abi cluster join` on it, with a token of theirs, joins")
    return exits.OK


def _outcome(dialled: Object, is_tried_again: bool) -> str:
    """Of the first dial."""
    if dialled["node"]:
        return f", and answers as node {dialled['node']}"
    why = text.clean(dialled["message"])
    then = "tried again" if is_tried_again else "not tried again while network.discovery_enabled is false"
    if dialled["code"] == NodeUnreachable.code:
        return f": nobody answers there now ({why}), and it is {then}"
    return f": who answers there refuses ({dialled['code']}: {why}), and is {then}"


def _list_registered(arguments: argparse.Namespace) -> int:
    told = _ask(arguments, "network-registered")
    if arguments.json:
        json.write(told)
    elif told["registered"]:
        rows = [(each["address"], each["node"] or "not met yet") for each in told["registered"]]
        print(text.table(("ADDRESS", "NODE"), rows))
    else:
        text.note("nothing is registered: `abi network register --host HOST` names a host to dial")
    return exits.OK


def _unregister(arguments: argparse.Namespace) -> int:
    told = _ask(arguments, "network-unregister", host=arguments.host)
    if arguments.json:
        json.write(told)
    else:
        print(f"{', '.join(told['unregistered'])} is not registered any more")
    return exits.OK


def _remove(arguments: argparse.Namespace) -> int:
    told = ask_if_sure("network-remove", ANSWER_S, as_json=arguments.json, sure=arguments.yes, target=arguments.node)
    if arguments.json:
        json.write(told)
    else:
        print(f"node {told['removed']} was removed, and is refused from now on")
    return exits.OK


def _table(told: Object) -> str:
    rows = [
        (
            each["id"],
            each["number"] or "",
            text.clean(each["name"]),
            each["state"],
            _role(each),
            each["cpu_cores"] or "?",
            {None: "?", True: "yes", False: ""}[each["has_gpu"]],
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
    """Of a peer: whether it may be asked, or in how many seconds again. That one which is gone may be asked says
    nothing."""
    breaker = each["breaker"]
    if breaker is None or (breaker["state"] == "closed" and each["state"] in GONE):
        return ""
    seconds = -(-breaker["retry_after_ms"] // 1000)
    return f"{breaker['state']}, {seconds} s" if breaker["state"] == "open" else str(breaker["state"])


def _alone(told: Object) -> str:
    if not told["enabled"]:
        return "the network is disabled: network.enabled = true in the configuration, and a restart, enable it"
    if told["failed"]:
        why, hint = text.clean(told["failed"]), text.clean(told["failed_hint"])
        return f"this host is a member of its cluster, but out of it: {why}\n  hint: {hint}"
    if told["removed"]:
        why = text.clean(told["removed"])
        then = "`abi cluster leave` lets go of it, and says how this host comes back"
        return f"this host was removed from its cluster ({why}): {then}"
    return "this host belongs to no cluster: `abi cluster init` founds one, `abi cluster join` joins one"
