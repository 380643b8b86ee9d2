"""Values are planted in stores, payloads, headers, tokens and settings; everything is broken; none may be seen."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from daprfunc.channel.app import App
from daprfunc.channel.web import HttpResponse
from daprfunc.context import InvocationContext
from daprfunc.endpoint import Endpoint
from daprfunc.executor import Executor
from daprfunc.http2 import frames
from daprfunc.invocation import Invocation, Reply
from daprfunc.loading import loaded_app
from daprfunc.logs import SecretMask
from daprfunc.payload import Payload
from daprfunc.settings import read_settings
from daprfunc.sidecar.client import SecretRead, Sidecar
from daprfunc.sidecar.pool import Sidecars
from daprfunc.sidecar.transport import Channel
from daprfunc.standalone.components import load_resources
from daprfunc.standalone.service import EmbeddedSidecar
from tests.e2e.app import FunctionApp
from tests.e2e.daprd import component, write_resources, write_secrets
from tests.e2e.fakes import GrpcSidecar, RawSidecar, environment
from tests.e2e.load import GrpcCaller
from tests.e2e.planted import PLANTED, found_in
from tests.e2e.processes import Process
from tests.e2e.test_faults_sidecar import FINE, HEAD, message, reply

pytestmark = pytest.mark.e2e

APPS = Path(__file__).parents[1] / "apps"
SECRET = PLANTED["secret"]
TOKENS = {"APP_API_TOKEN": PLANTED["app token"], "DAPR_API_TOKEN": PLANTED["dapr token"]}
SETTINGS = {"PLANTED_SETTING": PLANTED["setting"]}
LIMITS = {"DAPR_API_TIMEOUT_SECONDS": "0.5", "AzureFunctionsJobHost__functionTimeout": "00:00:01"}


def answer(key: str, context: grpc.ServicerContext) -> Mapping[str, str]:
    """A store that has the planted secret, and gives it in ways that it should not."""
    if key == "slow":
        time.sleep(1)
    if key == "huge":
        return {"value": SECRET * 200_000}
    if key == "fails":
        context.set_trailing_metadata((("x-secret", SECRET), ("grpc-status-details-bin", SECRET.encode())))
        context.abort(grpc.StatusCode.INTERNAL, "the store failed")
    return {"value": SECRET, "other": SECRET}


PAYLOADS: list[bytes] = [
    json.dumps(payload).encode()
    for value in (PLANTED["payload"],)
    for payload in (value, {"value": value}, {value: value}, [value], {"a": value}, {"a": {"b": [value]}})
]
PAYLOADS += [PAYLOADS[0][:-3], PAYLOADS[1] + b"x", b'{"value": ' + PAYLOADS[0][1:], b"\xff" + PAYLOADS[0], b""]


def ask_all(app: FunctionApp, functions: list[str]) -> dict[str, str]:
    """Everything that callers are told, over both protocols: what was asked -> what came back."""
    told = {}
    headers = {
        "dapr-api-token": PLANTED["app token"],
        "authorization": PLANTED["header"],
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": f"vendor={PLANTED['header']}",
        "baggage": f"user={PLANTED['header']}",
        "content-type": "application/json",
    }
    with GrpcCaller(app.port) as caller:
        for function in functions:
            # The same payloads for all would only repeat what the first ones showed.
            takes_payloads = function in ("typed", "numbers", "model", "by_path")
            for payload in PAYLOADS if takes_payloads else PAYLOADS[:1]:
                response = app.http.post(f"/{function}?token={PLANTED['header']}", content=payload, headers=headers)
                told[f"HTTP {function} {response.status_code}"] = f"{response.text}\n{response.headers}"
                request = caller.request(function)
                request.data.value = payload
                call = caller.stub.OnInvoke.future(request, timeout=10, metadata=tuple(headers.items())[:2])
                code, text = caller.answer(call)
                told[f"gRPC {function} {code}"] = f"{text}\n{call.initial_metadata()}{call.trailing_metadata()}"
    for name, wrong in (("a wrong token", PLANTED["header"]), ("no token", "")):
        response = app.http.post("/raises", headers={"dapr-api-token": wrong})
        assert response.status_code == 401
        told[name] = response.text
    return told


def functions_of(app: str) -> list[str]:
    with loaded_app(APPS / app, app_settings=SETTINGS) as loaded:
        assert not loaded.broken
        return [function.name for function in loaded.functions]


@pytest.mark.parametrize(
    ("level", "log_format", "more"),
    [("trace", "text", ()), ("trace", "json", ("--secret-ttl", "60")), ("debug", "json", ())],
)
def test_nothing_is_seen_of_what_is_planted(
    level: str, log_format: str, more: tuple[str, ...], figure: Callable[[object], None]
) -> None:
    functions = functions_of("secrecy")
    with GrpcSidecar(answer) as sidecar:
        env = environment(sidecar.port, **TOKENS, **SETTINGS, **LIMITS)
        if level == "trace":
            env["PYTHONASYNCIODEBUG"] = "1"  # asyncio then logs what it runs, arguments included
        arguments = ("--log-level", level, "--log-format", log_format, *more)
        with FunctionApp(APPS / "secrecy", *arguments, env=env) as app:
            told = ask_all(app, functions)
    answers = {status.rsplit(" ", 1)[1] for status in told}
    figure(f"{len(told)} kinds of answers ({', '.join(sorted(answers))}), {len(app.process.lines)} log lines")
    # All of it went wrong as planned, or nothing would have been tried.
    fine = {"HTTP blocks 200", "gRPC blocks OK", "HTTP by_path 200", "gRPC by_path OK"}
    assert {kind for kind in told if kind.endswith((" 200", " OK"))} <= fine
    assert {"400", "500", "504", "INVALID_ARGUMENT", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL"} <= answers
    assert "no luck" in app.output
    assert level == "debug" or "Executing <" in app.output, "asyncio's debug mode was not on"
    seen = found_in(told | {"the log": app.output})
    assert not seen, "\n".join(sorted(set(seen)))


CUT = message(b"\n\x50\n\x05value\x12" + bytes([len(SECRET)]) + SECRET.encode()[:-4], announced=90)
WRONG = message(b"\n\x30\n\x05value\x12\x7f" + SECRET.encode())


@pytest.mark.parametrize(
    "serve",
    [
        reply(HEAD, CUT, hang_up=True),
        reply(HEAD, WRONG, FINE),
        reply(HEAD, message(SECRET.encode()), FINE),
        reply(HEAD, message(SECRET.encode(), compressed=1), FINE),
        reply((frames.HEADERS, 5, b"\x88" + frames.fields((b"grpc-status", SECRET.encode())))),
        reply((frames.HEADERS, 5, b"\x88" + frames.fields((b"x-secret", SECRET.encode())))),
        lambda at, _: at.sendall(SECRET.encode() * 3),
        lambda at, _: at.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + SECRET.encode()),
    ],
    ids=["cut", "no protobuf", "no message", "compressed", "as a status", "as a header", "as a frame", "over HTTP/1.1"],
)
def test_nothing_is_seen_of_a_broken_reply(serve: Callable[[Any, threading.Event], None]) -> None:
    with RawSidecar(serve) as sidecar:
        env = environment(sidecar.port, **SETTINGS, **LIMITS)
        with FunctionApp(APPS / "secrecy", "--log-level", "trace", env=env) as app:
            replies = [app.http.post("/raises") for _ in range(3)]
    assert all(response.status_code >= 500 for response in replies)
    told = {f"HTTP {response.status_code}": response.text for response in replies}
    assert not found_in(told | {"the log": app.output})


@pytest.mark.parametrize("how", ["flag", "host.json"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_masked(how: str, log_format: str, tmp_path: Path) -> None:
    """With maskSecrets, not even the app's own words give a secret away."""
    (tmp_path / "function_app.py").write_bytes((APPS / "indiscreet" / "function_app.py").read_bytes())
    arguments = ["--log-format", log_format]
    if how == "flag":
        arguments.append("--mask-secrets")
    else:
        (tmp_path / "host.json").write_text('{"version": "2.0", "extensions": {"dapr": {"maskSecrets": true}}}')
    with GrpcSidecar(answer) as sidecar, FunctionApp(tmp_path, *arguments, env=environment(sidecar.port)) as app:
        assert app.http.post("/logs").status_code == 200
        told = {name: app.http.post(f"/{name}").text for name in ("raises", "raises_in_thread")}
        with GrpcCaller(app.port) as caller:
            told |= {f"gRPC {name}": caller.post(name)[1] for name in ("raises", "raises_in_thread")}
    assert all("***" in text and "ValueError" in text for text in told.values())
    assert app.output.count("***") > 6
    assert not found_in(told | {"the log": app.output})


