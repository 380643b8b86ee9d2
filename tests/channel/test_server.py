"""The app's one port: which protocol a caller speaks, TLS, and how it all ends."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import grpc
import httpx
import pytest
import trustme

from daprfunc.channel.http2 import GOAWAY_SECONDS
from daprfunc.channel.server import DRAINING_SECONDS, GREETING_SECONDS
from daprfunc.http2 import frames
from daprfunc.http2.frames import ErrorCode
from daprfunc.rpc.appcallback_pb2_grpc import AppCallbackStub
from daprfunc.rpc.common_pb2 import InvokeRequest
from tests.channel.peer import (
    Frame,
    Http2Peer,
    call,
    connected,
    data,
    headers,
    http2,
    post,
    read_answer,
    read_side,
    request_fields,
)
from tests.channel.serving import Gate, Served, function, serving

POST = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"
GREETING = frames.PREFACE + frames.settings({})


# Which protocol.


@pytest.mark.parametrize("piece", [1, 3, 23, 24, 25, 1_000])
async def test_the_preface_in_any_pieces(piece: int) -> None:
    whole = GREETING + call(1, "echo", b"body")
    async with serving() as served, connected(served.port) as (reader, writer):
        peer = Http2Peer(reader, writer)
        for at in range(0, len(whole), piece):
            writer.write(whole[at : at + piece])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert (await peer.reply(1)).data == b"body"


@pytest.mark.parametrize("piece", [1, 2, 1_000])
async def test_a_first_letter_that_both_begin_with(piece: int) -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        for at in range(0, len(POST), piece):
            writer.write(POST[at : at + piece])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert (await read_answer(reader)).body == b"body"


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI * HTTP/1.1\r\n\r\n",
        b"\0",
        b"\x16\x03\x01\0\xa5\x01",
        b"P\r\n\r\n",
        b"?\n\n",
    ],
)
async def test_what_is_neither_is_refused(sent: bytes) -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(sent + b"\r\n\r\n")
        answer = await read_answer(reader)
        assert answer.status in (400, 404)
        writer.close()
        await served.until(lambda: not served.server.connections)


@pytest.mark.parametrize("sent", [b"", b"P", frames.PREFACE[:-1]])
async def test_a_caller_that_does_not_say(sent: bytes) -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(sent)
        await served.until(lambda: served.server.connections and served.connection._seen == sent)
        served.connection.check(served.connection._loop.time() + GREETING_SECONDS - 1)
        assert not reader.at_eof()
        served.connection.check(served.connection._loop.time() + GREETING_SECONDS + 1)
        await served.until(lambda: not served.server.connections)


async def test_a_caller_that_leaves_at_once() -> None:
    async with serving() as served:
        for sent in (b"", b"P", GREETING[:10]):
            async with connected(served.port) as (_, writer):
                writer.write(sent)
                await served.until(lambda: served.server.connections)
            await served.until(lambda: not served.server.connections)


async def test_slow_callers_are_looked_for_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from daprfunc.channel import server as module

    monkeypatch.setattr(module, "CHECK_SECONDS", 0.005)
    monkeypatch.setattr(module, "GREETING_SECONDS", 0.02)
    async with serving() as served, connected(served.port) as (reader, _):
        assert await _ended(reader)
        await served.until(lambda: not served.server.connections)


# TLS.

# Up to Python 3.10, asyncio's TLS transport warns when it was the peer who closed.
over_tls = pytest.mark.filterwarnings("ignore:unclosed transport <asyncio.sslproto:ResourceWarning")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """As host.py makes it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@over_tls
@pytest.mark.parametrize("http2_", [False, True], ids=["http1", "h2"])
async def test_https(tls: ssl.SSLContext, trusting: ssl.SSLContext, http2_: bool) -> None:
    async with serving(tls=tls) as served:
        client = httpx.AsyncClient(verify=trusting, http1=not http2_, http2=http2_, trust_env=False)
        async with client:
            for size in (0, 10, 200_000):
                answer = await client.post(f"https://localhost:{served.port}/echo", content=bytes(size))
                assert (answer.status_code, answer.content) == (200, bytes(size))
                assert answer.http_version == ("HTTP/2" if http2_ else "HTTP/1.1")
        await served.until(lambda: not served.server.connections)


@over_tls
async def test_grpcs(tls: ssl.SSLContext, authority: trustme.CA) -> None:
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    options = (("grpc.enable_http_proxy", 0),)
    async with serving(tls=tls) as served:
        async with grpc.aio.secure_channel(f"localhost:{served.port}", credentials, options=options) as channel:
            request = InvokeRequest(method="big")
            request.data.value = b"1000000"
            stub: Any = AppCallbackStub(channel)
            assert len((await stub.OnInvoke(request)).data.value) == 1_000_000
        await served.until(lambda: not served.server.connections)


