from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from daprfunc.errors import FunctionRaised
from daprfunc.executor import Executor
from tests.functions import function

Caller = Callable[..., asyncio.Future[Any]]


@contextmanager
def executor(threads: int = 4) -> Iterator[Callable[[Any], Caller]]:
    """Gives what turns a user's function into one that starts it."""
    made = Executor(threads)

    def caller(call: Any) -> Caller:
        compiled = made.compile(function(call))

        async def run(arguments: dict[str, object]) -> object:
            return await compiled(arguments)

        return lambda **arguments: asyncio.ensure_future(run(arguments))

    try:
        yield caller
    finally:
        made.close()


class Gate:
    """Holds functions in their threads; says who came."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()
        self.inside: list[object] = []
        self._arrived = asyncio.Semaphore(0)

    def wait(self, payload: object) -> object:
        self.inside.append(payload)
        self._loop.call_soon_threadsafe(self._arrived.release)
        assert self._open.wait(10)
        return payload

    async def arrived(self, count: int = 1) -> None:
        for _ in range(count):
            await asyncio.wait_for(self._arrived.acquire(), 5)

    def open(self) -> None:
        self._open.set()


async def test_a_sync_function_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    def sync(payload: str) -> str:
        return threading.current_thread().name

    async def on_the_loop(payload: str) -> str:
        return threading.current_thread().name

    with executor() as caller:
        assert (await caller(sync)(payload="")).startswith("function-")
        assert await caller(on_the_loop)(payload="") == threading.current_thread().name


async def test_arguments_come_by_name() -> None:
    def call(payload: object, *, other: object) -> object:
        return [payload, other]

    with executor() as caller:
        assert await caller(call)(other=2, payload=1) == [1, 2]


async def test_so_many_threads_and_no_more() -> None:
    gate = Gate()
    with executor(threads=3) as caller:
        call = caller(gate.wait)
        running = [call(payload=number) for number in range(10)]
        await gate.arrived(3)
        await asyncio.sleep(0.02)  # for a fourth to come, if it could
        assert len(gate.inside) == 3
        gate.open()
        assert await asyncio.gather(*running) == list(range(10))
        assert gate.inside == list(range(10)), "first come, first served"


async def test_threads_are_used_again() -> None:
    def sync(payload: str) -> str:
        return threading.current_thread().name

    with executor(threads=50) as caller:
        call = caller(sync)
        names = {await call(payload="") for _ in range(200)}
    assert len(names) <= 2, "a result may be back before its thread is"


async def test_results_come_in_any_order() -> None:
    first, second = Gate(), Gate()
    with executor() as caller:
        one, other = caller(first.wait)(payload=1), caller(second.wait)(payload=2)
        await first.arrived()
        await second.arrived()
        second.open()
        assert await other == 2
        assert not one.done()
        first.open()
        assert await one == 1


async def test_a_blocked_thread_does_not_stop_others() -> None:
    gate = Gate()

    def free(payload: int) -> int:
        return payload

    with executor(threads=2) as caller:
        blocked = caller(gate.wait)(payload="blocked")
        await gate.arrived()
        call = caller(free)
        for number in range(500):
            assert await asyncio.wait_for(call(payload=number), 5) == number
        gate.open()
        await blocked


async def test_many_at_once_all_come_back() -> None:
    def sync(payload: int) -> int:
        return payload

    with executor(threads=8) as caller:
        call = caller(sync)
        assert await asyncio.gather(*(call(payload=number) for number in range(2000))) == list(range(2000))


async def test_a_call_that_is_cancelled_before_it_began_is_not_run() -> None:
    gate = Gate()
    with executor(threads=1) as caller:
        call = caller(gate.wait)
        running, waiting, last = (call(payload=name) for name in ("running", "waiting", "last"))
        await gate.arrived()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open()
        assert list(await asyncio.gather(running, last)) == ["running", "last"]
        assert gate.inside == ["running", "last"]


@pytest.mark.parametrize("outcome", ["returns", "raises"])
async def test_a_call_that_is_cancelled_while_it_runs_is_given_up(outcome: str) -> None:
    gate = Gate()

    def call(payload: str) -> object:
        gate.wait(payload)
        if outcome == "raises":
            raise ValueError("nobody hears this")
        return None

    with executor(threads=1) as caller:
        running = caller(call)(payload="")
        await gate.arrived()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.open()
        assert await caller(len_of)(payload="four") == 4, "the thread is free again"


def len_of(payload: str) -> int:
    return len(payload)


class Own(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("x"), Own("x"), SystemExit(3), SystemExit("text"), KeyboardInterrupt()])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_a_function_raises_comes_back(kind: str, error: BaseException) -> None:
    def sync(payload: str) -> None:
        raise error

    async def on_the_loop(payload: str) -> None:
        raise error

    made = Executor(1)
    call = made.compile(function(sync if kind == "sync" else on_the_loop))
    with pytest.raises(type(error)) as raised:
        await call({"payload": ""})
    assert raised.value is error
    made.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("sync", StopIteration(1)), ("sync", asyncio.CancelledError("x")), ("async", asyncio.CancelledError("x"))],
)
async def test_what_would_mean_something_else_comes_in_a_carrier(kind: str, error: BaseException) -> None:
    def sync(payload: str) -> None:
        raise error

    async def on_the_loop(payload: str) -> None:
        raise error

    with executor() as caller:
        with pytest.raises(FunctionRaised) as raised:
            await caller(sync if kind == "sync" else on_the_loop)(payload="")
        assert raised.value.__cause__ is error


async def test_cancelling_an_async_function_is_no_failure_of_its() -> None:
    started = asyncio.Event()

    async def waits(payload: str) -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    with executor() as caller:
        running = caller(waits)(payload="")
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_a_thread_sees_its_callers_context_and_keeps_none() -> None:
    def sync(payload: str) -> str:
        before = variable.get()
        variable.set(f"set by {payload}")
        return before

    with executor(threads=1) as caller:
        call = caller(sync)
        variable.set("the caller's")
        assert await call(payload="first") == "the caller's"
        assert await call(payload="second") == "the caller's"
        assert variable.get() == "the caller's"


async def test_close_ends_idle_threads_and_waits_for_nobody() -> None:
    gate = Gate()
    before = set(threading.enumerate())
    with executor(threads=2) as caller:
        blocked = caller(gate.wait)(payload="")
        await gate.arrived()
        await caller(len_of)(payload="")
        started = set(threading.enumerate()) - before
        assert len(started) == 2
        assert all(thread.daemon for thread in started), "a stuck one does not keep the process alive"
    gate.open()
    assert await blocked == ""
    for thread in started:
        thread.join(5)
        assert not thread.is_alive()


def test_a_loop_that_ended_leaves_no_thread_complaining() -> None:
    gates = []
    before = set(threading.enumerate())

    async def main() -> None:
        gate = Gate()
        gates.append(gate)
        with executor(threads=1) as caller:
            running = caller(gate.wait)(payload="")
            await gate.arrived()
            running.cancel()

    asyncio.run(main())
    (thread,) = set(threading.enumerate()) - before
    gates[0].open()
    thread.join(5)
    assert not thread.is_alive()
