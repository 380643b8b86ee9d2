from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from daprfunc.errors import UNAVAILABLE, AppError, CallerError, InvocationError, SidecarError
from daprfunc.model import Retry
from tests.functions import Store, compiled, function, invocation, secret, trigger


def echo(payload: str) -> str:
    return payload


async def test_routes_ignore_case() -> None:
    with compiled(function(echo, trigger(methodName="v1/Echo"), name="Other")) as dispatcher:
        for method in ("v1/Echo", "v1/echo", "V1/ECHO"):
            assert (await dispatcher.invoke(invocation(method, b"1"))).body == b'"1"'
            assert dispatcher.find(method).route == "v1/Echo"


async def test_an_unknown_route_names_those_that_there_are() -> None:
    functions = [function(echo, name=f"F{number:03}") for number in range(30)]
    with compiled(*functions) as dispatcher, pytest.raises(CallerError) as raised:
        await dispatcher.invoke(invocation("nothing" * 100))
    assert raised.value.status.http == 404
    text = str(raised.value)
    assert "no function has the route 'nothingnothing" in text
    assert "there are: F000, F001, " in text
    assert text.endswith("F019, ...")
    assert len(text) < 600
    assert dispatcher.in_flight == 0


async def test_a_secret_that_cannot_be_read_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(values={"key": SidecarError(UNAVAILABLE, "nobody is there", store="store", key="key")})

    def read(payload: str, secret: str) -> None:
        raise AssertionError("it must not be called")

    with compiled(function(read, trigger(), secret("secret")), store=store) as dispatcher, pytest.raises(SidecarError):
        await dispatcher.invoke(invocation("read"))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["UNAVAILABLE: function 'read', secret 'key' of 'store': nobody is there"]


async def test_a_result_that_cannot_be_answered_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def gives(payload: str) -> object:
        return object()

    with compiled(function(gives, trigger())) as dispatcher, pytest.raises(AppError) as failure:
        await dispatcher.invoke(invocation("gives"))
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == f"UNKNOWN: function 'gives': {failure.value}"


async def test_a_function_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def breaks(payload: str) -> None:
        raise ValueError("it broke")

    with compiled(function(breaks, trigger())) as dispatcher, pytest.raises(AppError):
        await dispatcher.invoke(invocation("breaks"))
    (record,) = caplog.records
    assert "ValueError: it broke" in record.getMessage()


async def test_what_callers_do_wrong_is_logged_for_those_who_look_for_it(caplog: pytest.LogCaptureFixture) -> None:
    def counts(payload: int) -> None:
        raise AssertionError("it must not be called")

    caplog.set_level(logging.DEBUG)
    with compiled(function(counts, trigger())) as dispatcher, pytest.raises(CallerError):
        await dispatcher.invoke(invocation("counts", b'"x"'))
    (record,) = [each for each in caplog.records if each.name == "daprfunc.dispatch"]
    assert record.levelname == "DEBUG"
    assert record.getMessage().startswith("INVALID_ARGUMENT: function 'counts': ")


# Time.


async def never(payload: str) -> None:
    await asyncio.get_running_loop().create_future()


async def test_an_async_function_that_takes_too_long_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with compiled(never, timeout=0.1) as dispatcher, pytest.raises(AppError) as raised:
        await asyncio.ensure_future(dispatcher.invoke(invocation("never")))
    assert 0.09 <= loop.time() - started < 0.5
    assert (raised.value.status.name, raised.value.status.http) == ("DEADLINE_EXCEEDED", 504)
    assert str(raised.value) == "function 'never' took more than functionTimeout, 0.1 s"
    assert str(raised.value) in caplog.records[0].getMessage()
    assert dispatcher.in_flight == 0


async def test_a_sync_function_that_takes_too_long_is_answered_for() -> None:
    released = threading.Event()

    def blocks(payload: str) -> str:
        released.wait(10)
        return "late"

    loop = asyncio.get_running_loop()
    with compiled(blocks, echo, timeout=0.1) as dispatcher:
        started = loop.time()
        with pytest.raises(AppError) as raised:
            await asyncio.ensure_future(dispatcher.invoke(invocation("blocks")))
        assert 0.09 <= loop.time() - started < 0.5
        assert raised.value.status.http == 504
        assert (await dispatcher.invoke(invocation("echo", b"1"))).body == b'"1"', "others go on beside it"
        released.set()


