"""`abi cluster init | token | join | leave | recover`: one machine out of many hosts."""

from __future__ import annotations

import argparse
import getpass
import sys

from abi import exits
from abi.control import Object, connect
from abi.errors import UsageError
from abi.wire import join_token
from abi_cli.output import json, text
from abi_cli.parser import subcommands

SUMMARY = "Found a cluster, let hosts into it, join one, leave it, or go on after the loss of its majority."
ANSWER_S = 120.0
"""To join is to dial several addresses, to be agreed on, and to hear what the cluster knows."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `abi cluster`."""
    add = subcommands(parser)
    add("init", "found a cluster, with this host as its only member", _init)
    token = add("token", "print a token, by which other hosts join", _token)
    token.add_argument("--uses", type=int, default=1, metavar="N", help="how many hosts may join with it (default 1)")
    token.add_argument("--valid", default="1h", metavar="TIME", help="how long, such as 30m, 12h or 7d (default 1h)")
    join = add("join", "join the cluster that a token is for; it is asked for, or read from standard input", _join)
    join.add_argument("--token-file", metavar="FILE", help='the file it is in, "-" for standard input')
    join.add_argument("addresses", nargs="*", metavar="HOST:PORT", help="members to dial before those in the token")
    leave = add("leave", "belong to no cluster any more", _leave)
    leave.add_argument("--force", action="store_true", help="even if the cluster cannot hear of it")
    recover = add("recover", "found the cluster anew from what this host knows, when its majority is lost", _recover)
    recover.add_argument("--yes", action="store_true", help="really: what the others agreed on since is lost")


def run(arguments: argparse.Namespace) -> int:
    """Ask the daemon, and print what came of it."""
    return int(arguments.action(arguments))


def _ask(op: str, **words: object) -> Object:
    with connect() as control:
        return control.request(op, answer_timeout=ANSWER_S, **words)


def _init(arguments: argparse.Namespace) -> int:
    told = _ask("cluster-init")
    if arguments.json:
        json.write(told)
        return exits.OK
    print(f"cluster {told['cluster']} is founded; this host, {told['leader']}, is its only member")
    print("`abi cluster token` prints what another host needs to join")
    return exits.OK


def _token(arguments: argparse.Namespace) -> int:
    told = _ask("cluster-token", uses=arguments.uses, valid_s=_seconds(arguments.valid))
    if arguments.json:
        json.write(told)
        return exits.OK
    print(told["token"])
    uses = "one host" if told["uses"] == 1 else f"{told['uses']} hosts"
    text.note(f"for {uses}, until {text.moment(told['ends_ms'] / 1000)}; on the other host: abi cluster join")
    return exits.OK


def _join(arguments: argparse.Namespace) -> int:
    token = join_token.read(arguments.token_file, stdin=sys.stdin, prompt=getpass.getpass)
    told = _ask("cluster-join", token=join_token.to_text(token), addresses=arguments.addresses)
    if arguments.json:
        json.write(told)
    else:
        print(f"joined cluster {told['cluster']}, which has {len(told['nodes'])} members now")
    return exits.OK


def _leave(arguments: argparse.Namespace) -> int:
    told = _ask("cluster-leave", force=arguments.force)
    if arguments.json:
        json.write(told)
    else:
        print("this host belongs to no cluster")
    return exits.OK


def _recover(arguments: argparse.Namespace) -> int:
    told = _ask("cluster-recover", sure=arguments.yes)
    if arguments.json:
        json.write(told)
        return exits.OK
    print(f"the cluster goes on as incarnation {told['incarnation']}, with this host alone")
    for node in told["lost_members"]:
        print(f"  {node} has to join again: abi cluster leave --force; abi cluster join")
    return exits.OK


def _seconds(said: str) -> float:
    """30m, 12h, 7d. Raises UsageError."""
    try:
        return float(said[:-1]) * UNITS[said[-1:]]
    except (ValueError, KeyError):
        raise UsageError(f"--valid {said}: a number and s, m, h or d, such as 12h") from None
