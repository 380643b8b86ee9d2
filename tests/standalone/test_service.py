from __future__ import annotations

import asyncio
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import grpc
import pytest

from daprfunc import __version__
from daprfunc.errors import DaprFuncError
from daprfunc.rpc import common_pb2, dapr_pb2
from daprfunc.standalone.components import Resources
from daprfunc.standalone.service import MAX_INVOCATIONS, EmbeddedSidecar, normalized, quoted

from .conftest import APP_ID, FakeApp, Load, component, configuration, echo

FILE = component("file", secretsFile="secrets.json")
MULTI = component("multi", secretsFile="secrets.json", multiValued="'true'")
ENV = component("env", "secretstores.local.env", prefix="P_")
SECRETS = '{"my-secret": "abcd", "db": {"user": "u", "password": "p"}}'

INVALID = "rpc error: code = InvalidArgument desc = invalid method: "

Sidecar = Callable[..., EmbeddedSidecar]
Stub = Callable[[EmbeddedSidecar], Any]
Apps = Callable[..., FakeApp]


@pytest.fixture
def resources(load: Load) -> Resources:
    scopes = configuration("{storeName: multi, deniedSecrets: [db, 'say \"hi\"']}")
    return load(FILE, MULTI, ENV, scopes, secrets=SECRETS, environ={"P_a": "1", "P_b": "2", "c": "3"})


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()


@pytest.mark.parametrize(
    ("store", "key", "data"),
    [
        ("file", "my-secret", {"my-secret": "abcd"}),
        ("file", "db:user", {"db:user": "u"}),
        ("multi", "my-secret", {"my-secret": "abcd"}),
        ("env", "a", {"a": "1"}),
        ("env", "nope", {"nope": ""}),
    ],
)
def test_get_secret(
    sidecar: Sidecar, stub: Stub, resources: Resources, store: str, key: str, data: dict[str, str]
) -> None:
    reply = stub(sidecar(resources)).GetSecret(dapr_pb2.GetSecretRequest(store_name=store, key=key))

    assert dict(reply.data) == data


# Codes and messages of daprd 1.18 (pkg/messages), whose texts users compare.
@pytest.mark.parametrize(
    ("store", "key", "code", "message"),
    [
        ("nope", "k", grpc.StatusCode.INVALID_ARGUMENT, "failed finding secret store with key nope"),
        (
            "file",
            "nope",
            grpc.StatusCode.INTERNAL,
            "failed getting secret with key nope from secret store file: secret nope not found",
        ),
        ("multi", "db", grpc.StatusCode.PERMISSION_DENIED, 'access denied by policy to get "db" from "multi"'),
        (
            "multi",
            'say "hi"',
            grpc.StatusCode.PERMISSION_DENIED,
            'access denied by policy to get "say \\"hi\\"" from "multi"',
        ),
    ],
)
def test_get_secret_fails_as_in_daprd(
    sidecar: Sidecar, stub: Stub, resources: Resources, store: str, key: str, code: grpc.StatusCode, message: str
) -> None:
    dapr = stub(sidecar(resources))

    assert failure(lambda: dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name=store, key=key))) == (code, message)


def test_without_any_store(sidecar: Sidecar, stub: Stub) -> None:
    dapr = stub(sidecar(Resources({})))
    expected = (grpc.StatusCode.FAILED_PRECONDITION, "secret store is not configured")

    assert failure(lambda: dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name="a", key="b"))) == expected
    assert failure(lambda: dapr.GetBulkSecret(dapr_pb2.GetBulkSecretRequest(store_name="a"))) == expected


@pytest.mark.parametrize(
    ("store", "data"),
    [
        (
            "file",
            {"my-secret": {"my-secret": "abcd"}, "db:user": {"db:user": "u"}, "db:password": {"db:password": "p"}},
        ),
        ("multi", {"my-secret": {"my-secret": "abcd"}}),
        ("env", {"a": {"a": "1"}, "b": {"b": "2"}}),
    ],
)
def test_get_bulk_secret(
    sidecar: Sidecar, stub: Stub, resources: Resources, store: str, data: dict[str, dict[str, str]]
) -> None:
    reply = stub(sidecar(resources)).GetBulkSecret(dapr_pb2.GetBulkSecretRequest(store_name=store))

    assert {key: dict(secret.secrets) for key, secret in reply.data.items()} == data


