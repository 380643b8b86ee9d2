"""How a function is called. The one seam behind which functions of another kind could stand."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import Any

from daprfunc.model import Function

Call = Callable[[Mapping[str, Any]], Awaitable[object]]
"""Takes a function's arguments by name; awaiting it gives the result or raises what the function raised."""


class FunctionRaised(Exception):  # noqa: N818 - it is no error of ours
    """Carries what a function raised, as its cause, where to raise that itself would mean something else.

    ``StopIteration`` would end the coroutine that awaits the function, and ``CancelledError`` would say that somebody
    has cancelled the invocation.
    """


class Executor:
    """Calls asynchronous functions on the loop and synchronous ones in threads.

    Args:
        threads: how many synchronous functions may run at once (PYTHON_THREADPOOL_THREAD_COUNT).
    """

    def __init__(self, threads: int) -> None:
        self._threads = _Threads(threads)

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


class _Job:
    """One call on its way through a thread and back."""

    __slots__ = ("arguments", "context", "error", "function", "future", "result")

    def __init__(
        self, function: Callable[..., Any], arguments: Mapping[str, Any], future: asyncio.Future[object]
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.future = future
        # The caller's contextvars (the invocation that log lines name) go along into the thread.
        self.context = contextvars.copy_context()
        self.result: object = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.context.run(self.function, **self.arguments)
        except BaseException as error:  # (the function's caller gets it, whatever it is)
            self.error = error

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        elif isinstance(self.error, (StopIteration, asyncio.CancelledError)):
            carrier = FunctionRaised()
            carrier.__cause__ = self.error
            self.future.set_exception(carrier)
        else:
            self.future.set_exception(self.error)


class _Threads:
    """A pool of daemon threads that hands results back in batches: one wake-up of the loop for all that piled up."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[_Job] = deque()
        # Both are only touched on the loop, so that no lock is needed.
        self._outstanding = 0
        self._started = 0
        self._waking = False

    def call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> asyncio.Future[object]:
        job = _Job(function, arguments, self._loop.create_future())
        self._jobs.put(job)
        self._outstanding += 1
        if self._started < min(self._outstanding, self._limit):
            self._started += 1
            name = f"function-{self._started}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        return job.future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.future.cancelled():
                job.run()
            self._done.append(job)
            # _hand_back clears the flag before it empties the deque, so a job appended now is either seen by it or
            # finds the flag cleared.
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._hand_back)
                except RuntimeError:
                    return  # The loop has closed: nobody waits for the result.

    def _hand_back(self) -> None:
        self._waking = False
        while self._done:
            self._outstanding -= 1
            self._done.popleft().settle()

    def close(self) -> None:
        for _ in range(self._started):
            self._jobs.put(None)
