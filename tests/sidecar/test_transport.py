from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from daprfunc.endpoint import Endpoint
from daprfunc.http2 import frames
from daprfunc.http2.frames import ACK, ErrorCode, Setting
from daprfunc.rpc.dapr_pb2 import GetSecretRequest, GetSecretResponse
from daprfunc.sidecar import connection, transport
from daprfunc.sidecar.call import RpcError
from daprfunc.sidecar.client import SecretRead, Sidecar
from daprfunc.sidecar.connection import MAX_MESSAGE_BYTES
from daprfunc.sidecar.transport import MAX_SENDS, Channel
from tests.fakes import FakeSidecar

from .raw import ANSWER, Peer, RawServer, Script, answer, data, goaway, good, headers, message, raw_server, reset

METHOD = "/dapr.proto.runtime.v1.Dapr/GetSecret"
REQUEST = GetSecretRequest(store_name="store", key="key")
RESPONSE = GetSecretResponse(data={"key": "value"})

Call = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def calling(endpoint: Endpoint) -> AsyncIterator[Call]:
    channel = Channel(endpoint)
    stub: Any = channel.unary_unary(METHOD, GetSecretRequest.SerializeToString, GetSecretResponse.FromString)

    def call(request: GetSecretRequest = REQUEST, timeout: float = 10) -> Awaitable[Any]:
        answer: asyncio.Future[Any] = asyncio.ensure_future(stub(request, timeout=timeout))
        return answer

    try:
        yield call
    finally:
        await channel.close()


@asynccontextmanager
async def against(*scripts: Script) -> AsyncIterator[tuple[Call, RawServer]]:
    async with raw_server(*scripts) as (endpoint, raw), calling(endpoint) as call:
        yield call, raw


