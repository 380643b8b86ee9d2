from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from daprfunc import threads as module
from daprfunc.threads import Threads

LIMIT = 8


@contextmanager
def pool(limit: int = LIMIT) -> Iterator[Threads]:
    made = Threads(limit)
    try:
        yield made
    finally:
        made.close()


def name_of_thread() -> str:
    return threading.current_thread().name


async def test_calls_that_do_not_wait_wake_one_thread() -> None:
    with pool() as threads:
        for _ in range(20):
            names = await asyncio.gather(*(threads.call(name_of_thread, {}) for _ in range(LIMIT)))
            assert len(set(names)) <= 2, "a forced switch may let the loop in, which then wakes another"
    assert threads._started <= 2


async def test_calls_that_wait_get_a_thread_each() -> None:
    together = threading.Barrier(LIMIT, timeout=5)
    with pool() as threads:
        for _ in range(20):
            await asyncio.gather(*(threads.call(together.wait, {}) for _ in range(LIMIT)))


async def test_a_call_behind_one_that_waits_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else happens on the loop that could lead it to have a look."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    gate = threading.Event()
    with pool(2) as threads:
        for _ in range(5):
            gate.clear()
            stuck, quick = threads.call(gate.wait, {"timeout": 5}), threads.call(name_of_thread, {})
            await asyncio.wait_for(quick, 2)
            assert not stuck.done()
            gate.set()
            assert await stuck


async def test_the_loop_does_not_look_again_and_again_when_every_thread_is_stuck() -> None:
    gate = threading.Event()
    with pool(2) as threads:
        running = [threads.call(gate.wait, {"timeout": 5}) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert not threads._look_due
        gate.set()
        assert all(await asyncio.gather(*running))


@pytest.mark.parametrize("limit", [1, 2, LIMIT])
async def test_no_call_is_lost_whatever_they_do(limit: int) -> None:
    def call(number: int) -> int:
        if number % 7 == 0:
            time.sleep(number % 3 * 0.0002)
        elif number % 7 == 1:
            sum(range(5_000))
        return number

    async def caller(first: int) -> None:
        for number in range(first, first + 200):
            assert await asyncio.wait_for(threads.call(call, {"number": number}), 5) == number
            if number % 11 == 0:
                await asyncio.sleep(0)

    with pool(limit) as threads:
        await asyncio.gather(*(caller(200 * number) for number in range(16)))
        assert threads._started <= limit


async def test_the_threads_that_there_are_have_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    with pool() as threads:
        stuck = threads.call(gate.wait, {"timeout": 5})
        monkeypatch.setattr(module._Thread, "start", refuse)
        others = [threads.call(name_of_thread, {}) for _ in range(3)]
        await asyncio.sleep(0.02)
        gate.set()
        assert await stuck
        assert await asyncio.wait_for(asyncio.gather(*others), 2) == ["function-1"] * 3


async def test_without_any_thread_a_call_fails_at_once_and_is_not_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    with pool() as threads:
        with monkeypatch.context() as patch:
            patch.setattr(module._Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="limit of processes"):
                threads.call(calls.append, {})
        assert await threads.call(name_of_thread, {}) == "function-1"
    assert calls == []


def refuse(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_ends_parked_threads_and_those_about_to_be() -> None:
    before = set(threading.enumerate())
    with pool() as threads:
        gate = threading.Event()
        running = [threads.call(gate.wait, {"timeout": 5}) for _ in range(LIMIT)]
        await threads_started(before, LIMIT)
        gate.set()
        await running[0]
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


async def threads_started(before: set[threading.Thread], count: int) -> None:
    for _ in range(500):
        if len(set(threading.enumerate()) - before) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("they did not start")
