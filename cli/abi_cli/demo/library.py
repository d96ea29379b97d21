"""The input: every .py file of the running Python's standard library, its tests among them."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass

# What is installed beside the standard library is not of it.
NOT_OURS = frozenset({"site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True)
class Library:
    """`paths` are absolute, the largest file first: a large one at the very end would keep one core waiting."""

    root: str
    paths: tuple[str, ...]
    size_bytes: int

    def short(self, path: str) -> str:
        """A path as it is shown: below the root."""
        return os.path.relpath(path, self.root)


def find(limit: int | None = None, root: str | None = None) -> Library:
    """The library, or its first `limit` files by name.

    Reads every file once, so that the page cache favours nobody afterwards.
    """
    root = root or sysconfig.get_path("stdlib")
    paths = sorted(
        os.path.join(directory, name)
        for directory, below, names in os.walk(root)
        for name in _python_files(below, names)
    )[:limit]
    sizes = {path: _read(path) for path in paths}
    return Library(root, tuple(sorted(paths, key=lambda path: (-sizes[path], path))), sum(sizes.values()))


def _python_files(below: list[str], names: list[str]) -> list[str]:
    below[:] = [name for name in below if name not in NOT_OURS]
    return [name for name in names if name.endswith(".py")]


def _read(path: str) -> int:
    with open(path, "rb") as file:
        return len(file.read())
