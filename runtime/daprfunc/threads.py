"""The threads that synchronous functions run in."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from daprfunc.errors import FunctionRaised

# How long calls may wait behind one that may have let go of the interpreter, before the loop has a look.
LOOK_SECONDS = 0.001


class Threads:
    """A pool of daemon threads for one loop. To be used on that loop.

    Results are handed back in batches: one wake-up of the loop for all that piled up.

    Threads are woken sparingly. The interpreter runs one at a time, and those that are awake for nothing only wrestle
    for it. A thread that is *ready*, awake and about to look for a job, takes one job after the other. While there is
    one, no other is woken. When code on the loop finds none, then the threads that are awake are inside of functions
    and have let go of the interpreter, because the loop has it: those functions wait for something, and another thread
    is of use.

    Args:
        limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        # Shared by the loop and the threads. Each operation on one of these is atomic, so that no lock is needed.
        self._jobs: deque[_Job] = deque()
        self._done: deque[_Job] = deque()
        self._ready: set[_Thread] = set()
        self._parked: list[_Thread] = []
        self._waking = False
        self._closed = False
        # Only touched on the loop.
        self._started = 0
        self._look_due = False

    def call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> asyncio.Future[object]:
        """Call `function` in a thread, with the caller's contextvars; the future gives what it returns.

        The future fails with what the function raised, or with :class:`FunctionRaised`. Cancelled before the call has
        begun, it is never made; afterwards, it runs on and nobody hears of it.

        Raises:
            RuntimeError: the system gives us no thread at all.
        """
        job = _Job(function, arguments, self._loop.create_future())
        self._jobs.append(job)
        if self._ready:
            self._look_soon()
        elif not self._wake() and not self._started:
            job.future.cancel()
            raise RuntimeError("the system gives this process no thread for a function; see its limit of processes")
        return job.future

    def _look_soon(self) -> None:
        """The ready thread takes what waits, unless a function gets stuck before that."""
        if not self._look_due:
            self._look_due = True
            self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._look_due = False
        if not self._ready:
            # The functions that run wait for something, and so may those to come: a thread for each.
            for _ in range(len(self._jobs)):
                if not self._wake():
                    break
        if self._jobs and self._ready:
            self._look_soon()

    def _wake(self) -> bool:
        """Make one more thread ready; tell whether there was one."""
        if self._parked:
            # The one that was parked last: the processor's caches may still know it.
            thread = self._parked.pop()
            self._ready.add(thread)
            thread.unpark()
            return True
        if self._started == self._limit:
            return False
        thread = _Thread(self._work, f"function-{self._started + 1}")
        self._ready.add(thread)
        try:
            thread.start()
        except RuntimeError:
            # The system gives us none now. Those that there are have to do.
            self._ready.discard(thread)
            return False
        self._started += 1
        return True

    def _hand_back(self) -> None:
        self._waking = False
        while self._done:
            self._done.popleft().settle()
        if self._jobs and not self._ready:
            self._wake()

    def close(self) -> None:
        """Let the threads end when they are idle. One that is stuck in a function does not keep the process alive."""
        self._closed = True
        while self._parked:
            self._parked.pop().unpark()

    # In the threads.

    def _work(self, me: _Thread) -> None:
        while not self._closed:
            try:
                job = self._jobs.popleft()
            except IndexError:
                self._park(me)
                continue
            self._ready.discard(me)
            if not job.future.cancelled():
                job.run()
            self._ready.add(me)
            self._done.append(job)
            # _hand_back clears the flag before it empties the deque, so a job appended now is either seen by it or
            # finds the flag cleared.
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._hand_back)
                except RuntimeError:
                    return  # The loop has closed: nobody waits for the result.

    def _park(self, me: _Thread) -> None:
        self._ready.discard(me)
        self._parked.append(me)
        if self._jobs or self._closed:
            # What came a moment ago may have counted on this thread.
            try:
                self._parked.remove(me)
            except ValueError:
                pass  # It has been chosen to be woken.
            else:
                self._ready.add(me)
                return
        me.park()


class _Thread(threading.Thread):
    """A thread that can be parked."""

    def __init__(self, work: Callable[[_Thread], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._gate = threading.Lock()
        self._gate.acquire()

    def run(self) -> None:
        self._work(self)

    def park(self) -> None:
        """Sleep until unpark() is called, or was."""
        self._gate.acquire()

    def unpark(self) -> None:
        self._gate.release()


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