@over_tls
async def test_who_agreed_on_http2_has_to_speak_it(tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    trusting.set_alpn_protocols(["h2"])
    options: dict[str, Any] = {"ssl": trusting, "server_hostname": "localhost"}
    async with serving(tls=tls) as served, connected(served.port, **options) as (reader, writer):
        writer.write(POST)
        assert await _ended(reader)
        await served.until(lambda: not served.server.connections)


@over_tls
async def test_prior_knowledge_needs_no_alpn(tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    options: dict[str, Any] = {"ssl": trusting, "server_hostname": "localhost"}
    async with serving(tls=tls) as served, http2(served.port, **options) as peer:
        peer.send(post(1, b"/echo", b"body"))
        assert (await peer.reply(1)).body == b"body"


@over_tls
async def test_plain_text_on_a_port_with_tls(tls: ssl.SSLContext) -> None:
    async with serving(tls=tls) as served, connected(served.port) as (reader, writer):
        writer.write(POST)
        assert await _ended(reader)
        assert not served.server.connections


@over_tls
async def test_refusals_over_tls(tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """No half-close there: the answer is followed by the close."""
    options: dict[str, Any] = {"ssl": trusting, "server_hostname": "localhost"}
    async with serving(tls=tls) as served, connected(served.port, **options) as (reader, writer):
        writer.write(b"GARBAGE\r\n\r\n")
        assert (await read_answer(reader)).status == 400
        assert await _ended(reader)


# The end.


async def drained(served: Served, timeout: float = 30) -> asyncio.Task[None]:
    """Begin to drain, as host.py does."""
    served.app.healthy = False
    task = asyncio.create_task(served.server.drain(timeout))
    await asyncio.sleep(0)
    return task


def goaways(received: list[Frame]) -> list[tuple[int, int]]:
    return [(frames.read_uint32(frame.payload), frame.code) for frame in received if frame.kind == frames.GOAWAY]


async def test_nothing_to_drain() -> None:
    async with serving() as served:
        await served.server.drain(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", served.port)


async def test_http2_drains_in_two_steps_without_losing_a_request() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, http2(served.port) as peer:
        peer.send(call(1, "gate", b'"1"'))
        await gate.started.wait()
        drain = await drained(served)
        # It says that it leaves, but takes what is on its way.
        first = await peer.frame_of(frames.GOAWAY)
        assert goaways([first]) == [(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR)]
        ping = await peer.frame_of(frames.PING)
        peer.send(post(3, b"/echo", b"on its way"), headers(5, request_fields(), end=False))
        assert (await peer.reply(3)).body == b"on its way"
        # It sees that we know, and tells how far it goes.
        peer.send(frames.frame(frames.PING, frames.ACK, 0, ping.payload))
        second = await peer.frame_of(frames.GOAWAY)
        assert goaways([second]) == [(5, ErrorCode.NO_ERROR)]
        peer.send(headers(7, request_fields()))
        assert (await peer.reply(7)).reset == ErrorCode.REFUSED_STREAM
        # What it took it finishes, and then it closes.
        peer.send(data(5, b"the rest"))
        assert (await peer.reply(5)).body == b"the rest"
        assert not drain.done()
        gate.opened.set()
        assert (await peer.reply(1)).data == b'"1"'
        await peer.goodbye()
        await drain


async def test_http2_drains_though_nobody_acknowledges() -> None:
    """Clients that only read while they wait for a reply, such as httpx."""
    async with serving() as served, http2(served.port) as peer:
        await peer.settled()
        drain = await drained(served)
        served.connection.check(served.connection.loop.time() + GOAWAY_SECONDS - 0.5)
        assert not served.connection.closing
        served.connection.check(served.connection.loop.time() + GOAWAY_SECONDS + 0.5)
        await drain
        assert not served.server.connections
        assert goaways([await peer.frame_of(frames.GOAWAY)]) == [(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR)]


async def test_other_pings_are_no_acknowledgement() -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(frames.frame(frames.PING, frames.ACK, 0, b"draining"))
        await peer.settled()
        drain = await drained(served)
        await peer.frame_of(frames.GOAWAY)
        peer.send(frames.frame(frames.PING, frames.ACK, 0, b"whatever"), post(1, b"/echo", b"x"))
        assert (await peer.reply(1)).body == b"x"
        peer.send(frames.frame(frames.PING, frames.ACK, 0, b"draining"))
        await peer.goodbye()
        await drain


async def test_grpc_clients_lose_nothing() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served:
        options = (("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=options) as channel:
            stub: Any = AppCallbackStub(channel)
            request = InvokeRequest(method="gate", content_type="text/plain")
            request.data.value = b"x"
            calls = [stub.OnInvoke(request) for _ in range(20)]
            await served.until(lambda: gate.running == 20)
            drain = await drained(served)
            gate.opened.set()
            assert [(await call_).data.value for call_ in calls] == [b'"x"'] * 20
            await drain


async def test_http1_drains() -> None:
    gate = Gate()
    async with (
        serving(function(gate.gate)) as served,
        connected(served.port) as (idle, idle_writer),
        connected(served.port) as (busy, busy_writer),
        connected(served.port) as (sending, sending_writer),
        connected(served.port) as (silent, _),
        connected(served.port) as (late, late_writer),
    ):
        idle_writer.write(POST)
        assert (await read_answer(idle)).body == b"body"
        busy_writer.write(POST.replace(b"echo", b"gate").replace(b"body", b'"12"') + POST)
        sending_writer.write(POST[:-1])
        await gate.started.wait()
        await served.until(lambda: len(served.server.connections) == 5)
        drain = await drained(served)
        assert await _ended(idle)
        # What was being sent is answered; so is what comes on a connection that was just made.
        sending_writer.write(POST[-1:])
        answer = await read_answer(sending)
        assert (answer.body, answer.headers["connection"]) == (b"body", "close")
        late_writer.write(POST)
        answer = await read_answer(late)
        assert (answer.body, answer.headers["connection"]) == (b"body", "close")
        for connection in list(served.server.connections):
            connection.check(asyncio.get_running_loop().time() + DRAINING_SECONDS + 0.5)
        assert await _ended(silent)
        gate.opened.set()
        answers = [await read_answer(busy) for _ in range(2)]
        assert [answer.body for answer in answers] == [b'"12"', b"body"]
        assert [answer.headers.get("connection") for answer in answers] == [None, "close"]
        assert await _ended(busy)
        await drain


async def test_http2_on_a_connection_that_was_just_made() -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        await served.until(lambda: served.server.connections)
        drain = await drained(served)
        peer = Http2Peer(reader, writer)
        peer.send(GREETING, post(1, b"/echo", b"x"))
        assert (await peer.reply(1)).body == b"x"
        peer.send(frames.frame(frames.PING, frames.ACK, 0, b"draining"))
        await peer.goodbye()
        await drain


async def test_health_is_told_while_it_drains() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, http2(served.port) as peer:
        peer.send(call(1, "gate", b'"1"'))
        await gate.started.wait()
        drain = await drained(served)
        peer.send(headers(3, request_fields(b"GET", b"/healthz")))
        assert (await peer.reply(3)).status == "503"
        gate.opened.set()
        peer.send(frames.frame(frames.PING, frames.ACK, 0, b"draining"))
        await peer.goodbye()
        await drain


async def test_a_drain_that_takes_too_long_is_cut_off() -> None:
    gate = Gate()
    async with (
        serving(function(gate.gate)) as served,
        http2(served.port) as peer,
        connected(served.port) as (reader, writer),
        connected(served.port),
    ):
        peer.send(call(1, "gate"))
        writer.write(POST.replace(b"echo", b"gate").replace(b"body", b'"12"'))
        await served.until(lambda: gate.running == 2 and len(served.server.connections) == 3)
        await served.server.drain(0.02)
        await gate.cancelled.wait()
        await served.until(lambda: gate.running == 0)
        assert await _ended(reader)
        assert not served.server.connections


async def test_the_last_reply_is_not_cut_off_by_the_close() -> None:
    gate = Gate()

    async def late(payload: str) -> bytes:
        await gate.gate(payload)
        return bytes(2_000_000)

    settings = {frames.Setting.INITIAL_WINDOW_SIZE: 8_000_000}
    async with (
        serving(function(late), send_buffer=8_192) as served,
        http2(served.port, settings, receive_buffer=8_192, limit=1_024) as peer,
    ):
        peer.send(frames.window_update(0, 8_000_000), post(1, b"/late"))
        await gate.started.wait()
        drain = await drained(served)
        await peer.frame_of(frames.PING)
        peer.send(frames.frame(frames.PING, frames.ACK, 0, b"draining"))
        await peer.frame_of(frames.GOAWAY)
        read_side(peer.writer).pause_reading()
        gate.opened.set()
        connection = served.connection
        await served.until(lambda: connection._write_paused)
        connection.check(connection.loop.time() + 30)
        read_side(peer.writer).resume_reading()
        assert len((await peer.reply(1)).body) == 2_000_000
        await drain


async def _ended(reader: asyncio.StreamReader) -> bool:
    """Wait for the other side's end, calm or not; fails if anything else comes."""
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True
