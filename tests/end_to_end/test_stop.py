"""How it ends: nothing lost, nothing left, whatever the functions do."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.app import FunctionApp
from tests.e2e.processes import Process
from tests.end_to_end.conftest import APP, EMBEDDED, Start

HEAD = "import azure.functions as func\napp = func.FunctionApp()\n"
FUNCTION = '@app.dapr_service_invocation_trigger("payload", method_name="")\ndef F(payload): return 1\n'


@pytest.fixture
def pool(stack: ExitStack) -> ThreadPoolExecutor:
    return stack.enter_context(ThreadPoolExecutor(64))


def call(app: FunctionApp, function: str, seconds: float) -> httpx.Response:
    with httpx.Client(base_url=f"http://{app.address}", timeout=30, trust_env=False) as client:
        return client.post(f"/{function}", content=str(seconds).encode())


def began(app: FunctionApp, count: int) -> None:
    app.process.wait_until(lambda: app.output.count("began") == count, f"{count} invocations")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_invocations_are_answered_before_it_ends(
    number: signal.Signals, start: Start, on_invoke: Callable[..., bytes], pool: ThreadPoolExecutor
) -> None:
    app = start(APP, *EMBEDDED, env={"PYTHON_THREADPOOL_THREAD_COUNT": "32", "PYTHONDEVMODE": "1"})
    assert app.http.get("/healthz").status_code == 200  # a connection that is idle when the end comes
    functions = ("Wait", "WaitInThread")
    http = [pool.submit(call, app, function, 1) for function in functions * 10]
    grpc = [pool.submit(on_invoke, app, function, b"1") for function in functions * 10]
    began(app, 40)
    app.process.signal(number)
    app.process.wait_for_output(r"draining: 40 invocation\(s\) in flight")
    with pytest.raises(httpx.TransportError):
        call(app, "Wait", 0)  # nobody new gets in
    assert [reply.result().text for reply in http] == ['"done"'] * 20
    assert [reply.result() for reply in grpc] == [b'"done"'] * 20
    assert app.process.wait() == 0
    assert "stopped" in app.output
    for unwanted in ("Traceback", "Warning", "never retrieved", "was destroyed", "given up"):
        assert unwanted not in app.output


@pytest.mark.parametrize("function", ["WaitInThread", "Wait", "Block"])
def test_a_second_signal_ends_it_at_once(function: str, start: Start, pool: ThreadPoolExecutor) -> None:
    app = start(APP, *EMBEDDED)
    pool.submit(call, app, function, 600)
    began(app, 1)
    app.process.signal(signal.SIGTERM)
    if function == "Block":
        time.sleep(0.2)  # nothing is written that could be awaited: two signals at once would count as one
    else:
        app.process.wait_for_output("draining: 1 invocation")
    time.sleep(0.2)  # (two that come together count as one)
    app.process.signal(signal.SIGTERM)
    assert app.process.wait(5) == 128 + signal.SIGTERM
    assert "asked twice to stop" in app.output


def test_a_signal_to_the_process_and_its_group_counts_once(start: Start, pool: ThreadPoolExecutor) -> None:
    app = start(APP, *EMBEDDED)
    reply = pool.submit(call, app, "Wait", 1)
    began(app, 1)
    app.process.signal(signal.SIGTERM)
    app.process.signal(signal.SIGINT)
    assert reply.result().text == '"done"'
    assert app.process.wait() == 0


@pytest.mark.parametrize("function", ["WaitInThread", "Wait"])
def test_a_function_that_hangs_is_given_up(function: str, start: Start, pool: ThreadPoolExecutor) -> None:
    app = start(APP, *EMBEDDED, "--drain-timeout", "0.5")
    reply: Future[httpx.Response] = pool.submit(call, app, function, 600)
    began(app, 1)
    began_to_stop = time.monotonic()
    app.process.signal(signal.SIGTERM)
    assert app.process.wait() == 0
    assert time.monotonic() - began_to_stop < 3
    assert "1 invocation(s) still ran after 0.5 s and were given up" in app.output
    with pytest.raises(httpx.TransportError):
        reply.result()


def test_a_function_that_blocks_the_loop_is_named_and_does_not_keep_it_alive(
    start: Start, pool: ThreadPoolExecutor
) -> None:
    app = start(APP, *EMBEDDED, "--drain-timeout", "0.5")
    pool.submit(call, app, "Block", 600)
    app.process.wait_for_output(
        r"function 'Block' has blocked the event loop for over 1\.25 s at .*function_app\.py:\d+, so"
    )
    app.process.signal(signal.SIGTERM)
    assert app.process.wait() == 1
    assert "had not ended" in app.output
    assert "the event loop is blocked" in app.output


def test_a_thread_that_the_app_left_running_does_not_keep_it_alive(start: Start, tmp_path: Path) -> None:
    left = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), name='poller').start()\n"
    (tmp_path / "function_app.py").write_text(HEAD + left + FUNCTION)
    app = start(tmp_path, *EMBEDDED, "--drain-timeout", "0")
    app.process.signal(signal.SIGTERM)
    assert app.process.wait() == 0
    assert "these threads run on: poller" in app.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_can_be_interrupted(number: signal.Signals, tmp_path: Path, stack: ExitStack) -> None:
    (tmp_path / "function_app.py").write_text("import time\nprint('importing')\ntime.sleep(600)\n")
    command: list[str | Path] = [sys.executable, "-m", "daprfunc", "start", tmp_path, *EMBEDDED, "--app-port", "0"]
    process = stack.enter_context(Process("daprfunc", command))
    process.wait_for_output("importing")
    process.signal(number)
    assert process.wait(10) == 128 + number
    assert "Traceback" not in process.output
