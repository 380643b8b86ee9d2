"""Runs the scripts that measure one part by itself, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable

from fleet import sidecar
from prepare import HERE, Toolbox
from processes import ProcessError

PROFILES = ("hops", "http2_library", "sidecar_channel", "sidecar_alone")
# Those that call a daprd.
_WITH_DAPRD = ("sidecar_channel", "sidecar_alone")
_LIMIT_SECONDS = 120


def measure_profiles(tools: Toolbox, names: Iterable[str]) -> dict[str, dict[str, list[float]]]:
    """Script -> row -> microseconds, one number per round.

    Raises:
        ProcessError: a script failed.
    """
    return {name: _run(tools, name) for name in names}


def _run(tools: Toolbox, name: str) -> dict[str, list[float]]:
    print(f"bench: {name}", file=sys.stderr, flush=True)
    command = [sys.executable, str(HERE / f"{name}.py"), "--json"]
    with contextlib.ExitStack() as stack:
        if name in _WITH_DAPRD:
            command.insert(2, str(stack.enter_context(sidecar(tools, name)).grpc_port))
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS)
    if finished.returncode:
        raise ProcessError(f"{name}.py: {finished.stderr.strip()[-500:]}")
    found: dict[str, list[float]] = json.loads(finished.stdout)
    return found