def test_get_metadata(sidecar: Sidecar, stub: Stub, resources: Resources) -> None:
    embedded = sidecar(resources, app_port=3001, app_address="localhost", app_protocol="http")

    reply = stub(embedded).GetMetadata(dapr_pb2.GetMetadataRequest())

    version = f"daprfunc-{__version__}"
    multiple = ["MULTIPLE_KEY_VALUES_PER_SECRET"]
    assert reply == dapr_pb2.GetMetadataResponse(
        id=APP_ID,
        registered_components=[
            dapr_pb2.RegisteredComponents(name="file", type="secretstores.local.file", version="v1"),
            dapr_pb2.RegisteredComponents(
                name="multi", type="secretstores.local.file", version="v1", capabilities=multiple
            ),
            dapr_pb2.RegisteredComponents(name="env", type="secretstores.local.env", version="v1"),
        ],
        extended_metadata={"daprRuntimeVersion": version},
        app_connection_properties=dapr_pb2.AppConnectionProperties(
            port=3001, protocol="http", channel_address="localhost"
        ),
        runtime_version=version,
    )


def invocation(method: str = "hello", id: str = APP_ID, data: bytes = b"") -> dapr_pb2.InvokeServiceRequest:
    request = dapr_pb2.InvokeServiceRequest(id=id)
    request.message.method = method
    request.message.data.value = data
    request.message.content_type = "application/json"
    request.message.http_extension.verb = common_pb2.HTTPExtension.POST
    return request


@pytest.mark.parametrize("id", [APP_ID, f"{APP_ID}.default", f"{APP_ID}.ns"])
def test_invoke_service_reaches_the_app(
    sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps, id: str
) -> None:
    app = fake_app()
    dapr = stub(sidecar(resources, app_port=app.port))
    request = invocation("a//b/../c", id, b'{"x": 1}')

    reply = dapr.InvokeService(request)

    assert (reply.data.value, reply.content_type) == (b'{"x": 1}', "application/json")
    request.message.method = "a/c"
    assert app.requests == [request.message]


def test_invoke_service_forwards_metadata(sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps) -> None:
    app = fake_app()
    dapr = stub(sidecar(resources, app_port=app.port, app_api_token="for-the-app"))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    dapr.InvokeService(
        invocation(),
        metadata=(
            ("traceparent", trace),
            ("tracestate", "a=b"),
            ("baggage", "k=v"),
            ("x-mine", "1"),
            ("x-mine", "2"),
            ("dapr-api-token", "for-the-sidecar"),
            ("dapr-caller-app-id", "forged"),
            ("destination-app-id", "other"),
        ),
    )

    assert [(key, value) for key, value in app.metadata[0] if key != "user-agent"] == [
        ("traceparent", trace),
        ("tracestate", "a=b"),
        ("baggage", "k=v"),
        ("x-mine", "1"),
        ("x-mine", "2"),
        ("dapr-caller-app-id", APP_ID),
        ("dapr-caller-namespace", "default"),
        ("dapr-callee-app-id", APP_ID),
        ("dapr-api-token", "for-the-app"),
    ]


def test_invoke_service_passes_headers_and_trailers_back(
    sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps
) -> None:
    def behave(request: common_pb2.InvokeRequest, context: grpc.ServicerContext) -> common_pb2.InvokeResponse:
        context.send_initial_metadata((("x-header", "h"),))
        context.set_trailing_metadata((("x-trailer", "t"),))
        return common_pb2.InvokeResponse()

    dapr = stub(sidecar(resources, app_port=fake_app(behave).port))

    _, call = dapr.InvokeService.with_call(invocation())

    assert ("x-header", "h") in list(call.initial_metadata())
    assert ("x-trailer", "t") in list(call.trailing_metadata())


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAUTHENTICATED])
def test_invoke_service_passes_the_app_s_error_on(
    sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps, code: grpc.StatusCode
) -> None:
    def behave(request: common_pb2.InvokeRequest, context: grpc.ServicerContext) -> common_pb2.InvokeResponse:
        context.set_trailing_metadata((("grpc-status-details-bin", b"details"),))
        context.abort(code, "the app says no: ünïcode")

    dapr = stub(sidecar(resources, app_port=fake_app(behave).port))

    with pytest.raises(grpc.RpcError) as caught:
        dapr.InvokeService(invocation())

    error: Any = caught.value
    assert (error.code(), error.details()) == (code, "the app says no: ünïcode")
    assert ("grpc-status-details-bin", b"details") in list(error.trailing_metadata())


