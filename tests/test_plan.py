from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import sys
import threading
from dataclasses import dataclass
from typing import Any

import azure.functions as func
import pytest

from daprfunc import logs
from daprfunc.errors import INTERNAL, AppError, CallerError, FunctionError, InvocationError, SidecarError
from daprfunc.model import Function, Retry
from daprfunc.plan import _delay
from tests.functions import Store, compiled, function, invocation, secret


async def reply_of(call: Any, body: bytes = b"", **options: Any) -> tuple[bytes, str]:
    """Invoke a function once, in a task of its own as channels do."""
    loaded = call if isinstance(call, Function) else function(call)
    with compiled(loaded, **options) as dispatcher:
        reply = await asyncio.ensure_future(dispatcher.invoke(invocation(loaded.name, body)))
        return reply.body, reply.content_type


async def failure_of(call: Any, body: bytes = b"", **options: Any) -> InvocationError:
    with pytest.raises(InvocationError) as raised:
        await reply_of(call, body, **options)
    return raised.value


def both(call: Any) -> pytest.MarkDecorator:
    """Parametrize with a function's sync form and an async one that does the same."""

    async def call_async(payload):  # type: ignore[no-untyped-def]  # as users write it
        return call(payload)

    return pytest.mark.parametrize("call", [call, call_async], ids=["sync", "async"])


# Payloads and results.


@dataclass
class Answer:
    text: str


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (b"", (b"", "")),
        (b'"text"', (b'"text"', "application/json")),
        (b'{"a": 1}', (b'"{\\"a\\":1}"', "application/json")),
    ],
)
@both(lambda payload: payload)
async def test_hands_the_payload_over_and_the_result_back(call: Any, body: bytes, reply: tuple[bytes, str]) -> None:
    assert await reply_of(function(call, name="f"), body) == reply


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        (None, (b"", "")),
        (b"\x00raw", (b"\x00raw", "application/octet-stream")),
        ("", (b'""', "application/json")),
        (0, (b"0", "application/json")),
        (False, (b"false", "application/json")),
        ([], (b"[]", "application/json")),
        ({"a": [1, None]}, (b'{"a":[1,null]}', "application/json")),
        (Answer("x"), (b'{"text":"x"}', "application/json")),
    ],
)
async def test_encodes_results(result: object, reply: tuple[bytes, str]) -> None:
    assert await reply_of(function(lambda payload: result, name="f")) == reply


async def test_a_result_without_a_json_form_is_the_apps_fault() -> None:
    error = await failure_of(function(lambda payload: object(), name="f"))
    assert isinstance(error, AppError)
    assert error.status.http == 500
    assert "object" in str(error)


async def test_a_payload_that_does_not_fit_is_the_callers_fault() -> None:
    called = False

    def typed(payload: int) -> None:
        nonlocal called
        called = True

    error = await failure_of(typed, b'"seven"')
    assert isinstance(error, CallerError)
    assert (error.status.name, error.status.http) == ("INVALID_ARGUMENT", 400)
    assert not called


# Functions that fail.


class OwnError(Exception):
    pass


class OwnBaseException(BaseException):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OwnError("it broke"), "OwnError: it broke"),
        (KeyError("k"), "KeyError: 'k'"),
        (OwnBaseException("deep"), "OwnBaseException: deep"),
        (SystemExit(3), "SystemExit: 3"),
        (SystemExit(), "SystemExit: "),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (asyncio.CancelledError("mine"), "CancelledError: mine"),
        (GeneratorExit(), "GeneratorExit: "),
        (asyncio.TimeoutError("slow"), "TimeoutError: slow"),
        (RecursionError("deep"), "RecursionError: deep"),
        (SidecarError(INTERNAL, "the user's own use of us"), "SidecarError: the user's own use of us"),
        (CallerError("the user's own use of us"), "CallerError: the user's own use of us"),
        (Mute(), "Mute: (its text cannot be had)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_whatever_a_function_raises_is_its_failure(
    caplog: pytest.LogCaptureFixture, kind: str, error: BaseException, text: str
) -> None:
    def call(payload: str) -> None:
        raise error

    async def call_async(payload: str) -> None:
        await asyncio.sleep(0)
        raise error

    failure = await failure_of(function(call if kind == "sync" else call_async, name="Breaks"))
    assert type(failure) is FunctionError
    assert str(failure) == f"Function invocation failed: {text}"
    assert (failure.status.name, failure.status.http) == ("UNKNOWN", 500)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith(f"{__file__}: function 'Breaks' raised:\n")


