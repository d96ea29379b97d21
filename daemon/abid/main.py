"""The `abid` command: start, stop, status, reload, install-service.

Each imports what it needs when it is asked for: `abid status` never loads a loop.
"""

from __future__ import annotations

import argparse
import sys

from abi import exits
from abi.errors import AbiError, DaemonUnreachable


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except AbiError as error:
        print(f"abid: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return exits.of_error(error)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="abid", description="The abi daemon: runs tasks and commands on this host.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")

    start = add("start", "run the daemon, in the foreground unless -d is given")
    start.add_argument("-c", "--config", metavar="FILE", help="configuration file (default: `abi config show` says)")
    start.add_argument("-d", "--detach", action="store_true", help="into the background; returns when it is ready")
    start.add_argument("--cpus", type=float, help="processors to give out (default: all that this process may use)")
    start.add_argument("--system", action="store_true", help="use /etc/abi, /run/abi and /var/lib/abi")
    start.add_argument("--private", action="store_true", help=argparse.SUPPRESS)
    start.add_argument("--owner", type=int, default=0, help=argparse.SUPPRESS)
    start.add_argument("--ready-fd", type=int, default=-1, help=argparse.SUPPRESS)
    start.epilog = (
        "SIGTERM or Ctrl-C lets running work finish, and a second one ends it at once. So does closing the terminal of"
        " a daemon in its foreground (SIGHUP), except under nohup; any other SIGHUP reads the configuration again."
    )
    start.set_defaults(run=_start)
    stop = add("stop", "let running work finish, then end the daemon")
    stop.add_argument("--now", action="store_true", help="do not wait for running work")
    stop.set_defaults(run=_stop)
    status = add("status", "say whether a daemon runs, and how busy it is")
    status.add_argument("--json", action="store_true", help="print what `abi status --json` prints")
    status.set_defaults(run=_status)
    add("reload", "read the configuration again; a mistake in it leaves the old one in force").set_defaults(run=_reload)
    install = add("install-service", "install the systemd unit")
    install.add_argument("--user", action="store_true", help="for the current user instead of the system")
    install.set_defaults(run=_install_service)
    return parser


def _start(arguments: argparse.Namespace) -> int:
    from abid.start import run

    return run(arguments)


def _stop(arguments: argparse.Namespace) -> int:
    """Returns when the daemon is gone, so that a start may follow."""
    import os
    import select

    from abi.control import connect

    with connect() as control:
        pid = control.request("ping")["pid"]
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return 0
        control.request("stop", now=arguments.now)
    select.select([pidfd], [], [])
    os.close(pidfd)
    print(f"abid stopped: pid {pid}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from abi.control import connect

    try:
        with connect() as control:
            status = control.request("status")
    except DaemonUnreachable as error:
        print(f"abid does not run: {error.message}")
        return exits.of_error(error)
    if arguments.json:
        import json

        print(json.dumps(status))
        return 0
    tasks = status["tasks"]
    print(f"abid {status['version']} runs: pid {status['pid']}, in {status['runtime_dir']}, {status['state']}")
    print(", ".join(f"{count} {name}" for name, count in tasks.items()))
    return 0


def _reload(arguments: argparse.Namespace) -> int:
    from abi.control import connect

    with connect() as control:
        answer = control.request("reload")
    print(f"configuration reloaded; changed: {', '.join(answer['changed']) or 'nothing'}")
    if answer["restart"]:
        print(f"changed, but only a restart makes it so: {', '.join(answer['restart'])}")
    return 0


def _install_service(arguments: argparse.Namespace) -> int:
    from abid.install import install_service

    return install_service(user=arguments.user)


if __name__ == "__main__":
    sys.exit(main())
