"""Says which function blocks the event loop: all others wait for it, and nothing else would show why.

Costs an invocation nothing: a thread asks the loop for a sign of life, and looks at what the loop's thread runs only if
none comes.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, TracebackType

from daprfunc.model import Function

log = logging.getLogger(__name__)

# Together less than 2 s, so that every block of 2 s is seen whenever it begins.
LIMIT_SECONDS = 1.25
INTERVAL_SECONDS = 0.5


class Watchdog:
    """Watches the running loop while its ``with`` block lasts.

    Args:
        functions: those that may run on it.
        limit: seconds without a sign of life that are worth a warning.
        interval: seconds between two questions.
    """

    def __init__(
        self, functions: Iterable[Function], *, limit: float = LIMIT_SECONDS, interval: float = INTERVAL_SECONDS
    ) -> None:
        self._functions = {_code(function): function for function in functions}
        self._limit = limit
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._alive = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="daprfunc-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._alive.set()

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            self._alive.clear()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:
                return  # The loop has closed.
            if not self._answers():
                self._warn()
                while not (self._alive.is_set() or self._over.wait(self._interval)):
                    pass

    def _answers(self) -> bool:
        # Looked at twice: after the whole process was stopped for a while, the loop needs a moment.
        return self._alive.wait(self._limit) or self._alive.wait(0.01) or self._over.is_set()

    def _warn(self) -> None:
        frames = list(_stack(sys._current_frames().get(self._loop_thread)))
        function = next(filter(None, (self._functions.get(frame.f_code) for frame in frames)), None)
        if function is None:
            place = _place(frames[:1])
            log.warning(
                "the event loop has been blocked for over %g s at %s; no invocation proceeds", self._limit, place
            )
            return
        # The innermost line of the function's own file: that of a library would not tell the user much.
        own = [frame for frame in frames if frame.f_code.co_filename == str(function.script)]
        log.warning(
            "function '%s' has blocked the event loop for over %g s at %s, so no other invocation proceeds; make it a "
            "plain def, which runs in a thread, or await what it waits for",
            function.name,
            self._limit,
            _place(own or frames),
        )


def _code(function: Function) -> CodeType | None:
    """Return what a frame that runs the function runs, whatever it is wrapped in."""
    return getattr(inspect.unwrap(function.call), "__code__", None)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a thread's frames, innermost first. A running coroutine has those that await it above it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(frames: list[FrameType]) -> str:
    return f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "an unknown place"
