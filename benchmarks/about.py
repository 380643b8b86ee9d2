"""On what a run ran: the machine and every version."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from prepare import GENERATORS, HERE, ROOT, Toolbox

_PACKAGES = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
_OURS = ("daprfunc", "azure-functions", "grpcio", "protobuf", "jh2", "httptools", "uvloop", "msgspec")
_PEERS = ("dapr", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "grpcio", "protobuf")


def about(tools: Toolbox, **settings: object) -> dict[str, object]:
    """Names and values, for a reader and for the JSON."""
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "ours": _versions(tools.ours, _OURS),
        "peers": _versions(tools.peers, _PEERS),
        "go peer": {"go": _output("go", "env", "GOVERSION"), **_go_modules()},
        "daprd": _output(str(tools.daprd), "--version"),
        "load": {name: module.rpartition("@")[2] for name, module in GENERATORS.items()},
        "settings": settings,
    }


def _versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    installed = {name.lower().replace("_", "-"): version for name, version in _installed(python).items()}
    return {name: installed[name] for name in names if name in installed}


def _installed(python: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(_output(str(python), "-c", _PACKAGES))
    return found


def _go_modules() -> dict[str, str]:
    lines = (line.split() for line in (HERE / "go" / "go.mod").read_text().splitlines() if line.startswith("\t"))
    return {words[0]: words[1] for words in lines if "indirect" not in words}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return "unknown"
