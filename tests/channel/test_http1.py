"""HTTP/1.1 on the app channel, byte by byte against the real server."""

from __future__ import annotations

import asyncio
import tracemalloc
from email.utils import parsedate_to_datetime

import pytest

from daprfunc.channel.http1 import (
    IDLE_SECONDS,
    LINGER_SECONDS,
    MAX_HEADER_BYTES,
    MAX_TARGET_BYTES,
    REQUEST_SECONDS,
    Http1Connection,
)
from tests.channel.peer import connected, read_answer, read_side
from tests.channel.recording import RecordingTransport
from tests.channel.serving import MAX_BODY, Gate, Served, function, new_app, serving

HOST = b"host: a\r\n"


def post(path: bytes, body: bytes = b"", more: bytes = b"", version: bytes = b"1.1") -> bytes:
    length = b"content-length: %d\r\n" % len(body)
    return b"POST " + path + b" HTTP/" + version + b"\r\n" + HOST + length + more + b"\r\n" + body


def chunked(*pieces: bytes, trailers: bytes = b"", more: bytes = b"") -> bytes:
    head = b"POST /echo HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n" + more + b"\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + body + b"0\r\n" + trailers + b"\r\n"


async def closed(reader: asyncio.StreamReader) -> bool:
    """Wait for the other side's end; fails if anything else comes."""
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


async def gone(served: Served) -> None:
    await served.until(lambda: not served.server.connections)


# Requests and their answers.


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (post(b"/echo", b"body"), b"body"),
        (post(b"/echo"), b""),
        (b"POST /echo HTTP/1.1\r\nhost: a\r\n\r\n", b""),
        (chunked(b"bo", b"d", b"y"), b"body"),
        (chunked(), b""),
        (chunked(b"body", trailers=b"x-checksum: 1\r\n"), b"body"),
        (chunked(b"x" * 100_000, trailers=b"x-checksum: 1\r\n"), b"x" * 100_000),
        (b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4;ext=1\r\nbody\r\n0\r\n\r\n", b"body"),
        (post(b"http://some.host:80/echo?x", b"body"), b"body"),
        (post(b"/echo", b"body", b"X-Caf: \xff\r\n"), b"body"),
        (b"\r\n\r\n" + post(b"/echo", b"body"), b"body"),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10**9])
async def test_requests(request_: bytes, body: bytes, piece: int) -> None:
    piece = max(piece, len(request_) // 1_000)  # More pieces would show no more.
    async with serving() as served, connected(served.port) as (reader, writer):
        for _ in range(2):
            for at in range(0, len(request_), piece):
                writer.write(request_[at : at + piece])
                await asyncio.sleep(0)
            answer = await read_answer(reader)
            assert (answer.status, answer.body) == (200, body)
            assert "connection" not in answer.headers
            parsedate_to_datetime(answer.headers["date"])
        assert served.connection._task is None
        assert not served.connection._waiting


async def test_trailers_say_nothing() -> None:
    """What comes behind the body was not there when it was decided who may call."""
    async with serving(api_token="right") as served, connected(served.port) as (reader, writer):
        writer.write(chunked(b"x", trailers=b"dapr-api-token: right\r\n"))
        assert (await read_answer(reader)).status == 401
        writer.write(chunked(b"x", trailers=b"dapr-api-token: wrong\r\n", more=b"dapr-api-token: right\r\n"))
        assert (await read_answer(reader)).status == 200


async def test_pipelined_requests_are_answered_in_order() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/gate", b'"1"') + post(b"/echo", b"2") + chunked(b"3") + b"GET /healthz HTTP/1.1\r\n\r\n")
        await gate.started.wait()
        connection = served.connection
        await served.until(lambda: len(connection._waiting) == 3)
        assert not connection._transport.is_reading()
        gate.opened.set()
        assert [(await read_answer(reader)).body for _ in range(4)] == [b'"1"', b"2", b"3", b""]
        await served.until(connection._transport.is_reading)
        writer.write(post(b"/echo", b"5"))
        assert (await read_answer(reader)).body == b"5"


async def test_head_has_the_length_but_not_the_body() -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(
            b"HEAD /dapr/subscribe HTTP/1.1\r\n" + HOST + b"\r\n" + b"HEAD /echo HTTP/1.1\r\n" + HOST + b"\r\n"
        )
        writer.write(post(b"/echo", b"x"))
        first = await read_answer(reader, head=True)
        assert (first.status, first.headers["content-length"]) == (200, "2")
        second = await read_answer(reader, head=True)
        assert (second.status, second.headers["allow"]) == (405, "post")
        assert (await read_answer(reader)).body == b"x"


@pytest.mark.parametrize(
    "request_",
    [
        post(b"/echo", b"x", b"connection: close\r\n"),
        post(b"/echo", b"x", version=b"1.0"),
        post(b"/echo", b"x", b"connection: keep-alive\r\n", version=b"1.0"),
    ],
)
async def test_close_is_said_and_done(request_: bytes) -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(request_ + post(b"/echo", b"not answered"))
        answer = await read_answer(reader)
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"x", "close")
        assert await closed(reader)
        writer.close()
        await gone(served)


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
async def test_no_upgrade_is_offered_but_requests_that_ask_are_served(upgrade: bytes) -> None:
    more = b"connection: upgrade, http2-settings\r\nupgrade: " + upgrade + b"\r\nhttp2-settings: AAMAAABk\r\n"
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/echo", b"1", more) + post(b"/echo", b"2", more) + post(b"/echo", b"3"))
        assert [(await read_answer(reader)).body for _ in range(3)] == [b"1", b"2", b"3"]
        writer.write(b"GET /healthz HTTP/1.1\r\n" + HOST + more + b"\r\n")
        assert (await read_answer(reader)).status == 200
        writer.write(post(b"/echo", b"4"))
        assert (await read_answer(reader)).body == b"4"


