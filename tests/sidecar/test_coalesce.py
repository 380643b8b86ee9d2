from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daprfunc.sidecar.coalesce import Coalescer

FOREVER = 3600.0


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


@dataclass
class Store:
    """Reads that end when a test says so. The n-th read of a key gives ``KEY n``."""

    reads: list[tuple[str, asyncio.Future[str]]] = field(default_factory=list)
    most: int = 0

    def read(self, key: str) -> Awaitable[str]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.reads.append((key, future))
        self.most = max(self.most, sum(not future.done() for _, future in self.reads))
        return future

    def end(self, index: int, error: Exception | None = None) -> None:
        key, future = self.reads[index]
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(f"{key} {index}")


async def test_a_read_begins_at_once_and_only_when_asked_for() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read)
    assert not store.reads
    future = coalescer.read("a")
    await turn()
    assert len(store.reads) == 1
    store.end(0)
    assert await future == "a 0"


async def test_nobody_gets_a_read_that_began_before_they_asked() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    first = coalescer.read("a")
    await turn()
    late = [coalescer.read("a") for _ in range(3)]
    store.end(0)
    assert await first == "a 0"
    await turn()
    assert [future.done() for future in late] == [False] * 3
    store.end(1)
    assert await asyncio.gather(*late) == ["a 1"] * 3
    assert len(store.reads) == 2


async def test_those_who_ask_before_the_read_has_begun_share_it() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    futures = [coalescer.read("a") for _ in range(10)]
    await turn()
    store.end(0)
    assert await asyncio.gather(*futures) == ["a 0"] * 10
    assert len(store.reads) == 1


async def test_tells_once_when_all_reads_of_a_turn_have_begun() -> None:
    store = Store()
    told: list[int] = []
    coalescer: Coalescer[str, str] = Coalescer(store.read, begun=lambda: told.append(len(store.reads)))
    futures = [coalescer.read(key) for key in "aab"]
    await turn()
    assert told == [2]
    store.end(0)
    store.end(1)
    await asyncio.gather(*futures)


async def test_a_key_costs_one_read_per_round_trip() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    futures = [coalescer.read("a")]
    await turn()
    for trip in range(5):
        futures += [coalescer.read("a") for _ in range(100)]
        store.end(trip)
        await turn()
    store.end(5)
    assert await asyncio.gather(*futures) == ["a 0", *(f"a {trip + 1}" for trip in range(5) for _ in range(100))]
    assert len(store.reads) == 6
    assert store.most == 1


async def test_keys_do_not_wait_for_each_other() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    slow, fast = coalescer.read("slow"), coalescer.read("fast")
    await turn()
    assert [key for key, _ in store.reads] == ["slow", "fast"]
    store.end(1)
    assert await fast == "fast 1"
    assert not slow.done()
    store.end(0)
    await slow


async def test_slow_reads_overlap_after_the_hold() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=0.01)
    first = coalescer.read("a")
    await turn()
    second, third = coalescer.read("a"), coalescer.read("a")
    while len(store.reads) < 2:
        await asyncio.sleep(0.001)
    late = coalescer.read("a")
    store.end(1)
    assert list(await asyncio.gather(second, third)) == ["a 1"] * 2
    assert not first.done(), "a slow read does not hold up those after it"
    await turn()
    store.end(2)
    assert await late == "a 2"
    store.end(0)
    assert await first == "a 0"
    assert len(store.reads) == 3


async def test_cancelling_one_reader_disturbs_no_other() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    one, other = coalescer.read("a"), coalescer.read("a")
    await turn()
    waiting, patient = coalescer.read("a"), coalescer.read("a")
    one.cancel()
    waiting.cancel()
    store.end(0)
    assert await other == "a 0"
    await turn()
    store.end(1)
    assert await patient == "a 1"


async def test_nothing_is_read_for_nobody() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    first = coalescer.read("a")
    await turn()
    for future in (coalescer.read("a"), coalescer.read("a")):
        future.cancel()
    store.end(0)
    await first
    await turn()
    assert len(store.reads) == 1
    again = coalescer.read("a")
    await turn()
    store.end(1)
    assert await again == "a 1"


