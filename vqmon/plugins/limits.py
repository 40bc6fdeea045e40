"""How much memory a plugin's process may take: a wall for sudden growth, a watch for slow.

Measured on a process with the database, PyAV, ONNX Runtime and a 720p encoder (8 threads): 330 MB
resident, 450 MB of writable private memory, 890 MB of address space. RLIMIT_AS would therefore
have to be three times what one means (and hundreds of times with CUDA, which reserves the whole
address space); RLIMIT_DATA counts writable private memory and stays near what is used. So the
wall is RLIMIT_DATA at twice the limit: a list that grows by gigabytes between two looks meets a
MemoryError. The limit itself is held by looking at what is resident.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress

WALL = 2
"""In limits."""


def limit_memory(limit: int) -> None:
    """Put up the wall for this process and those that it starts. limit: bytes resident."""
    with suppress(ValueError, OSError):  # a lower hard limit is in force already
        resource.setrlimit(resource.RLIMIT_DATA, (WALL * limit, WALL * limit))


def resident_bytes(pid: int) -> int:
    """Of another process; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError, ValueError):
        return 0
