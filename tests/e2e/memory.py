"""What a process holds: memory and open files."""

from __future__ import annotations

import re
from pathlib import Path

MIB = 2**20


def resident(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    match = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match, f"process {pid} has no VmRSS: it has ended"
    return int(match[1]) * 1024


def open_files(pid: int) -> int:
    """How many files, sockets included, a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