async def test_stop_iteration_is_a_failure_like_any_other() -> None:
    def stops(payload: str) -> object:
        return next(iter(()))

    async def stops_async(payload: str) -> object:
        return next(iter(()))

    assert str(await failure_of(stops)) == "Function invocation failed: StopIteration: "
    # Python itself turns it into this one.
    assert "RuntimeError: coroutine raised StopIteration" in str(await failure_of(stops_async))


async def test_awaiting_what_was_cancelled_is_a_failure_and_no_cancellation() -> None:
    async def awaits(payload: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    assert str(await failure_of(awaits)) == "Function invocation failed: CancelledError: "


async def test_a_function_may_cancel_tasks_of_its_own() -> None:
    async def cancels(payload: str) -> str:
        task = asyncio.ensure_future(asyncio.sleep(60))
        try:
            await asyncio.wait_for(asyncio.shield(task), 0.01)
        except asyncio.TimeoutError:
            task.cancel()
        return "done"

    assert await reply_of(cancels) == (b'"done"', "application/json")


async def test_cancelling_the_invocation_cancels_an_async_function() -> None:
    started, seen = asyncio.Event(), []

    async def waits(payload: str) -> None:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    running = asyncio.ensure_future(reply_of(waits))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == ["cancelled"]


async def test_a_function_that_takes_its_time_over_a_cancellation_may() -> None:
    started = asyncio.Event()

    async def tidies_up(payload: str) -> str:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "tidy"

    running = asyncio.ensure_future(reply_of(tidies_up))
    await started.wait()
    running.cancel()
    assert await running == (b'"tidy"', "application/json")


# What is logged of a failure.


def inner() -> None:
    raise OwnError("inner")


def breaks(payload):  # type: ignore[no-untyped-def]  # as users write it
    try:
        inner()
    except OwnError as error:
        raise LookupError("outer") from error


@both(breaks)
async def test_the_traceback_is_the_users_and_whole(caplog: pytest.LogCaptureFixture, call: Any) -> None:
    await failure_of(function(call, name="breaks"))
    text = caplog.records[0].getMessage()
    for part in ("in breaks", "in inner", "OwnError: inner", "direct cause", "LookupError: outer"):
        assert part in text
    files = [line.split('"')[1] for line in text.splitlines() if line.startswith('  File "')]
    assert set(files) == {__file__}
    assert "daprfunc.executor" not in text


async def test_a_call_that_python_refuses_shows_no_frame_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    def takes_nothing() -> None: ...

    error = await failure_of(function(takes_nothing, name="f"))
    assert "unexpected keyword argument 'payload'" in str(error)
    assert "File " not in caplog.records[0].getMessage()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="ExceptionGroup came with Python 3.11")
async def test_groups_of_errors_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    def breaks(payload: str) -> None:
        raise ExceptionGroup("several", [OwnError("one"), OwnError("two")])  # type: ignore[name-defined] # noqa: F821

    await failure_of(breaks)
    assert "OwnError: one" in caplog.records[0].getMessage()
    assert "OwnError: two" in caplog.records[0].getMessage()


# Retries.

THRICE = Retry("fixedDelay", 2, delay=0)


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (Retry("fixedDelay", 9, delay=2.5), [2.5, 2.5, 2.5]),
        (Retry("exponentialBackoff", 9, minimum_interval=1, maximum_interval=5), [1, 2, 4, 5, 5]),
        (Retry("exponentialBackoff", 9, minimum_interval=0, maximum_interval=5), [0, 0]),
    ],
)
def test_how_long_the_next_attempt_is_waited_for(retry: Retry, delays: list[float]) -> None:
    assert [_delay(retry, attempt) for attempt in range(len(delays))] == delays
    assert _delay(retry, 10_000) <= 5


