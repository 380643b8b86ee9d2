"""Functions that misbehave, callers that leave, and SIGTERM under load: nobody else notices."""

from __future__ import annotations

import json
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.app import FunctionApp
from tests.e2e.load import GrpcCaller, HttpCaller, Tally
from tests.e2e.processes import wait_until

pytestmark = pytest.mark.e2e

APP = Path(__file__).parents[1] / "apps" / "faults"
# No sidecar runs here; nothing in these tests asks one.
QUIET = {"DAPR_GRPC_PORT": "1", "DAPR_HEALTH_TIMEOUT": "3600"}
TIMEOUT = 1.0
SLACK = 1.0
IN_FLIGHT = 200


@pytest.fixture(scope="module")
def app() -> Iterator[FunctionApp]:
    """An app whose functions may take :data:`TIMEOUT`."""
    env = QUIET | {"AzureFunctionsJobHost__functionTimeout": "00:00:01"}
    with FunctionApp(APP, env=env) as running:
        yield running


@pytest.fixture
def http(app: FunctionApp) -> Iterator[HttpCaller]:
    with HttpCaller(app.port) as caller:
        yield caller


@pytest.fixture
def grpc(app: FunctionApp) -> Iterator[GrpcCaller]:
    with GrpcCaller(app.port) as caller:
        yield caller


@pytest.mark.parametrize("where", ["", "_in_thread"])
@pytest.mark.parametrize(
    ("what", "payload", "text"),
    [
        ("raises", "Exception", "ValueError: no such luck"),
        ("raises", "StopIteration", "StopIteration"),
        ("raises", "BaseException", "NotAnExceptionError: no such luck"),
        ("exits", 0, "SystemExit: 0"),
        ("exits", 3, "SystemExit: 3"),
    ],
)
def test_a_function_that_raises_or_exits(
    app: FunctionApp, http: HttpCaller, grpc: GrpcCaller, where: str, what: str, payload: object, text: str
) -> None:
    function = what + where
    status, body = http.post(function, payload)
    code, details = grpc.post(function, payload)
    assert (status, code) == (500, "UNKNOWN")
    assert body == details
    assert body.startswith("Function invocation failed: ")
    assert text in body
    assert "\n" not in body
    # The log says which function it was, and where in it.
    app.process.wait_for_output(rf"function '{function}' raised")
    assert http.post("echo" + where, "still here") == (200, '"still here"')


@pytest.mark.parametrize("function", ["sleeps", "sleeps_in_thread"])
def test_a_function_that_hangs(
    app: FunctionApp, http: HttpCaller, grpc: GrpcCaller, function: str, figure: Callable[[object], None]
) -> None:
    payload = {"seconds": 3, "name": f"hangs-{function}"}
    started = time.monotonic()
    call = grpc.send(function, payload)
    status, body = http.post(function, payload)
    code, details = grpc.answer(call)
    took = time.monotonic() - started
    figure(f"sent 2, answered 2, lost 0 ({status}, {code}) after {took:.2f} s; functionTimeout is {TIMEOUT:g} s")
    assert (status, code) == (504, "DEADLINE_EXCEEDED")
    assert body == details
    assert f"'{function}'" in body
    assert "functionTimeout" in body
    assert TIMEOUT - 0.05 < took < TIMEOUT + SLACK
    assert http.post("echo_in_thread", "still here") == (200, '"still here"')


def test_a_function_that_floods_the_log(app: FunctionApp, http: HttpCaller, figure: Callable[[object], None]) -> None:
    lines, tally, took = 20_000, Tally(), []
    before = len(app.process.lines)
    with HttpCaller(app.port) as flooding:
        # Within its second each call writes what it can; the others must be answered all the same.
        flooding.send("floods", lines)
        for _ in range(50):
            started = time.monotonic()
            tally.take(lambda: http.post("echo", "dry")[0])
            took.append(time.monotonic() - started)
        status, body = flooding.answer()
    written = len(app.process.lines) - before
    figure(f"{tally} beside {written} log lines; at most {max(took) * 1000:.0f} ms; the flood itself got {status}")
    assert tally.answers == {"200": 50}
    assert written > 1_000
    assert max(took) < SLACK
    assert (status, body) == (200, str(lines)) or (status == 504 and "functionTimeout" in body)


