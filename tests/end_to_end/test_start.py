"""What `daprfunc start` says and does while it comes up, and what it lets in."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

from daprfunc.rpc.dapr_pb2 import GetMetadataRequest, GetMetadataResponse, GetSecretRequest, GetSecretResponse
from daprfunc.rpc.dapr_pb2_grpc import DaprServicer, add_DaprServicer_to_server
from tests.e2e.app import FunctionApp
from tests.e2e.processes import Process, clean_environment, free_port
from tests.end_to_end.conftest import APP, EMBEDDED, ROOT, Start

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

OnInvoke = Callable[..., bytes]


class Sidecar(DaprServicer):
    """Gives every secret one value; says that its app is on another port."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.reads = 0

    def GetSecret(self, request: GetSecretRequest, context: Any) -> GetSecretResponse:
        self.reads += 1
        self.tokens += [value for name, value in context.invocation_metadata() if name == "dapr-api-token"]
        return GetSecretResponse(data={request.key: "from the fake"})

    def GetMetadata(self, request: GetMetadataRequest, context: Any) -> GetMetadataResponse:
        response = GetMetadataResponse(id="elsewhere", runtime_version="1.99")
        response.app_connection_properties.port = 1
        return response


@contextmanager
def sidecar_at(address: str) -> Iterator[Sidecar]:
    sidecar = Sidecar()
    server = grpc.server(ThreadPoolExecutor(4))
    add_DaprServicer_to_server(sidecar, server)
    server.add_insecure_port(address)
    server.start()
    try:
        yield sidecar
    finally:
        server.stop(None).wait()


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code().name, error.details()


def test_it_shows_a_table_and_where_it_is_ready(start: Start) -> None:
    app = start(APP, *EMBEDDED)
    lines = app.output.splitlines()
    heading = next(number for number, line in enumerate(lines) if "FUNCTION" in line)
    row = next(line.split() for line in lines if line.split()[:1] == ["Read"])
    assert row == ["Read", "daprServiceInvocationTrigger", "POST", "/Read", "secret=vault/key", "in", "a", "thread"]
    (ready,) = (line for line in lines[heading:] if "ready:" in line)
    assert ready.endswith(f"ready: 11 function(s) on {app.address} (HTTP and gRPC)")
    assert any("embedded Dapr sidecar" in line and "secret stores: vault" in line for line in lines[:heading])
    assert "marked-value" not in app.output


def test_secret_stores_that_are_there_are_not_missed(start: Start) -> None:
    app = start(APP, *EMBEDDED)
    app.process.wait_for_output("Dapr sidecar daprfunc-")
    assert app.http.post("/Read").status_code == 200
    assert "no secret store" not in app.output


def test_without_a_sidecar_it_waits_visibly_and_goes_on_when_it_is_there(start: Start) -> None:
    port = free_port()
    app = start(APP, env={"DAPR_GRPC_PORT": str(port)})
    app.process.wait_for_output(f"waiting for the Dapr sidecar at 127.0.0.1:{port}")
    assert app.http.post("/Echo", content=b"x").content == b"x"
    without = app.http.post("/Read")
    assert without.status_code == 503
    with sidecar_at(f"127.0.0.1:{port}"):
        app.process.wait_for_output(rf"Dapr sidecar 1\.99 at 127\.0\.0\.1:{port} \(app id 'elsewhere'\)")
        app.process.wait_for_output(f"on port 1, but this app listens on {app.port}")
        app.process.wait_for_output(r"no secret store 'vault' \(it has: none\), which function 'Read',")
        assert app.http.post("/Read").json() == {"key": "from the fake"}