@pytest.mark.parametrize(
    ("id", "method", "reason"),
    [
        ("other", "hello", "couldn't find service: other"),
        ("other.ns", "hello", "couldn't find service: other"),
        ("", "hello", "app id is empty"),
        ("a.b.c", "hello", "invalid app id a.b.c"),
        (
            APP_ID,
            "a?b",
            INVALID + 'method contains forbidden character: "a?b"',
        ),
        (
            APP_ID,
            "é\n",
            INVALID + 'method contains control character at position 2: "é\\n"',
        ),
    ],
)
def test_invoke_service_of_what_cannot_be_reached(
    sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps, id: str, method: str, reason: str
) -> None:
    app = fake_app()
    dapr = stub(sidecar(resources, app_port=app.port))

    assert failure(lambda: dapr.InvokeService(invocation(method, id))) == (
        grpc.StatusCode.INTERNAL,
        f"failed to invoke, id: {id}, err: {reason}",
    )
    assert app.requests == []


def test_invoke_service_while_the_app_is_down_and_once_it_is_up(
    sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps
) -> None:
    port = free_port()
    dapr = stub(sidecar(resources, app_port=port))
    code, _ = failure(lambda: dapr.InvokeService(invocation(), timeout=20))
    assert code is grpc.StatusCode.UNAVAILABLE

    fake_app(port=port)

    pause = threading.Event()
    for _ in range(200):
        answered = dapr.InvokeService.future(invocation(data=b"x"), timeout=20)
        if answered.code() is grpc.StatusCode.OK:
            break
        pause.wait(0.02)
    assert answered.result().data.value == b"x"


def test_a_caller_that_leaves_cancels_its_invocation(
    sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps
) -> None:
    running, cancelled = threading.Event(), threading.Event()

    def behave(request: common_pb2.InvokeRequest, context: grpc.ServicerContext) -> common_pb2.InvokeResponse:
        context.add_callback(cancelled.set)
        running.set()
        assert cancelled.wait(20)
        return common_pb2.InvokeResponse()

    dapr = stub(sidecar(resources, app_port=fake_app(behave).port))
    call = dapr.InvokeService.future(invocation())
    assert running.wait(20)

    call.cancel()

    assert cancelled.wait(20)


def test_functions_that_wait_for_secrets_never_starve(
    sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps
) -> None:
    """Every invocation holds a thread of the sidecar; the secrets that the functions ask for still arrive."""
    together = threading.Barrier(40)

    def behave(request: common_pb2.InvokeRequest, context: grpc.ServicerContext) -> common_pb2.InvokeResponse:
        together.wait(30)
        secret = dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name="file", key="my-secret"), timeout=30)
        return common_pb2.InvokeResponse(content_type=secret.data["my-secret"])

    dapr = stub(sidecar(resources, app_port=fake_app(behave).port))
    calls = [dapr.InvokeService.future(invocation(), timeout=50) for _ in range(40)]

    assert {call.result().content_type for call in calls} == {"abcd"}


def test_invocations_are_limited_so_that_secrets_still_arrive(
    sidecar: Sidecar, stub: Stub, resources: Resources, stack: Any
) -> None:
    """An app that accepts and never answers holds up invocations, not secrets."""
    silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=16))
    dapr = stub(sidecar(resources, app_port=silent.getsockname()[1]))
    refused = threading.Event()
    calls = [dapr.InvokeService.future(invocation(), timeout=40) for _ in range(MAX_INVOCATIONS + 1)]
    for call in calls:
        call.add_done_callback(lambda call: refused.set() if "in flight" in (call.details() or "") else None)

    assert refused.wait(20)
    assert dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name="file", key="my-secret"), timeout=20).data
    for call in calls:
        call.cancel()


def test_a_blocking_client_on_an_event_loop_gets_its_secret(sidecar: Sidecar, stub: Stub, resources: Resources) -> None:
    embedded = sidecar(resources)
    dapr = stub(embedded)

    async def user_function() -> str:
        reply = dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name="file", key="my-secret"), timeout=20)
        return str(reply.data["my-secret"])

    assert asyncio.run(user_function()) == "abcd"


