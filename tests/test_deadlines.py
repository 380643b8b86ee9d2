from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daprfunc.deadlines import Deadlines

Tasks = Deadlines[asyncio.Task[Any]]


def cancelling(seconds: float | None) -> Tasks:
    return Deadlines(seconds, lambda task: task.cancel())


async def watched(deadlines: Tasks, seconds: float) -> float:
    """Sleep under the deadline; returns how long it took, negative if it expired."""
    task: Any = asyncio.current_task()
    loop = asyncio.get_running_loop()
    started = loop.time()
    deadlines.start(task)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        return started - loop.time()
    finally:
        deadlines.stop(task)
    return loop.time() - started


async def test_tells_of_what_takes_too_long_on_time() -> None:
    (took,) = await asyncio.gather(watched(cancelling(0.05), 60))
    assert 0.045 <= -took < 0.3


async def test_leaves_alone_what_ends_in_time() -> None:
    deadlines = cancelling(0.1)
    assert all(took > 0 for took in await asyncio.gather(*(watched(deadlines, 0.01) for _ in range(20))))
    await asyncio.sleep(0.15)


async def test_without_a_limit_nothing_expires() -> None:
    deadlines = cancelling(None)
    assert (await asyncio.gather(watched(deadlines, 0.02)))[0] > 0
    assert not deadlines._expiry


async def test_each_has_its_own_time() -> None:
    deadlines = cancelling(0.1)
    first = asyncio.ensure_future(watched(deadlines, 60))
    await asyncio.sleep(0.05)
    second = asyncio.ensure_future(watched(deadlines, 60))
    quick = asyncio.ensure_future(watched(deadlines, 0.01))
    for took in (await first, await second):
        assert 0.095 <= -took < 0.3
    assert await quick > 0


@pytest.mark.parametrize("count", [1, 1000])
async def test_one_timer_is_enough(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines = cancelling(0.1)
    timers = 0
    call_at = deadlines._loop.call_at

    class Counting:
        time = staticmethod(deadlines._loop.time)

        @staticmethod
        def call_at(when: float, callback: Any) -> Any:
            nonlocal timers
            timers += 1
            return call_at(when, callback)

    monkeypatch.setattr(deadlines, "_loop", Counting)
    gates = asyncio.Event()

    async def running() -> None:
        task: Any = asyncio.current_task()
        deadlines.start(task)
        await gates.wait()
        deadlines.stop(task)

    tasks = [asyncio.ensure_future(running()) for _ in range(count)]
    await asyncio.sleep(0)
    gates.set()
    await asyncio.gather(*tasks)
    assert timers == 1
    assert not deadlines._expiry


async def test_a_task_can_have_several_times_one_after_the_other() -> None:
    deadlines = cancelling(0.1)

    async def several() -> list[float]:
        return [await watched(deadlines, 0.04) for _ in range(4)]

    assert all(took > 0 for took in await asyncio.ensure_future(several()))


async def test_tells_how_much_time_is_left() -> None:
    deadlines = Deadlines[str](10, print)
    deadlines.start("a")
    assert 9 < deadlines.remaining("a") <= 10
    deadlines.stop("a")
    assert deadlines.remaining("a") < 0