async def test_a_request_that_asks_for_an_upgrade_stays_what_it_is() -> None:
    more = b"connection: close, upgrade\r\nupgrade: h2c\r\n"
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/echo", b"body", more).replace(b"POST", b"PUT"))
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["connection"]) == (405, "close")
        assert b"PUT /echo: functions are invoked with POST" in answer.body


async def test_connect_is_a_verb_like_others() -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await read_answer(reader)).status == 404


# Expect: 100-continue.

EXPECT = b"expect: 100-continue\r\n"


async def read_continue(reader: asyncio.StreamReader) -> None:
    assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_continue() -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/echo", b"body", EXPECT)[:-4])
        await read_continue(reader)
        writer.write(b"body")
        assert (await read_answer(reader)).body == b"body"


async def test_continue_waits_for_the_answers_before_it() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/gate", b'"1"'))
        await gate.started.wait()
        writer.write(post(b"/echo", b"body", EXPECT)[:-4])
        connection = served.connection
        await served.until(lambda: connection._reading is not None)
        gate.opened.set()
        assert (await read_answer(reader)).body == b'"1"'
        await read_continue(reader)
        writer.write(b"body")
        assert (await read_answer(reader)).body == b"body"


async def test_no_continue_where_nobody_waits_for_one() -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        gate_like = post(b"/echo", b"1") + post(b"/echo", b"2", EXPECT)
        writer.write(gate_like)  # The second one's body is there before its turn comes.
        assert [(await read_answer(reader)).body for _ in range(2)] == [b"1", b"2"]
        writer.write(post(b"/echo", b"3", EXPECT, version=b"1.0"))
        assert (await read_answer(reader)).body == b"3"


async def test_instead_of_continue_too_large() -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\n" + HOST + EXPECT + b"content-length: 999999\r\n\r\n")
        assert (await read_answer(reader)).status == 413


# Refusals: said, then closed, but without a reset that would take the answer along.

LONG = b"x" * 70_000


