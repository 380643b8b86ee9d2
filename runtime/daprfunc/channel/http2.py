"""HTTP/2 on the app channel: gRPC calls, and plain HTTP requests (daprd's ``h2c``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from daprfunc.channel import callback, web
from daprfunc.channel.app import App
from daprfunc.channel.web import HttpResponse
from daprfunc.errors import INTERNAL, InvocationError
from daprfunc.http2 import frames
from daprfunc.http2.connection import Connection, Headers, Stream, StreamError
from daprfunc.http2.frames import END_HEADERS, END_STREAM, ErrorCode, Setting

MAX_STREAMS = 4_096
# How long a caller may take to send one request, and to make room for one response.
REQUEST_SECONDS = 60.0
# Cancelled calls per second from which on a caller is taken for an attacker (CVE-2023-44487, "rapid reset").
MAX_RESETS_PER_SECOND = 2_000
MAX_MESSAGE = 4_096

_GRPC_HEAD = b"\x88" + frames.field(b"content-type", b"application/grpc")
_GRPC_OK = frames.field(b"grpc-status", b"0")
# Fields that HTTP/2 forbids since they concern a connection (RFC 9113, section 8.2.2).
_CONNECTION_FIELDS = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_PSEUDO_FIELDS = frozenset((b":method", b":scheme", b":path", b":authority"))


class _Request(Stream):
    """A request and what becomes of it."""

    __slots__ = ("body", "headers", "is_grpc", "length", "path", "since", "size", "task", "verb")

    def __init__(self, stream_id: int, send_window: int, now: float) -> None:
        super().__init__(stream_id, send_window)
        self.headers: list[tuple[bytes, bytes]] | None = None
        self.verb = b""
        self.path = b""
        self.is_grpc = False
        self.length: int | None = None
        self.body: list[bytes] = []
        self.size = 0
        self.since = now
        self.task: asyncio.Task[None] | None = None


class Http2Connection(Connection[_Request], asyncio.Protocol):
    """One caller's connection."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop, left: Callable[[Http2Connection], None]) -> None:
        own = {Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS, Setting.INITIAL_WINDOW_SIZE: 1_048_576}
        super().__init__(loop, {**own, Setting.MAX_HEADER_LIST_SIZE: 65_536})
        self._app = app
        self._left = left
        self._running: set[asyncio.Task[None]] = set()
        self._buffered = 0
        self._resets = (0, 0)
        self._draining = False
        self._final_goaway = False
        self._progress = loop.time()

    # asyncio's protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the caller."""
        self.start(transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent; the server has already seen the preface."""
        self._progress = self.loop.time()
        self.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone: what ran for it is cancelled."""
        self.closing = True
        self.transport = None
        for task in self._running:
            task.cancel()
        self.streams.clear()
        self._left(self)

    # What the caller sends.

    def open_stream(self, stream_id: int) -> _Request | None:
        """Take a new request, unless there are too many or we are leaving."""
        if len(self.streams) >= MAX_STREAMS or self._final_goaway:
            return None
        return _Request(stream_id, self._peer_initial_window, self.loop.time())

    def headers_received(self, stream: _Request, headers: Headers, *, ended: bool) -> None:
        """Take a request's head, or its trailers."""
        if stream.headers is None:
            self._read_head(stream, headers)
        elif not ended or any(name.startswith(b":") for name, _, _ in headers):
            raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
        if ended:
            self._begin(stream)
        elif stream.length is not None and stream.length > self._app.max_body_size:
            self._refuse(stream)

    def _read_head(self, stream: _Request, headers: Headers) -> None:
        pseudo: dict[bytes, bytes] = {}
        fields: list[tuple[bytes, bytes]] = []
        for name, value, _ in headers:
            if name[:1] == b":":
                if fields or name in pseudo or name not in _PSEUDO_FIELDS:
                    raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
                pseudo[name] = value
                continue
            if name != name.lower() or name in _CONNECTION_FIELDS or (name == b"te" and value != b"trailers"):
                raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
            fields.append((name, value))
            if name == b"content-type":
                stream.is_grpc = value.startswith(b"application/grpc")
            elif name == b"content-length":
                if not value.isdigit():
                    raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
                stream.length = int(value[:19])
        stream.verb, stream.path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        if not stream.verb or not stream.path or b":scheme" not in pseudo:
            raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
        stream.headers = fields

    def data_received_on(self, stream: _Request, data: bytes, *, ended: bool) -> None:
        """Take a piece of a request's body."""
        if data:
            stream.body.append(data)
            stream.size += len(data)
            self._buffered += len(data)
            if stream.size > self._app.max_body_size + (5 if stream.is_grpc else 0):
                self._refuse(stream)
                return
            if self._buffered > 16 * self._app.max_body_size:
                raise StreamError(stream.id, ErrorCode.ENHANCE_YOUR_CALM)
        if ended:
            self._begin(stream)

    def _refuse(self, stream: _Request) -> None:
        error = self._app.too_large()
        if stream.is_grpc:
            self._fail_call(stream, error)
        else:
            self._send_response(stream, web.failure(error))
        self.flush_soon()

    def stream_reset(self, stream: _Request, code: int) -> None:
        """The caller gave a request up: what runs for it is cancelled."""
        if stream.task is not None:
            stream.task.cancel()
        second, count = self._resets
        now = int(self.loop.time())
        self._resets = (now, count + 1 if second == now else 1)
        if self._resets[1] > MAX_RESETS_PER_SECOND:
            self.close(ErrorCode.ENHANCE_YOUR_CALM, f"over {MAX_RESETS_PER_SECOND} cancelled requests in a second")

    def stream_closed(self, stream: _Request) -> None:
        """A request has ended one way or the other."""
        self._buffered -= stream.size
        stream.size = 0
        if self._final_goaway and not self.streams:
            self.close()

    def answered_early(self, stream: _Request) -> None:
        """The rest of the request is not needed (RFC 9113, section 8.1)."""
        self.reset(stream.id, ErrorCode.NO_ERROR)

    # Answers.

    def _begin(self, stream: _Request) -> None:
        if stream.length is not None and stream.length != stream.size:
            raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
        task = self.loop.create_task(self._call(stream) if stream.is_grpc else self._request(stream))
        stream.task = task
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _call(self, stream: _Request) -> None:
        body = stream.body[0] if len(stream.body) == 1 else b"".join(stream.body)
        try:
            method = callback.find(stream.path)
            message = await method(self._app, stream.headers or (), callback.message_of(body))
        except InvocationError as error:
            self._fail_call(stream, error)
        except asyncio.CancelledError:
            self._fail_call(stream, InvocationError(INTERNAL, "the invocation was cancelled"))
            raise
        else:
            if stream.closed:
                return
            head = frames.frame(frames.HEADERS, END_HEADERS, stream.id, _GRPC_HEAD)
            tail = frames.frame(frames.HEADERS, END_HEADERS | END_STREAM, stream.id, _GRPC_OK)
            self.send_body(stream, head, b"\0" + len(message).to_bytes(4, "big") + message, tail)
        self.flush_soon()

    def _fail_call(self, stream: _Request, error: InvocationError) -> None:
        if stream.closed:
            return
        text = quote(str(error)[:MAX_MESSAGE], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
        block = (
            _GRPC_HEAD
            + frames.field(b"grpc-status", b"%d" % error.status.grpc)
            + frames.field(b"grpc-message", text.encode()[: 3 * MAX_MESSAGE])
        )
        self.end_stream(stream, frames.frame(frames.HEADERS, END_HEADERS | END_STREAM, stream.id, block))
        self.flush_soon()

    async def _request(self, stream: _Request) -> None:
        body = stream.body[0] if len(stream.body) == 1 else b"".join(stream.body)
        try:
            response = await web.respond(self._app, stream.verb, stream.path, stream.headers or (), body)
        except asyncio.CancelledError:
            self._send_response(stream, HttpResponse(500, b"the invocation was cancelled", web.TEXT))
            raise
        self._send_response(stream, response)
        self.flush_soon()

    def _send_response(self, stream: _Request, response: HttpResponse) -> None:
        if stream.closed:
            return
        pairs = [(b":status", b"%d" % response.status), (b"content-length", b"%d" % len(response.body))]
        if response.content_type:
            pairs.append((b"content-type", response.content_type.encode("latin-1")))
        if response.allow:
            pairs.append((b"allow", response.allow.encode()))
        block = frames.fields(*pairs)
        if not response.body or stream.verb == b"HEAD":
            self.end_stream(stream, frames.frame(frames.HEADERS, END_HEADERS | END_STREAM, stream.id, block))
        else:
            self.send_body(stream, frames.frame(frames.HEADERS, END_HEADERS, stream.id, block), response.body, b"")

    # What the server asks of each connection.

    def drain(self) -> None:
        """Ask the caller to open no more streams, finish those that are open, then close.

        In two steps, so that no request is lost that is on its way now: the first GOAWAY allows every stream; when the
        PING behind it is answered, whatever the caller sent before it read the GOAWAY has arrived, and the second one
        names the last stream (RFC 9113, section 6.8).
        """
        if self._draining:
            return
        self._draining = True
        self.write(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, "draining"))
        self.ping(b"draining")
        self.flush()

    def ping_acknowledged(self, payload: bytes) -> None:
        """The caller has read the first GOAWAY."""
        if self._draining and not self._final_goaway:
            self._final_goaway = True
            if self.streams:
                self.write(frames.goaway(self._last_peer_stream, ErrorCode.NO_ERROR, "draining"))
            else:
                self.close()

    def check(self, now: float) -> None:
        """Give up on requests that do not arrive and on a caller that does not read."""
        for stream in list(self.streams.values()):
            if stream.task is None and now - stream.since > REQUEST_SECONDS:
                self.reset(stream.id, ErrorCode.CANCEL)
        waits = bool(self._blocked) or self._block is not None or bool(self._rest)
        if waits and now - self._progress > REQUEST_SECONDS:
            self.close(ErrorCode.ENHANCE_YOUR_CALM, f"no progress for {REQUEST_SECONDS:g} s")
        self.flush()
