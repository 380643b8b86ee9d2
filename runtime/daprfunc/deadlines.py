"""One time limit for many things, kept with one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """Tells what runs for longer than a limit.

    All have the same limit, so they expire in the order in which they started, and one timer for the oldest is enough.
    A timer for each would be made and cancelled for every invocation and every call, and hardly one ever fires.

    Args:
        seconds: the limit; None for none.
        expire: is given what has run for that long.
    """

    def __init__(self, seconds: float | None, expire: Callable[[T], object]) -> None:
        self._seconds = seconds
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._expiry: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, item: T) -> None:
        """Begin the time of `item`."""
        if self._seconds is None:
            return
        expiry = self._loop.time() + self._seconds
        self._expiry[item] = expiry
        if self._timer is None:
            self._timer = self._loop.call_at(expiry, self._check)

    def stop(self, item: T) -> None:
        """End the time of `item`; without effect if it has none."""
        self._expiry.pop(item, None)

    def remaining(self, item: T) -> float:
        """Return the seconds that `item` has left; the time of those that have none is over."""
        return self._expiry.get(item, 0.0) - self._loop.time()

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        for item, expiry in list(self._expiry.items()):
            if expiry > now:
                self._timer = self._loop.call_at(expiry, self._check)
                return
            del self._expiry[item]
            self._expire(item)