def test_a_function_that_blocks_the_loop_is_named(app: FunctionApp, http: HttpCaller) -> None:
    status, body = http.post("blocks", 2.0)
    # It could not be stopped in time, since nothing ran while it blocked; whether the late answer counts is all one.
    assert status in (200, 504), body
    line = app.process.wait_for_output(r"^\S+ (WARN|ERROR).*\bblocks\b", 5).string
    assert "'blocks'" in line
    assert "loop" in line, line


def reset(connection: socket.socket) -> None:
    """Close so that the other side sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("way", ["closes", "resets", "cancels"])
def test_a_caller_that_leaves_has_its_function_cancelled(app: FunctionApp, way: str) -> None:
    leaving, staying = {"seconds": 0.9, "name": f"leaving-{way}"}, {"seconds": 0.9, "name": f"staying-{way}"}
    with GrpcCaller(app.port) as grpc, HttpCaller(app.port) as http, HttpCaller(app.port) as neighbour:
        neighbour.send("sleeps", staying)
        grpc_neighbour = grpc.send("sleeps", staying)
        if way == "cancels":
            call = grpc.send("sleeps", leaving)
        else:
            http.send("sleeps", leaving)
        with HttpCaller(app.port) as counter:
            wait_until(lambda: counter.post("running", leaving["name"]) == (200, "1"), "the function to run")
        if way == "cancels":
            call.cancel()
        else:
            {"closes": socket.socket.close, "resets": reset}[way](http.connection.sock)
        started = time.monotonic()
        app.process.wait_for_output(f"cancelled <{leaving['name']}>", 5)
        assert time.monotonic() - started < 0.8, "it was not cancelled but timed out"
        assert neighbour.answer() == (200, json.dumps(staying["name"]))
        assert grpc.answer(grpc_neighbour) == ("OK", json.dumps(staying["name"]))
    assert f"cancelled <{staying['name']}>" not in app.output


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("function", ["sleeps", "sleeps_in_thread"])
def test_sigterm_under_load(protocol: str, function: str, figure: Callable[[object], None]) -> None:
    # Threads are few, so most of the functions that need one have not even begun when the signal comes.
    payload = {"seconds": 1.0 if function == "sleeps" else 0.02, "name": "last"}
    tally = Tally()
    answers: list[Callable[[], tuple[object, str]]]
    with FunctionApp(APP, env=QUIET) as app:
        if protocol == "http":
            callers = [HttpCaller(app.port) for _ in range(IN_FLIGHT)]
            for caller in callers:
                caller.send(function, payload)
            answers = [caller.answer for caller in callers]
        else:
            grpc = GrpcCaller(app.port)
            calls = [grpc.send(function, payload) for _ in range(IN_FLIGHT)]
            answers = [partial(grpc.answer, call) for call in calls]
        if function == "sleeps":
            with HttpCaller(app.port) as counter:
                wait_until(lambda: counter.post("running", "last") == (200, str(IN_FLIGHT)), "all to be in flight")
        else:
            with HttpCaller(app.port) as probe:  # What was sent before this one was answered has arrived.
                assert probe.post("echo", "?")[0] == 200
        started = time.monotonic()
        app.process.signal(signal.SIGTERM)
        app.process.wait_for_output("draining")
        for answer in answers:
            tally.take(lambda: answer()[0])  # noqa: B023 (called at once)
        code = app.process.wait(10)
        took = time.monotonic() - started
        if protocol == "http":
            for caller in callers:
                caller.connection.close()
        else:
            grpc.channel.close()
    figure(f"{tally}; exit status {code} after {took:.1f} s")
    assert tally.answers == {"200" if protocol == "http" else "OK": IN_FLIGHT}
    assert code == 0
    assert took < 10
    assert "Traceback" not in app.output, app.output[-2000:]
