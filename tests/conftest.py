"""Async tests: each runs on a loop of its own, which has to end as clean as it began."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Awaitable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--uvloop", action="store_true", help="run the async tests on uvloop, as `daprfunc start` does")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # _watched() collects after each test: it need not go through all that was imported.


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    if pyfuncitem.config.getoption("--uvloop"):
        import uvloop

        uvloop.run(_watched(test))
    else:
        asyncio.run(_watched(test))
    return True


async def _watched(test: Awaitable[None]) -> None:
    """Run a test; fail it for what nobody retrieved or handled, and for tasks that it leaves behind."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    before = asyncio.all_tasks()
    await test
    left = asyncio.all_tasks() - before
    if left:
        _, left = await asyncio.wait(left, timeout=1)  # grpc's server takes a few turns to end.
    gc.collect()  # "Exception was never retrieved" is told by the future's end.
    assert not unhandled
    assert not left
