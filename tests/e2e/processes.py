"""Real processes for the end-to-end tests: output captured, every wait bounded, stopped by pid."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
# Below Linux's ephemeral range, so that no outgoing connection takes a port while its server is down for a restart.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> tuple[int, ...]:
    """Find `count` different TCP ports that are free on 127.0.0.1."""
    held: list[socket.socket] = []
    try:
        for port in random.sample(PORTS, k=500):
            if len(held) == count:
                break
            candidate = socket.socket()
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                candidate.close()
            else:
                held.append(candidate)
        assert len(held) == count, f"no {count} free ports on 127.0.0.1 in {PORTS}"
        return tuple(candidate.getsockname()[1] for candidate in held)
    finally:
        for candidate in held:
            candidate.close()


def free_port() -> int:
    """Find a TCP port that is free on 127.0.0.1."""
    return free_ports(1)[0]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what Dapr, Functions or a proxy would read from it, plus `extra`."""
    ours = re.compile(r"(DAPR|APP|FUNCTIONS|AZURE|PYTHON_|KUBE|NAMESPACE$|.*_PROXY$)", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not ours.match(name)} | dict(extra or {})


def wait_until(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """Poll until `condition` returns something true, and return that.

    Raises:
        AssertionError: it did not within `seconds`; the text says `what` was waited for.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(POLL_SECONDS)
    return found


def is_listening(port: int) -> bool:
    """Whether something accepts TCP connections on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(client: httpx.Client, path: str) -> bool:
    """Whether GET `path` is answered with a 2xx status."""
    try:
        return client.get(path, timeout=2).is_success
    except httpx.TransportError:
        return False


class Process:
    """A child process. As a context manager it is stopped at the end, whatever happens.

    Attributes:
        name: what failures call it.
        pid: its process id.
        lines: every line that it wrote to stdout or stderr so far.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start `command` in `cwd` with :func:`clean_environment` plus `env`."""
        self.name = name
        self._child = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=clean_environment(env),
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._child.pid
        self.lines: list[str] = []
        self._written = threading.Condition()
        self._reader = threading.Thread(target=self._read, name=f"{name} output", daemon=True)
        self._reader.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        for line in self._child.stdout or ():
            with self._written:
                self.lines.append(line.rstrip("\n"))
                self._written.notify_all()
        with self._written:
            self._written.notify_all()

    @property
    def output(self) -> str:
        """All that it wrote so far."""
        with self._written:
            return "\n".join(self.lines)

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal that ended it, or None while it runs."""
        return self._child.poll()

    def wait_for_output(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Wait for a line in which the regular expression `pattern` is found, past lines included; return its match.

        Raises:
            AssertionError: no such line within `seconds`, or the process ended without one.
        """
        expression, seen = re.compile(pattern), 0
        deadline = time.monotonic() + seconds
        with self._written:
            while True:
                for line in self.lines[seen:]:
                    if match := expression.search(line):
                        return match
                seen = len(self.lines)
                left = deadline - time.monotonic()
                assert left > 0, f"{self.name} did not write {pattern!r} in {seconds:.0f} s; it wrote:\n{self._tail()}"
                assert self._reader.is_alive(), f"{self.name} ended without {pattern!r}; it wrote:\n{self._tail()}"
                self._written.wait(min(left, 0.5))

    def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
        """Like :func:`wait_until`, but fail at once, with its output, when this process ends.

        Raises:
            AssertionError: `condition` did not become true in `seconds`, or the process ended.
        """

        def still() -> Any:
            assert self.returncode is None, f"{self.name} ended with {self.returncode} before {what}:\n{self._tail()}"
            return condition()

        try:
            return wait_until(still, f"{self.name}: {what}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the last lines of {self.name}:\n{self._tail()}") from None

    def _tail(self) -> str:
        return "\n".join(deque(self.lines, maxlen=30))

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until it has ended and all its output is read; return its exit code.

        Raises:
            AssertionError: it still ran after `seconds`.
        """
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {seconds:.0f} s:\n{self._tail()}") from None
        self._reader.join(STOP_SECONDS)
        if self._child.stdout:
            self._child.stdout.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.returncode is None:
            self._child.send_signal(number)

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Ask it to end (SIGTERM), kill it after `seconds`, and return its exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(seconds)
        except AssertionError:
            return self.kill()

    def kill(self) -> int:
        """End it at once (SIGKILL) and return its exit code."""
        self.signal(signal.SIGKILL)
        return self.wait()
