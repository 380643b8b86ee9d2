"""One time limit for many tasks, kept with one timer."""

from __future__ import annotations

import asyncio


class Deadlines:
    """Cancels tasks that run for longer than a limit.

    All tasks have the same limit, so they expire in the order in which they started, and one timer for the oldest is
    enough. A timer for each would be made and cancelled for every invocation, and hardly one ever fires.

    Args:
        seconds: the limit; None for none.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._expiry: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, task: asyncio.Task[object]) -> None:
        """Begin the task's time."""
        if self._seconds is None:
            return
        expiry = self._loop.time() + self._seconds
        self._expiry[task] = expiry
        if self._timer is None:
            self._timer = self._loop.call_at(expiry, self._check)

    def stop(self, task: asyncio.Task[object]) -> None:
        """End the task's time."""
        self._expiry.pop(task, None)
        self._expired.discard(task)

    def expired(self, task: asyncio.Task[object]) -> bool:
        """Tell whether the task was cancelled because its time was over."""
        return task in self._expired

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        for task, expiry in list(self._expiry.items()):
            if expiry > now:
                self._timer = self._loop.call_at(expiry, self._check)
                return
            del self._expiry[task]
            self._expired.add(task)
            task.cancel()
