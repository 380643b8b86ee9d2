"""Keeping of values for as long as the user allows, which by default is not at all."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# A key may be taken from callers' data: only so many values are kept.
MAX_VALUES = 1024


class Cache(Generic[K, V]):
    """Gives what was read again, until `ttl` seconds after it was asked for.

    No read begins before it is asked for, so no value that is given is older than `ttl`, however long its read took.
    Failures and reads that were cancelled are not kept. Values leave the memory when their time is over, and those that
    were used longest ago when there are too many.

    Args:
        read: returns a future of the value of a key, read after the call; each caller has a future of its own.
        ttl: seconds.
        most: how many values are kept.
    """

    def __init__(self, read: Callable[[K], asyncio.Future[V]], ttl: float, *, most: int = MAX_VALUES) -> None:
        self._read = read
        self._ttl = ttl
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._kept: OrderedDict[K, _Kept[V]] = OrderedDict()
        self._closed = False

    def read(self, key: K) -> asyncio.Future[V]:
        """Return a future of the value of `key`, which is there already if the value is kept."""
        now = self._loop.time()
        kept = self._kept.get(key)
        # Its timer is late where a function blocks the loop.
        if kept is None or now >= kept.asked + self._ttl:
            future = self._read(key)
            future.add_done_callback(partial(self._ended, key, now))
            return future
        self._kept.move_to_end(key)
        future = self._loop.create_future()
        future.set_result(kept.value)
        return future

    def _ended(self, key: K, asked: float, read: asyncio.Future[V]) -> None:
        if self._closed or read.cancelled() or read.exception() is not None:
            return
        value = read.result()
        left = asked + self._ttl - self._loop.time()
        kept = self._kept.get(key)
        # Those who shared a read bring the same value again, and a slow read an older one than is kept.
        if left <= 0 or (kept is not None and (kept.value is value or kept.asked > asked)):
            return
        self._drop(key)
        if len(self._kept) >= self._most:
            self._drop(next(iter(self._kept)))
        self._kept[key] = _Kept(value, asked, self._loop.call_later(left, self._drop, key))

    def _drop(self, key: K) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            kept.timer.cancel()

    def close(self) -> None:
        """Keep nothing, from now on."""
        self._closed = True
        for key in list(self._kept):
            self._drop(key)


class _Kept(Generic[V]):
    """A value, when the reader asked whose read it came from, and what will drop it."""

    __slots__ = ("asked", "timer", "value")

    def __init__(self, value: V, asked: float, timer: asyncio.TimerHandle) -> None:
        self.value = value
        self.asked = asked
        self.timer = timer