@pytest.mark.parametrize("token", [None, "wrong", "", "s3cret-toke", "s3cret-token "])
def test_a_call_without_the_api_token(sidecar: Sidecar, stub: Stub, resources: Resources, token: str | None) -> None:
    dapr = stub(sidecar(resources, api_token="s3cret-token"))
    metadata = () if token is None else (("dapr-api-token", token), ("dapr-api-token", "s3cret-token"))
    refused = (grpc.StatusCode.UNAUTHENTICATED, "Unauthorized")

    for call in (
        lambda: dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name="file", key="my-secret"), metadata=metadata),
        lambda: dapr.GetBulkSecret(dapr_pb2.GetBulkSecretRequest(store_name="file"), metadata=metadata),
        lambda: dapr.GetMetadata(dapr_pb2.GetMetadataRequest(), metadata=metadata),
        lambda: dapr.InvokeService(invocation(), metadata=metadata),
    ):
        assert failure(call) == refused


def test_a_call_with_the_api_token(sidecar: Sidecar, stub: Stub, resources: Resources) -> None:
    dapr = stub(sidecar(resources, api_token="s3cret-token"))

    reply = dapr.GetMetadata(dapr_pb2.GetMetadataRequest(), metadata=(("dapr-api-token", "s3cret-token"),))

    assert reply.id == APP_ID


def test_other_methods_are_unimplemented(sidecar: Sidecar, resources: Resources) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{sidecar(resources).port}") as channel:
        get_state = channel.unary_unary("/dapr.proto.runtime.v1.Dapr/GetState", None, None)
        code, _ = failure(lambda: get_state(b"", timeout=20))

    assert code is grpc.StatusCode.UNIMPLEMENTED


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def test_the_port_asked_for(sidecar: Sidecar, stub: Stub, resources: Resources) -> None:
    port = free_port()
    embedded = EmbeddedSidecar(resources, app_id=APP_ID, app_port=1, port=port)
    assert embedded.port == port

    embedded.start()
    embedded.start()

    assert embedded.port == port
    assert stub(embedded).GetMetadata(dapr_pb2.GetMetadataRequest()).id == APP_ID
    embedded.stop(0)


@pytest.mark.parametrize(("option", "setting"), [("port", "--dapr-grpc-port"), ("http_port", "its HTTP port")])
def test_a_port_that_is_taken(resources: Resources, sidecar: Sidecar, option: str, setting: str) -> None:
    taken = getattr(sidecar(resources), option)
    second = EmbeddedSidecar(resources, app_id=APP_ID, app_port=1, **{option: taken})

    with pytest.raises(DaprFuncError) as caught:
        second.start()

    assert str(caught.value) == (
        f"the embedded sidecar cannot listen on 127.0.0.1:{taken}: stop what uses that port, or set {setting} to "
        "another"
    )
    second.stop(0)


def test_listens_on_loopback_only(sidecar: Sidecar, resources: Resources) -> None:
    embedded = sidecar(resources)
    for port in (embedded.port, embedded.http_port):
        with closing(socket.socket()) as other:
            # The port is free on another address of the loopback network, so it is not bound on all of them.
            other.bind(("127.0.0.2", port))


def test_starts_again_after_a_stop(sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps) -> None:
    embedded = sidecar(resources, app_port=fake_app().port)
    first = embedded.port
    embedded.stop(1)
    embedded.stop(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first), timeout=5)

    embedded.start()

    assert stub(embedded).InvokeService(invocation(data=b"x")).data.value == b"x"


def test_stop_lets_a_running_call_end(sidecar: Sidecar, stub: Stub, resources: Resources, fake_app: Apps) -> None:
    running, go_on = threading.Event(), threading.Event()

    def behave(request: common_pb2.InvokeRequest, context: grpc.ServicerContext) -> common_pb2.InvokeResponse:
        running.set()
        assert go_on.wait(20)
        return echo(request, context)

    embedded = sidecar(resources, app_port=fake_app(behave).port)
    call = stub(embedded).InvokeService.future(invocation(data=b"late"))
    assert running.wait(20)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(embedded.stop, 20)
        go_on.set()
        assert call.result(20).data.value == b"late"
        stopping.result(20)


def get(url: str, method: str = "GET") -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("path", ["healthz", "healthz/outbound", "healthz/", "healthz?appid=app"])
def test_health_over_http(sidecar: Sidecar, resources: Resources, path: str) -> None:
    embedded = sidecar(resources, api_token="needed-for-grpc-only")

    assert get(f"http://127.0.0.1:{embedded.http_port}/v1.0/{path}") == (204, b"")


