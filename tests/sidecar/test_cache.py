from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daprfunc.sidecar.cache import MAX_VALUES, Cache
from daprfunc.sidecar.coalesce import Coalescer
from tests.sidecar.test_coalesce import FOREVER, Store, turn

TTL = 10.0


class Time:
    """Stands in for the clock and the timers of the running loop; it goes on when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(loop, "call_later", self._call_later)

    def _call_later(self, delay: float, *call: Any) -> Timer:
        timer = Timer(self.now + delay, call)
        self.timers.append(timer)
        return timer

    def pass_by(self, seconds: float) -> None:
        """Let time pass and run what is due, as the loop would."""
        self.now += seconds
        due = [timer for timer in self.timers if timer.when <= self.now]
        self.timers = [timer for timer in self.timers if timer.when > self.now]
        for timer in due:
            if not timer.cancelled:
                function, *arguments = timer.call
                function(*arguments)


class Timer:
    def __init__(self, when: float, call: tuple[Any, ...]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Cached:
    """A cache in front of a coalescer in front of a store; the n-th read of a key gives ``KEY n``."""

    def __init__(self, **options: Any) -> None:
        self.store = Store()
        self.coalescer = Coalescer[str, str](self.store.read, hold=FOREVER)
        self.cache = Cache[str, str](self.coalescer.read, TTL, **options)
        self.read = self.cache.read

    @property
    def reads(self) -> int:
        return len(self.store.reads)

    async def fill(self, key: str) -> str:
        """Read a key that is not kept."""
        count = self.reads
        future = self.read(key)
        await turn()
        assert self.reads == count + 1
        self.store.end(count)
        return await future


@pytest.mark.parametrize(("age", "reads"), [(0.0, 1), (9.99, 1), (10.0, 2), (11.0, 2)])
async def test_a_value_is_given_again_until_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, age: float, reads: int
) -> None:
    time = Time(monkeypatch)
    cached = Cached()
    assert await cached.fill("a") == "a 0"
    time.now += age  # and no timer runs, as when a function blocks the loop
    again = cached.read("a")
    await turn()
    assert cached.reads == reads
    if reads == 2:
        cached.store.end(1)
    assert await again == f"a {reads - 1}"


async def test_what_is_kept_is_there_without_a_turn_of_the_loop() -> None:
    cached = Cached()
    await cached.fill("a")
    one, other = cached.read("a"), cached.read("a")
    assert one is not other
    assert (one.result(), other.result()) == ("a 0", "a 0")
    assert not other.cancel()


@pytest.mark.parametrize(("took", "later", "kept"), [(6.0, 3.9, True), (6.0, 4.0, False), (10.0, 0.0, False)])
async def test_the_time_counts_from_when_a_read_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, took: float, later: float, kept: bool
) -> None:
    time = Time(monkeypatch)
    cached = Cached()
    slow = cached.read("a")
    await turn()
    time.pass_by(took)
    cached.store.end(0)
    assert await slow == "a 0"
    assert bool(cached.cache._kept) is (took < TTL)
    time.pass_by(later)
    assert bool(cached.cache._kept) is kept
    again = cached.read("a")
    assert again.done() is kept
    again.cancel()
    await turn()


@pytest.mark.parametrize("order", [(1, 0), (0, 1)], ids=["the older one ends last", "the newer one ends last"])
async def test_of_reads_that_overlap_the_one_that_was_asked_for_last_is_kept(
    monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    time = Time(monkeypatch)
    store = Store()
    cache = Cache[str, str](lambda key: asyncio.ensure_future(store.read(key)), TTL)
    old = cache.read("a")
    time.pass_by(5)
    new = cache.read("a")
    for read in order:
        store.end(read)
        await turn()
    assert (old.result(), new.result()) == ("a 0", "a 1")
    time.pass_by(9)
    assert cache.read("a").result() == "a 1", "the old one has replaced the new one, or its timer has dropped it"


async def test_those_who_ask_together_share_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    cached = Cached()
    futures = [cached.read("a") for _ in range(10)]
    await turn()
    cached.store.end(0)
    assert await asyncio.gather(*futures) == ["a 0"] * 10
    assert cached.reads == 1
    assert cached.read("a").done()
    assert len(time.timers) == 1, "it was kept once for each of them"


async def test_one_who_leaves_keeps_nobody_from_the_value() -> None:
    cached = Cached()
    one, other = cached.read("a"), cached.read("a")
    await turn()
    one.cancel()
    cached.store.end(0)
    await other
    assert cached.read("a").result() == "a 0"


async def test_a_failure_is_not_kept() -> None:
    cached = Cached()
    future = cached.read("a")
    await turn()
    cached.store.end(0, LookupError("no such key"))
    with pytest.raises(LookupError):
        await future
    again = cached.read("a")
    await turn()
    cached.store.end(1)
    assert await again == "a 1"


async def test_a_read_that_was_cancelled_is_not_kept() -> None:
    cached = Cached()
    future = cached.read("a")
    await turn()
    cached.store.reads[0][1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert await cached.fill("a") == "a 1"


async def test_what_was_used_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    cached = Cached(most=2)
    await cached.fill("a")
    await cached.fill("b")
    assert cached.read("a").done()
    await cached.fill("c")
    assert [cached.read(key).done() for key in "ac"] == [True, True]
    assert await cached.fill("b") == "b 3"
    assert sum(not timer.cancelled for timer in time.timers) == 2, "the timers of those that went run on"


async def test_keys_of_callers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(key: int) -> int:
        return key

    time = Time(monkeypatch)
    cache = Cache[int, int](lambda key: asyncio.ensure_future(read(key)), TTL)
    await asyncio.gather(*(cache.read(key) for key in range(MAX_VALUES + 10)))
    assert len(cache._kept) == MAX_VALUES
    time.pass_by(TTL)
    assert not cache._kept, "what nobody may be given any more is still in memory"


async def test_a_value_leaves_the_memory_by_itself() -> None:
    """With the loop's own timers."""

    async def read(key: str) -> str:
        return key

    cache = Cache[str, str](lambda key: asyncio.ensure_future(read(key)), 0.05)
    await cache.read("a")
    assert cache._kept
    for _ in range(1000):
        await asyncio.sleep(0.005)
        if not cache._kept:
            break
    assert not cache._kept


async def test_nothing_is_kept_once_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    cached = Cached()
    await cached.fill("a")
    late = cached.read("b")
    await turn()
    cached.store.end(1)
    cached.cache.close()
    assert await late == "b 1", "who asked before is answered"
    assert not cached.cache._kept
    assert all(timer.cancelled for timer in time.timers)
    await cached.coalescer.close(RuntimeError("closed"))
    for key in "ab":
        with pytest.raises(RuntimeError, match="closed"):
            await cached.read(key)
