"""Runs the examples as a user would, without Dapr: starts each, invokes it over HTTP and gRPC, stops it.

``make demo`` runs this. It ends with exit status 0 if everything it shows was as it should be.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
SECONDS = 30
DAPRFUNC = (sys.executable, "-m", "daprfunc")
CALLS = (("http", "HTTP"), ("grpc", "gRPC"))


class DemoError(Exception):
    """Something was not as it should be; the text says what."""


def main() -> int:
    try:
        for name in ("retrieve-secret-v2", "retrieve-secret-v1"):
            demonstrate(HERE / name)
    except DemoError as error:
        say(f"FAILED: {error}")
        return 1
    say("All of it worked.")
    return 0


def demonstrate(app: Path) -> None:
    """Start one example, invoke it over both protocols, and stop it."""
    arguments = ("start", "--resources-path", "components", "--app-port", "0")
    say(f"In {app.relative_to(HERE.parent)}/, a Python {app.name[-2:]} app, with its secrets in secrets.json:")
    show("chmod 600 secrets.json")
    with contextlib.suppress(OSError):  # Some file systems have no modes; what follows works without.
        # Git does not keep this: in a fresh clone every user of the machine can read the file.
        (app / "secrets.json").chmod(0o600)
    show(f"daprfunc {shlex.join(arguments)}")
    process = subprocess.Popen([*DAPRFUNC, *arguments], cwd=app, stderr=subprocess.PIPE, text=True)
    # Whatever goes wrong, this ends: the log does when its process does.
    limit = threading.Timer(2 * SECONDS, process.kill)
    limit.start()
    try:
        log = lines_of(process.stderr)
        port = expect(log, r"ready: .*:(\d+) ")[1]
        for protocol, name in CALLS:
            say(f"Invoke it over {name}; first its reply, then the line that the function logged:")
            invoke(app, protocol, port)
            expect(log, r"my-secret.*abcd")
        say("Stop it with SIGTERM:")
        process.send_signal(signal.SIGTERM)
        for line in log:
            show_output(line)
        status = process.wait()
    finally:
        limit.cancel()
        process.kill()
        process.wait()
    if status != 0:
        raise DemoError(f"it ended with exit status {status}")
    say("It ended with exit status 0.\n")


def invoke(app: Path, protocol: str, port: str) -> None:
    arguments = ("invoke", "RetrieveSecret", "--data", "{}", "--app-protocol", protocol, "--app-port", port)
    show(f"daprfunc {shlex.join(arguments)}")
    command = (*DAPRFUNC, *arguments, "--timeout", str(SECONDS))
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, check=False)
    for line in (done.stderr + done.stdout).splitlines():
        show_output(line)
    if done.returncode != 0 or done.stdout.strip() != '["my-secret"]':
        raise DemoError(f"the reply over {protocol} was not the secret's key")


def lines_of(stream: IO[str] | None) -> Iterator[str]:
    for line in stream or ():
        yield line.rstrip("\n")


def expect(log: Iterator[str], pattern: str) -> re.Match[str]:
    """Show the log up to the line in which `pattern` is found."""
    for line in log:
        show_output(line)
        if match := re.search(pattern, line):
            return match
    raise DemoError(f"the app ended before it logged {pattern!r}")


def say(text: str) -> None:
    print(text, flush=True)


def show(command: str) -> None:
    say(f"  $ {command}")


def show_output(line: str) -> None:
    say(f"    {line}")


if __name__ == "__main__":
    sys.exit(main())
