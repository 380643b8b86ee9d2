"""HTTP/2 requests on the app channel: what ends them early, what is refused, and what is forgotten."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from daprfunc.channel import http2 as module
from daprfunc.channel.http2 import MAX_STREAMS, REQUEST_SECONDS, Http2Connection
from daprfunc.http2 import connection as wire
from daprfunc.http2 import frames
from daprfunc.http2.frames import ErrorCode, Setting
from tests.channel.peer import (
    Http2Peer,
    call,
    data,
    grpc_fields,
    headers,
    http2,
    invoke_request,
    message,
    post,
    read_side,
    request_fields,
)
from tests.channel.recording import RecordingTransport
from tests.channel.serving import MAX_BODY, Gate, Served, function, new_app, serving


async def assert_well(served: Served, peer: Http2Peer, stream: int) -> None:
    """The connection serves on, and nothing is left of what went before."""
    peer.send(post(stream, b"/echo", b"fine"))
    assert (await peer.reply(stream)).body == b"fine"
    connection = served.connection
    await served.until(lambda: not connection._running)
    assert not connection.streams
    assert not connection._blocked
    assert connection._buffered == 0
    assert len(connection._reset_by_us) <= 256


def ask(protocol: str, stream: int, method: str, body: bytes = b"") -> bytes:
    return call(stream, method, body) if protocol == "grpc" else post(stream, f"/{method}".encode(), body)


both = pytest.mark.parametrize("protocol", ["grpc", "http"])

# Requests that end early.


@both
async def test_a_reset_cancels_its_invocation_and_no_other(protocol: str) -> None:
    first, second = Gate(), Gate()
    async with (
        serving(function(first.gate, "first"), function(second.gate, "second")) as served,
        http2(served.port) as peer,
    ):
        peer.send(ask(protocol, 1, "first"), ask(protocol, 3, "second", b'"x"'))
        await first.started.wait()
        await second.started.wait()
        peer.send(frames.rst_stream(1, ErrorCode.CANCEL))
        await first.cancelled.wait()
        second.opened.set()
        assert b'"x"' in (await peer.reply(3)).body
        await assert_well(served, peer, 5)
        assert 1 not in peer.replies


async def test_a_fault_on_a_stream_cancels_its_invocation() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, http2(served.port) as peer:
        peer.send(call(1, "gate"))
        await gate.started.wait()
        peer.send(data(1, b"more than was announced"))
        assert (await peer.reply(1)).reset == ErrorCode.STREAM_CLOSED
        await gate.cancelled.wait()
        await assert_well(served, peer, 3)


async def test_a_lost_connection_cancels_its_invocations_and_no_others() -> None:
    mine, other = Gate(), Gate()
    functions = function(mine.gate, "mine"), function(other.gate, "other")
    async with serving(*functions) as served, http2(served.port) as neighbour:
        neighbour.send(call(1, "other", b'"x"'))
        async with http2(served.port) as peer:
            peer.send(call(1, "mine"), post(3, b"/mine"), headers(5, request_fields(), end=False))
            await served.until(lambda: mine.running == 2)
        await mine.cancelled.wait()
        await served.until(lambda: mine.running == 0)
        assert other.running == 1
        other.opened.set()
        assert (await neighbour.reply(1)).data == b'"x"'
        await assert_well(served, neighbour, 3)


async def test_a_function_that_finishes_after_the_reset_answers_nobody() -> None:
    gate = Gate()

    async def stubborn(payload: str) -> str:
        try:
            return await gate.gate(payload)
        except asyncio.CancelledError:
            return "too late"

    async with serving(function(stubborn)) as served, http2(served.port) as peer:
        peer.send(call(1, "stubborn"), post(3, b"/stubborn"))
        await served.until(lambda: gate.running == 2)
        peer.send(frames.rst_stream(1, ErrorCode.CANCEL), frames.rst_stream(3, ErrorCode.CANCEL))
        await served.until(lambda: gate.running == 0)
        await assert_well(served, peer, 5)
        assert set(peer.replies) == {0, 5}


async def test_reset_before_the_invocation_began() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, http2(served.port) as peer:
        peer.send(call(1, "gate"), frames.rst_stream(1, ErrorCode.CANCEL))
        await assert_well(served, peer, 3)
        assert not gate.started.is_set()


async def test_reset_before_the_request_was_whole() -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(headers(1, request_fields(), end=False), data(1, b"x" * 9_000, end=False))
        await peer.settled()
        assert served.connection._buffered == 9_000
        peer.send(frames.rst_stream(1, ErrorCode.CANCEL))
        await assert_well(served, peer, 3)


async def test_what_comes_for_a_stream_that_we_have_reset_is_no_offence() -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(headers(1, request_fields(b"POST", b"/echo", (b"te", b"gzip")), end=False))
        peer.send(data(1, b"x", end=False), frames.window_update(1, 5), data(1, b"y", end=False))
        peer.send(headers(1, frames.fields((b"trailer", b"x"))), frames.rst_stream(1, ErrorCode.CANCEL))
        await assert_well(served, peer, 3)
        assert peer.replies[1].reset == ErrorCode.PROTOCOL_ERROR


# Malformed requests (RFC 9113, section 8.1.1): the stream's fault, not the connection's.

METHOD, SCHEME, PATH = (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/echo")


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (SCHEME, PATH),
        (METHOD, PATH),
        (METHOD, SCHEME),
        (METHOD, SCHEME, (b":path", b"")),
        ((b":method", b"CONNECT"), (b":authority", b"a:1")),
        (METHOD, METHOD, SCHEME, PATH),
        (METHOD, SCHEME, PATH, PATH),
        (METHOD, SCHEME, PATH, (b":status", b"200")),
        (METHOD, SCHEME, PATH, (b":protocol", b"websocket")),
        (METHOD, SCHEME, (b"x", b"y"), PATH),
        (METHOD, SCHEME, PATH, (b"X-Upper", b"y")),
        (METHOD, SCHEME, PATH, (b"", b"y")),
        (METHOD, SCHEME, PATH, (b"a b", b"y")),
        (METHOD, SCHEME, PATH, (b"a:b", b"y")),
        (METHOD, SCHEME, PATH, (b"caf\xe9", b"y")),
        (METHOD, SCHEME, PATH, (b"x", b"a\r\nset-cookie: b")),
        (METHOD, SCHEME, PATH, (b"x", b"a\nb")),
        (METHOD, SCHEME, PATH, (b"x", b"a\0b")),
        (METHOD, SCHEME, (b":path", b"/echo\r\nx: y")),
        (METHOD, SCHEME, PATH, (b"connection", b"close")),
        (METHOD, SCHEME, PATH, (b"keep-alive", b"1")),
        (METHOD, SCHEME, PATH, (b"proxy-connection", b"close")),
        (METHOD, SCHEME, PATH, (b"transfer-encoding", b"chunked")),
        (METHOD, SCHEME, PATH, (b"upgrade", b"websocket")),
        (METHOD, SCHEME, PATH, (b"te", b"gzip")),
        (METHOD, SCHEME, PATH, (b"te", b"trailers, gzip")),
        (METHOD, SCHEME, PATH, (b"content-length", b"")),
        (METHOD, SCHEME, PATH, (b"content-length", b"+4")),
        (METHOD, SCHEME, PATH, (b"content-length", b"x")),
        (METHOD, SCHEME, PATH, (b"content-length", b"3")),
        (METHOD, SCHEME, PATH, (b"content-length", b"5")),
        (METHOD, SCHEME, PATH, (b"content-length", b"4"), (b"content-length", b"5")),
    ],
    ids=str,
)
@pytest.mark.parametrize("body", [b"", b"body"], ids=["no body", "body"])
async def test_malformed_requests(fields: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(headers(1, frames.fields(*fields), end=not body), data(1, body) if body else b"")
        assert (await peer.reply(1)).reset == ErrorCode.PROTOCOL_ERROR
        assert not peer.replies[1].headers
        await assert_well(served, peer, 3)


@pytest.mark.parametrize(
    "more",
    [
        ((b"content-length", b"4"),),
        ((b"content-length", b"4"), (b"content-length", b"4")),
        ((b"te", b"trailers"),),
        ((b"cookie", b"a"), (b"cookie", b"b")),
        ((b"host", b"other"),),
        ((b"x", b"caf\xe9 \t~"),),
        ((b"!#$%&'*+-.^_`|~09az", b""),),
    ],
    ids=str,
)
async def test_odd_but_well_formed_requests(more: tuple[tuple[bytes, bytes], ...]) -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(headers(1, request_fields(b"POST", b"/echo", *more), end=False), data(1, b"body"))
        assert (await peer.reply(1)).body == b"body"


@pytest.mark.parametrize(
    ("trailers", "end", "fine"),
    [
        (((b"x-checksum", b"y"),), True, True),
        ((), True, True),
        (((b"x-checksum", b"y"),), False, False),
        (((b":path", b"/other"),), True, False),
    ],
)
async def test_trailers(trailers: tuple[tuple[bytes, bytes], ...], end: bool, fine: bool) -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(headers(1, request_fields(), end=False), data(1, b"body", end=False))
        peer.send(headers(1, frames.fields(*trailers), end=end))
        reply = await peer.reply(1)
        assert (reply.body, reply.reset) == ((b"body", None) if fine else (b"", ErrorCode.PROTOCOL_ERROR))
        await assert_well(served, peer, 3)


async def test_padding_and_priority_are_no_part_of_the_request() -> None:
    async with serving() as served, http2(served.port) as peer:
        flags = frames.END_HEADERS | frames.PADDED | frames.PRIORITIZED
        head = b"\x03" + b"\0\0\0\0\x10" + request_fields(b"POST", b"/echo", (b"content-length", b"4")) + bytes(3)
        padded = frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x05body" + bytes(5))
        peer.send(frames.frame(frames.HEADERS, flags, 1, head), padded)
        assert (await peer.reply(1)).body == b"body"


# What is refused.


@both
@pytest.mark.parametrize("announced", [True, False])
async def test_too_large(protocol: str, announced: bool) -> None:
    size = MAX_BODY + 100_000
    length = ((b"content-length", b"%d" % size),) if announced else ()
    head = grpc_fields(*length) if protocol == "grpc" else request_fields(b"POST", b"/echo", *length)
    async with serving() as served, http2(served.port) as peer:
        peer.send(headers(1, head, end=False))
        if not announced:
            peer.send(data(1, bytes(size), end=False))
        reply = await peer.reply(1)
        assert reply.status == ("8" if protocol == "grpc" else "413")
        text = reply.headers["grpc-message"] if protocol == "grpc" else reply.body.decode()
        assert text == "the body is larger than 300000 bytes (--max-body-size)"
        await peer.settled()
        assert reply.reset == ErrorCode.NO_ERROR
        peer.send(data(1, bytes(size)))  # It did not know yet.
        await assert_well(served, peer, 3)


@both
async def test_the_largest_body(protocol: str) -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(ask(protocol, 1, "echo", b"x" * MAX_BODY))
        peer.send(frames.window_update(0, MAX_BODY), frames.window_update(1, MAX_BODY))
        reply = await peer.reply(1)
        assert (reply.data if protocol == "grpc" else reply.body) == b"x" * MAX_BODY


async def test_a_refusal_that_has_to_wait_is_given_once() -> None:
    async with serving() as served, http2(served.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(headers(1, request_fields(), end=False), data(1, bytes(MAX_BODY + 1), end=False))
        peer.send(data(1, bytes(MAX_BODY), end=False), headers(1, frames.fields((b"x", b"y"))))
        await peer.settled()
        assert peer.replies[1].status == "413"
        assert served.connection._buffered == 0
        peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 70_000}))
        kinds = []
        while not peer.replies[1].ended:
            kinds.append((await peer.frame()).kind)
        assert kinds.count(frames.DATA) == 1
        assert frames.HEADERS not in kinds
        await assert_well(served, peer, 3)


@both
async def test_requests_that_pile_up_are_refused(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED", 0)
    gate = Gate()
    async with serving(function(gate.gate), max_body_size=1_000) as served, http2(served.port) as peer:
        whole = 14 if protocol == "grpc" else 16
        body = b'"' + b"x" * 998 + b'"'
        peer.send(*(ask(protocol, stream, "gate", body) for stream in range(1, 2 * whole, 2)))
        await served.until(lambda: gate.running == whole)
        late = 2 * whole + 1
        peer.send(ask(protocol, late, "gate", body), ask(protocol, late + 2, "gate", body))
        assert (await peer.reply(late + 2)).status == ("8" if protocol == "grpc" else "503")
        gate.opened.set()
        for stream in range(1, 2 * whole, 2):
            assert body in (await peer.reply(stream)).body
        await assert_well(served, peer, late + 4)


async def test_5000_streams_at_once() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, http2(served.port) as peer:
        peer.send(*(post(stream, b"/gate") for stream in range(1, 10_001, 2)))
        # (data for those that were refused, which the peer cannot know yet)
        await peer.settled()
        refused = [stream for stream, reply in peer.replies.items() if reply.reset is not None]
        assert len(refused) == 5_000 - MAX_STREAMS
        assert all(peer.replies[stream].reset == ErrorCode.REFUSED_STREAM for stream in refused)
        peer.send(*(data(stream, b"x") for stream in refused))
        await served.until(lambda: gate.running == MAX_STREAMS)
        gate.opened.set()
        for stream in range(1, 10_001, 2):
            reply = await peer.reply(stream)
            assert reply.reset is not None or reply.status == "200"
        await assert_well(served, peer, 10_001)


async def test_refused_streams_can_be_sent_data() -> None:
    async with serving() as served, http2(served.port) as peer:
        await peer.settled()
        served.connection.open_stream = lambda _: None
        peer.send(headers(1, request_fields(), end=False), data(1, b"x", end=False), data(1, b"y"))
        assert (await peer.reply(1)).reset == ErrorCode.REFUSED_STREAM
        del served.connection.open_stream
        await assert_well(served, peer, 3)


# Attacks: each ends the attacker's connection, and no other.


def rapid_reset() -> bytes:
    """CVE-2023-44487. So many that over 2,000 fall in one second even if a second ends in their midst."""
    return b"".join(
        post(stream, b"/echo") + frames.rst_stream(stream, ErrorCode.CANCEL) for stream in range(1, 9_001, 2)
    )


def made_you_reset() -> bytes:
    """CVE-2025-8671: the same, but the resets are ours."""
    return b"".join(post(stream, b"/hold") + frames.window_update(stream, 0) for stream in range(1, 9_001, 2))


def settings_flood() -> bytes:
    return frames.settings({Setting.INITIAL_WINDOW_SIZE: 5}) * 250


def hpack_bomb() -> bytes:
    """One large entry in the table, referred to a thousand times."""
    entry = b"\x40\x01x" + b"\x7f\xa1\x1e" + b"y" * 4_000
    return headers(1, request_fields() + entry + b"\xbe" * 1_000)


def continuation_flood() -> bytes:
    start = frames.frame(frames.HEADERS, frames.END_STREAM, 1, request_fields())
    return start + frames.frame(frames.CONTINUATION, 0, 1, frames.field(b"x", b"y" * 16_000)) * 20


def empty_continuations() -> bytes:
    """CVE-2019-9518's kin."""
    start = frames.frame(frames.HEADERS, frames.END_STREAM, 1, request_fields())
    return start + frames.frame(frames.CONTINUATION, 0, 1) * 2


