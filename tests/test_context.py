from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest

from daprfunc.context import InvocationContext
from tests.functions import function, invocation

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def named(payload: str, context: func.Context) -> None: ...


def ids(**headers: str) -> InvocationContext:
    return InvocationContext(function(named), invocation("named", **headers))


def test_an_invocation_has_an_id_of_its_own() -> None:
    one, other = ids(), ids()
    assert one.invocation_id == one.invocation_id != other.invocation_id
    assert uuid.UUID(one.invocation_id).version == 4
    assert str(uuid.UUID(one.invocation_id)) == one.invocation_id
    assert one.function_name == "named"


@pytest.mark.parametrize(
    ("parent", "trace_id"),
    [
        (PARENT, TRACE),
        (f"cc-{TRACE}-b7ad6b7169203331-01-later", TRACE),
        ("", ""),
        ("nonsense", ""),
        (PARENT.upper(), ""),
        (PARENT[:-1], ""),
        (PARENT + "0", ""),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", ""),
        (f"00-{'x' * 32}-b7ad6b7169203331-01", ""),
        (f"00-{'a' * 16}\n{'a' * 15}-b7ad6b7169203331-01", ""),
    ],
)
def test_the_trace_id_is_that_of_a_sound_traceparent(parent: str, trace_id: str) -> None:
    assert ids(traceparent=parent).trace_id == trace_id


def test_the_users_context_has_what_the_workers_has() -> None:
    known = ids(traceparent=PARENT, tracestate="vendor=1")
    context = known.for_user(0, 0, None)
    assert isinstance(context, func.Context)
    assert context.invocation_id == known.invocation_id
    assert context.function_name == "named"
    assert context.function_directory == str(Path(__file__).parent)
    trace: Any = context.trace_context  # (TraceContext does not declare all the names)
    assert (trace.trace_parent, trace.trace_state, trace.attributes) == (PARENT, "vendor=1", {})
    assert (trace.Traceparent, trace.Tracestate) == (PARENT, "vendor=1")
    storage: Any = context.thread_local_storage  # (func.Context declares a type, and means an instance)
    assert isinstance(storage, threading.local)
    assert context.thread_local_storage is storage


def test_the_traces_of_a_caller_without_one_are_empty() -> None:
    trace = ids().for_user(0, 0, None).trace_context
    assert (trace.trace_parent, trace.trace_state) == ("", "")


def test_the_first_attempt_knows_of_no_failure() -> None:
    retry = ids().for_user(0, 3, None).retry_context
    assert (retry.retry_count, retry.max_retry_count) == (0, 3)
    assert retry.exception is None


def test_a_later_attempt_knows_why_the_one_before_failed() -> None:
    try:
        raise LookupError("gone")
    except LookupError as error:
        failure = error
    retry = ids().for_user(2, -1, failure).retry_context
    assert (retry.retry_count, retry.max_retry_count) == (2, -1)
    assert retry.exception.message == "gone"
    assert retry.exception.source == "builtins"
    assert "test_context.py" in retry.exception.stack_trace