def test_a_sidecar_on_a_unix_socket_with_a_token(start: Start, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/dapr.socket"
    with sidecar_at(address) as sidecar:
        app = start(APP, env={"DAPR_GRPC_ENDPOINT": address, "DAPR_API_TOKEN": "to-daprd"})
        assert app.http.post("/Read").json() == {"key": "from the fake"}
        assert sidecar.tokens == ["to-daprd"]
        assert app.stop() == 0


CHANGES = """
import azure.functions as func

app = func.FunctionApp()


@app.dapr_service_invocation_trigger("payload", method_name="Change")
@app.dapr_secret_input("secret", "vault", "key", metadata="")
async def Change(payload, secret: dict) -> dict:
    before = dict(secret)
    secret["key"] = "changed"
    return before
"""


@pytest.mark.parametrize(
    ("arguments", "reads", "without"),
    [
        ((), 2, 503),
        (("--secret-ttl", "600"), 1, 200),
        (("--secret-ttl", "600", "--mask-secrets"), 1, 200),
    ],
    ids=["always read", "kept", "kept and masked"],
)
def test_a_secret_is_read_as_often_as_its_ttl_says(
    start: Start, tmp_path: Path, arguments: tuple[str, ...], reads: int, without: int
) -> None:
    port = free_port()
    (tmp_path / "function_app.py").write_text(CHANGES)
    with sidecar_at(f"127.0.0.1:{port}") as sidecar:
        app = start(tmp_path, *arguments, env={"DAPR_GRPC_PORT": str(port)})
        for _ in range(2):
            assert app.http.post("/Change").json() == {"key": "from the fake"}
        assert sidecar.reads == reads
    assert app.http.post("/Change").status_code == without


def test_the_apps_token_is_asked_for(start: Start, on_invoke: OnInvoke) -> None:
    env = {"APP_API_TOKEN": "to-the-app"}
    app = start(APP, *EMBEDDED, env=env)
    assert app.http.post("/Echo", content=b"x").status_code == 401
    assert app.http.post("/Echo", content=b"x", headers={"dapr-api-token": "to-the-app"}).content == b"x"
    assert refused(lambda: on_invoke(app, "Echo", b"x"))[0] == "UNAUTHENTICATED"
    assert on_invoke(app, "Echo", b"x", (("dapr-api-token", "to-the-app"),)) == b"x"
    assert invoke(app, "Echo", "--data", "x", env=env) == (0, "x", "200 OK")
    assert "to-the-app" not in app.output


def invoke(app: FunctionApp, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run `daprfunc invoke`: its exit code, standard output and standard error."""
    command = [sys.executable, "-m", "daprfunc", "invoke", *arguments, "--app-port", str(app.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=30)
    return done.returncode, done.stdout.rstrip("\n"), done.stderr.rstrip("\n")


@pytest.mark.parametrize(
    ("protocol", "ok", "not_found"), [("http", "200 OK", "404 Not Found"), ("grpc", "OK", "NOT_FOUND")]
)
def test_invoke_calls_it(start: Start, protocol: str, ok: str, not_found: str) -> None:
    app = start(APP, *EMBEDDED)
    flags = ("--app-protocol", protocol)
    assert invoke(app, "read", *flags) == (0, '{"key":"marked-value"}', ok)
    code, body, status = invoke(app, "nothing here", *flags)
    assert (code, status) == (1, not_found)
    assert body.startswith("no function has the route 'nothing here'; there are: ")
    big = APP / "function_app.py"
    assert invoke(app, "Echo", "--data", f"@{big}", *flags) == (0, big.read_text().rstrip("\n"), ok)


def test_tls_on_the_apps_port(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    files = ("--app-tls-cert-file", str(certificate), "--app-tls-key-file", str(key))
    app = start(APP, *files, env={"DAPR_GRPC_PORT": str(free_port())}, trust=trust)
    assert app.http.post("/Echo", content=b"x").content == b"x"
    with httpx.Client(base_url=f"https://{app.address}", http1=False, http2=True, verify=trust, trust_env=False) as h2:
        reply = h2.post("/Echo", content=b"x")
        assert (reply.content, reply.http_version) == (b"x", "HTTP/2")
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with grpc.secure_channel(app.address, credentials) as channel:
        check = channel.unary_unary("/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck", None, None)
        assert check(b"", timeout=10) == b""
    with pytest.raises(httpx.TransportError):
        httpx.post(f"http://{app.address}/Echo", trust_env=False)


def test_bodies_over_the_limit_are_refused(start: Start, on_invoke: OnInvoke) -> None:
    app = start(APP, *EMBEDDED, "--max-body-size", "1Ki")
    assert app.http.post("/Echo", content=bytes(1024)).status_code == 200
    assert app.http.post("/Echo", content=bytes(1025)).status_code == 413
    assert refused(lambda: on_invoke(app, "Echo", bytes(2048)))[0] == "RESOURCE_EXHAUSTED"


def test_invocations_over_the_limit_are_refused(start: Start, on_invoke: OnInvoke) -> None:
    app = start(APP, *EMBEDDED, "--max-concurrency", "1")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(app.http.post, "/Wait", content=b"1")
        app.process.wait_for_output("began")
        with httpx.Client(base_url=f"http://{app.address}", trust_env=False) as other:
            reply = other.post("/Echo", content=b"x")
        assert (reply.status_code, "--max-concurrency" in reply.text) == (503, True)
        assert refused(lambda: on_invoke(app, "Echo", b"x"))[0] == "RESOURCE_EXHAUSTED"
        assert running.result(30).text == '"done"'
    assert on_invoke(app, "Echo", b"x") == b"x"


def test_log_lines_in_json_carry_invocation_and_trace(start: Start, on_invoke: OnInvoke) -> None:
    app = start(APP, *EMBEDDED, "--log-format", "json")
    app.http.post("/Echo", content=b"x", headers={"traceparent": TRACE})
    on_invoke(app, "Echo", b"x", (("traceparent", TRACE),))
    app.http.post("/Echo", content=b"x")
    app.process.wait_until(lambda: app.output.count("echo of") == 3, "3 lines")
    lines = [json.loads(line) for line in app.output.splitlines()]
    echoes = [line for line in lines if line["message"].startswith("echo of")]
    assert [line.get("traceId") for line in echoes] == [TRACE.split("-")[1]] * 2 + [None]
    assert {line["function"] for line in echoes} == {"Echo"}
    assert len({line["invocationId"] for line in echoes}) == 3


def test_a_broken_function_is_loud_and_the_others_work(start: Start, on_invoke: OnInvoke) -> None:
    app = start(ROOT / "tests" / "apps" / "v1_broken", *EMBEDDED)
    errors = [line for line in app.output.splitlines() if " ERROR " in line]
    assert any("function 'Misfit'" in line for line in errors)
    reply = app.http.post("/Misfit")
    assert (reply.status_code, "function 'Misfit' did not load" in reply.text) == (500, True)
    assert refused(lambda: on_invoke(app, "Misfit"))[0] == "INTERNAL"
    assert app.http.post("/Fine").status_code == 200


def test_masked_secrets_reach_neither_log_nor_caller(start: Start) -> None:
    for flags, seen in (((), 2), (("--mask-secrets",), 0)):
        app = start(APP, *EMBEDDED, *flags)
        reply = app.http.post("/Leak")
        assert reply.status_code == 500
        assert ("marked-value" in reply.text) == bool(seen)
        app.process.wait_for_output("ValueError")
        assert app.stop() == 0
        assert app.output.count("marked-value") == seen


def test_what_functions_print_is_seen_at_once(start: Start) -> None:
    app = start(APP, *EMBEDDED)
    assert app.http.post("/Print").status_code == 200
    app.process.wait_for_output("^printed$", seconds=5)


def test_what_is_loaded_is_out_of_the_garbage_collectors_sight(start: Start) -> None:
    app = start(APP, *EMBEDDED)
    assert app.http.post("/Frozen").json() > 10_000


@pytest.mark.parametrize("component", ["kind: [", "kind: Component\napiVersion: dapr.io/v1alpha1\n"])
def test_bad_components_end_the_start(component: str, tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(component)
    code, lines = fails("--resources-path", str(tmp_path))
    assert code == 1
    assert all(line.startswith(f"error: {tmp_path / 'store.yaml'}: ") for line in lines)


def fails(*arguments: str) -> tuple[int, list[str]]:
    with Process("daprfunc", [sys.executable, "-m", "daprfunc", "start", APP, *arguments]) as process:
        code = process.wait()
    assert "Traceback" not in process.output
    return code, process.lines


def test_a_port_in_use_is_named(start: Start) -> None:
    app = start(APP, *EMBEDDED)
    code, lines = fails("--app-port", str(app.port))
    assert code == 2
    what_to_do = "choose another with --app-port or --app-address"
    assert lines == [f"error: cannot listen on {app.address}: Address already in use; {what_to_do}"]
    code, lines = fails(*EMBEDDED, "--app-port", "0", "--dapr-grpc-port", str(app.port))
    assert code == 2
    assert lines[-1].startswith(f"error: the embedded sidecar cannot listen on 127.0.0.1:{app.port}: ")
    assert all(line.startswith("error: ") or " WARN " in line for line in lines)  # and nothing from grpcio


def test_an_address_that_is_not_ours_is_named() -> None:
    code, lines = fails("--app-address", "192.0.2.1")  # kept for documentation (RFC 5737)
    assert code == 2
    assert lines[0].startswith("error: cannot listen on 192.0.2.1:3001: ")


def test_a_file_that_is_no_certificate_is_named() -> None:
    file = str(APP / "function_app.py")
    code, lines = fails("--app-port", "0", "--app-tls-cert-file", file, "--app-tls-key-file", file)
    assert code == 2
    assert lines[-1].startswith(f"error: --app-tls-cert-file {file} and --app-tls-key-file {file}: ")


def test_an_ipv6_address_serves_too(stack: ExitStack) -> None:
    arguments = ["--app-port", "0", "--app-address", "::1"]
    command = [sys.executable, "-m", "daprfunc", "start", str(APP), *EMBEDDED, *arguments]
    process = stack.enter_context(Process("daprfunc", command))
    address = process.wait_for_output(r"ready: .* on (\[::1\]:\d+) ")[1]
    assert httpx.post(f"http://{address}/Echo", content=b"x", trust_env=False).content == b"x"


def start_that_fails(app: Path, *options: str) -> list[str]:
    """The lines on standard error of a start whose app cannot be imported."""
    (app / "function_app.py").write_text("import nothing_of_this_name\n")
    command = [sys.executable, "-m", "daprfunc", "start", str(app), "--app-port", str(free_port()), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=clean_environment())
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.splitlines()


def test_what_ends_the_start_is_in_the_json_log(tmp_path: Path) -> None:
    *_, last = map(json.loads, start_that_fails(tmp_path, "--log-format", "json"))
    assert last["level"] == "ERROR"
    assert "no module 'nothing_of_this_name'" in last["message"]


def test_where_a_failed_import_came_from_is_shown_to_those_who_look_for_it(tmp_path: Path) -> None:
    lines = start_that_fails(tmp_path, "--log-level", "debug")
    assert "    ModuleNotFoundError: No module named 'nothing_of_this_name'" in lines
    assert lines[-1].startswith(f"error: {tmp_path / 'function_app.py'}: line 1: no module 'nothing_of_this_name'")
    assert len(start_that_fails(tmp_path)) == 1
