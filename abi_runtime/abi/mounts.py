"""Whether a path lies on a network file system, asked of the kernel's table of mounts.

SQLite and file locks are not to be trusted there, and a home that thirty hosts share must
not give them one identity. `/proc/self/mountinfo` names the type in words, which spares
`statfs` through ctypes and its table of magic numbers.
"""

from __future__ import annotations

import os

# Exact names; a type such as `nfs4` is its own entry. Those under `fuse.` are user-space
# clients of the same services.
NETWORK_KINDS = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "fuse.beegfs", "fuse.ceph", "fuse.glusterfs",
        "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb2",
        "smb3", "smbfs",
    }
)  # fmt: skip


def network_kind(path: str, mountinfo: str = "/proc/self/mountinfo") -> str:
    """The type of the network file system that `path` is on or would be made on; "" if local.

    A host whose table cannot be read counts as local: there is nothing better to do.
    """
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            table = file.read()
    except OSError:
        return ""
    kind = mounted_kind(os.path.realpath(path), table)
    return kind if kind in NETWORK_KINDS else ""


def mounted_kind(path: str, table: str) -> str:
    """The file system type under `path` by the longest mount point that leads to it.

    Of two mounts at one point the later hides the earlier (proc(5), mountinfo).
    """
    best, best_kind = "", ""
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = _unescape(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, best_kind = point, right.split(" ", 1)[0]
    return best_kind


def _unescape(field: str) -> str:
    """Undo the kernel's octal escapes: space, tab, newline and backslash."""
    for code, text in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, text)
    return field
