"""How a function is called. The one seam behind which functions of another kind could stand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from daprfunc.errors import FunctionRaised
from daprfunc.model import Function
from daprfunc.threads import Threads

Call = Callable[[Mapping[str, Any]], Awaitable[object]]
"""Takes a function's arguments by name; awaiting it gives the result or raises what the function raised."""


class Executor:
    """Calls asynchronous functions on the loop and synchronous ones in threads.

    Args:
        threads: how many synchronous functions may run at once (PYTHON_THREADPOOL_THREAD_COUNT).
    """

    def __init__(self, threads: int) -> None:
        self._threads = Threads(threads)

    def compile(self, function: Function) -> Call:
        """Return how to call `function`; decided once, so that no call has to ask what kind it is."""
        if function.is_async:
            return partial(_call_async, function.call)
        return partial(self._threads.call, function.call)

    def close(self) -> None:
        """Let the threads end when they are idle. One that is stuck in a function does not keep the process alive."""
        self._threads.close()


if sys.version_info >= (3, 11):

    async def _call_async(function: Callable[..., Any], arguments: Mapping[str, Any]) -> object:
        try:
            return await function(**arguments)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise FunctionRaised from error

else:

    async def _call_async(function: Callable[..., Any], arguments: Mapping[str, Any]) -> object:
        # Here a task cannot tell whether it was cancelled. So the function has one of its own, that only we cancel.
        task = asyncio.ensure_future(_outcome(function, arguments))
        cancelled = False
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = task.cancel()
            await asyncio.wait({task})
        result, error = task.result()
        if isinstance(error, asyncio.CancelledError) and not cancelled:
            raise FunctionRaised from error
        if error is not None:
            raise error
        return result

    async def _outcome(
        function: Callable[..., Any], arguments: Mapping[str, Any]
    ) -> tuple[object, BaseException | None]:
        try:
            return await function(**arguments), None
        except BaseException as error:  # (SystemExit would end the loop if it ended a task)
            return None, error
