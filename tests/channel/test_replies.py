"""What callers are told, whichever of the three protocols they speak: one table."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
import httpx
import pytest
from google.protobuf.empty_pb2 import Empty

from daprfunc.errors import Problem
from daprfunc.model import BrokenFunction
from daprfunc.rpc.appcallback_pb2_grpc import AppCallbackHealthCheckStub, AppCallbackStub
from daprfunc.rpc.common_pb2 import HTTPExtension, InvokeRequest
from tests.channel.serving import MAX_BODY, Gate, Served, function, serving

JSON = "application/json"
BYTES = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Told:
    """What a caller was told; `status` is 200 or OK, or how its protocol names the failure."""

    status: object
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    body: bytes = b""
    content_type: str = JSON
    verb: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


Caller = Callable[[Asked], Coroutine[Any, Any, Told]]


async def http_caller(served: Served, stack: AsyncExitStack, *, http2: bool) -> Caller:
    client = await stack.enter_async_context(
        httpx.AsyncClient(http1=not http2, http2=http2, trust_env=False, timeout=30)
    )
    origin = f"http://127.0.0.1:{served.port}"

    async def ask(asked: Asked) -> Told:
        fields = asked.headers | ({"content-type": asked.content_type} if asked.content_type else {})
        answer = await client.request(asked.verb, f"{origin}/{asked.method}", content=asked.body, headers=fields)
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert int(answer.headers["content-length"]) == len(answer.content) or asked.verb == "HEAD"
        return Told(answer.status_code, answer.content, answer.headers.get("content-type", ""))

    return ask


def grpc_channel(served: Served, **options: Any) -> grpc.aio.Channel:
    defaults = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1))
    return grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=defaults, **options)


async def grpc_caller(served: Served, stack: AsyncExitStack) -> Caller:
    channel = await stack.enter_async_context(grpc_channel(served))
    stub: Any = AppCallbackStub(channel)

    async def ask(asked: Asked) -> Told:
        request: Any = InvokeRequest(method=asked.method, content_type=asked.content_type)
        request.data.value = asked.body
        request.http_extension.verb = HTTPExtension.Verb.Value(asked.verb)
        try:
            response = await stub.OnInvoke(request, timeout=30, metadata=tuple(asked.headers.items()))
        except grpc.aio.AioRpcError as error:
            return Told(error.code().name, str(error.details()).encode(), TEXT)
        return Told("OK", response.data.value, response.content_type)

    return ask


CALLERS: dict[str, Callable[[Served, AsyncExitStack], Awaitable[Caller]]] = {
    "http1": lambda served, stack: http_caller(served, stack, http2=False),
    "h2c": lambda served, stack: http_caller(served, stack, http2=True),
    "grpc": grpc_caller,
}
every_protocol = pytest.mark.parametrize("protocol", CALLERS)
STATUSES = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 405,
    "TOO LARGE": 413,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "OVERLOADED": 503,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def status(protocol: str, name: str) -> object:
    """An outcome as a protocol says it."""
    if protocol != "grpc":
        return STATUSES[name]
    return "RESOURCE_EXHAUSTED" if name in ("TOO LARGE", "OVERLOADED") else name


class Odd(BaseException):
    """What no caller of a function expects to be raised."""


async def nothing(payload: str) -> None:
    return None


async def text(payload: str) -> str:
    return 'so "quoted" é'


def in_thread(payload: str) -> object:
    return {"in": [payload, None, 1.5, True]}


async def typed(payload: int) -> int:
    return payload + 1


async def raises(payload: str) -> None:
    raise ValueError(payload)


async def half_a_pair(payload: str) -> None:
    raise ValueError("half \ud800 pair")


async def odd(payload: str) -> None:
    raise Odd("very")


async def no_json(payload: str) -> object:
    return object()


async def exits(payload: str) -> None:
    raise SystemExit(3)


async def cancels_itself(payload: str) -> None:
    raise asyncio.CancelledError


def cancels_in_thread(payload: str) -> None:
    raise asyncio.CancelledError


async def with_secret(payload: str, secret: str) -> str:
    return secret


async def without_secret(payload: str, secret: str) -> str:
    return secret


FUNCTIONS = (
    function(nothing),
    function(text),
    function(in_thread),
    function(typed, payload=int),
    function(raises),
    function(half_a_pair),
    function(odd),
    function(no_json),
    function(exits),
    function(cancels_itself),
    function(cancels_in_thread),
    function(with_secret, secret="known"),
    function(without_secret, secret="unknown"),
    function(text, "Orders/v1/Get É"),
)
FAILED = b"Function invocation failed: "


@every_protocol
@pytest.mark.parametrize(
    ("asked", "name", "body", "content_type"),
    [
        (Asked("echo", b"\0\xff raw", BYTES), "OK", b"\0\xff raw", BYTES),
        (Asked("echo", b"[1, 2]"), "OK", b"[1, 2]", BYTES),
        (Asked("echo", b"x", content_type=""), "OK", b"x", BYTES),
        (Asked("nothing", b'"x"'), "OK", b"", ""),
        (Asked("nothing"), "OK", b"", ""),
        (Asked("text"), "OK", '"so \\"quoted\\" é"'.encode(), JSON),
        (Asked("in_thread", b'"x"'), "OK", b'{"in":["x",null,1.5,true]}', JSON),
        (Asked("in_thread", '"é☃"'.encode()), "OK", '{"in":["é☃",null,1.5,true]}'.encode(), JSON),
        (Asked("with_secret"), "OK", b'"{\\"known\\":\\"open sesame\\"}"', JSON),
        (Asked("typed", b"41"), "OK", b"42", JSON),
        # Routes: in any case, with slashes, with what a URL has to encode.
        (Asked("ECHO", b"x"), "OK", b"x", BYTES),
        (Asked("/echo/", b"x"), "OK", b"x", BYTES),
        (Asked("orders/V1/get é"), "OK", '"so \\"quoted\\" é"'.encode(), JSON),
        # The caller's faults.
        (Asked("typed", b'"no number"'), "INVALID_ARGUMENT", None, TEXT),
        (Asked("typed", b"{"), "INVALID_ARGUMENT", None, TEXT),
        (Asked("no/such"), "NOT_FOUND", b"no function has the route 'no/such'; there are: ", TEXT),
        (Asked(""), "NOT_FOUND", b"no function has the route ''; there are: ", TEXT),
        (Asked("x" * 2_000), "NOT_FOUND", b"no function has the route '" + b"x" * 200 + b"'", TEXT),
        (Asked("Echo", verb="GET"), "UNIMPLEMENTED", None, TEXT),
        (Asked("ECHO", verb="DELETE"), "UNIMPLEMENTED", None, TEXT),
        (Asked("no/such", verb="PUT"), "NOT_FOUND", None, TEXT),
        (Asked("echo", bytes(MAX_BODY)), "OK", bytes(MAX_BODY), BYTES),
        # The app's.
        (Asked("raises", b'"why"'), "UNKNOWN", FAILED + b"ValueError: why", TEXT),
        (Asked("raises", '"é\\n☃ 100%"'.encode()), "UNKNOWN", FAILED + "ValueError: é\n☃ 100%".encode(), TEXT),
        (Asked("half_a_pair"), "UNKNOWN", FAILED + b"ValueError: half ? pair", TEXT),
        (Asked("odd"), "UNKNOWN", FAILED + b"Odd: very", TEXT),
        (Asked("exits"), "UNKNOWN", FAILED, TEXT),
        (Asked("no_json"), "UNKNOWN", b"the function returned", TEXT),
        (Asked("cancels_itself"), "UNKNOWN", FAILED + b"CancelledError", TEXT),
        (Asked("cancels_in_thread"), "UNKNOWN", FAILED + b"CancelledError", TEXT),
        (Asked("broken"), "INTERNAL", b"function 'broken' did not load: ", TEXT),
        (Asked("without_secret"), "UNAVAILABLE", b"store down: unknown", TEXT),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes | str) else None,
)
async def test_replies(protocol: str, asked: Asked, name: str, body: bytes | None, content_type: str) -> None:
    broken = BrokenFunction("broken", (Problem("it has a fault"),))
    async with serving(*FUNCTIONS, broken=(broken,)) as served, AsyncExitStack() as stack:
        ask = await CALLERS[protocol](served, stack)
        told = await ask(asked)
        assert told.status == status(protocol, name), told
        assert told.content_type == content_type
        assert told.body == body if name == "OK" else told.body.startswith(body or b""), told
        # Whatever it was, the next request (on the same connection, but for those that end it) is served.
        assert await ask(Asked("echo", b"next")) == Told(status(protocol, "OK"), b"next", BYTES)
        assert not any(connection.streams for connection in served.http2_connections)


@every_protocol
async def test_405_says_what_would_have_done(protocol: str) -> None:
    async with serving() as served, AsyncExitStack() as stack:
        ask = await CALLERS[protocol](served, stack)
        told = await ask(Asked("ECHO", verb="PUT"))
        assert b"functions are invoked with POST (here " in told.body
        assert b"echo)" in told.body
        if protocol == "http1":
            answer = await http1_raw(served, "PUT", "/echo")
            assert answer.headers["allow"] == "POST"


async def http1_raw(served: Served, verb: str, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, **options) as client:
        return await client.request(verb, f"http://127.0.0.1:{served.port}{path}")


@every_protocol
async def test_one_too_many(protocol: str) -> None:
    gate = Gate()
    async with serving(function(gate.gate), max_concurrency=1) as served, AsyncExitStack() as stack:
        ask = await CALLERS[protocol](served, stack)
        first = asyncio.create_task(ask(Asked("gate", b'"x"')))
        await gate.started.wait()
        told = await ask(Asked("echo"))
        assert told.status == status(protocol, "OVERLOADED")
        assert b"1 invocations are in flight, which is the limit (--max-concurrency)" in told.body
        gate.opened.set()
        assert (await first).body == b'"x"'
        assert (await ask(Asked("echo"))).status == status(protocol, "OK")


@every_protocol
async def test_function_timeout(protocol: str) -> None:
    gate = Gate()
    async with serving(function(gate.gate), timeout=0.02) as served, AsyncExitStack() as stack:
        ask = await CALLERS[protocol](served, stack)
        told = await ask(Asked("gate"))
        assert told.status == status(protocol, "DEADLINE_EXCEEDED")
        assert told.body == b"function 'gate' took more than functionTimeout, 0.02 s"
        assert gate.cancelled.is_set()


@every_protocol
@pytest.mark.parametrize(
    ("token", "name"),
    [("right", "OK"), ("wrong", "UNAUTHENTICATED"), ("", "UNAUTHENTICATED"), (None, "UNAUTHENTICATED")],
)
@pytest.mark.parametrize(
    ("asked", "otherwise"),
    [
        (Asked("echo", b"x"), "OK"),
        (Asked("no/such"), "NOT_FOUND"),
        (Asked("echo", verb="GET"), "UNIMPLEMENTED"),
        (Asked("no/such", verb="GET"), "NOT_FOUND"),
    ],
    ids=["echo", "no such", "GET", "GET no such"],
)
async def test_token_goes_before_all_else(
    protocol: str, token: str | None, name: str, asked: Asked, otherwise: str
) -> None:
    async with serving(api_token="right") as served, AsyncExitStack() as stack:
        ask = await CALLERS[protocol](served, stack)
        headers = {} if token is None else {"dapr-api-token": token}
        told = await ask(Asked(asked.method, asked.body, verb=asked.verb, headers=headers))
        assert told.status == status(protocol, otherwise if name == "OK" else name)
        assert b"right" not in told.body
        if name != "OK":
            assert told.body.startswith(b"dapr-api-token is missing or is not this app's APP_API_TOKEN")


def test_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from daprfunc.channel.app import App
    from daprfunc.errors import CallerError

    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return real(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    app = App(None, api_token="right", max_body_size=1)  # type: ignore[arg-type]  # it needs no dispatcher
    app.authorize([(b"dapr-api-token", b"right")])
    with pytest.raises(CallerError):
        app.authorize([(b"dapr-api-token", b"wrong\xff")])
    assert compared == [(b"right", b"right"), (b"wrong\xff", b"right")]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "h2c"])
async def test_what_daprd_and_probes_ask_over_http_needs_no_token(http2: bool) -> None:
    async with serving(api_token="right") as served:
        options = {"http1": not http2, "http2": http2}
        health = await http1_raw(served, "GET", "/healthz?probe=1", **options)
        assert (health.status_code, health.content, health.headers["content-length"]) == (200, b"", "0")
        topics = await http1_raw(served, "GET", "/dapr/subscribe", **options)
        assert (topics.status_code, topics.json(), topics.headers["content-type"]) == (200, [], JSON)
        head = await http1_raw(served, "HEAD", "/dapr/subscribe", **options)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "2")
        for verb, path in [("POST", "/healthz"), ("POST", "/dapr/subscribe"), ("GET", "/healthz/x"), ("GET", "/dapr")]:
            assert (await http1_raw(served, verb, path, **options)).status_code == 401
        served.app.healthy = False
        sick = await http1_raw(served, "GET", "/healthz", **options)
        assert (sick.status_code, sick.content) == (503, b"draining")


async def test_what_daprd_asks_over_grpc_needs_no_token() -> None:
    async with serving(api_token="right") as served, grpc_channel(served) as channel:
        callbacks: Any = AppCallbackStub(channel)
        health: Any = AppCallbackHealthCheckStub(channel)
        for method in (callbacks.ListTopicSubscriptions, callbacks.ListInputBindings, health.HealthCheck):
            assert (await method(Empty())).SerializeToString() == b""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await callbacks.OnInvoke(InvokeRequest(method="echo"))
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        served.app.healthy = False
        with pytest.raises(grpc.aio.AioRpcError) as sick:
            await health.HealthCheck(Empty())
        assert (sick.value.code(), sick.value.details()) == (grpc.StatusCode.UNAVAILABLE, "draining")


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "h2c"])
@pytest.mark.parametrize(
    "path", ["/echo?a=b", "/echo?", "/e%63ho", "/%65CHO/?x=%2F", "//echo//", "/orders%2Fv1/get%20%C3%A9?q"]
)
async def test_paths(http2: bool, path: str) -> None:
    async with serving(*FUNCTIONS) as served:
        assert (await http1_raw(served, "POST", path, http1=not http2, http2=http2)).status_code == 200


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/dapr.proto.runtime.v1.AppCallback/OnTopicEvent", False),
        ("/grpc.health.v1.Health/Check", False),
        ("/dapr.proto.runtime.v1.AppCallback/oninvoke", False),
        ("/echo", False),
        ("/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions", True),
    ],
)
async def test_unknown_grpc_methods(path: str, known: bool) -> None:
    async with serving() as served, grpc_channel(served) as channel:
        method: Any = channel.unary_unary(path, None, None)
        if known:
            assert await method(b"") == b""
            return
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await method(b"")
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert f"no gRPC method {path}; dapr.proto.runtime.v1.AppCallback has OnInvoke," in str(error.value.details())


async def test_no_protobuf() -> None:
    async with serving() as served, grpc_channel(served) as channel:
        method: Any = channel.unary_unary("/dapr.proto.runtime.v1.AppCallback/OnInvoke", None, None)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await method(b"\xff\xff")
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.value.details() == "the request is no dapr.proto.common.v1.InvokeRequest"


async def test_compressed_messages_are_refused_with_what_to_do() -> None:
    async with serving() as served, grpc_channel(served, compression=grpc.Compression.Gzip) as channel:
        stub: Any = AppCallbackStub(channel)
        request: Any = InvokeRequest(method="echo")
        request.data.value = b"x" * 10_000
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.OnInvoke(request)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert error.value.details() == "the message is compressed; send it with grpc-encoding: identity"


async def test_several_messages_and_none() -> None:
    async with serving() as served, grpc_channel(served) as channel:
        method: Any = channel.stream_unary("/dapr.proto.runtime.v1.AppCallback/OnInvoke", None, None)
        for messages, code in [([b"", b""], "INTERNAL"), ([], "INVALID_ARGUMENT")]:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await method(iter(messages))
            assert error.value.code().name == code


@every_protocol
@pytest.mark.parametrize("text_", ["é" * 5_000, "☃%" * 5_000, "x" * 100_000, "\N{GRINNING FACE}" * 3_000])
async def test_long_errors_arrive_whole_or_cut_at_a_character(protocol: str, text_: str) -> None:
    async with serving(function(raises)) as served, AsyncExitStack() as stack:
        ask = await CALLERS[protocol](served, stack)
        told = await ask(Asked("raises", text_.encode(), "text/plain"))
        whole = (FAILED + b"ValueError: ").decode() + text_
        found = told.body.decode()
        assert found == whole if protocol != "grpc" else (whole.startswith(found) and len(found) > 400)
        assert (await ask(Asked("echo"))).status == status(protocol, "OK")


async def test_what_nobody_foresaw_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    for protocol, caller in CALLERS.items():
        async with serving() as served, AsyncExitStack() as stack:
            ask = await caller(served, stack)
            served.app.dispatcher = None  # type: ignore[assignment]  # so that answering fails
            told = await ask(Asked("echo"))
            assert told.status == status(protocol, "INTERNAL")
            assert told.body == b"the runtime failed to answer; its log says why"
    assert "please report this" in caplog.text


async def test_grpc_web_is_no_grpc() -> None:
    async with serving() as served, AsyncExitStack() as stack:
        ask = await CALLERS["h2c"](served, stack)
        assert await ask(Asked("echo", b"x", "application/grpc-web")) == Told(200, b"x", BYTES)


@every_protocol
async def test_an_invocation_that_something_cancelled_is_answered(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as served, AsyncExitStack() as stack:
        ask = await CALLERS[protocol](served, stack)

        async def invoke(*_: object) -> NoReturn:
            raise asyncio.CancelledError

        monkeypatch.setattr(served.app, "invoke", invoke)
        told = await ask(Asked("echo"))
        assert told == Told(status(protocol, "INTERNAL"), b"the invocation was cancelled", TEXT)


@pytest.mark.parametrize("protocol", ["http1", "grpc"])  # (h2c: see test_http2; httpx fails when it is reset meanwhile)
@pytest.mark.parametrize("size", [MAX_BODY + 1, MAX_BODY + 70_000, 8 * MAX_BODY])
async def test_too_large(protocol: str, size: int) -> None:
    async with serving() as served, AsyncExitStack() as stack:
        ask = await CALLERS[protocol](served, stack)
        told = await ask(Asked("echo", bytes(size)))
        assert told.status == status(protocol, "TOO LARGE")
        assert told.body == b"the body is larger than 300000 bytes (--max-body-size)"
        assert await ask(Asked("echo", b"next")) == Told(status(protocol, "OK"), b"next", BYTES)