@pytest.mark.parametrize(("method", "path"), [("GET", "secrets/file/my-secret"), ("POST", "invoke/app/method/m")])
def test_anything_else_over_http(sidecar: Sidecar, resources: Resources, method: str, path: str) -> None:
    status, body = get(f"http://127.0.0.1:{sidecar(resources).http_port}/v1.0/{path}", method)

    assert status == 404
    assert b"DAPR_API_METHOD_INVOCATION_PROTOCOL=grpc" in body


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[EmbeddedSidecar], Any]]:
    """The real SDK's client, set up as `dapr run` would."""
    from dapr.clients import DaprClient
    from dapr.conf import settings

    clients: list[DaprClient] = []

    def connect(embedded: EmbeddedSidecar, token: str | None = None) -> DaprClient:
        monkeypatch.setattr(settings, "DAPR_GRPC_PORT", embedded.port)
        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", embedded.http_port)
        monkeypatch.setattr(settings, "DAPR_API_TOKEN", token)
        monkeypatch.setattr(settings, "DAPR_HEALTH_TIMEOUT", 20)
        monkeypatch.setattr(settings, "DAPR_API_METHOD_INVOCATION_PROTOCOL", "grpc")
        clients.append(DaprClient())
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.mark.sdk
def test_the_real_sdk(sidecar: Sidecar, resources: Resources, fake_app: Apps, sdk: Callable[..., Any]) -> None:
    client = sdk(sidecar(resources, app_port=fake_app().port, api_token="token"), token="token")

    assert client.get_secret("file", "my-secret").secret == {"my-secret": "abcd"}
    assert client.get_bulk_secret("env").secrets == {"a": {"a": "1"}, "b": {"b": "2"}}
    metadata = client.get_metadata()
    assert metadata.application_id == APP_ID
    assert [(each.name, each.type, list(each.capabilities)) for each in metadata.registered_components] == [
        ("file", "secretstores.local.file", []),
        ("multi", "secretstores.local.file", ["MULTIPLE_KEY_VALUES_PER_SECRET"]),
        ("env", "secretstores.local.env", []),
    ]
    with pytest.warns(DeprecationWarning, match="gRPC is deprecated"):
        reply = client.invoke_method(APP_ID, "hello", b'{"x": 1}', content_type="application/json")
    assert (reply.data, reply.content_type) == (b'{"x": 1}', "application/json")
    assert failure(lambda: client.get_secret("nope", "k")) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "failed finding secret store with key nope",
    )


def test_no_secret_is_logged_or_shown(
    load: Load, sidecar: Sidecar, stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "s3cr3t-marker-value"
    found = load(FILE, secrets=f'{{"k": "{secret}"}}')
    with caplog.at_level(logging.DEBUG):
        embedded = sidecar(found, api_token=secret, app_api_token=secret)
        dapr = stub(embedded)
        failure(lambda: dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name="file", key="k")))
        metadata = (("dapr-api-token", secret),)
        failure(lambda: dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name="file", key="x"), metadata=metadata))
        assert (
            dapr.GetSecret(dapr_pb2.GetSecretRequest(store_name="file", key="k"), metadata=metadata).data["k"] == secret
        )

    assert secret not in caplog.text
    assert secret not in f"{found!r} {embedded!r} {vars(embedded)['_app']!r}"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("hello", "hello"),
        ("a/./b", "a/b"),
        ("a/", "a"),
        ("../../a", "a"),
        ("a/../..", ""),
        ("", ""),
        (".", ""),
        ("/a", "/a"),
        ("//a", "/a"),
        ("/../a", "/a"),
    ],
)
def test_method_names_as_daprd_resolves_them(method: str, expected: str) -> None:
    assert normalized(method) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\x00\x7f\a\n", '"\\x00\\x7f\\a\\n"'),
        ("é \U0001f600", '"é \U0001f600"'),
        ("\u200b\u00ad\u2028\ufeff", '"\\u200b\\u00ad\\u2028\\ufeff"'),
        ("\U000e0001", '"\\U000e0001"'),
    ],
)
def test_quoted_as_go_does(text: str, expected: str) -> None:
    assert quoted(text) == expected