def test_unmasked_is_the_default() -> None:
    """The app's own words are its own affair unless asked; and the search does find what is there."""
    with GrpcSidecar(answer) as sidecar, FunctionApp(APPS / "indiscreet", env=environment(sidecar.port)) as app:
        assert found_in({"raises": app.http.post("/raises").text}) == [
            "the planted secret in raises: ...Function invocation failed: ValueError: cannot use <HERE>"
        ]


@pytest.fixture
def broken_files(tmp_path: Path) -> Path:
    """An app whose every file is broken around something planted."""
    (tmp_path / "local.settings.json").write_text(
        json.dumps({"Values": {"PLANTED_SETTING": PLANTED["setting"], "DAPR_API_TOKEN": PLANTED["dapr token"] + "\n"}})
    )
    function = tmp_path / "Function"
    function.mkdir()
    (function / "__init__.py").write_text("def main(payload):\n    pass\n")
    (function / "function.json").write_text('{"bindings": [{"type": "daprSecret", "key": "' + SECRET)
    return tmp_path


@pytest.mark.parametrize("command", [["check"], ["list"], ["list", "--json"], ["start"]])
def test_commands_on_broken_files(command: list[str], broken_files: Path) -> None:
    outputs = {}
    for step in ("as they are", "with settings that fit", "with settings that are no JSON"):
        process = Process("daprfunc", [sys.executable, "-m", "daprfunc", *command, broken_files])
        code = process.wait(20)
        outputs[step] = process.output
        if command[0] != "list" or step == "with settings that are no JSON":  # `list` leaves out what does not load
            assert code in (1, 2)
            assert "error: " in process.output
        settings = broken_files / "local.settings.json"
        if step == "as they are":
            settings.write_text(json.dumps({"Values": SETTINGS}))
        else:
            settings.write_text(json.dumps({"Values": SETTINGS})[:-4])
    assert not found_in(outputs)