async def failure(call: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(RpcError) as raised:
        await call
    return raised.value.code().name, raised.value.details()


def says(*parts: bytes | Callable[[int], bytes]) -> Script:
    """Greet, take one request, and say this."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(*(part if isinstance(part, bytes) else part(stream) for part in parts))

    return script


def raw(*parts: bytes, then: str = "wait") -> Script:
    """Say this without having listened."""

    async def script(peer: Peer) -> None:
        peer.send(*parts)
        if then == "close":
            peer.close()

    return script


OK = ((b":status", b"200"), (b"content-type", b"application/grpc"))


def HEAD(stream: int) -> bytes:
    return headers(stream, *OK)


def body(content: bytes) -> Callable[[int], bytes]:
    return lambda stream: data(stream, content)


def status(code: bytes, text: bytes = b"") -> Callable[[int], bytes]:
    return lambda stream: headers(stream, (b"grpc-status", code), (b"grpc-message", text), ended=True)


# What a server that knows gRPC may answer.


@pytest.mark.parametrize(
    "script",
    [
        says(answer),
        says(lambda stream: headers(stream, (b":status", b"103")), answer),
        pytest.param(
            says(
                lambda stream: headers(stream, *OK),
                *(lambda stream, at=at: data(stream, message(ANSWER)[at : at + 1]) for at in range(len(ANSWER) + 5)),
                lambda stream: data(stream, b"") + headers(stream, (b"grpc-status", b"0"), ended=True),
            ),
            id="a frame for each byte",
        ),
        says(
            lambda stream: frames.frame(0xFA, 0xFF, stream, b"unknown"),
            lambda stream: frames.frame(frames.PING, 0, 0, b"are you?"),
            answer,
        ),
    ],
)
async def test_takes_every_form_of_a_good_answer(script: Script) -> None:
    async with against(script) as (call, _):
        assert await call() == RESPONSE


@pytest.mark.parametrize(
    ("parts", "code", "details"),
    [
        ([status(b"5", b"no%20key")], "NOT_FOUND", "no key"),
        ([status(b"5", b"%zz\xff%C3%BC")], "NOT_FOUND", "%zz\ufffdü"),
        ([HEAD, status(b"13")], "INTERNAL", ""),
        ([status(b"77")], "UNKNOWN", ""),
        ([status(b"9" * 5000)], "UNKNOWN", ""),
        ([status(b"-")], "UNKNOWN", ""),
        ([lambda s: headers(s, *OK, ended=True)], "UNKNOWN", "without a gRPC status (HTTP status 200)"),
        ([lambda s: headers(s, (b"x", b"y"), ended=True)], "UNKNOWN", "without a gRPC status (HTTP status missing)"),
        ([HEAD, status(b"0")], "INTERNAL", "what is not one gRPC message"),
        ([HEAD, body(message(ANSWER) * 2), status(b"0")], "INTERNAL", "what is not one gRPC message"),
        ([HEAD, body(message(ANSWER)[:-1]), status(b"0")], "INTERNAL", "what is not one gRPC message"),
        ([HEAD, body(message(ANSWER, 1)), status(b"0")], "INTERNAL", "a compressed message"),
        ([lambda s: answer(s, b"\xff\xff")], "INTERNAL", f"answered {METHOD} with another message"),
        ([lambda s: reset(s, ErrorCode.CANCEL)], "CANCELLED", "reset the call (CANCEL)"),
        ([lambda s: reset(s, ErrorCode.INTERNAL_ERROR)], "INTERNAL", "reset the call (INTERNAL_ERROR)"),
        ([lambda s: reset(s, ErrorCode.ENHANCE_YOUR_CALM)], "RESOURCE_EXHAUSTED", "the call (ENHANCE_YOUR_CALM)"),
        ([lambda s: frames.frame(frames.RST_STREAM, 0, s, b"\0\0\1\0")], "INTERNAL", "reset the call (256)"),
        ([HEAD, lambda s: reset(s, ErrorCode.NO_ERROR)], "INTERNAL", "reset the call (NO_ERROR)"),
    ],
)
async def test_a_call_that_fails_says_how(parts: list[Any], code: str, details: str) -> None:
    async with against(says(*parts)) as (call, raw_):
        found = await failure(call())
        assert found[0] == code
        assert details in found[1]
        assert not raw_.peers[0].resets


@pytest.mark.parametrize(
    ("http_status", "code"),
    [
        ("301", "UNKNOWN"),
        ("400", "INTERNAL"),
        ("401", "UNAUTHENTICATED"),
        ("403", "PERMISSION_DENIED"),
        ("404", "UNIMPLEMENTED"),
        ("429", "UNAVAILABLE"),
        ("502", "UNAVAILABLE"),
        ("503", "UNAVAILABLE"),
        ("504", "UNAVAILABLE"),
    ],
)
async def test_a_proxys_answer_becomes_grpcs_code(http_status: str, code: str) -> None:
    parts = (
        lambda stream: headers(stream, (b":status", http_status.encode()), (b"content-type", b"text/html")),
        lambda stream: data(stream, b"<h1>go away</h1>", ended=True),
    )
    async with against(says(*parts)) as (call, _):
        found = await failure(call())
    assert found[0] == code
    assert f"without a gRPC status (HTTP status {http_status})" in found[1]
    assert "<h1>" not in found[1]


async def test_a_response_that_is_too_large_is_given_up_and_others_go_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(headers(stream, *OK))
        for _ in range(MAX_MESSAGE_BYTES // 16_384 + 1):
            peer.send(data(stream, bytes(16_384)))
        assert (await peer.until(frames.RST_STREAM))[1] == stream
        peer.send(data(stream, bytes(16_384), ended=True))
        peer.send(answer(await peer.request()))

    async with against(script) as (call, raw_):
        assert await failure(call()) == ("RESOURCE_EXHAUSTED", f"a response of over {MAX_MESSAGE_BYTES} bytes")
        assert await call() == RESPONSE
        assert raw_.connections == 1


async def test_large_requests_wait_for_the_servers_window() -> None:
    request = GetSecretRequest(store_name="store", key="k" * 300_000)
    taken = bytearray()

    async def script(peer: Peer) -> None:
        await peer.greet(INITIAL_WINDOW_SIZE=1000)
        ended = 0
        while not ended & frames.END_STREAM:
            ended, stream, payload = await peer.until(frames.DATA)
            taken.extend(payload)
            peer.send(frames.window_update(stream, len(payload)), frames.window_update(0, len(payload)))
        peer.send(answer(stream))

    async with against(script) as (call, _):
        assert await call(request) == RESPONSE
    assert bytes(taken) == message(request.SerializeToString())


async def test_an_answer_before_the_whole_request_ends_the_call() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(INITIAL_WINDOW_SIZE=0)
        _, stream, _ = await peer.until(frames.HEADERS)
        peer.send(headers(stream, *OK, (b"grpc-status", b"16"), ended=True))
        assert (await peer.until(frames.RST_STREAM))[1] == stream

    async with against(script) as (call, raw_):
        # The server's SETTINGS come after the first call: its window is only known to the second.
        await failure(call(GetSecretRequest(key="k" * 100_000)))
        assert raw_.connections == 1


# Servers that are none, or not for long.


@pytest.mark.parametrize(
    ("script", "details"),
    [
        (raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "is this its gRPC address"),
        (raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", then="close"), "is this its gRPC address"),
        (raw(b"\x15\x03\x01\x00\x02\x02\x46", then="close"), "is this its gRPC address"),
        (raw(bytes(range(255, 0, -1)) * 100), "is this its gRPC address"),
        (raw(then="close"), "is this its gRPC address"),
        (raw(frames.settings({}), b"\0" * 8, then="close"), "was lost"),
        (raw(frames.settings({}), frames.frame(frames.DATA, 0, 77, b"x")), "broke HTTP/2: DATA for stream 77"),
        (raw(frames.settings({}), headers(2, (b":status", b"200"))), "broke HTTP/2: HEADERS for stream 2"),
        (raw(frames.settings({}), frames.frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2")), "broke HTTP/2: PUSH_PROMISE"),
        (says(lambda s: headers(s, *OK) + data(s, ANSWER[:2]), b"\xff" * 9), "broke HTTP/2: a frame of"),
        (says(lambda s: frames.frame(frames.HEADERS, 4, s, b"\xff" * 9)), "broke HTTP/2: a header block that cannot"),
    ],
)
async def test_what_is_no_grpc_server_is_unavailable_at_once(script: Script, details: str) -> None:
    async with against(script) as (call, _):
        found = await failure(call())
    assert found[0] == "UNAVAILABLE"
    assert details in found[1]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_connection_lost_mid_reply_fails_its_calls_and_no_later_ones(how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(2):
            stream = await peer.request()
        peer.send(headers(stream, *OK), data(stream, message(ANSWER)[:7]))
        getattr(peer, how)()

    async with against(script, good) as (call, raw_):
        for found in await asyncio.gather(failure(call()), failure(call())):
            assert found == ("UNAVAILABLE", f"the connection to {raw_endpoint(found[1])} was lost")
        assert await call() == RESPONSE
        assert raw_.connections == 2


def raw_endpoint(details: str) -> str:
    return next(word for word in details.split() if word.startswith("127.0.0.1:"))


# Streams that end without their connection, and connections without their streams.


async def test_a_refused_call_is_sent_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.send(reset(await peer.request(), ErrorCode.REFUSED_STREAM))
        peer.send(answer(await peer.request()))

    async with against(script) as (call, raw_):
        assert await call() == RESPONSE
        assert raw_.connections == 1


async def test_a_call_that_is_always_refused_fails() -> None:
    refused = 0

    async def script(peer: Peer) -> None:
        nonlocal refused
        await peer.greet()
        while True:
            peer.send(reset(await peer.request(), ErrorCode.REFUSED_STREAM))
            refused += 1

    async with against(script) as (call, _):
        code, details = await failure(call())
    assert code == "UNAVAILABLE"
    assert f"refused the call {MAX_SENDS} times" in details
    assert refused == MAX_SENDS


async def test_goaway_finishes_what_was_taken_and_sends_the_rest_again() -> None:
    taken: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        taken.extend([await peer.request() for _ in range(3)])
        peer.send(goaway(taken[0]))
        moved.set()
        await finished.wait()
        peer.send(answer(taken[0], GetSecretResponse(data={"first": ""}).SerializeToString()))
        await peer.until(frames.GOAWAY)
        assert await peer.ended() == b""

    moved, finished = asyncio.Event(), asyncio.Event()
    async with against(script, good) as (call, raw_):
        calls = [call() for _ in range(3)]
        assert await asyncio.gather(*calls[1:]) == [RESPONSE, RESPONSE]
        assert await call() == RESPONSE, "and later ones go to the new connection"
        finished.set()
        assert await calls[0] == GetSecretResponse(data={"first": ""})
        assert raw_.connections == 2


async def test_goaway_without_calls_makes_the_next_one_connect_anew() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(answer(stream), goaway(stream))

    async with against(script, good) as (call, raw_):
        assert await call() == RESPONSE
        assert await call() == RESPONSE
        assert raw_.connections == 2


async def test_a_server_that_always_goes_away_is_not_stormed() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.send(goaway(0))

    async with against(script) as (call, raw_):
        loop = asyncio.get_running_loop()
        started = loop.time()
        results = await asyncio.gather(*(failure(call()) for _ in range(50)))
        assert {code for code, _ in results} == {"UNAVAILABLE"}
        assert raw_.connections <= (loop.time() - started) / transport.RECONNECT_SECONDS + 1


@pytest.mark.parametrize("limit", [1, 3])
async def test_keeps_to_the_streams_that_the_server_allows(limit: int) -> None:
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        await peer.greet(MAX_CONCURRENT_STREAMS=limit)
        running: list[int] = []
        for _ in range(200):
            if not running:
                running.append(await peer.request())
            # Whatever the client dares to send before its next answer is here before this PING is back.
            peer.send(frames.frame(frames.PING, 0, 0, b"and now?"))
            kind = flags = 0
            while (kind, flags) != (frames.PING, ACK):
                kind, flags, stream, _ = await peer.frame()
                if kind == frames.DATA:
                    running.append(stream)
            most = max(most, len(running))
            peer.send(answer(running.pop(0)))

    async def caller(call: Call) -> None:
        for _ in range(10):
            assert await call() == RESPONSE

    async with against(script) as (call, raw_):
        await asyncio.gather(*(caller(call) for _ in range(20)))
        assert raw_.connections == 1
    assert most == limit


async def test_waits_for_a_server_that_allows_no_streams_yet() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(MAX_CONCURRENT_STREAMS=0)
        peer.send(frames.frame(frames.PING, 0, 0, b"and now?"))
        kind = flags = 0
        while (kind, flags) != (frames.PING, ACK):
            kind, flags, _, _ = await peer.frame()
            assert kind != frames.HEADERS
        peer.send(frames.settings({Setting.MAX_CONCURRENT_STREAMS: 2}))
        while True:
            peer.send(answer(await peer.request()))

    async with against(script) as (call, raw_):
        assert await asyncio.gather(*(call() for _ in range(50))) == [RESPONSE] * 50
        assert raw_.connections == 1


async def test_one_stream_at_a_time_of_a_real_server() -> None:
    async def slowly(request: GetSecretRequest, context: Any) -> GetSecretResponse:
        await asyncio.sleep(0)
        return RESPONSE

    fake = FakeSidecar(slowly)
    async with fake.serving(options=(("grpc.max_concurrent_streams", 1),)) as endpoint, calling(endpoint) as call:
        assert await asyncio.gather(*(call() for _ in range(50))) == [RESPONSE] * 50
    assert fake.most == 1
    assert len(fake.requests) == 50


async def test_a_cancelled_caller_gives_its_place_to_the_next() -> None:
    first_taken = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet(MAX_CONCURRENT_STREAMS=1)
        peer.send(answer(await peer.request()))
        stream = await peer.request()
        first_taken.set()
        assert (await peer.until(frames.RST_STREAM))[1] == stream
        peer.send(answer(await peer.request()))

    async with against(script) as (call, _):
        await call()  # so that the limit is known
        running, waiting, last = (asyncio.ensure_future(call()) for _ in range(3))
        await first_taken.wait()
        waiting.cancel()
        running.cancel()
        assert await last == RESPONSE
        for cancelled in (running, waiting):
            with pytest.raises(asyncio.CancelledError):
                await cancelled


async def test_a_call_that_no_stream_was_free_for_misses_its_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(MAX_CONCURRENT_STREAMS=1)
        peer.send(answer(await peer.request()))
        await peer.request()

    async with against(script) as (call, _):
        await call()
        running = asyncio.ensure_future(call())
        code, details = await failure(call(timeout=0.05))
        assert (code, details.split(" ", 1)[1]) == ("DEADLINE_EXCEEDED", "took no further call before the deadline")
        running.cancel()
        await asyncio.wait({running})


async def test_cancelling_a_call_resets_its_stream_and_no_other() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        first, second = await peer.request(), await peer.request()
        taken.set()
        _, stream, payload = await peer.until(frames.RST_STREAM)
        assert (stream, payload) == (first, ErrorCode.CANCEL.to_bytes(4, "big"))
        peer.send(answer(first), answer(second))

    taken = asyncio.Event()
    async with against(script) as (call, raw_):
        one, other = asyncio.ensure_future(call()), asyncio.ensure_future(call())
        await taken.wait()
        one.cancel()
        assert await other == RESPONSE
        with pytest.raises(asyncio.CancelledError):
            await one
        assert raw_.connections == 1


# Deadlines, and peers that are gone without a word.


async def test_a_peer_that_answered_others_keeps_its_connection_after_a_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        for _ in range(2):
            peer.send(answer(await peer.request()))

    async with against(script) as (call, raw_):
        slow = asyncio.ensure_future(call(timeout=0.1))
        await asyncio.sleep(0)
        assert await call() == RESPONSE
        code, details = await failure(slow)
        assert (code, details.split("127")[0]) == ("DEADLINE_EXCEEDED", "no answer from ")
        assert await call() == RESPONSE
        assert raw_.connections == 1


async def test_a_peer_that_gives_no_sign_of_life_gets_no_more_calls() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.until(frames.GOAWAY)

    async with against(script, good) as (call, raw_):
        assert (await failure(call(timeout=0.05)))[0] == "DEADLINE_EXCEEDED"
        assert await call() == RESPONSE
        assert raw_.connections == 2


async def test_a_server_whose_own_timer_fires_first_means_the_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        await asyncio.sleep(0.1 - connection._CLOCK_SECONDS / 2)
        peer.send(reset(stream, ErrorCode.CANCEL))

    async with against(script) as (call, _):
        assert (await failure(call(timeout=0.1)))[0] == "DEADLINE_EXCEEDED"


async def test_a_peer_that_accepts_and_never_speaks_misses_the_deadline() -> None:
    async with against(raw()) as (call, _):
        assert (await failure(call(timeout=0.05)))[0] == "DEADLINE_EXCEEDED"


async def test_a_tls_handshake_that_is_not_answered_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.1)
    async with raw_server(raw()) as (endpoint, _), calling(Endpoint("localhost", endpoint.port, tls=True)) as call:
        assert (await failure(call(timeout=0.05)))[0] == "DEADLINE_EXCEEDED"
        code, details = await failure(call())
        assert code == "UNAVAILABLE"
        assert "no answer within 0.1 s" in details


# Connecting.


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (Endpoint(port=1), "Connection refused"),
        (Endpoint(path="/nowhere/dapr.sock"), "No such file or directory"),
        (Endpoint(path="/" + "x" * 200), ""),
        (Endpoint("host.invalid", 1), ""),
    ],
)
async def test_what_cannot_be_reached_is_unavailable_at_once(endpoint: Endpoint, reason: str) -> None:
    async with calling(endpoint) as call:
        code, details = await failure(call())
    assert code == "UNAVAILABLE"
    assert details.startswith(f"cannot connect to {endpoint}: {reason}")
    assert details.endswith("(DAPR_GRPC_ENDPOINT or DAPR_GRPC_PORT)?")


async def test_a_tls_server_that_speaks_plain_text_is_said_to() -> None:
    async with (
        raw_server(raw(b"220 hello\r\n")) as (endpoint, _),
        calling(Endpoint("localhost", endpoint.port, tls=True)) as call,
    ):
        code, details = await failure(call())
    assert code == "UNAVAILABLE"
    assert "cannot connect to localhost" in details


async def test_callers_share_one_connection() -> None:
    async with against(good) as (call, raw_):
        assert await asyncio.gather(*(call() for _ in range(20))) == [RESPONSE] * 20
        assert raw_.connections == 1


async def test_a_caller_that_leaves_while_connecting_does_not_stop_the_others() -> None:
    async with against(good) as (call, raw_):
        first, second = asyncio.ensure_future(call()), asyncio.ensure_future(call())
        await asyncio.sleep(0)
        first.cancel()
        assert await second == RESPONSE
        assert raw_.connections == 1


async def test_the_first_call_after_a_restart_succeeds(unused_port: int) -> None:
    async with calling(Endpoint(port=unused_port)) as call:
        for _ in range(3):
            async with raw_server(good, port=unused_port):
                assert await call() == RESPONSE
            for _ in range(3):
                assert (await failure(call()))[0] == "UNAVAILABLE"


async def test_the_first_call_after_a_restart_of_a_real_server_succeeds(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/dapr.sock"
    async with calling(Endpoint(path=f"{tmp_path}/dapr.sock")) as call:
        for _ in range(3):
            async with FakeSidecar().serving(address):
                assert await call() == GetSecretResponse(data={"key": "value of key"})
            assert (await failure(call()))[0] == "UNAVAILABLE"


async def test_a_missing_sidecar_is_not_stormed(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    attempts = 0
    dial = Channel._dial

    async def counted(channel: Channel) -> Any:
        nonlocal attempts
        attempts += 1
        return await dial(channel)

    monkeypatch.setattr(Channel, "_dial", counted)
    async with calling(Endpoint(port=unused_port)) as call:
        loop = asyncio.get_running_loop()
        started = loop.time()
        calls = 0
        while loop.time() - started < 0.5:
            await asyncio.gather(*(failure(call()) for _ in range(20)))
            calls += 20
        assert calls > attempts
        assert 2 <= attempts <= 0.5 / transport.RECONNECT_SECONDS + 2


# The end.


async def test_close_fails_calls_under_way_and_later_ones() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        taken.set()

    taken = asyncio.Event()
    async with raw_server(script) as (endpoint, raw_):
        channel = Channel(endpoint)
        stub = channel.unary_unary(METHOD, GetSecretRequest.SerializeToString, GetSecretResponse.FromString)
        call = asyncio.ensure_future(stub(REQUEST, timeout=10))
        await taken.wait()
        await channel.close()
        assert await failure(call) == ("UNAVAILABLE", "the channel was closed")
        assert await failure(stub(REQUEST, timeout=10)) == ("UNAVAILABLE", "the channel was closed")
        await channel.close()
        assert raw_.connections == 1


async def test_close_while_connecting_leaves_nothing() -> None:
    async with raw_server(raw()) as (endpoint, _):
        channel = Channel(Endpoint("localhost", endpoint.port, tls=True))
        stub = channel.unary_unary(METHOD, GetSecretRequest.SerializeToString, GetSecretResponse.FromString)
        call = asyncio.ensure_future(stub(REQUEST, timeout=10))
        await asyncio.sleep(0.02)
        await channel.close()
        assert await failure(call) == ("UNAVAILABLE", "the channel was closed")


async def test_close_does_not_wait_for_a_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CLOSE_SECONDS", 0.1)

    async def script(peer: Peer) -> None:
        await peer.greet(INITIAL_WINDOW_SIZE=frames.MAX_WINDOW)
        peer.send(frames.window_update(0, frames.MAX_WINDOW - 65_535))
        peer.send(answer(await peer.request()))
        await held.wait()

    held = asyncio.Event()
    async with raw_server(script) as (endpoint, _):
        channel = Channel(endpoint)
        stub = channel.unary_unary(METHOD, GetSecretRequest.SerializeToString, GetSecretResponse.FromString)
        await stub(REQUEST, timeout=10)
        large = asyncio.ensure_future(stub(GetSecretRequest(key="k" * 20_000_000), timeout=10))
        await asyncio.sleep(0.05)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await channel.close()
        assert loop.time() - started < 1
        assert (await failure(large))[0] == "UNAVAILABLE"
        held.set()


async def test_secrets_that_are_asked_for_together_are_written_without_another_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeSidecar()
    flushes = 0
    flush = Channel.flush

    def counted(channel: Channel) -> None:
        nonlocal flushes
        flushes += 1
        flush(channel)

    monkeypatch.setattr(Channel, "flush", counted)
    async with fake.serving() as endpoint:
        sidecar = Sidecar(Channel(endpoint), timeout=10)
        await asyncio.gather(*(sidecar.get_secret(SecretRead("store", key)) for key in "abc"))
        await sidecar.close()
    assert flushes == 1
    assert len(fake.requests) == 3
