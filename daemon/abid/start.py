"""From a command line to a running daemon, in the order that makes each step safe, and the longest step first.

1. directories and locks, before anything is changed that a living daemon uses;
2. into the background, if asked, keeping the locks;
3. the estate lock: the processes of a daemon that was killed are gone before anything runs again;
4. the zygote, which loads while this process loads the rest of itself, and goes when this process goes;
5. the configuration, so that a mistake in it is said before anything is served;
6. identity and incarnation on disk, then the socket, then the word that we are ready.

Until the zygote is started nothing is imported that can wait: a first result from nothing waits for it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from abi import exits, paths
from abi.errors import AbiError
from abi.interpreter import described
from abid import lock

ASK_S = 2.0
"""What the daemon that runs already may take to greet us."""


def run(arguments: argparse.Namespace) -> int:
    """The whole life of a daemon; its exit code. Raises AbiError for what is wrong before it is ready."""
    _open_standard_streams()
    _disown_descriptors(arguments.ready_fd, close=arguments.detach)
    if arguments.config is not None:  # it is read again at a reload, and we leave this directory
        arguments.config = os.path.abspath(arguments.config)
    runtime_dir = Path(paths.runtime_dir(system=arguments.system))
    state_dir, remark = paths.state_dir(system=arguments.system)
    lock_fds = [_take_lock(runtime_dir, system=arguments.system), lock.take_state(Path(state_dir))]
    ready_fd = arguments.ready_fd
    if arguments.detach:
        ready_fd = _into_background(lock_fds, runtime_dir)
    try:
        return _run(arguments, runtime_dir, Path(state_dir), remark, ready_fd)
    except AbiError as error:
        _tell(ready_fd, f"{error.message}\t{error.hint}\t{error.code}")
        raise
    except OSError as error:  # a full disk, a place that is taken: a fact of this machine and no fault of ours
        problem = AbiError(f"cannot start: {error}")
        _tell(ready_fd, f"{problem.message}\t\t")
        raise problem from None


def _take_lock(runtime_dir: Path, *, system: bool) -> int:
    """``lock.take``, which cannot know that the one that runs is about to go. Raises AlreadyRunning."""
    try:
        return lock.take(runtime_dir)
    except lock.AlreadyRunning as error:
        drain_s = _drain_s(paths.socket_path(system=system))
        if drain_s is None:
            raise
        raise lock.AlreadyRunning(
            f"{error.message}, and is stopping (it waits for running work, at most {drain_s:g} s)",
            hint="try again then, or `abid stop --now`",
        ) from None


def _drain_s(socket_path: str) -> float | None:
    """How long the daemon at this socket may go on when it is stopping; None for one that is not, or does not say."""
    from abi.control import connect

    try:
        with connect(ASK_S, [socket_path]) as control:
            if control.request("status")["state"] != "draining":
                return None
            return float(control.request("config")["values"]["daemon.drain_timeout_ms"]["value"]) / 1000
    except (AbiError, OSError, KeyError):
        return None


def _run(arguments: argparse.Namespace, runtime_dir: Path, state_dir: Path, remark: str, ready_fd: int) -> int:
    from abid.zygote_process import ZygoteProcess

    _raise_descriptor_limit()
    estate_fd = lock.take_estate(runtime_dir)
    interpreter = described()
    first = ZygoteProcess(*interpreter, str(runtime_dir), estate_fd)

    from abi.config import load

    flags = {} if arguments.cpus is None else {"workers.cpus": arguments.cpus}
    config = load(arguments.config, flags=flags, system=arguments.system)

    import logging

    from abid import logs

    logs.configure(config.text("daemon.log_level"), config.text("daemon.log_format"))
    if remark:
        logging.getLogger(__name__).warning("%s", remark)
    os.chdir("/")

    from abi.processes import become_subreaper
    from abi.wire.schema import Interpreter
    from abid.daemon import Daemon

    become_subreaper()
    daemon = Daemon(arguments, config, flags, runtime_dir, state_dir)
    code = daemon.run(Interpreter(*interpreter), first, estate_fd, lambda: _tell(ready_fd, "ready"))
    if arguments.private:
        _remove_private(runtime_dir)
    return code


def _remove_private(runtime_dir: Path) -> None:
    """The directory was made for this daemon alone, by a program that may be gone."""
    import shutil

    shutil.rmtree(runtime_dir, ignore_errors=True)


def _open_standard_streams() -> None:
    """A service may be started with 0, 1 and 2 closed; then whatever is opened first would be taken for one of them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - for life
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _disown_descriptors(ready_fd: int, *, close: bool) -> None:
    """What our starter had open is neither ours nor for those we start: a lock or a pipe of a script, held for as long
    as a daemon lives, would hold up whoever waits for its end."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2:
            try:
                if close and fd != ready_fd:
                    os.close(fd)
                else:
                    os.set_inheritable(fd, False)
            except OSError:
                continue  # the descriptor that listed the directory


def _raise_descriptor_limit() -> None:
    """Each worker takes five descriptors and each large object one, so take what the host allows."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _into_background(lock_fds: list[int], runtime_dir: Path) -> int:
    """Become a daemon. The parent waits until the child is ready, or says why not, and exits; the child goes on.

    Returns the descriptor on which the child is to say that it is ready.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(write_fd)
        os._exit(_wait_for_child(read_fd, pid, runtime_dir))
    os.close(read_fd)
    os.setsid()
    for fd in lock_fds:
        lock.rename_owner(fd)
    null = os.open(os.devnull, os.O_RDWR)
    log_fd = os.open(
        runtime_dir / "abid.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(log_fd, 2)
    os.close(null)
    os.close(log_fd)
    return write_fd


def _wait_for_child(read_fd: int, pid: int, runtime_dir: Path) -> int:
    """What the foreground says and exits with."""
    with open(read_fd, encoding="utf-8") as pipe:
        words = pipe.readline().strip()
    if words == "ready":
        print(f"abid runs: pid {pid}, in {runtime_dir}")
        sys.stdout.flush()
        return 0
    message, _, rest = words.partition("\t")
    hint, _, code = rest.partition("\t")
    print(f"abid: {message or f'it ended before it was ready; see {runtime_dir}/abid.log'}", file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)
    sys.stderr.flush()
    return exits.of_code(code)


def _tell(ready_fd: int, words: str) -> None:
    if ready_fd < 0:
        return
    try:
        os.write(ready_fd, words.replace("\n", " ").encode() + b"\n")
        os.close(ready_fd)
    except OSError:
        return  # whoever asked is gone; that is no reason not to run
