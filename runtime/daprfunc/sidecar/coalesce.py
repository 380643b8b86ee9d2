"""Sharing of reads that were asked for at the same time, without ever sharing an old one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# How long a reader waits for the read before its own to end. It only matters with a slow sidecar: reads then start this
# far apart instead of one after the other, so nobody waits for two slow reads.
HOLD_SECONDS = 0.02


class Coalescer(Generic[K, V]):
    """Lets callers share reads of the same key.

    The first reader's read starts when the loop has run what is ready; all that ask before it has begun share it.
    Whoever asks while a read is under way shares the next one, which starts when that read ends or after `hold`
    seconds, whichever is first. So every value was read after it was asked for, and a key costs one read per round
    trip however many ask. Keys do not wait for each other.

    Args:
        read: begins to read a key; what it returns is made a future of, unless it is one.
        take: makes the value of a read that has ended, or raises what its readers get instead.
        begun: called when all reads have begun that were asked for in one turn of the loop.
        hold: see above.
    """

    def __init__(
        self,
        read: Callable[[K], Awaitable[Any]],
        take: Callable[[K, asyncio.Future[Any]], V] = lambda _, ended: ended.result(),
        *,
        begun: Callable[[], None] = lambda: None,
        hold: float = HOLD_SECONDS,
    ) -> None:
        self._read = read
        self._take = take
        self._begun = begun
        self._hold = hold
        self._loop = asyncio.get_running_loop()
        self._keys: dict[K, _Key[V]] = {}
        self._unbegun: list[tuple[K, _Key[V], list[asyncio.Future[V]]]] = []
        self._reads: dict[asyncio.Future[Any], tuple[K, _Key[V], list[asyncio.Future[V]]]] = {}
        self._closed: Exception | None = None

    def read(self, key: K) -> asyncio.Future[V]:
        """Return a future of the value of `key`, read after this call.

        Each caller has a future of its own: cancelling it neither stops the read nor disturbs those who share it.
        """
        future: asyncio.Future[V] = self._loop.create_future()
        state = self._keys.get(key)
        if self._closed is not None:
            future.set_exception(self._closed)
        elif state is None:
            state = self._keys[key] = _Key()
            self._start(key, state, [future])
        elif state.unbegun is not None:
            state.unbegun.append(future)
        else:
            if not state.waiting:
                state.timer = self._loop.call_later(self._hold, self._start_next, key, state)
            state.waiting.append(future)
        return future

    def _start(self, key: K, state: _Key[V], readers: list[asyncio.Future[V]]) -> None:
        state.reads += 1
        state.unbegun = readers
        if not self._unbegun:
            self._loop.call_soon(self._begin)
        self._unbegun.append((key, state, readers))

    def _begin(self) -> None:
        unbegun, self._unbegun = self._unbegun, []
        for key, state, readers in unbegun:
            state.unbegun = None
            if _nobody_waits(readers):
                self._finish(key, state)
                continue
            read = asyncio.ensure_future(self._read(key))
            self._reads[read] = key, state, readers
            read.add_done_callback(self._ended)
        self._begun()

    def _ended(self, read: asyncio.Future[Any]) -> None:
        key, state, readers = self._reads.pop(read)
        self._finish(key, state)
        if read.cancelled():
            for future in readers:
                future.cancel()
            return
        try:
            value = self._take(key, read)
        except Exception as error:
            _fail(readers, error)
        else:
            for future in readers:
                if not future.done():
                    future.set_result(value)

    def _start_next(self, key: K, state: _Key[V]) -> None:
        readers, state.waiting = state.waiting, []
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        if not _nobody_waits(readers):
            self._start(key, state, readers)

    def _finish(self, key: K, state: _Key[V]) -> None:
        state.reads -= 1
        if state.waiting:
            self._start_next(key, state)
        if not state.reads:
            self._keys.pop(key, None)

    async def idle(self) -> None:
        """Wait until no read is under way."""
        while self._keys:
            await (asyncio.wait(list(self._reads)) if self._reads else asyncio.sleep(0))

    async def close(self, reason: Exception) -> None:
        """Stop the reads under way; they and all later ones fail with `reason`."""
        self._closed = reason
        for state in self._keys.values():
            if state.timer is not None:
                state.timer.cancel()
            _fail(state.waiting, reason)
            _fail(state.unbegun or (), reason)
            state.waiting = []
        reads = list(self._reads)
        for read in reads:
            _fail(self._reads[read][2], reason)
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        await self.idle()


def _nobody_waits(readers: Iterable[asyncio.Future[V]]) -> bool:
    for future in readers:  # noqa: SIM110 (a third of the time of all())
        if not future.done():
            return False
    return True


def _fail(readers: Iterable[asyncio.Future[V]], error: Exception) -> None:
    for future in readers:
        if not future.done():
            future.set_exception(error)


class _Key(Generic[V]):
    """What is under way for one key."""

    __slots__ = ("reads", "timer", "unbegun", "waiting")

    def __init__(self) -> None:
        self.reads = 0
        # The readers of a read that has not begun yet: it will begin after whatever is asked now.
        self.unbegun: list[asyncio.Future[V]] | None = None
        self.waiting: list[asyncio.Future[V]] = []
        self.timer: asyncio.TimerHandle | None = None
