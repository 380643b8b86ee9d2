"""`daprfunc start --reload`, in processes as a user has them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import Process, free_port, is_listening, wait_until

SOURCE = """
import azure.functions as func
import words
app = func.FunctionApp()

@app.dapr_service_invocation_trigger("payload", method_name="Say")
def say(payload): return words.TEXT
"""
STORE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: secretstores.local.env, version: v1}
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    directory = tmp_path / "app"
    (directory / "components").mkdir(parents=True)
    (directory / "function_app.py").write_text(SOURCE)
    (directory / "words.py").write_text("TEXT = 'one'\n")
    (directory / "components" / "store.yaml").write_text(STORE)
    return directory


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def process(app: Path, port: int) -> Iterator[Process]:
    options = ["--app-port", str(port), "--resources-path", str(app / "components"), "--mask-secrets", "--reload"]
    with Process("daprfunc", [sys.executable, "-m", "daprfunc", "start", app, *options]) as process_:
        yield process_
    wait_until(lambda: not is_listening(port), "the app's end")


@pytest.fixture
def said(process: Process, port: int) -> Callable[[], str]:
    def call() -> str:
        try:
            return httpx.post(f"http://127.0.0.1:{port}/Say", timeout=10, trust_env=False).text
        except httpx.TransportError:
            return "nothing"

    return call


def starts(process: Process) -> int:
    return len(re.findall("ready: ", process.output))


def test_a_change_is_served_and_an_error_in_it_is_waited_out(
    process: Process, app: Path, said: Callable[[], str]
) -> None:
    process.wait_for_output("ready: ")
    assert said() == '"one"'
    (app / "words.py").write_text("TEXT = 'two and more'\n")
    process.wait_until(lambda: said() == '"two and more"', "the change")
    assert f"reload: {app / 'words.py'} changed: starting the app anew" in process.output
    (app / "words.py").write_text("TEXT = \n")
    process.wait_for_output("reload: the app ended with exit status 1: it starts anew when a file changes")
    (app / "words.py").write_text("TEXT = 'three'\n")
    process.wait_until(lambda: said() == '"three"', "the mended app")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert process.output.endswith("stopped")
    assert "Traceback" not in process.output


@pytest.mark.parametrize(
    "name", ["new.py", "components/store.yaml", "local.settings.json", "host.json", "secrets.json", "F/function.json"]
)
def test_files_that_matter(process: Process, app: Path, name: str) -> None:
    process.wait_for_output("ready: ")
    (app / name).parent.mkdir(exist_ok=True)
    (app / name).write_text(STORE + "\n" if name.endswith("yaml") else "{}")
    process.wait_for_output(f"reload: {re.escape(str(app / name))} changed")


def test_files_that_do_not_matter(process: Process, app: Path) -> None:
    process.wait_for_output("ready: ")
    for name in ("written.json", "notes.txt", ".hidden/a.py", "env/pyvenv.cfg", "env/lib/a.py", "__pycache__/a.py"):
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text("{}")
    (app / "matters.py").write_text("")
    process.wait_until(lambda: starts(process) == 2, "the second start")
    assert re.findall("reload: (.*) changed", process.output) == [str(app / "matters.py")]


def test_an_interrupt_from_the_terminal_ends_both_in_good_order(process: Process) -> None:
    process.wait_for_output("ready: ")
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
    assert process.wait() == 0
    assert process.output.endswith("stopped")


def test_a_broken_app_can_be_left(process: Process, app: Path) -> None:
    process.wait_for_output("ready: ")
    (app / "function_app.py").write_text("import nothing_of_this_name\n")
    process.wait_for_output("reload: the app ended with exit status 1")
    process.signal(signal.SIGINT)
    assert process.wait() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_the_app_does_not_outlive_a_reloader_that_was_killed(process: Process, port: int) -> None:
    process.wait_for_output("ready: ")
    process.signal(signal.SIGKILL)
    wait_until(lambda: not is_listening(port), "the app's end")
    wait_until(lambda: process.output.endswith("stopped"), "an end in good order")
