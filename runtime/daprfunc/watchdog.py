"""Says which function blocks the event loop: all others wait for it, and nothing else would show why.

Costs an invocation nothing: a thread asks the loop for a sign of life, and looks at what the loop's thread runs only if
none comes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

from daprfunc.plan import Plan

log = logging.getLogger(__name__)

LIMIT_SECONDS = 2.0
INTERVAL_SECONDS = 0.5


class Watchdog:
    """Watches the running loop while its ``with`` block lasts.

    Args:
        limit: seconds without a sign of life that are worth a warning.
        interval: seconds between two questions.
    """

    def __init__(self, *, limit: float = LIMIT_SECONDS, interval: float = INTERVAL_SECONDS) -> None:
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
            # Looked at twice: after the whole process was stopped for a while, the loop needs a moment to answer.
            if not self._alive.wait(self._limit) and not self._alive.wait(0.01):
                self._warn()
                self._alive.wait()

    def _warn(self) -> None:
        frames = list(_stack(sys._current_frames().get(self._loop_thread)))
        plan = next(filter(None, map(_plan, frames)), None)
        script = str(plan.function.script) if plan else ""
        here = next((frame for frame in frames if frame.f_code.co_filename == script), frames[0] if frames else None)
        where = f"{here.f_code.co_filename}:{here.f_lineno}" if here else "an unknown place"
        if plan is None:
            log.warning("the event loop has been blocked for %g s at %s; no invocation proceeds", self._limit, where)
        else:
            log.warning(
                "function '%s' has blocked the event loop for %g s at %s, so no other invocation proceeds; make it a "
                "plain def, which runs in a thread, or await what it waits for",
                plan.function.name,
                self._limit,
                where,
            )


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a thread's frames, innermost first. A running coroutine has those that await it above it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _plan(frame: FrameType) -> Plan | None:
    """Return the plan if this is a frame of one of its methods."""
    if frame.f_globals.get("__name__") != Plan.__module__:
        return None
    holder = frame.f_locals.get("self")
    return holder if isinstance(holder, Plan) else None
