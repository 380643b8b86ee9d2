"""What a function may know of its invocation: ``func.Context``, and the ids that log lines carry."""

from __future__ import annotations

import os
import re
import threading
import traceback
import uuid
from functools import cached_property
from typing import TYPE_CHECKING

import azure.functions as func
from azure.functions._abc import RetryContext, RpcException, TraceContext

if TYPE_CHECKING:
    from daprfunc.invocation import Invocation
    from daprfunc.model import Function


# Later versions may have more after the flags. An id of zeros is none.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?![0-9a-f])")


class InvocationContext:
    """One invocation's identity. Made for each, so everything that costs is made when it is asked for.

    Satisfies :class:`daprfunc.logs.InvocationLog`.
    """

    def __init__(self, function: Function, invocation: Invocation) -> None:
        self._function = function
        self._invocation = invocation

    @property
    def function_name(self) -> str:
        """The function that runs."""
        return self._function.name

    @cached_property
    def invocation_id(self) -> str:
        """A UUID of this invocation."""
        return str(uuid.UUID(bytes=os.urandom(16), version=4))

    @cached_property
    def trace_id(self) -> str:
        """The trace id of the caller's ``traceparent`` (W3C Trace Context: version-traceid-parentid-flags)."""
        found = _TRACEPARENT.match(self._invocation.header(b"traceparent"))
        return found[1] if found else ""

    def for_user(self, attempt: int, max_retry_count: int, failure: BaseException | None) -> func.Context:
        """Return what a ``context`` parameter gets.

        Args:
            attempt: how often this invocation was tried before.
            max_retry_count: how often its policy allows to.
            failure: why the attempt before failed.
        """
        return FunctionContext(self, self._function, self._invocation, _Retry(attempt, max_retry_count, failure))


class FunctionContext(func.Context):
    """``func.Context`` as the Azure Functions Python worker fills it."""

    def __init__(self, ids: InvocationContext, function: Function, invocation: Invocation, retry: _Retry) -> None:
        self._ids = ids
        self._function = function
        self._trace = _Trace(invocation.header(b"traceparent"), invocation.header(b"tracestate"))
        self._retry = retry

    @property
    def invocation_id(self) -> str:
        """A UUID of this invocation."""
        return self._ids.invocation_id

    @cached_property
    def thread_local_storage(self) -> threading.local:  # type: ignore[override] # (they say type[local], they return one)
        """Where users' own threads keep the invocation id, so that their log lines can be told apart."""
        return threading.local()

    @property
    def function_name(self) -> str:
        """The function's name."""
        return self._function.name

    @property
    def function_directory(self) -> str:
        """The function's folder (v1) or the app's (v2)."""
        return str(self._function.directory)

    @property
    def trace_context(self) -> TraceContext:
        """The caller's trace."""
        return self._trace

    @property
    def retry_context(self) -> RetryContext:
        """Which attempt this is, and why the one before failed."""
        return self._retry


class _Trace(TraceContext):
    def __init__(self, parent: str, state: str) -> None:
        self._parent = parent
        self._state = state

    @property
    def trace_parent(self) -> str:
        return self._parent

    # The names without the underscore are those that the worker's own class has and its documentation shows.
    Traceparent = trace_parent

    @property
    def trace_state(self) -> str:
        return self._state

    Tracestate = trace_state

    @property
    def attributes(self) -> dict[str, str]:
        return {}


class _Retry(RetryContext):
    def __init__(self, count: int, max_count: int, failure: BaseException | None) -> None:
        self._count = count
        self._max_count = max_count
        self._failure = failure

    @property
    def retry_count(self) -> int:
        return self._count

    @property
    def max_retry_count(self) -> int:
        return self._max_count

    @property
    def exception(self) -> RpcException | None:  # type: ignore[override] # (None before the first failure)
        return _Failure(self._failure) if self._failure else None


class _Failure(RpcException):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    @property
    def source(self) -> str:
        return type(self._error).__module__

    @property
    def stack_trace(self) -> str:
        return "".join(traceback.format_tb(self._error.__traceback__))

    @property
    def message(self) -> str:
        return str(self._error)
