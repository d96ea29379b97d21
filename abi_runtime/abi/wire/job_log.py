"""A job's log on disk: records of a head, ``<BxxxIQ`` — stream (1 or 2), length, wall-clock ns — and as many bytes.

Written by the job's supervisor, read by the daemon.
"""

from __future__ import annotations

import struct
from typing import Final

HEAD: Final = struct.Struct("<BxxxIQ")
STDOUT: Final = 1
STDERR: Final = 2
