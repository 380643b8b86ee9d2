"""Sharing of reads that were asked for at the same time, without ever sharing an old one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# How long a reader waits for the read before its own to end. It only matters with a slow sidecar: reads then start this
# far apart instead of one after the other, so nobody waits for two slow reads.
HOLD_SECONDS = 0.02


class Coalescer(Generic[K, V]):
    """Lets callers share reads of the same key.

    The first reader's read starts at once. Whoever asks while a read is under way shares the next one, which starts
    when that read ends or after `hold` seconds, whichever is first. So every value was read after it was asked for,
    and a key costs one read per round trip however many ask. Keys do not wait for each other.
    """

    def __init__(self, read: Callable[[K], Awaitable[V]], *, hold: float = HOLD_SECONDS) -> None:
        self._read = read
        self._hold = hold
        self._loop = asyncio.get_running_loop()
        self._keys: dict[K, _Key[V]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self, key: K) -> asyncio.Future[V]:
        """Return a future of the value of `key`, read after this call.

        Each caller has a future of its own: cancelling it neither stops the read nor disturbs those who share it.
        """
        future: asyncio.Future[V] = self._loop.create_future()
        state = self._keys.get(key)
        if state is None:
            state = self._keys[key] = _Key()
            self._start(key, state, [future])
        else:
            if not state.waiting:
                state.timer = self._loop.call_later(self._hold, self._start_next, key, state)
            state.waiting.append(future)
        return future

    def _start(self, key: K, state: _Key[V], readers: list[asyncio.Future[V]]) -> None:
        state.reads += 1
        task = self._loop.create_task(self._run(key, state, readers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start_next(self, key: K, state: _Key[V]) -> None:
        readers = [future for future in state.waiting if not future.done()]
        state.waiting = []
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        if readers:
            self._start(key, state, readers)

    async def _run(self, key: K, state: _Key[V], readers: list[asyncio.Future[V]]) -> None:
        try:
            value = await self._read(key)
        except asyncio.CancelledError:
            for future in readers + state.waiting:
                future.cancel()
            raise
        except Exception as error:
            self._finish(key, state)
            for future in readers:
                if not future.done():
                    future.set_exception(error)
        else:
            self._finish(key, state)
            for future in readers:
                if not future.done():
                    future.set_result(value)

    def _finish(self, key: K, state: _Key[V]) -> None:
        state.reads -= 1
        if state.waiting:
            self._start_next(key, state)
        if not state.reads:
            del self._keys[key]

    async def close(self) -> None:
        """Cancel the reads that are under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Key(Generic[V]):
    """What is under way for one key."""

    __slots__ = ("reads", "timer", "waiting")

    def __init__(self) -> None:
        self.reads = 0
        self.waiting: list[asyncio.Future[V]] = []
        self.timer: asyncio.TimerHandle | None = None