async def test_waiting_for_a_secret_counts() -> None:
    async def reads(payload: str, secret: str) -> None: ...

    store = Store(held=True)
    late = pytest.raises(AppError, match="functionTimeout")
    with compiled(function(reads, secret()), store=store, timeout=0.05) as dispatcher, late:
        await asyncio.ensure_future(dispatcher.invoke(invocation("reads")))
    assert store.reads[0][2].cancelled()


async def test_retries_count() -> None:
    def fails(payload: str) -> None:
        raise ValueError

    retried = function(fails, retry=Retry("fixedDelay", -1, delay=0.02))
    with compiled(retried, timeout=0.1) as dispatcher, pytest.raises(AppError, match="functionTimeout"):
        await asyncio.ensure_future(dispatcher.invoke(invocation("fails")))


async def test_a_function_in_time_is_not_disturbed_afterwards() -> None:
    with compiled(echo, timeout=0.05) as dispatcher:

        async def caller() -> str:
            await dispatcher.invoke(invocation("echo", b"1"))
            await asyncio.sleep(0.1)
            return "undisturbed"

        assert await asyncio.ensure_future(caller()) == "undisturbed"


async def test_a_cancelled_caller_is_cancelled_and_not_late() -> None:
    with compiled(never, timeout=60) as dispatcher:
        running = asyncio.ensure_future(dispatcher.invoke(invocation("never")))
        await asyncio.sleep(0)
        assert dispatcher.in_flight == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert dispatcher.in_flight == 0


# Number.


async def test_so_many_may_run_and_no_more() -> None:
    released = asyncio.Event()

    async def waits(payload: str) -> str:
        await released.wait()
        return "done"

    with compiled(waits, max_concurrency=3) as dispatcher:
        running = [asyncio.ensure_future(dispatcher.invoke(invocation("waits"))) for _ in range(3)]
        await asyncio.sleep(0)
        assert dispatcher.in_flight == 3
        with pytest.raises(InvocationError, match="--max-concurrency") as raised:
            await dispatcher.invoke(invocation("waits"))
        assert (raised.value.status.name, raised.value.status.http) == ("RESOURCE_EXHAUSTED", 503)
        released.set()
        assert [reply.body for reply in await asyncio.gather(*running)] == [b'"done"'] * 3
        assert (await dispatcher.invoke(invocation("waits"))).body == b'"done"'


async def test_drained_waits_for_the_last() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def waits(payload: int) -> None:
        await gates[payload].wait()
        if payload == 2:
            raise ValueError

    with compiled(waits) as dispatcher:
        await dispatcher.drained()
        running = [asyncio.ensure_future(dispatcher.invoke(invocation("waits", b"%d" % each))) for each in range(3)]
        await asyncio.sleep(0)
        drained = asyncio.ensure_future(dispatcher.drained())
        for gate in gates:
            await asyncio.sleep(0)
            assert not drained.done()
            gate.set()
        await drained
        await asyncio.gather(*running, return_exceptions=True)
        # And again: drained() is no one-way door.
        gates[0].clear()
        late = asyncio.ensure_future(dispatcher.invoke(invocation("waits", b"0")))
        await asyncio.sleep(0)
        drained = asyncio.ensure_future(dispatcher.drained())
        await asyncio.sleep(0)
        assert not drained.done()
        gates[0].set()
        await drained
        await late


# Faults of ours.


async def test_a_fault_of_the_runtime_is_said_to_be_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with compiled(echo) as dispatcher:

        async def broken(*_: Any) -> None:
            raise ZeroDivisionError("a detail")

        monkeypatch.setattr(dispatcher.plans["echo"], "run", broken)
        with pytest.raises(AppError) as raised:
            await dispatcher.invoke(invocation("echo"))
    assert str(raised.value) == "Function invocation failed: ZeroDivisionError in the runtime"
    assert raised.value.status.http == 500
    assert caplog.records[0].levelno == logging.ERROR
    assert "please report this" in caplog.records[0].getMessage()
    assert caplog.records[0].exc_info
    assert dispatcher.in_flight == 0
