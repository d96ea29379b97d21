"""Where the socket and the state of a daemon lie: the one place that knows the rules.

Socket: `ABI_SOCKET` > `ABI_RUNTIME_DIR` > `XDG_RUNTIME_DIR/abi` > `/tmp/abi-UID` > the
system socket. A daemon binds the first that applies; a client tries them in order, unless
an `ABI_*` variable names one, for then it wants that one and no other.

Two things are checked because somebody else can write into `/tmp`: a directory we put a
socket in, or trust one from, is a real directory (no symbolic link) and is ours. An
`XDG_RUNTIME_DIR` left over from `su` belongs to another user, so it does not apply.

Paths are plain strings and nothing but the standard library is imported: `abi status`
must start quickly.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from abi.errors import ConfigError, Denied
from abi.mounts import network_kind

SOCKET_NAME = "abid.sock"
SYSTEM_RUNTIME_DIR = "/run/abi"
SYSTEM_STATE_DIR = "/var/lib/abi"
SYSTEM_SOCKET = f"{SYSTEM_RUNTIME_DIR}/{SOCKET_NAME}"
_MACHINE_ID_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_LOCAL_BASES = ("/var/tmp", "/tmp")


def socket_path(environ: Mapping[str, str] | None = None, *, system: bool = False) -> str:
    """The socket that a daemon binds; always absolute. Creates nothing."""
    if system:
        return SYSTEM_SOCKET
    return candidates(environ)[0]


def runtime_dir(environ: Mapping[str, str] | None = None, *, system: bool = False) -> str:
    """The directory of the socket a daemon binds, created 0700 and found to be ours.

    Raises `Denied` if it is a symbolic link or another user's, `ConfigError` if it cannot
    be made.
    """
    environ = os.environ if environ is None else environ
    directory = os.path.dirname(socket_path(environ, system=system))
    if system:
        _make_private(directory, mode=0o750)
    elif environ.get("ABI_SOCKET"):
        # Its directory may be anybody's idea (a home, /tmp): never change the mode of what
        # was there, only refuse it.
        _make_private(directory, tighten=False)
    else:
        _make_private(directory)
    return directory


def candidates(environ: Mapping[str, str] | None = None) -> list[str]:
    """The sockets a client tries, best first; never empty. Creates and checks nothing."""
    environ = os.environ if environ is None else environ
    if named := environ.get("ABI_SOCKET"):
        return [os.path.abspath(named)]
    if named := environ.get("ABI_RUNTIME_DIR"):
        return [os.path.join(os.path.abspath(named), SOCKET_NAME)]
    found: list[str] = []
    xdg = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(xdg) and _is_our_directory(xdg):
        found.append(os.path.join(xdg, "abi", SOCKET_NAME))
    found.append(f"/tmp/abi-{os.getuid()}/{SOCKET_NAME}")
    found.append(SYSTEM_SOCKET)
    return found


def check_ours(directory: str) -> None:
    """Raise `Denied` if `directory` is a symbolic link, no directory, or another user's.

    What is missing raises FileNotFoundError.
    """
    found = os.lstat(directory)
    if stat.S_ISLNK(found.st_mode):
        raise Denied(
            f"{directory} is a symbolic link, so somebody else may choose where it leads",
            hint="remove it, or set ABI_RUNTIME_DIR to a directory of your own",
        )
    if not stat.S_ISDIR(found.st_mode):
        raise Denied(f"{directory} is not a directory", hint="remove it")
    if found.st_uid != os.getuid():
        raise Denied(
            f"{directory} belongs to uid {found.st_uid}, not to you (uid {os.getuid()})",
            hint="set ABI_RUNTIME_DIR to a directory of your own",
        )


def state_dir(environ: Mapping[str, str] | None = None, *, system: bool = False) -> tuple[str, str]:
    """The directory for the daemon's state, created 0700 and ours, and a sentence.

    The sentence is "" where the directory is the one that the rules name first, and else
    says which one was taken and why. Raises `ConfigError` if `ABI_STATE_DIR` cannot be
    made, `Denied` if a directory is a link or another user's.
    """
    environ = os.environ if environ is None else environ
    wanted = _wanted_state_dir(environ, system)
    if wanted is None:
        return _local_state_dir("there is no home directory")
    if kind := network_kind(wanted):
        # Two daemons told apart by ABI_STATE_DIR must stay apart in the local directory.
        apart = _digest(wanted) if environ.get("ABI_STATE_DIR") else ""
        return _local_state_dir(f"{wanted} is on a network file system ({kind})", apart)
    try:
        _make_private(wanted)
    except ConfigError as problem:
        if system or environ.get("ABI_STATE_DIR"):
            raise
        return _local_state_dir(problem.message)
    return wanted, ""


def machine_id() -> str:
    """What names this host among those that share a home: its machine id, else its name."""
    for name in _MACHINE_ID_FILES:
        try:
            with open(name, encoding="ascii", errors="replace") as file:
                text = file.read(64).strip()
        except OSError:
            continue
        if text.isalnum() and text != "uninitialized":
            return text
    return os.uname().nodename.replace("/", "_") or "localhost"


def home(environ: Mapping[str, str] | None = None) -> str | None:
    """The home directory: `HOME`, else the password file's; None if neither is one."""
    environ = os.environ if environ is None else environ
    named = environ.get("HOME", "")
    if os.path.isabs(named):
        return named
    import pwd

    try:
        named = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container that runs as a number without a name
        return None
    return named if os.path.isdir(named) else None