@pytest.mark.parametrize("command", [["check"], ["list"], ["list", "--json"]])
def test_commands_on_a_whole_app(command: list[str]) -> None:
    env = TOKENS | SETTINGS
    process = Process("daprfunc", [sys.executable, "-m", "daprfunc", *command, APPS / "secrecy"], env=env)
    assert process.wait(20) == 0
    assert "raises" in process.output or command == ["check"]
    assert not found_in({"the output": process.output})


def refused(resources: Path) -> str:
    """What ``start`` says of resources that it refuses."""
    arguments: list[str | Path] = [APPS / "secrecy", "--app-port", "0", "--resources-path", resources]
    with Process("daprfunc", [sys.executable, "-m", "daprfunc", "start", *arguments], env=SETTINGS) as process:
        assert process.wait(20) in (1, 2), process.output
    return process.output


RESOURCE = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a}\n"


@pytest.mark.parametrize(
    "resource",
    [
        f"value: '{SECRET.replace(chr(39), '')}\n",
        RESOURCE + f"spec: {{type: secretstores.local.env, metadata: [{{name: prefix, value: [{SECRET[:12]}]}}]}}",
        f"!!python/object/apply:os.system ['echo {SECRET[:12]}']",
        RESOURCE + f"spec: {{type: {{x: {SECRET[:12]}}}}}",
        f"a: &x {SECRET[:12]}\nb: *x",
        f"a: b: {SECRET[:12]}",
        f"\t{SECRET[:12]}",
    ],
)
def test_broken_components(resource: str, tmp_path: Path) -> None:
    (tmp_path / "component.yaml").write_text(resource)
    output = refused(tmp_path)
    assert "component.yaml" in output
    assert not found_in({"the output": output})


