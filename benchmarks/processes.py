"""Starts and stops child processes, and reads from /proc what they have used."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 10.0
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessError(Exception):
    """A process of the benchmark did not start, or ended too early."""


class Usage(NamedTuple):
    """What a process and its descendants have used.

    Attributes:
        cpu: user + system seconds since they started, in steps of one clock tick (10 ms on Linux).
        rss: resident bytes now.
    """

    cpu: float
    rss: int


@dataclass(frozen=True, slots=True)
class Process:
    """A running child in a process group of its own; leaving its context stops the group."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls, name: str, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path | None = None
    ) -> Process:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env={**environment(), **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(name, child, log)

    def usage(self) -> Usage:
        """Of every process in the group, those that it has already waited for included."""
        members = [fields for fields in map(_stat, Path("/proc").glob("[0-9]*")) if _group(fields) == self.child.pid]
        if not members:
            raise self.ended()
        ticks = sum(int(field) for fields in members for field in fields[11:15])
        return Usage(ticks * _TICK, sum(int(fields[21]) for fields in members) * _PAGE)

    def ended(self) -> ProcessError:
        tail = self.log.read_text(errors="replace").splitlines()[-15:]
        return ProcessError(
            "\n".join([f"{self.name} ended with {self.child.poll()}; see {self.log}, which ends:", *tail])
        )

    def check(self) -> None:
        """Raises ProcessError if the process is gone."""
        if self.child.poll() is not None:
            raise self.ended()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is left of the group after STOP_SECONDS."""
        self.child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def environment() -> dict[str, str]:
    """This process's, but Python keeps bytecode, as it does for an app that is installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def free_ports(count: int) -> list[int]:
    """Ports that nothing listened on a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for_port(port: int, process: Process, seconds: float = 60.0) -> None:
    """Returns at the first accepted connection; looks every millisecond."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.check()
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        time.sleep(0.001)
    raise ProcessError(f"{process.name} did not open port {port} in {seconds:.0f} s; see {process.log}")


def machine_busy() -> float:
    """CPU seconds that the whole machine has spent working since it started."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) * _TICK


def _stat(directory: Path) -> list[str]:
    """The fields of /proc/PID/stat after the command's name; none if the process has gone. See proc(5)."""
    try:
        return (directory / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _group(fields: list[str]) -> int:
    return int(fields[2]) if fields else 0