@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        (b"GARBAGE\r\n\r\n", 400, "the request is not HTTP/1.1: "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "the request is not HTTP/1.1: "),
        (b"POST /echo HTTP/1.1\r\nno colon\r\n\r\n", 400, "the request is not HTTP/1.1: "),
        (b"POST /echo HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400, "the request is not HTTP/1.1: "),
        (b"POST /echo HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "the request is not HTTP"),
        (b"POST /e HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "the request"),
        (b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, "the request is not HTTP/1.1: "),
        (b"POST /echo HTTP/9.9\r\n\r\n", 400, "the request is not HTTP/1.1: "),
        (post(b"/" + b"x" * MAX_TARGET_BYTES), 414, "the request's target is longer than 8192 bytes"),
        (b"POST /" + LONG, 414, "the request's target is longer than 8192 bytes"),
        (post(b"/echo", b"", b"x: %s\r\n" % LONG), 431, "the request's headers are larger than 65536 bytes"),
        (post(b"/echo", b"", b"x: y\r\n" * 3_000), 431, "the request's headers are larger than 65536 bytes"),
        (b"POST /echo HTTP/1.1\r\nx: " + LONG * 10, 431, "the request's headers are larger than 65536 bytes"),
        (b"POST /echo HTTP/1.1\r\n" + LONG * 10, 431, "the request's headers are larger than 65536 bytes"),
        (b"\r\n" * 400_000, 431, "the request's headers are larger than 65536 bytes"),
        (chunked(b"x", trailers=b"x: y\r\n" * 3_000), 431, "the request's headers are larger than 65536 bytes"),
        (chunked(b"x")[:-2] + b"x: " + LONG * 10, 431, "the request's headers are larger than 65536 bytes"),
        (chunked()[:-5] + b"1;" + LONG * 10, 431, "the request's headers are larger than 65536 bytes"),
        (post(b"/echo", bytes(MAX_BODY + 1)), 413, "the body is larger than 300000 bytes (--max-body-size)"),
        (post(b"/echo", bytes(10 * MAX_BODY)), 413, "the body is larger than 300000 bytes (--max-body-size)"),
        (chunked(*[b"x" * 1_000] * 301), 413, "the body is larger than 300000 bytes (--max-body-size)"),
        (chunked(*[b"x" * 1_000] * 3_000), 413, "the body is larger than 300000 bytes (--max-body-size)"),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", 400, "the request is not HTTP/1.1: "),
        (b"POST / HTTP/1.1\r\ncontent-length: 9999999999999999999\r\n\r\n", 413, "the body is larger than"),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("before", [b"", post(b"/echo", b"1")], ids=["first", "second"])
async def test_refusals(sent: bytes, status: int, text: str, before: bytes) -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(before + sent + post(b"/echo", b"behind it"))
        if before:
            assert (await read_answer(reader)).body == b"1"
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.body.decode().startswith(text)
        assert await reader.read() == b""
        writer.close()
        await gone(served)


async def test_a_refusal_waits_for_its_turn_and_lets_nothing_pass() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/gate", b'"1"') + post(b"/gate", b'"2"') + post(b"/echo", bytes(MAX_BODY + 1)))
        writer.write(post(b"/gate", b'"behind it"') * 3)
        await gate.started.wait()
        await served.until(lambda: served.connection._refusal is not None)
        gate.opened.set()
        assert [(await read_answer(reader)).status for _ in range(3)] == [200, 200, 413]
        assert await reader.read() == b""
        assert gate.running == 0


async def test_the_answer_to_a_refused_body_is_not_cut_off() -> None:
    """The caller reads only when it has sent all it has, as simple ones do."""
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/echo", bytes(MAX_BODY * 4)))
        await writer.drain()
        for _ in range(20):
            writer.write(bytes(MAX_BODY))
            await writer.drain()
        assert (await read_answer(reader)).status == 413
        assert await closed(reader)
        assert len(served.server.connections) == 1
        connection = served.connection
        connection.check(connection._loop.time() + LINGER_SECONDS + 1)
        await gone(served)


# Callers that go, and callers that are slow.


async def test_a_caller_that_goes_cancels_its_invocation_and_no_other() -> None:
    mine, other = Gate(), Gate()
    functions = function(mine.gate, "mine"), function(other.gate, "other")
    async with serving(*functions) as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/other", b'"x"'))
        await other.started.wait()
        async with connected(served.port) as (_, leaving):
            leaving.write(post(b"/mine"))
            await mine.started.wait()
        await mine.cancelled.wait()
        assert other.running == 1
        other.opened.set()
        assert (await read_answer(reader)).body == b'"x"'


async def test_an_invocation_that_something_cancelled_ends_in_an_answer() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/gate") + post(b"/echo"))
        await gate.started.wait()
        served.connection._task.cancel()
        answer = await read_answer(reader)
        assert (answer.status, answer.body) == (500, b"the invocation was cancelled")
        assert await closed(reader)


async def test_nothing_more_is_answered_to_a_caller_that_does_not_read() -> None:
    async with (
        serving(send_buffer=8_192) as served,
        connected(served.port, receive_buffer=8_192, limit=1_024) as (reader, writer),
    ):
        await served.until(lambda: served.server.connections)
        read_side(writer).pause_reading()
        writer.write(post(b"/big", b"4000000") * 500)
        await served.until(lambda: isinstance(served.connection, Http1Connection) and served.connection._blocked)
        connection = served.connection
        await served.until(lambda: connection._task is None)
        assert not connection._transport.is_reading()
        assert connection._transport.get_write_buffer_size() < 5_000_000
        left = len(connection._waiting)
        assert left > 400
        read_side(writer).resume_reading()
        for _ in range(3):
            assert len((await read_answer(reader)).body) == 4_000_000
        read_side(writer).pause_reading()
        await served.until(lambda: connection._blocked and connection._task is None)
        assert 0 < len(connection._waiting) < left
        connection.check(connection._loop.time() + REQUEST_SECONDS - 1)
        assert served.server.connections
        connection.check(connection._loop.time() + REQUEST_SECONDS + 1)
        await gone(served)


async def test_a_caller_that_reads_late_gets_all() -> None:
    async with (
        serving(send_buffer=8_192) as served,
        connected(served.port, receive_buffer=8_192, limit=1_024) as (reader, writer),
    ):
        read_side(writer).pause_reading()
        writer.write(post(b"/big", b"1000000") * 5 + post(b"/echo", bytes(MAX_BODY + 1)))
        await served.until(lambda: isinstance(served.connection, Http1Connection) and served.connection._blocked)
        read_side(writer).resume_reading()
        answers = [await read_answer(reader) for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 5 + [413]
        assert [len(answer.body) for answer in answers[:5]] == [1_000_000] * 5


@pytest.mark.parametrize("sent", [b"POST /ec", post(b"/echo", b"body")[:-1], chunked(b"x")[:-2]])
async def test_a_request_that_does_not_arrive(sent: bytes) -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/echo", b"1"))
        assert (await read_answer(reader)).body == b"1"
        writer.write(sent)
        connection = served.connection
        await served.until(lambda: connection._reading is not None)
        connection.check(connection._loop.time() + REQUEST_SECONDS - 1)
        assert connection._refusal is None
        connection.check(connection._loop.time() + REQUEST_SECONDS + 1)
        answer = await read_answer(reader)
        assert (answer.status, answer.body) == (408, b"the request was not complete after 60 s")
        assert await reader.read() == b""
        writer.write(sent)  # (nobody listens any more)
        connection.check(connection._loop.time() + LINGER_SECONDS + 1)
        await gone(served)


async def test_idle_connections_are_kept_longer_than_daprd_keeps_them() -> None:
    async with serving() as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/echo", b"1"))
        assert (await read_answer(reader)).body == b"1"
        connection = served.connection
        connection.check(connection._loop.time() + 90 + 1)
        assert not connection._transport.is_closing()
        connection.check(connection._loop.time() + IDLE_SECONDS + 1)
        assert await closed(reader)


async def test_an_invocation_may_take_its_time() -> None:
    gate = Gate()
    async with serving(function(gate.gate)) as served, connected(served.port) as (reader, writer):
        writer.write(post(b"/gate", b'"x"'))
        await gate.started.wait()
        served.connection.check(served.connection._loop.time() + 10_000)
        gate.opened.set()
        assert (await read_answer(reader)).body == b'"x"'


# Memory.


async def test_idle_connections_are_small() -> None:
    app, loop = new_app(), asyncio.get_running_loop()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        connections = []
        for _ in range(1_000):
            connection = Http1Connection(app, loop, lambda _: None)
            connection.connection_made(RecordingTransport())
            connections.append(connection)
        assert (tracemalloc.get_traced_memory()[0] - before) / 1_000 < 5_000
    finally:
        tracemalloc.stop()
    assert len(connections) == 1_000


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"POST /echo HTTP/1.1\r\nx: ", b"y" * 10_000),
        (b"POST /echo HTTP/1.1\r\n", b"y" * 10_000),
        (b"POST /echo HTTP/1.1\r\n", b"x: y\r\n" * 2_000),
        (chunked(), b"\r\n" * 5_000),
        (chunked(b"x")[:-2], b"y: z\r\n" * 2_000),
        (chunked(b"x")[:-2] + b"y: ", b"z" * 10_000),
        (chunked()[:-5], b"2\r\nxy\r\n" * 1_000),
    ],
    ids=["a value", "a name", "headers", "line ends", "trailers", "a trailer", "small chunks"],
)
async def test_floods_cost_little(start: bytes, piece: bytes) -> None:
    app, loop = new_app(), asyncio.get_running_loop()
    connection = Http1Connection(app, loop, lambda _: None)
    transport = RecordingTransport()
    connection.connection_made(transport)
    connection.data_received(start)
    await asyncio.sleep(0.01)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1_000):
            connection.data_received(piece)
        assert tracemalloc.get_traced_memory()[0] - before < 3 * (MAX_HEADER_BYTES + MAX_BODY)
    finally:
        tracemalloc.stop()
    assert transport.ended == "eof"
    assert transport.sent.count(b"connection: close") == 1
    connection.connection_lost(None)
