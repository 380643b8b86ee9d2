"""Any bytes at all, without a socket: nothing is raised, what is sent is well formed, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from daprfunc.channel.app import App
from daprfunc.channel.http1 import IDLE_SECONDS, LINGER_SECONDS, Http1Connection
from daprfunc.channel.http2 import Http2Connection
from daprfunc.http2 import frames
from daprfunc.http2.frames import Setting
from tests.channel.peer import call, data, grpc_fields, headers, invoke_request, message, post, request_fields
from tests.channel.recording import RecordingTransport
from tests.channel.serving import new_app

thorough = settings(max_examples=500, deadline=None)
MAX_BODY = 200
LATER = IDLE_SECONDS + LINGER_SECONDS


@contextmanager
def app_on_a_loop() -> Iterator[tuple[App, asyncio.AbstractEventLoop]]:
    """An app, and the loop on which it lives; nothing may go wrong in one of its callbacks or tasks."""
    loop = asyncio.new_event_loop()
    problems: list[object] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))

    async def new() -> App:
        return new_app(max_body_size=MAX_BODY)

    try:
        yield loop.run_until_complete(new()), loop
        assert not problems
    finally:
        loop.close()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run all that is ready, and what that makes ready."""

    async def turns() -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    loop.run_until_complete(turns())


def feed(
    connection: Http1Connection | Http2Connection, loop: asyncio.AbstractEventLoop, pieces: list[bytes]
) -> RecordingTransport:
    """Send pieces, and end as a socket would."""
    transport = RecordingTransport()
    connection.connection_made(transport)
    for piece in pieces:
        if not transport.is_closing():
            connection.data_received(piece)
        turn(loop)
    return transport


@st.composite
def in_pieces(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    data_ = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(data_)), max_size=4)))
    return [data_[start:end] for start, end in zip([0, *cuts], [*cuts, len(data_)], strict=True)]


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """What was sent with a few bytes of it changed, added or lost."""

    def damage(data_: bytes, at: int, lost: int, junk: bytes) -> bytes:
        at %= len(data_) + 1
        return data_[:at] + junk + data_[at + lost :]

    return st.builds(damage, whole, st.integers(0, 2_000), st.integers(0, 3), st.binary(max_size=3))


# HTTP/1.1.

http1_parts = st.sampled_from(
    [
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",
        b"POST /big HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n100000",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx: y\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 4\r\n\r\nbody",
        b"GET /healthz HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HEAD /dapr/subscribe HTTP/1.0\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\ncontent-length: 2\r\n\r\nxy",
        b"POST /echo HTTP/1.1\r\ncontent-length: 999\r\n\r\n" + b"x" * 300,
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        b"body",
        b"\r\n",
        b"0\r\n\r\n",
        b" HTTP/1.1\r\n",
        b"content-length: 3\r\n",
        b"transfer-encoding: chunked\r\n",
    ]
)
http1_bytes = st.lists(http1_parts | st.binary(max_size=9), max_size=6).map(b"".join)


def test_http1() -> None:
    with app_on_a_loop() as (app, loop):
        left: list[object] = []

        @thorough
        @given(in_pieces(http1_bytes | damaged(http1_bytes) | st.binary()), st.booleans())
        def any_bytes(pieces: list[bytes], drains: bool) -> None:
            connection = Http1Connection(app, loop, left.append)
            transport = feed(connection, loop, pieces)
            assert_responses(transport.sent, heads=b"HEAD" in b"".join(pieces))
            if drains:
                connection.drain()
                turn(loop)
            for _ in range(3):  # Too slow, if it has to be; then answered; then left.
                if not transport.is_closing():
                    connection.check(loop.time() + LATER)
                    turn(loop)
            assert transport.is_closing()
            assert_responses(transport.sent, heads=b"HEAD" in b"".join(pieces))
            connection.connection_lost(None)
            turn(loop)
            assert connection._task is None
            assert not connection._waiting
            assert left.pop() is connection
            assert app.dispatcher.in_flight == 0

        any_bytes()


def assert_responses(sent: bytes, *, heads: bool) -> None:
    """One whole response after the other, and nothing after the one that said close; those to a HEAD have no body."""
    over = False
    while sent:
        assert not over
        head, separator, sent = sent.partition(b"\r\n\r\n")
        assert separator
        start, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        version, status, _ = start.split(" ", 2)
        assert version == "HTTP/1.1"
        if status == "100":
            continue
        assert int(status) in (200, 400, 404, 405, 408, 413, 500)
        over = fields.get("connection") == "close"
        size = int(fields["content-length"])
        if not heads or (sent and not sent.startswith(b"HTTP/1.1 ")):
            assert len(sent) >= size
            sent = sent[size:]


# HTTP/2.

