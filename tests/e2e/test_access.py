"""Who may call, and what a caller, a file or an expression can reach."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from daprfunc.rpc.appcallback_pb2 import HealthCheckResponse
from daprfunc.rpc.appcallback_pb2_grpc import AppCallbackHealthCheckStub
from tests.e2e.app import FunctionApp
from tests.e2e.daprd import component, write_resources, write_secrets
from tests.e2e.load import GrpcCaller, HttpCaller
from tests.e2e.processes import Process, wait_until
from tests.fuzz.test_fuzz_files import GOOD, SCRIPT

pytestmark = pytest.mark.e2e

APP = Path(__file__).parents[1] / "apps" / "faults"
TOKEN = "the app's own token"
ALONE = {"DAPR_GRPC_PORT": "1", "DAPR_HEALTH_TIMEOUT": "3600"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[FunctionApp]:
    with FunctionApp(APP, env=ALONE | {"APP_API_TOKEN": TOKEN}) as app:
        yield app


def other_addresses() -> list[str]:
    """This machine's addresses beside 127.0.0.1; the rest of 127/8 reaches whoever listens on every address."""
    return ["127.0.0.2", "::1"]


def reaches(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def test_listens_on_loopback_only() -> None:
    with FunctionApp(APP, env=ALONE) as app:
        assert reaches("127.0.0.1", app.port)
        assert [address for address in other_addresses() if reaches(address, app.port)] == []


def test_listens_elsewhere_if_told() -> None:
    with FunctionApp(APP, "--app-address", "0.0.0.0", env=ALONE) as app:
        assert reaches("127.0.0.2", app.port)


@pytest.mark.parametrize(
    ("verb", "path", "without", "with_it"),
    [
        ("GET", "/healthz", 200, 200),
        ("GET", "/dapr/subscribe", 200, 200),
        ("POST", "/echo", 401, 200),
        ("POST", "/no-such", 401, 404),
        ("GET", "/echo", 401, 405),
        ("GET", "/no-such", 401, 404),
        ("POST", "/healthz", 401, 404),
        ("DELETE", "/dapr/subscribe", 401, 404),
        ("OPTIONS", "/echo", 401, 405),
        ("GET", "/", 401, 404),
    ],
)
def test_the_token_over_http(guarded: FunctionApp, verb: str, path: str, without: int, with_it: int) -> None:
    for token in ({}, {"dapr-api-token": ""}, {"dapr-api-token": TOKEN[:-1]}, {"dapr-api-token": TOKEN + "x"}):
        assert guarded.http.request(verb, path, headers=token).status_code == without
    assert guarded.http.request(verb, path, headers={"Dapr-Api-Token": TOKEN}).status_code == with_it


@pytest.mark.parametrize(
    ("service", "method", "without", "with_it"),
    [
        ("AppCallback", "ListTopicSubscriptions", "OK", "OK"),
        ("AppCallback", "ListInputBindings", "OK", "OK"),
        ("AppCallbackHealthCheck", "HealthCheck", "OK", "OK"),
        ("AppCallback", "OnInvoke", "UNAUTHENTICATED", "NOT_FOUND"),
        ("AppCallback", "OnTopicEvent", "UNAUTHENTICATED", "UNIMPLEMENTED"),
        ("AppCallback", "OnBindingEvent", "UNAUTHENTICATED", "UNIMPLEMENTED"),
        ("Other", "Method", "UNAUTHENTICATED", "UNIMPLEMENTED"),
    ],
)
def test_the_token_over_grpc(guarded: FunctionApp, service: str, method: str, without: str, with_it: str) -> None:
    with GrpcCaller(guarded.port) as caller:
        call = caller.channel.unary_unary(f"/dapr.proto.runtime.v1.{service}/{method}", None, None)

        def code(*metadata: tuple[str, str]) -> str:
            try:
                call(b"", metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        assert [code(), code(("dapr-api-token", "")), code(("dapr-api-token", TOKEN[:-1]))] == [without] * 3
        assert code(("dapr-api-token", TOKEN)) == with_it


def test_health_over_grpc(guarded: FunctionApp) -> None:
    with GrpcCaller(guarded.port) as caller:
        stub = AppCallbackHealthCheckStub(caller.channel)
        assert stub.HealthCheck(Empty(), timeout=10) == HealthCheckResponse()


def start(tmp_path: Path, *resources: dict[str, Any]) -> Process:
    write_resources(tmp_path / "resources" / "all.yaml", *resources)
    arguments: list[str | Path] = [APP, "--app-port", "0", "--resources-path", tmp_path / "resources"]
    return Process("daprfunc", [sys.executable, "-m", "daprfunc", "start", *arguments])


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o604, True), (0o644, True)])
def test_a_secrets_file_that_others_can_read(mode: int, warned: bool) -> None:
    with TemporaryDirectory(dir="/tmp") as name:  # pytest's own keep others out
        directory = Path(name)
        directory.chmod(0o755)
        secrets = write_secrets(directory / "secrets.json", {"fast": "abcd"})
        secrets.chmod(mode)
        with start(directory, component("secretstores.local.file", "store", {"secretsFile": str(secrets)})) as process:
            process.wait_for_output("ready: ")
    warnings = [line for line in process.lines if " WARN " in line and "secrets.json" in line]
    assert bool(warnings) == warned, process.output
    assert all("read" in line for line in warnings)


def test_yaml_constructs_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made by a tag"
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "tag.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: store\nspec:\n"
        "  type: secretstores.local.env\n  version: v1\n  metadata:\n  - name: prefix\n"
        f'    value: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ["{made}"]]\n'
    )
    with start(tmp_path) as process:
        wait_until(lambda: process.returncode is not None or "ready: " in process.output, "a start or a refusal")
    assert not made.exists()
    assert "Traceback" not in process.output


@pytest.mark.parametrize(
    "expression",
    [
        "{payload.__class__}",
        "{payload.__class__.__mro__}",
        "{payload.key.__len__}",
        "{payload.key.upper}",
        "{payload.keys}",
        "{payload.items}",
        "{payload.body}",
    ],
)
def test_expressions_walk_no_attributes(tmp_path: Path, expression: str) -> None:
    """A path leads through the caller's JSON only: names of attributes are names of missing keys."""

    secret = {"type": "daprSecret", "name": "secret", "direction": "in", "secretStoreName": "store", "key": expression}
    (tmp_path / "Function").mkdir()
    (tmp_path / "Function" / "__init__.py").write_text(SCRIPT)
    declared = {"scriptFile": GOOD["scriptFile"], "bindings": [*GOOD["bindings"], secret]}
    (tmp_path / "Function" / "function.json").write_text(json.dumps(declared))
    with FunctionApp(tmp_path, env=ALONE) as app, HttpCaller(app.port) as caller:
        status, text = caller.post("Function", {"key": "value"})
    assert (status, "secret" in text) == (400, True)
    assert "<" not in text
    assert "0x" not in text


def test_a_trace_id_that_is_none_is_not_logged() -> None:
    """W3C Trace Context: a traceparent that is not hexadecimal is to be ignored; else callers write into the log."""
    with FunctionApp(APP, "--log-format", "json", env=ALONE) as app:
        headers = {"traceparent": f"00-{'not hexadecimal digits':_<32}-{'_' * 16}-01"}
        assert app.http.post("/raises", json="Exception", headers=headers).status_code == 500
        app.process.wait_for_output("no such luck")
    assert "not hexadecimal" not in app.output