def large_headers() -> bytes:
    block = request_fields() + b"".join(frames.field(b"x%d" % n, b"y" * 1_000) for n in range(70))
    first = frames.frame(frames.HEADERS, frames.END_STREAM, 1, block[:16_000])
    middle = [frames.frame(frames.CONTINUATION, 0, 1, block[at : at + 16_000]) for at in range(16_000, 64_000, 16_000)]
    return first + b"".join(middle) + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[64_000:])


@pytest.mark.parametrize(
    "attack",
    [rapid_reset, made_you_reset, settings_flood, hpack_bomb, continuation_flood, empty_continuations, large_headers],
)
async def test_attacks(attack: object) -> None:
    assert callable(attack)
    hold = Gate()
    async with serving(function(hold.gate, "hold")) as served, http2(served.port) as neighbour:
        async with http2(served.port) as peer:
            peer.send(attack())
            goaway = await peer.goodbye()
            assert ErrorCode(goaway.code) == ErrorCode.ENHANCE_YOUR_CALM
        await served.until(lambda: len(served.server.connections) == 1)
        await served.until(lambda: hold.running == 0)
        await assert_well(served, neighbour, 1)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (headers(1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (headers(1, b"\x00\x7f"), ErrorCode.COMPRESSION_ERROR),
        (headers(1, b"\x40\x85\xf2"), ErrorCode.COMPRESSION_ERROR),
        (headers(1, b"\xfe"), ErrorCode.COMPRESSION_ERROR),
        (headers(1, b"\x3f\xff\xff\xff\x7f"), ErrorCode.COMPRESSION_ERROR),
        (headers(2, request_fields()), ErrorCode.PROTOCOL_ERROR),
        (headers(0, request_fields()), ErrorCode.PROTOCOL_ERROR),
        (data(1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (data(0, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 0, b"short"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.DATA, 0, 1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.CONTINUATION, 4, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
        (post(3, b"/echo") + post(1, b"/echo"), ErrorCode.STREAM_CLOSED),
    ],
)
async def test_faults_that_end_the_connection(sent: bytes, code: ErrorCode) -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(sent)
        goaway = await peer.goodbye()
        assert ErrorCode(goaway.code) == code
        assert len(goaway.payload) > 8, "it does not say why"
        await served.until(lambda: not served.server.connections)


@pytest.mark.parametrize("size", [1, 2, 9, 100])
async def test_bytes_in_any_pieces(size: int) -> None:
    whole = frames.PREFACE + frames.settings({}) + call(1, "echo", b"x" * 50) + post(3, b"/echo", b"y" * 50)
    async with serving() as served, http2(served.port) as _:
        loop = asyncio.get_running_loop()
        transport = RecordingTransport()
        connection = Http2Connection(served.app, loop, lambda _: None)
        connection.connection_made(transport)
        for at in range(len(frames.PREFACE), len(whole), size):
            connection.data_received(whole[at : at + size])
        await served.until(lambda: b"x" * 50 in transport.sent and b"y" * 50 in transport.sent)
        assert not connection.streams
        assert not connection._rest
        connection.connection_lost(None)


# Callers that are too slow. `check` is what the server asks once a second.


@pytest.mark.parametrize("sent", [b"", headers(1, request_fields(), end=False), call(1, "gate")])
async def test_who_may_take_their_time(sent: bytes) -> None:
    """Connections that are idle, requests that are not late yet, and invocations, however long they take."""
    gate = Gate()
    async with serving(function(gate.gate)) as served, http2(served.port) as peer:
        peer.send(sent)
        await peer.settled()
        connection = served.connection
        streams = len(connection.streams)
        late = connection.loop.time() + (REQUEST_SECONDS - 1 if streams and not gate.running else 10_000)
        connection.check(late)
        assert len(connection.streams) == streams
        await peer.settled()


async def test_a_request_that_does_not_arrive_is_reset() -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(headers(1, request_fields(), end=False), data(1, b"x", end=False))
        await peer.settled()
        served.connection.check(served.connection.loop.time() + REQUEST_SECONDS + 1)
        assert (await peer.reply(1)).reset == ErrorCode.CANCEL
        await assert_well(served, peer, 3)


@pytest.mark.parametrize(
    "sent",
    [
        frames.frame(frames.HEADERS, frames.END_STREAM, 1, request_fields()),
        post(1, b"/echo", b"x")[:-1],
        b"\0",
        frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}) + post(1, b"/echo", b"x"),
    ],
    ids=["header block", "frame", "frame head", "window"],
)
async def test_a_caller_that_leaves_us_waiting_is_left(sent: bytes) -> None:
    async with serving() as served, http2(served.port) as peer:
        await peer.settled()
        peer.send(sent)
        connection = served.connection
        await served.until(
            lambda: connection._rest or connection._block or any(s.unsent for s in connection.streams.values())
        )
        connection.check(connection.loop.time() + REQUEST_SECONDS - 1)
        assert not connection.closing
        connection.check(connection.loop.time() + REQUEST_SECONDS + 1)
        assert ErrorCode((await peer.goodbye()).code) == ErrorCode.ENHANCE_YOUR_CALM


async def test_a_long_function_leaves_its_caller_time_to_read() -> None:
    """The wait for a window begins with the reply, however long ago the request came."""
    gate = Gate()
    async with serving(function(gate.gate)) as served, http2(served.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(call(1, "gate"))
        await gate.started.wait()
        connection = served.connection
        connection._progress -= 10_000
        gate.opened.set()
        await served.until(lambda: any(stream.unsent for stream in connection.streams.values()))
        connection.check(connection.loop.time() + 1)
        assert not connection.closing
        peer.send(frames.window_update(1, 1_000))
        assert (await peer.reply(1)).status == "0"


async def test_a_caller_that_does_not_read_is_cut_off() -> None:
    settings = {Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW}
    async with (
        serving(send_buffer=8_192) as served,
        http2(served.port, settings, receive_buffer=8_192, limit=1_024) as peer,
    ):
        peer.send(frames.window_update(0, 100_000_000))
        await peer.settled()
        read_side(peer.writer).pause_reading()
        connection = served.connection
        peer.send(post(1, b"/big", b"8000000"))
        await served.until(lambda: connection._write_paused)
        connection.check(connection.loop.time() + REQUEST_SECONDS - 1)
        assert served.server.connections
        connection.check(connection.loop.time() + REQUEST_SECONDS + 1)
        await served.until(lambda: not served.server.connections)
        assert not connection.streams


# Memory.


async def test_idle_connections_are_small() -> None:
    app, loop = new_app(), asyncio.get_running_loop()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        connections = []
        for _ in range(1_000):
            connection = Http2Connection(app, loop, lambda _: None)
            connection.connection_made(RecordingTransport())
            connection.data_received(frames.settings({}))
            connection.flush()
            connections.append(connection)
        assert (tracemalloc.get_traced_memory()[0] - before) / 1_000 < 10_000
    finally:
        tracemalloc.stop()
    await asyncio.sleep(2 * wire.ACK_SECONDS)  # (the timers of what the settings were answered with)
    assert len(connections) == 1_000


async def test_small_pieces_of_a_body_cost_little() -> None:
    app, loop = new_app(), asyncio.get_running_loop()
    connection = Http2Connection(app, loop, lambda _: None)
    connection.connection_made(RecordingTransport())
    connection.data_received(frames.settings({}) + headers(1, request_fields(), end=False))
    piece = data(1, b"xy", end=False) * 1_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            connection.data_received(piece)
        assert tracemalloc.get_traced_memory()[0] - before < 3 * 200_000
    finally:
        tracemalloc.stop()
    assert connection._buffered == 200_000
    connection.connection_lost(None)
    assert connection._buffered == 0
    await asyncio.sleep(2 * wire.ACK_SECONDS)


async def test_nothing_is_kept_of_what_comes_after_the_end() -> None:
    connection = Http2Connection(new_app(), asyncio.get_running_loop(), lambda _: None)
    connection.connection_made(RecordingTransport())
    connection.data_received(frames.settings({}) + headers(2, b""))
    for _ in range(100):
        connection.data_received(b"\0" * 1_000)
    assert len(connection._rest) < 100


async def test_messages_that_are_none() -> None:
    cases = {
        b"": ("3", "the call carries no whole gRPC message"),
        b"\0\0\0\0": ("3", "the call carries no whole gRPC message"),
        b"\1" + message(b"")[1:]: ("12", "the message is compressed; send it with grpc-encoding: identity"),
        message(b"") * 2: ("13", "the call carries other than one gRPC message"),
        message(invoke_request("echo"))[:-1]: ("13", "the call carries other than one gRPC message"),
        message(b"\xff"): ("3", "the request is no dapr.proto.common.v1.InvokeRequest"),
    }
    async with serving() as served, http2(served.port) as peer:
        for stream, (body, (status, text)) in zip(range(1, 99, 2), cases.items(), strict=False):
            peer.send(headers(stream, grpc_fields(), end=not body), data(stream, body) if body else b"")
            reply = await peer.reply(stream)
            assert (reply.status, reply.headers["grpc-message"]) == (status, text)
        await assert_well(served, peer, 99)