class Attempts:
    """Fails `failures` times, then answers; notes what each attempt was told."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.told: list[tuple[int, int, str | None]] = []
        self.ids: set[str] = set()

    def __call__(self, payload: str, context: func.Context) -> str:
        retry = context.retry_context
        self.told.append((retry.retry_count, retry.max_retry_count, getattr(retry.exception, "message", None)))
        self.ids.add(context.invocation_id)
        if len(self.told) <= self.failures:
            raise OwnError(f"attempt {len(self.told)}")
        return "at last"


def retried(attempts: Attempts, retry: Retry | None) -> Function:
    def call(payload: str, context: func.Context) -> str:
        return attempts(payload, context)

    return function(call, retry=retry)


async def test_a_failed_function_is_called_again_and_told_why() -> None:
    attempts = Attempts(2)
    assert await reply_of(retried(attempts, THRICE)) == (b'"at last"', "application/json")
    assert attempts.told == [(0, 2, None), (1, 2, "attempt 1"), (2, 2, "attempt 2")]
    assert len(attempts.ids) == 1


async def test_the_last_failure_is_the_answer() -> None:
    attempts = Attempts(9)
    assert str(await failure_of(retried(attempts, THRICE))) == "Function invocation failed: OwnError: attempt 3"
    assert len(attempts.told) == 3


async def test_minus_one_means_without_end() -> None:
    attempts = Attempts(20)
    assert await reply_of(retried(attempts, Retry("fixedDelay", -1))) == (b'"at last"', "application/json")
    assert attempts.told[-1] == (20, -1, "attempt 20")


async def test_without_a_policy_there_is_one_attempt() -> None:
    attempts = Attempts(1)
    await failure_of(retried(attempts, None))
    assert attempts.told == [(0, 0, None)]


@pytest.mark.parametrize(("own", "count"), [(None, 3), (Retry("fixedDelay", 1), 2), (Retry("fixedDelay", 0), 1)])
async def test_the_functions_own_policy_comes_before_the_apps(own: Retry | None, count: int) -> None:
    attempts = Attempts(9)
    await failure_of(retried(attempts, own), retry=THRICE)
    assert len(attempts.told) == count


async def test_a_callers_fault_is_not_tried_again() -> None:
    store = Store()

    def call(payload: str, secret: str) -> None: ...

    error = await failure_of(function(call, secret(key="{payload.missing}"), retry=THRICE), b"{}", store=store)
    assert isinstance(error, CallerError)
    assert not store.reads


async def test_every_attempt_reads_its_secrets_anew() -> None:
    store = Store()
    attempts = Attempts(2)

    def call(payload: str, secret: str, context: func.Context) -> str:
        return attempts(payload, context)

    await reply_of(function(call, secret(), retry=THRICE), store=store)
    assert len(store.reads) == 3


async def test_a_sidecar_that_fails_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(values={"key": SidecarError(INTERNAL, "the store is away", store="store", key="key")})

    def call(payload: str, secret: str) -> None: ...

    assert str(await failure_of(function(call, secret(), retry=THRICE), store=store)) == "the store is away"
    assert len(store.reads) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "attempt 1 failed and is retried: the store is away",
        "attempt 2 failed and is retried: the store is away",
        "INTERNAL: function 'call', secret 'key' of 'store': the store is away",
    ]


# What a function knows of its invocation.

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def observed(payload: str) -> list[object]:
    ids = logs.current.get()
    assert ids is not None
    before = variable.get()
    variable.set("by the function")
    return [ids.function_name, ids.invocation_id, ids.trace_id, before, threading.current_thread().name]


async def observed_async(payload: str) -> list[object]:
    await asyncio.sleep(0)
    return observed(payload)


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("call", [observed, observed_async])
async def test_log_lines_know_their_invocation(call: Any) -> None:
    with compiled(call) as dispatcher:
        variable.set("by the caller")
        results = await asyncio.gather(
            *(
                asyncio.ensure_future(
                    dispatcher.invoke(invocation(call.__name__, traceparent=f"00-{TRACE}-b7ad6b7169203331-01"))
                )
                for _ in range(5)
            )
        )
    found = [json.loads(reply.body) for reply in results]
    assert {row[0] for row in found} == {call.__name__}
    assert len({row[1] for row in found}) == 5
    assert {row[2] for row in found} == {TRACE}
    assert {row[3] for row in found} == {"by the caller"}
    where = {row[4] for row in found}
    assert all(name.startswith("function-") for name in where) if call is observed else where == {"MainThread"}
    assert logs.current.get() is None
    assert variable.get() == "by the caller"


async def test_what_a_function_logs_carries_its_id(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    class Filter(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            ids = logs.current.get()
            seen.append(ids.invocation_id if ids else "none")
            return True

    def call(payload: str, context: func.Context) -> str:
        logging.getLogger("user").warning("hello")
        return context.invocation_id

    caplog.handler.addFilter(filter_ := Filter())
    body, _ = await reply_of(call)
    caplog.handler.removeFilter(filter_)
    assert seen == [body.decode().strip('"')]
