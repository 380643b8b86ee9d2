from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daprfunc import watchdog
from daprfunc.bindings import Declaration
from daprfunc.bindings.service_invocation import ServiceInvocationTrigger
from daprfunc.executor import Executor
from daprfunc.invocation import Invocation
from daprfunc.model import Binding, Function
from daprfunc.payload import Payload
from daprfunc.plan import Plan
from daprfunc.watchdog import Watchdog

HERE = Path(__file__)
# Far apart enough for a machine that is busy with other things.
LIMIT = 0.3
BLOCKED = 0.8


def block() -> None:
    """Hold the thread up until the watchdog has barked, or for a while."""
    time.sleep(BLOCKED)


async def blocks(payload: object) -> None:
    block()


@functools.wraps(blocks)
async def blocks_wrapped(payload: object) -> None:
    await blocks(payload)


async def waits(payload: object) -> None:
    await asyncio.sleep(BLOCKED)


def sleeps(payload: object) -> None:
    block()


def plan(call: Callable[..., Any], executor: Executor) -> Plan:
    function = held(call)
    trigger = ServiceInvocationTrigger(Declaration(function.trigger, function, {}, services=None))  # type: ignore[arg-type]  # it needs none
    return Plan(function, trigger, {}, executor.compile(function), None)


def held(call: Callable[..., Any]) -> Function:
    binding = Binding("daprServiceInvocationTrigger", "payload", "in", {})
    return Function("Held", HERE.parent, HERE, HERE, call, inspect.iscoroutinefunction(call), (binding,), {})


def barks(call: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings while the function runs, watched by a dog that is short of patience."""

    async def run() -> None:
        executor = Executor(1)
        with Watchdog([held(call)], limit=LIMIT, interval=0.01):
            await asyncio.sleep(0.05)
            await plan(call, executor).run(Invocation("Held", Payload(b"")))
            await asyncio.sleep(0.05)
        executor.close()

    with caplog.at_level(logging.WARNING, "daprfunc.watchdog"):
        asyncio.run(run())
    return caplog.messages


@pytest.mark.parametrize("call", [blocks, blocks_wrapped])
def test_a_function_that_blocks_the_loop_is_named_once(
    call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    (message,) = barks(call, caplog)
    line = inspect.getsourcelines(block)[1] + 2
    assert "function 'Held' has blocked the event loop for over 0.3 s" in message
    assert f"{HERE}:{line}" in message
    assert "plain def" in message


@pytest.mark.parametrize("call", [waits, sleeps])
def test_functions_that_leave_the_loop_alone_are_not(
    call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert barks(call, caplog) == []


def test_what_is_no_function_is_told_by_its_place(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with Watchdog([], limit=LIMIT, interval=0.01):
            await asyncio.sleep(0.02)
            block()
            await asyncio.sleep(0.02)

    with caplog.at_level(logging.WARNING, "daprfunc.watchdog"):
        asyncio.run(run())
    (message,) = caplog.messages
    assert "function" not in message
    assert str(HERE) in message


def test_it_ends_with_its_block() -> None:
    async def run() -> None:
        with Watchdog([], interval=0.01):
            await asyncio.sleep(0.02)

    asyncio.run(run())
    for thread in threading.enumerate():
        if thread.name == "daprfunc-watchdog":
            thread.join(5)
            assert not thread.is_alive()


def test_a_loop_that_closes_under_it_is_no_error() -> None:
    async def run() -> threading.Thread:
        dog = Watchdog([], interval=0.05)
        dog.__enter__()
        return dog._thread

    thread = asyncio.run(run())
    thread.join(5)
    assert not thread.is_alive()


def test_what_blocks_for_two_seconds_is_found() -> None:
    assert watchdog.INTERVAL_SECONDS + watchdog.LIMIT_SECONDS < 1.9
