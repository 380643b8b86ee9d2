"""HTTP/2 on the app channel: gRPC calls, and plain HTTP requests (daprd's ``h2c``)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from urllib.parse import quote

from daprfunc.channel import callback, web
from daprfunc.channel.app import App
from daprfunc.channel.web import HttpResponse
from daprfunc.errors import INTERNAL, OVERLOADED, InvocationError
from daprfunc.http2 import frames
from daprfunc.http2.connection import MAX_HEADER_BYTES, STREAM_WINDOW, Connection, Headers, Rate, Stream, StreamError
from daprfunc.http2.frames import END_HEADERS, END_STREAM, ErrorCode, Setting

MAX_STREAMS = 4_096
# How long a caller may take to send one request, and to make room for one response.
REQUEST_SECONDS = 60.0
# Cancelled calls per second from which on a caller is taken for an attacker (CVE-2023-44487, "rapid reset").
MAX_RESETS_PER_SECOND = 2_000
# Bytes of requests that one connection may hold, at least; it may always hold this many of the largest ones.
MAX_BUFFERED = 64 * 2**20
MAX_BUFFERED_REQUESTS = 16
# How long a caller may take to read that we are leaving, before the streams that it has opened are taken to be all.
GOAWAY_SECONDS = 1.0
# Bytes of an error's text before it is encoded, which may triple it: gRPC's C core takes 8 KiB of trailers, and then
# begins to throw some away.
MAX_MESSAGE = 2_048

_GRPC_HEAD = b"\x88" + frames.field(b"content-type", b"application/grpc")
_DRAINING = b"draining"
_GRPC_OK = frames.field(b"grpc-status", b"0")
_PSEUDO_FIELDS = frozenset((b":method", b":scheme", b":path", b":authority"))
# Fields that HTTP/2 forbids since they concern a connection (RFC 9113, section 8.2.2).
_FORBIDDEN_FIELDS = (b"", b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
_KNOWN_FIELDS = frozenset((b"content-type", b"content-length", b"te", *_FORBIDDEN_FIELDS))
# RFC 9113, section 8.2.1.
_has_bad_name = re.compile(rb"[\x00-\x20A-Z:\x7f-\xff]").search
_has_bad_value = re.compile(rb"[\x00\r\n]").search


class _Request(Stream):
    """A request and what becomes of it."""

    __slots__ = ("body", "headers", "is_grpc", "length", "path", "refused", "since", "size", "task", "verb")

    def __init__(self, stream_id: int, send_window: int, now: float) -> None:
        super().__init__(stream_id, send_window)
        self.headers: list[tuple[bytes, bytes]] | None = None
        self.verb = b""
        self.path = b""
        self.is_grpc = False
        self.length: int | None = None
        self.body = bytearray()
        # What the body counts for in the connection's buffers.
        self.size = 0
        self.refused = False
        self.since = now
        self.task: asyncio.Task[None] | None = None


class Http2Connection(Connection[_Request], asyncio.Protocol):
    """One caller's connection."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop, left: Callable[[Http2Connection], None]) -> None:
        own = {Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS, Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        super().__init__(loop, {**own, Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES})
        self._app = app
        self._left = left
        self._running: set[asyncio.Task[None]] = set()
        self._buffered = 0
        self._most_buffered = max(MAX_BUFFERED, MAX_BUFFERED_REQUESTS * app.max_body_size)
        self._resets = Rate(MAX_RESETS_PER_SECOND)
        # Since when we are leaving.
        self._draining: float | None = None
        self._final_goaway = False
        # When the caller last sent something, or began to keep us waiting.
        self._progress = loop.time()
        self._reading: asyncio.Transport | None = None

    # asyncio's protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the caller."""
        self._reading = transport  # type: ignore[assignment]
        self.start(transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent; the server has already seen the preface."""
        self._progress = self.loop.time()
        self.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone: what ran for it is cancelled."""
        self.closing = True
        self.transport = self._reading = None
        for stream in list(self.streams.values()):
            self._forget(stream)
            if stream.task is not None:
                stream.task.cancel()
        self._left(self)

    def pause_writing(self) -> None:
        """The caller does not read: neither do we, or what it asks for (be it PINGs) would pile up here."""
        super().pause_writing()
        self._progress = self.loop.time()
        if self._reading is not None and not self.closing:
            self._reading.pause_reading()

    def resume_writing(self) -> None:
        """The caller reads again."""
        super().resume_writing()
        if self._reading is not None and not self.closing:
            self._reading.resume_reading()

    # What the caller sends.

    def open_stream(self, stream_id: int) -> _Request | None:
        """Take a new request, unless there are too many or we are leaving."""
        if len(self.streams) >= MAX_STREAMS or self._final_goaway:
            return None
        return _Request(stream_id, self._peer_initial_window, self.loop.time())

    def headers_received(self, stream: _Request, headers: Headers, *, ended: bool) -> None:
        """Take a request's head, or its trailers."""
        if stream.refused:
            return
        if stream.headers is None:
            self._read_head(stream, headers)
        elif not ended or any(name.startswith(b":") for name, _, _ in headers):
            raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
        if ended:
            self._begin(stream)
        elif stream.length is not None and stream.length > self._largest(stream):
            self._refuse(stream, self._app.too_large())

    def _read_head(self, stream: _Request, headers: Headers) -> None:
        pseudo: dict[bytes, bytes] = {}
        fields: list[tuple[bytes, bytes]] = []
        for name, value, _ in headers:
            if name[:1] == b":":
                if fields or name in pseudo or name not in _PSEUDO_FIELDS:
                    raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
                pseudo[name] = value
            else:
                fields.append((name, value))
                if name in _KNOWN_FIELDS:
                    self._read_field(stream, name, value)
        names, values = b"".join([name for name, _ in fields]), b"".join([value for _, value, _ in headers])
        if _has_bad_name(names) or _has_bad_value(values):
            raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
        stream.verb, stream.path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        if not stream.verb or not stream.path or b":scheme" not in pseudo:
            raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
        stream.headers = fields

    def _read_field(self, stream: _Request, name: bytes, value: bytes) -> None:
        if name == b"content-type":
            # Not what begins with application/grpc-web: that is another protocol.
            stream.is_grpc = value.partition(b";")[0].partition(b"+")[0].rstrip() == b"application/grpc"
        elif name == b"content-length":
            length = int(value[:19]) if value.isdigit() else -1
            if length < 0 or stream.length not in (None, length):
                raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)
            stream.length = length
        elif name != b"te" or value != b"trailers":
            raise StreamError(stream.id, ErrorCode.PROTOCOL_ERROR)

    def _largest(self, stream: _Request) -> int:
        return self._app.max_body_size + (callback.MAX_OVERHEAD if stream.is_grpc else 0)

    def data_received_on(self, stream: _Request, data: bytes, *, ended: bool) -> None:
        """Take a piece of a request's body."""
        if stream.refused:
            return
        if data:
            stream.body += data
            stream.size += len(data)
            self._buffered += len(data)
            if stream.size > self._largest(stream):
                self._refuse(stream, self._app.too_large())
                return
            if self._buffered > self._most_buffered:
                text = f"requests that hold over {self._most_buffered} bytes are under way; try again later"
                self._refuse(stream, InvocationError(OVERLOADED, text))
                return
        if ended:
            self._begin(stream)

    def _refuse(self, stream: _Request, error: InvocationError) -> None:
        """Answer without reading the rest of the request."""
        stream.refused = True
        stream.body.clear()
        self._release(stream)
        if stream.is_grpc:
            self._fail_call(stream, error)
        else:
            self._send_response(stream, web.failure(error))

    def stream_reset(self, stream: _Request, code: int) -> None:
        """The caller gave a request up: what runs for it is cancelled."""
        if stream.task is not None:
            stream.task.cancel()
        if self._resets.exceeded(self.loop.time()):
            self.close(ErrorCode.ENHANCE_YOUR_CALM, f"over {MAX_RESETS_PER_SECOND} cancelled requests in a second")

    def stream_closed(self, stream: _Request) -> None:
        """A request has ended one way or the other."""
        self._release(stream)
        if self._final_goaway and not self.streams:
            self.close()

    def _release(self, stream: _Request) -> None:
        self._buffered -= stream.size
        stream.size = 0

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
        try:
            metadata = stream.headers or ()
            method = callback.find(self._app, stream.path, metadata)
            message = await method(self._app, metadata, callback.message_of(bytes(stream.body)))
        except InvocationError as error:
            self._fail_call(stream, error)
        except asyncio.CancelledError:
            self._fail_call(stream, InvocationError(INTERNAL, "the invocation was cancelled"))
            raise
        except Exception:
            self._fail_call(stream, self._app.failed())
        else:
            head = frames.frame(frames.HEADERS, END_HEADERS, stream.id, _GRPC_HEAD)
            tail = frames.frame(frames.HEADERS, END_HEADERS | END_STREAM, stream.id, _GRPC_OK)
            self._send(stream, head, frames.grpc_message(message), tail)

    def _fail_call(self, stream: _Request, error: InvocationError) -> None:
        text = str(error).encode("utf-8", "replace")[:MAX_MESSAGE].decode("utf-8", "ignore")
        block = (
            _GRPC_HEAD
            + frames.field(b"grpc-status", b"%d" % error.status.grpc)
            + frames.field(b"grpc-message", quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode())
        )
        self._send(stream, frames.frame(frames.HEADERS, END_HEADERS | END_STREAM, stream.id, block))

    async def _request(self, stream: _Request) -> None:
        try:
            body = bytes(stream.body)
            response = await web.respond(self._app, stream.verb, stream.path, stream.headers or (), body)
        except asyncio.CancelledError:
            self._send_response(stream, web.CANCELLED)
            raise
        self._send_response(stream, response)

    def _send_response(self, stream: _Request, response: HttpResponse) -> None:
        pairs = [(b":status", b"%d" % response.status), (b"content-length", b"%d" % len(response.body))]
        if response.content_type:
            pairs.append((b"content-type", response.content_type.encode("latin-1")))
        if response.allow:
            pairs.append((b"allow", response.allow.encode()))
        block = frames.fields(*pairs)
        if not response.body or stream.verb == b"HEAD":
            self._send(stream, frames.frame(frames.HEADERS, END_HEADERS | END_STREAM, stream.id, block))
        else:
            head = frames.frame(frames.HEADERS, END_HEADERS, stream.id, block)
            self._send(stream, head, response.body)

    def _send(self, stream: _Request, head: bytes, body: bytes = b"", tail: bytes = b"") -> None:
        """Send an answer, unless nobody waits for it any more."""
        if stream.closed:
            return
        if not body:
            self.end_stream(stream, head)
        else:
            self.send_body(stream, head, body, tail)
            if stream.unsent is not None:
                self._progress = self.loop.time()
        # Others that run may end in this turn of the loop too; if there are none, nothing is worth waiting for.
        if self.streams:
            self.flush_soon()
        else:
            self.flush()

    # What the server asks of each connection.

    def drain(self) -> None:
        """Ask the caller to open no more streams, finish those that are open, then close.

        In two steps, so that no request is lost that is on its way now: the first GOAWAY allows every stream; when the
        PING behind it is answered, whatever the caller sent before it read the GOAWAY has arrived, and the second one
        names the last stream (RFC 9113, section 6.8).
        """
        if self._draining is not None or self.closing:
            return
        self._draining = self.loop.time()
        self.write(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, "draining"))
        self.ping(_DRAINING)
        self.flush()

    def ping_acknowledged(self, payload: bytes) -> None:
        """The caller has read the first GOAWAY."""
        if payload == _DRAINING:
            self._leave()

    def _leave(self) -> None:
        """Take no more streams; close when those that are open have ended."""
        if self._draining is None or self._final_goaway:
            return
        self._final_goaway = True
        if self.streams:
            self.write(frames.goaway(self._last_peer_stream, ErrorCode.NO_ERROR, "draining"))
        else:
            self.close()

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, reason: str = "") -> None:
        """Say GOAWAY and close."""
        if not self.closing:
            self._progress = self.loop.time()
        super().close(code, reason)

    def check(self, now: float) -> None:
        """Give up on requests that do not arrive and on a caller that does not read."""
        if self._draining is not None and now - self._draining > GOAWAY_SECONDS:
            self._leave()
        for stream in list(self.streams.values()):
            if stream.task is None and now - stream.since > REQUEST_SECONDS:
                self.reset(stream.id, ErrorCode.CANCEL)
        if now - self._progress > REQUEST_SECONDS:
            if self.closing or self._write_paused:
                self.abort()
            elif self._rest or self._block is not None or any(stream.unsent for stream in self.streams.values()):
                self.close(ErrorCode.ENHANCE_YOUR_CALM, f"no progress for {REQUEST_SECONDS:g} s")
        self.flush()