streams = st.sampled_from([0, 1, 1, 3, 3, 5, 2, frames.MAX_STREAM_ID])
payloads = st.sampled_from([b"", bytes(4), bytes(5), bytes(8), b"\xff" * 4, b"\0\4\0\0\0\7", b"\0\5\0\0\x4e\x20"])
blocks = st.sampled_from(
    [
        request_fields(),
        grpc_fields(),
        request_fields(b"GET", b"/healthz"),
        b"",
        b"\x82",
        b"\xbe",
        b"\x20",
        b"\x3f\xe1\x1f",
    ]
)
bodies = st.sampled_from([b"", b"x", b"x" * 300, message(invoke_request("echo"))])
well_formed = st.one_of(
    st.builds(post, streams, st.sampled_from([b"/echo", b"/no", b"/big"]), st.sampled_from([b"", b"9", b"100000"])),
    st.builds(call, streams, st.sampled_from(["echo", "no", "big"]), st.sampled_from([b"", b"9", b"x" * 300])),
    st.builds(headers, streams, blocks, end=st.booleans()),
    st.builds(
        data, streams, st.sampled_from([b"", b"x", b"x" * 300, message(invoke_request("echo"))]), end=st.booleans()
    ),
    st.builds(
        frames.frame, st.integers(0, 11), st.integers(0, 255), streams, payloads | blocks | st.binary(max_size=20)
    ),
    st.builds(frames.window_update, streams, st.sampled_from([0, 1, 100, 70_000, frames.MAX_WINDOW])),
    st.builds(
        frames.settings,
        st.dictionaries(st.sampled_from(Setting), st.sampled_from([0, 1, 5, 16_384, 70_000, frames.MAX_WINDOW])),
    ),
    st.just(frames.frame(frames.PING, frames.ACK, 0, b"draining")),
)
http2_bytes = st.lists(well_formed, max_size=9).map(b"".join)


@pytest.mark.parametrize("greets", [True, False], ids=["greeted", "not greeted"])
def test_http2(greets: bool) -> None:
    start = [frames.settings({})] if greets else []
    with app_on_a_loop() as (app, loop):
        left: list[object] = []

        @thorough
        @given(in_pieces(http2_bytes | damaged(http2_bytes) | st.binary()), st.booleans())
        def any_bytes(pieces: list[bytes], drains: bool) -> None:
            connection = WatchedConnection(app, loop, left.append)
            transport = feed(connection, loop, start + pieces)
            if drains:
                connection.drain()
                turn(loop)
            for _ in range(3):
                if not transport.is_closing():
                    connection.check(loop.time() + LATER)
                    turn(loop)
            if not transport.is_closing():
                # Whatever it was, it was no fault: it is over, and the connection serves on.
                assert not drains
                assert not connection.streams
                if connection._settings_seen:
                    assert_serves(connection, transport, loop)
            assert_frames(transport.sent, connection.largest_frame)
            connection.connection_lost(None)
            turn(loop)
            assert not connection.streams
            assert not connection._blocked
            assert not connection._running
            assert connection._buffered == 0
            assert left.pop() is connection
            assert app.dispatcher.in_flight == 0

        any_bytes()


def assert_serves(connection: Http2Connection, transport: RecordingTransport, loop: asyncio.AbstractEventLoop) -> None:
    stream = connection._last_peer_stream + 1 | 1
    if stream <= frames.MAX_STREAM_ID and min(connection._send_window, connection._peer_initial_window) > 0:
        connection.data_received(post(stream, b"/echo", b"x"))
        turn(loop)
        assert data(stream, b"x") in transport.sent


class WatchedConnection(Http2Connection):
    """Knows the largest frame that the peer has ever allowed us: a later SETTINGS may lower it again."""

    largest_frame = frames.MIN_MAX_FRAME_SIZE

    def _apply_setting(self, key: int, value: int) -> None:
        super()._apply_setting(key, value)
        self.largest_frame = max(self.largest_frame, self._peer_max_frame)


def assert_frames(sent: bytes, largest: int) -> None:
    """Frames that a strict reader takes: nothing for a stream behind its end but one RST_STREAM."""
    ended: set[int] = set()
    while sent:
        frame, length = Frame.parse_frame_header(memoryview(sent[:9]), strict=True)
        assert length <= largest
        assert len(sent) >= 9 + length
        frame.parse_body(memoryview(sent[9 : 9 + length]))
        sent = sent[9 + length :]
        if isinstance(frame, GoAwayFrame):
            assert frame.additional_data or frame.error_code == 0
        if frame.stream_id and not isinstance(frame, RstStreamFrame):
            assert frame.stream_id not in ended
            if "END_STREAM" in frame.flags:
                ended.add(frame.stream_id)
        elif isinstance(frame, RstStreamFrame):
            ended.add(frame.stream_id)
