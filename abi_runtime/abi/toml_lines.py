"""Which line of a TOML text sets a key, so that an error can point at it.

tomllib keeps no positions, so this looks for the key as people write it: under its header,
dotted at the top, or as a header of its own. What is written some rarer way has no line.
"""

from __future__ import annotations

import re

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")


def place_of(file: str, text: str, section: str, key: str = "") -> str:
    """`FILE:LINE` of a section, or of a key in it; only the file if the line is not found."""
    whole = f"{section}.{key}" if key else section
    under = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]") if key else None
    at_top = re.compile(rf"\s*{re.escape(section)}\s*" + (rf"\.\s*{re.escape(key)}\b" if key else r"[=.]"))
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if opened := _HEADER.match(line):
            current = opened[1]
            here = current == whole or current.startswith(f"{whole}.")
        elif not current:
            here = at_top.match(line) is not None
        else:
            here = under is not None and current == section and under.match(line) is not None
        if here:
            return f"{file}:{number}"
    return file