def _wanted_state_dir(environ: Mapping[str, str], system: bool) -> str | None:
    if named := environ.get("ABI_STATE_DIR"):
        return os.path.abspath(named)
    if system:
        return SYSTEM_STATE_DIR
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        at_home = home(environ)
        if at_home is None:
            return None
        base = os.path.join(at_home, ".local", "state")
    return os.path.join(base, "abi", machine_id())


def _local_state_dir(why: str, apart: str = "") -> tuple[str, str]:
    """A private directory on a local disk, and the sentence that tells of it."""
    # Where every candidate is on a network file system, the first is as good as any.
    base = next((each for each in _LOCAL_BASES if not network_kind(each)), _LOCAL_BASES[0])
    private = os.path.join(base, f"abi-{os.getuid()}")
    _make_private(private)  # first, for whoever owns it owns what is below
    directory = os.path.join(private, machine_id(), apart).rstrip("/")
    _make_private(directory)
    return directory, f"{why}, so state is kept in {directory}"


def _digest(text: str) -> str:
    import zlib

    return f"{zlib.crc32(os.fsencode(text)):08x}"


def _is_our_directory(path: str) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _make_private(directory: str, *, mode: int = 0o700, tighten: bool = True) -> None:
    """Make `directory`, or accept it if it is ours; nobody else may enter it afterwards."""
    try:
        os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
        try:
            os.mkdir(directory, mode)
        except FileExistsError:
            check_ours(directory)
        _narrow(directory, mode, tighten)
    except OSError as problem:
        raise ConfigError(
            f"cannot make the directory {directory}: {problem.strerror}",
            hint="set ABI_RUNTIME_DIR and ABI_STATE_DIR to directories you can write",
        ) from None


def _narrow(directory: str, mode: int, tighten: bool) -> None:
    # Through a descriptor that follows no link: the name may change hands between the check
    # and here, a descriptor may not.
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.getuid():
            raise Denied(f"{directory} belongs to uid {found.st_uid}, not to you")
        if not stat.S_IMODE(found.st_mode) & 0o777 & ~mode:
            return
        if not tighten:
            raise Denied(
                f"others may enter {directory} (mode {stat.S_IMODE(found.st_mode):04o})",
                hint=f"chmod 700 {directory}, or put the socket into a directory of its own",
            )
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
