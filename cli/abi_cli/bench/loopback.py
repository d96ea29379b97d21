"""A network namespace with nothing in it but loopback, for runtimes that would listen on every interface.

What `unshare -n` (`unshare -rn` for who is not root) and `ip link set lo up` do, without needing either: unshare(2),
then SIOCSIFFLAGS of netdevice(7). Must run while the process has one thread.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWUSER = 0x10000000  # <linux/sched.h>
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913  # <linux/sockios.h>
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
IFREQ = struct.Struct("16sh22x")

BY_HAND = "unshare -rn sh -c 'ip link set lo up && abi bench --against ray'"


def enter() -> None:
    """Leave every network but loopback, this process and all it starts. Nothing to do if there is none.

    Raises PermissionError, with how to do it by hand, where the kernel refuses the namespace.
    """
    if not alone():
        _unshare()
    _bring_up()
    if not alone():
        raise PermissionError(f"the new namespace still shows {[name for _, name in socket.if_nameindex()]}")


def alone() -> bool:
    """Whether loopback is the only interface in sight."""
    return all(name == "lo" for _, name in socket.if_nameindex())


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) == 0:
        return
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        why = os.strerror(ctypes.get_errno())
        raise PermissionError(f"this kernel gives us no network namespace ({why}); where you may: {BY_HAND}")
    # user_namespaces(7): without this we would be `nobody`, and could not read our own files.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _bring_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = IFREQ.pack(b"lo", 0)
        _, flags = IFREQ.unpack(fcntl.ioctl(sock, SIOCGIFFLAGS, request))
        if not flags & IFF_UP:
            fcntl.ioctl(sock, SIOCSIFFLAGS, IFREQ.pack(b"lo", flags | IFF_UP))
