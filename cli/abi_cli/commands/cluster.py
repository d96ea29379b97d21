"""`abi cluster init | token | join | leave | recover`: one machine out of many hosts."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from abi import addresses, exits
from abi.control import Object
from abi.errors import AbiError, UsageError
from abi.wire import incarnations, join_token
from abi_cli.asking import ask, ask_if_sure
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
    token.add_argument(
        "--uses", type=int, default=1, metavar="N", help="so many hosts may join, up to 10000 (default 1)"
    )
    token.add_argument(
        "--valid", default="1h", metavar="TIME", help="how long, such as 30m, 12h or 7d, at most a year (default 1h)"
    )
    instead = token.add_mutually_exclusive_group()
    instead.add_argument("--file", metavar="FILE", help="write it into a new file that only you can read")
    instead.add_argument("--list", action="store_true", help="instead: the tokens that can be used")
    instead.add_argument("--revoke", metavar="ID", help="instead: let nobody join by this one any more")
    join = add(
        "join",
        "join the cluster that a token is for: that of --token-file, else of ABI_JOIN_TOKEN, else from standard input "
        "or asked for",
        _join,
    )
    join.add_argument("--token-file", metavar="FILE", help='the file it is in, "-" for standard input')
    join.add_argument("addresses", nargs="*", metavar="HOST[:PORT]", help="members to dial before those in the token")
    leave = add("leave", "belong to no cluster any more; on its last member this ends the cluster for good", _leave)
    leave.add_argument("--force", action="store_true", help="even if the cluster cannot hear of it")
    recover = add(
        "recover",
        "found the cluster anew from what this host knows, when its majority is lost: on one host only, all others "
        "leave and join it",
        _recover,
    )
    recover.add_argument("--yes", action="store_true", help="really: what the others agreed on since is lost")


def run(arguments: argparse.Namespace) -> int:
    """Ask the daemon, and print what came of it."""
    return int(arguments.action(arguments))


def _ask(arguments: argparse.Namespace, op: str, **words: object) -> Object:
    return ask(op, ANSWER_S, as_json=arguments.json, **words)


def _init(arguments: argparse.Namespace) -> int:
    told = _ask(arguments, "cluster-init")
    if arguments.json:
        json.write(told)
        return exits.OK
    print(f"cluster {told['cluster']} is founded; this host, {told['leader']}, is its only member")
    print("`abi cluster token` prints what another host needs to join")
    for note in told["notes"]:
        text.note(text.clean(note["message"]))
    return exits.OK


def _token(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _list_tokens(arguments)
    if arguments.revoke is not None:
        return _revoke_token(arguments)
    words = {"uses": arguments.uses, "valid_s": _seconds(arguments.valid)}
    if arguments.file is not None:
        with _new_private(arguments.file) as file:
            told = _ask(arguments, "cluster-token", **words)
            with _revoked_if_lost(arguments, told["id"]):
                print(told.pop("token"), file=file, flush=True)
        told["file"] = os.path.abspath(arguments.file)
    elif sys.stdout is None:
        raise AbiError("standard output is closed, and the token would be lost", hint="--file FILE takes it")
    else:
        told = _ask(arguments, "cluster-token", **words)
    with _revoked_if_lost(arguments, told["id"]):
        if arguments.json:
            json.write(told)
            return exits.OK
        print(told["file"] if "file" in told else told["token"], flush=True)
    uses = "one host" if told["uses"] == 1 else f"{told['uses']} hosts"
    ends = text.moment(told["ends_ms"] / 1000)
    text.note(f"token {told['id']} is for {uses}, until {ends}; on the other host: abi cluster join")
    return exits.OK


@contextlib.contextmanager
def _revoked_if_lost(arguments: argparse.Namespace, identity: str) -> Iterator[None]:
    """A token that could not be written is of no use to anybody, unless a part of it was."""
    try:
        yield
    except OSError:
        with contextlib.suppress(AbiError):
            _ask(arguments, "cluster-token-revoke", target=identity)
        raise


@contextlib.contextmanager
def _new_private(path: str) -> Iterator[TextIO]:
    """A file that was not there, for its owner alone; gone again where nothing came to be written. Raises
    UsageError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} is there already", hint="remove it, or name a new file") from None
    except OSError as error:
        raise UsageError(f"{path or 'a file without a name'} cannot be written: {error.strerror}") from None
    try:
        with open(fd, "w", encoding="ascii") as file:
            yield file
    except BaseException:
        os.unlink(path)
        raise


def _list_tokens(arguments: argparse.Namespace) -> int:
    told = _ask(arguments, "cluster-tokens")
    if arguments.json:
        json.write(told)
    elif told["tokens"]:
        rows = [(each["id"], each["uses"], text.moment(each["ends_ms"] / 1000)) for each in told["tokens"]]
        print(text.table(("TOKEN", "USES LEFT", "ENDS"), rows))
    else:
        text.note("there is no token by which a host could join")
    return exits.OK


def _revoke_token(arguments: argparse.Namespace) -> int:
    told = _ask(arguments, "cluster-token-revoke", target=arguments.revoke)
    if arguments.json:
        json.write(told)
    else:
        print(f"nobody joins by token {told['revoked']} any more")
    return exits.OK


def _join(arguments: argparse.Namespace) -> int:
    for place in arguments.addresses:
        if join_token.is_meant(place):
            raise join_token.on_command_line()
        if wrong := addresses.wrong_host(place):
            raise UsageError(f"{place!r} is no HOST[:PORT]: {wrong}", hint="as in node7.example.org or [fd00::7]:8081")
    token = join_token.read(arguments.token_file, stdin=sys.stdin, prompt=getpass.getpass)
    told = _ask(arguments, "cluster-join", token=join_token.to_text(token), addresses=arguments.addresses)
    if arguments.json:
        json.write(told)
    else:
        print(f"joined cluster {told['cluster']}, which has {len(told['nodes'])} members now")
    return exits.OK


def _leave(arguments: argparse.Namespace) -> int:
    told = _ask(arguments, "cluster-leave", force=arguments.force)
    if arguments.json:
        json.write(told)
        return exits.OK
    print("this host belongs to no cluster" + (", and the others agreed" if arguments.force and told["agreed"] else ""))
    if not told["agreed"]:
        text.note("the others have not agreed: they count on it until `abi network remove` there sends it away")
    if told["next"]:
        text.note(f"a cluster takes it back only {told['next']}")
    return exits.OK


def _recover(arguments: argparse.Namespace) -> int:
    told = ask_if_sure("cluster-recover", ANSWER_S, as_json=arguments.json, sure=arguments.yes)
    if arguments.json:
        json.write(told)
        return exits.OK
    print(f"the cluster goes on as incarnation {incarnations.name(told['incarnation'])}, with this host alone")
    if told["lost_members"]:
        print("do not recover any other host: each would be a cluster of its own, and refuse this one")
    for node in told["lost_members"]:
        print(f"  {node} has to join again: abi cluster leave --force; abi cluster join, with a token of this host")
    return exits.OK


def _seconds(said: str) -> float:
    """30m, 12h, 7d. Raises UsageError."""
    try:
        return float(said[:-1]) * UNITS[said[-1:]]
    except (ValueError, KeyError):
        raise UsageError(f"--valid {said}: a number and s, m, h or d, such as 12h") from None
