"""The app channel's tests run on both loops: uvloop's, as ``daprfunc start`` does, and asyncio's own."""

from __future__ import annotations

import asyncio
import inspect

import pytest
import uvloop

from tests.conftest import _watched

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("loop_of")
        metafunc.parametrize("loop_of", LOOPS)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    loop = LOOPS[str(pyfuncitem.callspec.params["loop_of"])]()
    try:
        loop.run_until_complete(_watched(test))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return True