async def test_a_read_that_all_have_left_runs_to_its_end() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    only = coalescer.read("a")
    await turn()
    only.cancel()
    later = coalescer.read("a")
    store.end(0, RuntimeError("nobody hears this"))
    await turn()
    store.end(1)
    assert await later == "a 1"


async def test_a_read_that_all_have_left_before_it_began_is_not_made() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    coalescer.read("a").cancel()
    await coalescer.idle()
    assert store.reads == []


async def test_an_error_is_shared_and_does_not_stick() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    futures = [coalescer.read("a") for _ in range(3)]
    await turn()
    store.end(0, LookupError("no such key"))
    for future in futures:
        with pytest.raises(LookupError, match="no such key"):
            await future
    again = coalescer.read("a")
    await turn()
    store.end(1)
    assert await again == "a 1"


async def test_a_read_that_is_cancelled_from_within_leaves_nobody_waiting() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    first = coalescer.read("a")
    await turn()
    second = coalescer.read("a")
    store.reads[0][1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await turn()
    store.end(1)
    assert await second == "a 1"


async def test_keeps_nothing_of_keys_that_nobody_reads() -> None:
    async def read(key: int) -> int:
        return key

    coalescer = Coalescer[int, int](read)
    await asyncio.gather(*(coalescer.read(key % 50) for key in range(1000)))
    await coalescer.idle()
    assert not coalescer._keys
    assert not coalescer._reads


async def test_close_fails_all_readers_and_later_ones() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    running = coalescer.read("a")
    await turn()
    waiting, unbegun = coalescer.read("a"), coalescer.read("b")
    await coalescer.close(RuntimeError("closed"))
    for future in (running, waiting, unbegun, coalescer.read("c")):
        with pytest.raises(RuntimeError, match="closed"):
            await future
    assert store.reads[0][1].cancelled()
    assert len(store.reads) == 1
    await coalescer.idle()


async def test_is_idle_when_the_last_read_has_ended() -> None:
    store = Store()
    coalescer = Coalescer[str, str](store.read, hold=FOREVER)
    first = coalescer.read("a")
    await turn()
    second = coalescer.read("a")
    idle = asyncio.ensure_future(coalescer.idle())
    store.end(0)
    await first
    await turn()
    assert not idle.done()
    store.end(1)
    await second
    await idle


class Random:
    """Readers and reads in an order that hypothesis chose."""

    def __init__(self) -> None:
        self.store = Store()
        self.coalescer = Coalescer[str, str](self.store.read, hold=FOREVER)
        # Each with its key and how many reads had begun when it asked: none of those may answer it.
        self.readers: list[tuple[asyncio.Future[str], str, int]] = []

    async def read(self, number: int) -> None:
        key = "ab"[number % 2]
        self.readers.append((self.coalescer.read(key), key, len(self.store.reads)))

    async def cancel(self, number: int) -> None:
        if self.readers:
            self.readers[number % len(self.readers)][0].cancel()

    async def end(self, number: int, error: Exception | None = None) -> None:
        running = [index for index, (_, future) in enumerate(self.store.reads) if not future.done()]
        if running:
            self.store.end(running[number % len(running)], error)

    async def fail(self, number: int) -> None:
        await self.end(number, LookupError(str(number)))

    async def hold(self, number: int) -> None:
        for key, state in list(self.coalescer._keys.items()):
            self.coalescer._start_next(key, state)  # as the timer does

    async def turn(self, number: int) -> None:
        await turn()

    async def finish(self) -> None:
        await turn()
        while self.coalescer._keys:
            await self.end(0)
            await turn()
        for future, key, begun in self.readers:
            assert future.done()
            with suppress(LookupError, asyncio.CancelledError):
                found, index = (await future).split()
                assert found == key
                assert int(index) >= begun
        assert not self.coalescer._keys


STEPS = st.sampled_from([Random.read, Random.cancel, Random.end, Random.fail, Random.hold, Random.turn])


@given(st.lists(st.tuples(STEPS, st.integers(0, 9)), max_size=60))
def test_whatever_happens_every_reader_gets_one_fresh_answer(steps: list[tuple[Any, int]]) -> None:
    async def run() -> None:
        random = Random()
        for step, number in steps:
            await step(random, number)
        await random.finish()

    asyncio.run(run())
