"""Starts an app anew when a file of it changes, for development: what ``daprfunc start --reload`` does.

The app runs in a process of its own, since Python cannot take back all that an import did.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeAlias

POLL_SECONDS = 0.25

# Not every JSON file: an app may write some of its own.
_NAMES = frozenset({"function.json", "host.json", "local.settings.json", "secrets.json"})
_SUFFIXES = (".py", ".yaml", ".yml")

# Of prctl(2).
_PR_SET_PDEATHSIG = 1

_Marks: TypeAlias = Mapping[str, tuple[int, int]]


class Reloader:
    """Keeps a process running, and replaces it when files change.

    SIGTERM and SIGINT are passed on to it, and end this as they end it.

    Args:
        command: starts the process.
        directories: where to look for Python files, component files, function.json, host.json, local.settings.json and
            secrets.json; at any depth, but not in hidden directories nor in virtual environments.
        say: takes one line at a time, for the user.
    """

    def __init__(self, command: Sequence[str], directories: Sequence[Path], say: Callable[[str], None]) -> None:
        self._command = command
        self._directories = directories
        self._say = say
        self._signals: list[int] = []
        self._stopping = False

    def run(self) -> int:
        """Return the process's exit status once it has ended because it was told to."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        while True:
            code = self._run_once()
            if self._stopping:
                return _exit_status(code)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._signals.append(number)

    def _run_once(self) -> int:
        """Run the process until a file has changed or a signal came, and it has ended; returns its exit code."""
        marks = self._marks()
        # In a session of its own: Ctrl-C would reach it twice, and the second one ends it at once.
        process = subprocess.Popen(  # noqa: S603 (it is this program)
            self._command,
            start_new_session=True,
            preexec_fn=_ends_with_its_parent(),  # noqa: PLW1509 (there is one thread)
        )
        changed, told = None, False
        while (code := self._poll(process)) is None or not (changed or self._stopping):
            if not (changed or self._stopping) and (changed := self._changed(marks)):
                self._say(f"{changed} changed: starting the app anew")
                process.terminate()
            elif code is not None and not told:
                told = True
                self._say(f"the app ended with exit status {_exit_status(code)}: it starts anew when a file changes")
            time.sleep(POLL_SECONDS)
        return code

    def _poll(self, process: subprocess.Popen[bytes]) -> int | None:
        while self._signals:
            process.send_signal(self._signals.pop(0))
        return process.poll()

    def _changed(self, marks: _Marks) -> str | None:
        now = self._marks()
        return min((file for file, _ in now.items() ^ marks.items()), default=None)

    def _marks(self) -> _Marks:
        return {file: mark for directory in self._directories for file, mark in _marks(str(directory))}


def _marks(directory: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each file to look at, and what tells one content of it from another."""
    for path, directories, files in os.walk(directory):
        if "pyvenv.cfg" in files:
            directories.clear()
            continue
        directories[:] = [name for name in directories if not name.startswith((".", "__pycache__"))]
        for name in files:
            if name in _NAMES or name.endswith(_SUFFIXES):
                file = os.path.join(path, name)  # noqa: PTH118 (thousands of them, four times a second)
                try:
                    status = os.stat(file)  # noqa: PTH116
                except OSError:
                    continue  # An editor has just replaced it: the next look will find what is there.
                yield file, (status.st_mtime_ns, status.st_size)


def _ends_with_its_parent() -> Callable[[], object] | None:
    """What a new process calls so that it is sent SIGTERM when its parent is gone, however that ended. Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _exit_status(code: int) -> int:
    """Return what a shell makes of an exit code, which is negative where a signal ended the process."""
    return code if code >= 0 else 128 - code