@pytest.mark.parametrize(
    "content",
    [
        f'{{"a": "{SECRET[:12]}',
        f'{{"a": {SECRET[:12]}}}',
        f'{{"a": "{SECRET[:12]}"}} {SECRET[:12]}',
        f'["{SECRET[:12]}"]',
        f'{{"a": "{SECRET[:12]}", "a": "{SECRET[:12]}"',
        f'{{"a": "\\u{SECRET[:12]}"}}',
    ],
)
def test_broken_secrets_files(content: str, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.json"
    secrets.write_text(content)
    resources = tmp_path / "resources"
    write_resources(resources / "a.yaml", component("secretstores.local.file", "store", {"secretsFile": str(secrets)}))
    output = refused(resources)
    assert "secrets.json" in output
    assert not found_in({"the output": output})


def public_objects(tmp_path: Path) -> Iterator[tuple[str, object]]:
    """Objects that hold something planted, by name. Needs a running loop."""
    secrets = write_secrets(tmp_path / "secrets.json", {"key": SECRET})
    (tmp_path / "app").mkdir()
    file = component("secretstores.local.file", "file", {"secretsFile": str(secrets)})
    environ = component("secretstores.local.env", "env", {"prefix": "PLANTED_"})
    write_resources(tmp_path / "resources" / "stores.yaml", file, environ)
    resources = load_resources(tmp_path / "resources", app_id="app", environ=SETTINGS | {"PLANTED_B": SECRET})
    yield "Resources", resources
    yield "its stores", list(resources.stores.values())
    yield "EmbeddedSidecar", EmbeddedSidecar(resources, app_id="app", app_port=1, api_token=PLANTED["dapr token"])
    settings = read_settings(tmp_path / "app", {}, TOKENS | SETTINGS)
    yield "Settings", settings
    with loaded_app(APPS / "secrecy", app_settings=SETTINGS) as app:
        yield "FunctionApp", app
        function = app.functions[0]
    payload = Payload(PAYLOADS[1], "application/json")
    payload.text()
    payload.tree()
    yield "Payload", payload
    invocation = Invocation("method", payload, [(b"dapr-api-token", PLANTED["app token"].encode())])
    yield "Invocation", invocation
    context = InvocationContext(function, invocation)
    yield "InvocationContext", context
    yield "func.Context", context.for_user(0, 0, None)
    yield "Reply", Reply(SECRET.encode(), "text/plain")
    yield "HttpResponse", HttpResponse(200, SECRET.encode(), "text/plain")
    channel = Channel(Endpoint())
    yield "Channel", channel
    yield "Sidecar", Sidecar(channel, timeout=1, api_token=PLANTED["dapr token"])
    yield "Sidecars", Sidecars(Endpoint(), timeout=1, api_token=PLANTED["dapr token"])
    yield "SecretRead", SecretRead("store", "key", (("token", PLANTED["setting"]),))
    yield "App", App(None, api_token=PLANTED["app token"], max_body_size=1)  # type: ignore[arg-type]  # it needs no dispatcher
    yield "Executor", Executor(1)
    mask = SecretMask()
    mask.remember([SECRET])
    yield "SecretMask", mask


def test_reprs(tmp_path: Path) -> None:
    async def represent() -> dict[str, str]:
        return {name: f"{thing!r} {thing}" for name, thing in public_objects(tmp_path)}

    shown = asyncio.run(represent())
    assert len(shown) > 15
    assert not found_in(shown)
