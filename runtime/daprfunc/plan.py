"""One function, compiled: what an invocation of it does, step by step."""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Mapping
from pathlib import Path

from daprfunc import logs
from daprfunc.bindings import Fetch, Input, Trigger
from daprfunc.context import InvocationContext
from daprfunc.conversion import encode_result
from daprfunc.errors import CallerError, FunctionError, FunctionRaised, InvocationError
from daprfunc.executor import Call
from daprfunc.invocation import Invocation, Reply
from daprfunc.model import Function, Retry
from daprfunc.payload import Payload

log = logging.getLogger(__name__)

_OWN_FILES = str(Path(__file__).parent) + os.sep


class Plan:
    """One function, compiled."""

    def __init__(
        self, function: Function, trigger: Trigger, inputs: Mapping[str, Input], call: Call, retry: Retry | None
    ) -> None:
        self.function = function
        self.route = trigger.route
        self.inputs = inputs
        self._trigger_parameter = function.trigger.name
        self._read = trigger.read
        self._inputs = tuple(inputs.items())
        self._call = call
        self._retry = retry
        self._context_parameter = function.context

    async def run(self, invocation: Invocation) -> Reply:
        """Run one invocation.

        Raises:
            InvocationError: what to answer instead; it names the function where the fault is the app's.
        """
        ids = InvocationContext(self.function, invocation)
        logs.current.set(ids)
        if self._retry is None:
            return await self._attempt(invocation, ids, 0, None)
        return await self._run_with_retries(self._retry, invocation, ids)

    async def _run_with_retries(self, retry: Retry, invocation: Invocation, ids: InvocationContext) -> Reply:
        failure: BaseException | None = None
        attempt = 0
        while True:
            try:
                return await self._attempt(invocation, ids, attempt, failure)
            except CallerError:
                raise  # The same payload will not get better.
            except InvocationError as error:
                if attempt == retry.max_retry_count:
                    raise
                failure = error.__cause__ or error
                log.warning("attempt %d failed and is retried: %s", attempt + 1, error)
            await asyncio.sleep(_delay(retry, attempt))
            attempt += 1

    async def _attempt(
        self, invocation: Invocation, ids: InvocationContext, attempt: int, failure: BaseException | None
    ) -> Reply:
        payload = invocation.payload
        arguments = {self._trigger_parameter: self._read(payload)}
        if self._inputs:
            await self._fetch(payload, arguments)
        if self._context_parameter is not None:
            most = self._retry.max_retry_count if self._retry else 0
            arguments[self._context_parameter] = ids.for_user(attempt, most, failure)
        try:
            result = await self._call(arguments)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raised = error.__cause__ if isinstance(error, FunctionRaised) and error.__cause__ else error
            raise self._function_failed(raised) from raised
        return Reply(*encode_result(result))

    async def _fetch(self, payload: Payload, arguments: dict[str, object]) -> None:
        fetches: list[tuple[str, Fetch]] = []
        try:
            for name, source in self._inputs:
                fetches.append((name, source.start(payload)))
            for name, fetch in fetches:
                arguments[name] = fetch.convert(await fetch.future)
        except BaseException:
            # Nobody waits for the others any more. What has failed already is marked as seen.
            for _, fetch in fetches:
                if fetch.future.done() and not fetch.future.cancelled():
                    fetch.future.exception()
                fetch.future.cancel()
            raise

    def _function_failed(self, error: BaseException) -> FunctionError:
        where = f"{self.function.script}: function '{self.function.name}'"
        log.error("%s raised:\n%s", where, _user_traceback(error))
        # The text of the .NET extension, which callers may look for.
        return FunctionError(f"Function invocation failed: {type(error).__name__}: {_text(error)}")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # (it is the user's code that says what it says)
        return "(its text cannot be had)"


def _user_traceback(error: BaseException) -> str:
    """Return the traceback without the runtime's own frames before the user's, which tell a user nothing."""
    shown = traceback.TracebackException.from_exception(error)
    parts = [shown]
    while parts:
        part = parts.pop()
        while part.stack and part.stack[0].filename.startswith(_OWN_FILES):
            del part.stack[0]
        inner = (part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ()))
        parts.extend(each for each in inner if each is not None)
    return "".join(shown.format()).rstrip()


def _delay(retry: Retry, attempt: int) -> float:
    if retry.strategy == "fixedDelay":
        return retry.delay
    # Past 2**64 the minimum does not matter any more, and a float cannot hold what comes much later.
    return min(retry.maximum_interval, retry.minimum_interval * 2.0 ** min(attempt, 64))
