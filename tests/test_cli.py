from __future__ import annotations

import inspect
import json
import re
import shlex
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from daprfunc import __version__, caller, cli
from daprfunc.caller import Outcome
from daprfunc.errors import INTERNAL, InvocationError
from daprfunc.loading import unload_app

ROOT = Path(__file__).parents[1]
APPS = Path(__file__).parent / "apps"
EXAMPLE = ROOT / "examples" / "retrieve-secret-v2"

Run = Callable[..., Result]

# Before click 8.2 the runner had to be told to keep standard error apart; since then it must not be.
APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command line in this process, with nothing in the environment that it could read."""
    for name in ("DAPR_APP_PORT", "APP_PORT", "APP_CHANNEL_ADDRESS", "APP_API_TOKEN", "DAPR_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)
    # The example's local.settings.json puts this one there; set first, it is taken back after the test.
    monkeypatch.setenv("FUNCTIONS_WORKER_RUNTIME", "python")

    def run_(*arguments: object) -> Result:
        return CliRunner(**APART).invoke(cli.main, [str(argument) for argument in arguments])

    yield run_
    unload_app()


@pytest.fixture
def app(tmp_path: Path) -> Callable[[str], Path]:
    """Write a v2 app; `app` and `invoked` are there."""

    def write(source: str) -> Path:
        head = "import azure.functions as func\napp = func.FunctionApp()\n"
        head += 'invoked = app.dapr_service_invocation_trigger("payload", method_name="")\n'
        (tmp_path / "function_app.py").write_text(head + textwrap.dedent(source))
        return tmp_path

    return write


def test_version_and_help_with_examples(run: Run) -> None:
    assert __version__ in run("--version").stdout
    for command in ("", "start", "invoke"):
        text = run(*filter(None, [command]), "--help").stdout
        assert "Examples:" in text, command
    assert "--max-concurrency" in run("start", "--help").stdout


@pytest.mark.parametrize("command", ["", "start", "invoke"])
def test_the_help_has_examples_that_can_be_typed(
    run: Run, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-app").symlink_to(EXAMPLE)
    (tmp_path / "components").symlink_to(EXAMPLE / "components")
    monkeypatch.chdir(tmp_path)
    text = run(*filter(None, [command]), "--help").stdout
    _, examples = text.split("  Examples:\n")
    lines = [re.split(r" {2,}", line.strip())[0] for line in examples.splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line)
        name, *arguments = words[words.index("daprfunc") + 1 :]
        cli.main.commands[name].make_context(name, arguments)
    assert "\\b" not in text


def test_the_readme_knows_every_flag_and_every_flag_of_the_readme_is_known() -> None:
    readme = (ROOT / "README.md").read_text()
    flags = {
        option for command in cli.main.commands.values() for parameter in command.params for option in parameter.opts
    }
    start = {option for parameter in cli.main.commands["start"].params for option in parameter.opts if option[0] == "-"}
    assert [flag for flag in sorted(start) if f"`{flag}`" not in readme] == []
    of_daprd = {"--app-id", "--method"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", readme)) - flags - of_daprd == set()


def test_help_imports_nothing_that_runs_apps() -> None:
    code = (
        "import sys; from daprfunc import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'grpc', 'azure', 'daprfunc.host', 'yaml'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["start", "nowhere"], "nowhere"),
        (["check", __file__], "is a file"),
        (["start", "--no-such-flag"], "--no-such-flag"),
        (["stop"], "stop"),
        (["start", EXAMPLE, "--resources-path", "nowhere"], "nowhere"),
        (["start", EXAMPLE, "--app-port", "http"], "--app-port: found 'http', expected a whole number"),
        (["start", EXAMPLE, "--log-level", "loud"], "--log-level: found 'loud', expected trace, debug"),
        (["start", EXAMPLE, "--max-body-size", "big"], "--max-body-size"),
        (["start", EXAMPLE, "--app-tls-key-file", __file__], "--app-tls-cert-file and --app-tls-key-file go together"),
        (["start", EXAMPLE, "--app-protocol", "tcp"], "--app-protocol"),
        (["invoke"], "METHOD"),
        (["invoke", "F", "--timeout", "0"], "--timeout"),
        (["invoke", "F", "--data", "@nowhere.json"], "--data @nowhere.json: No such file"),
    ],
)
def test_wrong_usage_exits_2_and_names_what_is_wrong(run: Run, arguments: list[object], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("host.json", "{", "host.json"),
        ("host.json", '{"version": "1.0"}', "host.json: version: found '1.0'"),
        ("host.json", '{"functionTimeout": "soon"}', "functionTimeout"),
        ("local.settings.json", '{"IsEncrypted": true, "Values": {"A": "x"}}', "func settings decrypt"),
        ("local.settings.json", '{"Values": {"APP_PORT": "nine"}}', "local.settings.json: Values.APP_PORT"),
    ],
)
def test_broken_settings_files_exit_2_in_one_line(
    run: Run, app: Callable[[str], Path], file: str, content: str, says: str
) -> None:
    directory = app("@invoked\ndef F(payload): ...\n")
    (directory / file).write_text(content)
    for command in ("start", "check", "list"):
        result = run(command, directory)
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert says in line


def test_bad_environment_values_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPR_APP_PORT", "many")
    result = run("start", EXAMPLE)
    assert result.exit_code == 2
    assert result.stderr == (
        "error: environment variable DAPR_APP_PORT: found 'many', expected a whole number from 0 to 65535\n"
    )


def test_check_of_a_good_app(run: Run) -> None:
    result = run("check", EXAMPLE)
    assert (result.exit_code, result.stdout) == (0, "1 function(s) load, 0 do not, 0 warning(s)\n")
    assert result.stderr == ""


def test_check_says_all_that_is_wrong_a_line_each(run: Run) -> None:
    result = run("check", APPS / "v1_broken")
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    for function in ("Exits", "Misfit", "NoMain", "NoModule", "NoPackage", "NoScript", "NotJson", "Raises"):
        assert any(f"function '{function}'" in line for line in lines), function
    assert "1 function(s) load, 8 do not" in result.stdout
    assert "Traceback" not in result.output


def test_check_warns_of_what_it_assumed(run: Run) -> None:
    result = run("check", APPS / "v1_odd")
    assert result.exit_code == 0
    assert sum(line.startswith("warning: ") for line in result.stderr.splitlines()) == 2
    assert "2 warning(s)" in result.stdout


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("@invoked\ndef F(payload, other): ...\n", "'other'"),
        ("import nothing_of_this_name\n", "no module 'nothing_of_this_name'"),
        ("raise ValueError('a\\nb')\n", "ValueError"),
        ("@app.queue_trigger('q', 'n', 'c')\ndef F(q): ...\n", "queueTrigger"),
        ("", "no function in it"),
    ],
)
def test_an_app_of_which_nothing_loads_exits_1(run: Run, app: Callable[[str], Path], source: str, says: str) -> None:
    directory = app(source)
    checked = run("check", directory)
    listed = run("list", directory)
    assert listed.stdout == ""
    # In a process of its own: what starts an app takes over signals and the log.
    command = [sys.executable, "-m", "daprfunc", "start", str(directory), "--app-port", "0"]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    ends = [(result.exit_code, result.stderr) for result in (checked, listed)]
    for code, output in (*ends, (started.returncode, started.stderr)):
        assert code == 1, output
        errors = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert says in errors[0]
        assert "Traceback" not in output


def test_list_for_people(run: Run, app: Callable[[str], Path]) -> None:
    directory = app("""
    @app.function_name("Second")
    @invoked
    @app.dapr_secret_input("s", "vault", "{payload.key}", metadata="")
    async def second(payload, s): ...

    @app.dapr_service_invocation_trigger("payload", method_name="one")
    def First(payload): ...

    @invoked
    def Broken(payload, what): ...
    """)
    result = run("list", directory)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["FUNCTION", "TRIGGER", "ROUTE", "BINDINGS", "CALLED"],
        ["First", "daprServiceInvocationTrigger", "POST", "/one", "-", "in", "a", "thread"],
        ["Second", "daprServiceInvocationTrigger", "POST", "/Second", "s=vault/{payload.key}", "on", "the", "loop"],
    ]
    assert "function 'Broken'" in result.stderr


def test_list_json_is_stable_and_alone_on_standard_output(run: Run, app: Callable[[str], Path]) -> None:
    directory = app("""
    print("loading", flush=True)

    @invoked
    @app.dapr_secret_input("s", "vault", "key", metadata="")
    async def Fine(payload, s): ...

    @invoked
    def Broken(payload, what): ...
    """)
    result = run("list", directory, "--json")
    document = json.loads(result.stdout)
    script = str(directory / "function_app.py")
    (broken,) = document.pop("broken")
    assert document == {
        "directory": str(directory),
        "functions": [
            {
                "name": "Fine",
                "script": script,
                "async": True,
                "trigger": {"type": "daprServiceInvocationTrigger", "parameter": "payload", "route": "Fine"},
                "inputs": [{"type": "daprSecret", "parameter": "s", "source": "vault/key"}],
            }
        ],
        "warnings": [],
    }
    assert (broken["name"], [set(problem) for problem in broken["problems"]]) == (
        "Broken",
        [{"file", "parameter", "message"}],
    )
    assert "loading" in result.stderr


def test_list_json_of_broken_functions_is_json_and_exits_1(run: Run, app: Callable[[str], Path]) -> None:
    result = run("list", app("@invoked\ndef Broken(payload, what): ...\n"), "--json")
    document = json.loads(result.stdout)
    assert ([broken["name"] for broken in document["broken"]], document["functions"]) == (["Broken"], [])
    assert (result.exit_code, result.stderr) == (1, "")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_invoke_without_an_app_says_where_it_looked(run: Run, protocol: str) -> None:
    with socket.socket() as held:  # bound, not listening: nobody else takes the port meanwhile
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        result = run("invoke", "F", "--app-port", port, "--app-protocol", protocol)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: no app answers at 127.0.0.1:{port}: Connection refused; start it, or name its port with --app-port\n"
    )


@pytest.mark.parametrize(
    ("protocol", "greeting", "says"),
    [
        ("http", b"SSH-2.0-nothing\r\n", "what answers speaks no HTTP"),
        ("http", b"", "closed the connection before it answered; its log may say why"),
        ("http", None, "did not answer within 0.3 s (--timeout)"),
        ("grpc", None, "DEADLINE_EXCEEDED"),
    ],
)
def test_invoke_of_what_is_no_app(run: Run, protocol: str, greeting: bytes | None, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting or b"")
                connection.recv(65_536)
                connection.shutdown(socket.SHUT_WR)

        if greeting is not None:
            threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        result = run("invoke", "F", "--app-port", port, "--app-protocol", protocol, "--timeout", "0.3")
    assert result.exit_code == 1
    assert says in result.stderr


def test_invoke_prints_status_and_body_apart(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    payload = tmp_path / "payload.json"
    payload.write_bytes(b'{"id": 1}')
    seen: list[object] = []

    def call(settings: object, method: str, data: bytes, timeout: float) -> Outcome:
        seen.append((method, data, timeout))
        return Outcome(method == "F", "200 OK", b"body")

    monkeypatch.setattr(caller, "CALLS", {"http": call})
    for arguments, code in ((["F", "--data", f"@{payload}"], 0), (["G", "--timeout", "2"], 1)):
        result = run("invoke", *arguments)
        assert (result.exit_code, result.stdout, result.stderr) == (code, "body\n", "200 OK\n")
    assert seen == [("F", b'{"id": 1}', 60.0), ("G", b"", 2.0)]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RuntimeError("boom"), 1, "error: unexpected RuntimeError: boom; this is a defect of daprfunc"),
        (KeyboardInterrupt(), 130, ""),
        (InvocationError(INTERNAL, "why"), 1, "error: why"),
    ],
)
def test_whatever_happens_there_is_no_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    def call(*_: object) -> Outcome:
        raise error

    monkeypatch.setattr(caller, "CALLS", {"http": call})
    result = run("invoke", "F")
    assert result.exit_code == code
    assert says in result.stderr
    assert "Traceback" not in result.output
