"""HTTP/1.1 on the app channel."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

import httptools

from daprfunc.channel import web
from daprfunc.channel.app import App
from daprfunc.channel.web import HttpResponse

MAX_HEADER_BYTES = 65_536
MAX_TARGET_BYTES = 8_192
# How long a caller may take to send one request, and to read one response.
REQUEST_SECONDS = 60.0
# Longer than the 90 s after which Go's HTTP client, and so daprd, drops an idle connection: it must be the caller who
# closes, or a POST that crosses with our close is lost.
IDLE_SECONDS = 180.0
# How long what still comes is thrown away after a refusal. To close at once would reset the connection, and the caller,
# who is still sending, might never see the answer.
LINGER_SECONDS = 2.0

_TOO_SLOW = HttpResponse(408, f"the request was not complete after {REQUEST_SECONDS:g} s".encode(), web.TEXT)
_FRAMING = (b"content-length", b"transfer-encoding")
_REASONS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class _Request:
    """A request that is being read, or waits for its turn."""

    __slots__ = ("body", "expects", "headers", "keep_alive", "size", "started", "target", "verb")

    def __init__(self) -> None:
        self.verb = b""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        # Of the headers (and trailers).
        self.size = 0
        self.started = False
        self.expects = False
        self.keep_alive = True


class Http1Connection(asyncio.Protocol):
    """One caller's connection: reads requests, answers them in their order."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop, left: Callable[[Http1Connection], None]) -> None:
        self._app = app
        self._loop = loop
        self._left = left
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._reading: _Request | None = None
        # A request whose body is read by another parser than its head was.
        self._headless: _Request | None = None
        self._refusal: HttpResponse | None = None
        self._waiting: deque[_Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self._blocked = False
        # The last answer was given.
        self._ended = False
        # Since when the present state (reading a request, idle, blocked, ended) has lasted.
        self._since = loop.time()
        # Bytes that the parser took since it last had something to tell: a header that does not end.
        self._silent = 0
        self._date = (0, b"")

    # asyncio's protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Take what the caller sent."""
        if self._ended or self._refusal is not None:
            return
        self._silent += len(data)
        self._parse(data)
        if self._silent > MAX_HEADER_BYTES:
            self._refuse(431, f"the request's headers are larger than {MAX_HEADER_BYTES} bytes")
        self._send_refusal()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # httptools takes what follows for another protocol, but none is offered: it is the body, if there is
                # one, and then the next request. A parser that knows of no upgrade reads them.
                data = data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                if self._headless is not None:
                    self._parser.feed_data(_body_head(self._headless))
                continue
            except httptools.HttpParserError as error:
                self._refuse(400, f"the request is not HTTP/1.1: {error}")
            return

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone: what ran for it is cancelled."""
        self._transport = None
        self._ended = True
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        self._left(self)

    def pause_writing(self) -> None:
        """The caller does not read its responses: take no more requests from it, answer no others."""
        self._blocked = True
        self._since = self._loop.time()
        self._pause_reading()

    def resume_writing(self) -> None:
        """The caller reads again."""
        self._blocked = False
        self._since = self._loop.time()
        if self._task is None:
            self._go_on()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._ended:
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Answer what waits, or else read on."""
        if self._ended or self._blocked:
            return
        if self._waiting:
            self._task = self._loop.create_task(self._answer())
        elif self._transport is not None:
            self._send_refusal()
            self._send_continue()
            if not self._ended:
                self._transport.resume_reading()

    # httptools' callbacks.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._silent = 0
        if self._refusal is None:
            self._reading, self._headless = self._headless or _Request(), None
            self._since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """The target, or a piece of it."""
        if self._reading is not None and not self._reading.started:
            self._reading.target += url
            if len(self._reading.target) > MAX_TARGET_BYTES:
                self._refuse(414, f"the request's target is longer than {MAX_TARGET_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which counts but says nothing."""
        request = self._reading
        if request is not None:
            request.size += len(name) + len(value) + 32
            if request.size > MAX_HEADER_BYTES:
                self._refuse(431, f"the request's headers are larger than {MAX_HEADER_BYTES} bytes")
            elif not request.started:
                request.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The headers are all there."""
        self._silent = 0
        request = self._reading
        if request is None or request.started:
            return
        request.started = True
        request.verb = self._parser.get_method()
        # HTTP/1.0 has its own way to keep connections, which nobody misses.
        modern = self._parser.get_http_version() == "1.1"
        request.keep_alive = modern and self._parser.should_keep_alive()
        headers = dict(request.headers)
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:19]) > self._app.max_body_size:
            self._refuse_with(web.failure(self._app.too_large()))
        elif modern and headers.get(b"expect", b"").lower() == b"100-continue":
            request.expects = True
            self._send_continue()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._silent = 0
        request = self._reading
        if request is not None:
            request.expects = False
            request.body += body
            if len(request.body) > self._app.max_body_size:
                self._refuse_with(web.failure(self._app.too_large()))

    def on_message_complete(self) -> None:
        """The request is all there."""
        self._silent = 0
        request, self._reading = self._reading, None
        if request is None:
            return
        if self._parser.should_upgrade() and _body_head(request):
            self._headless = request
            return
        self._waiting.append(request)
        if self._task is None:
            self._go_on()
        else:
            self._pause_reading()

    # Answers.

    def _refuse(self, status: int, text: str) -> None:
        self._refuse_with(HttpResponse(status, text.encode(), web.TEXT))

    def _refuse_with(self, response: HttpResponse) -> None:
        """Take nothing more; answer when the requests before this one are answered."""
        self._reading = None
        self._refusal = self._refusal or response

    def _send_refusal(self) -> None:
        if self._refusal is None or self._task is not None or self._waiting or self._ended:
            return
        self._send(self._refusal, keep_alive=False)

    def _send_continue(self) -> None:
        request = self._reading
        if request is None or not request.expects or self._task is not None or self._waiting:
            return
        request.expects = False
        if self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _answer(self) -> None:
        try:
            while self._waiting and not self._blocked and not self._ended:
                request = self._waiting.popleft()
                response = await web.respond(
                    self._app, request.verb, request.target, request.headers, bytes(request.body)
                )
                self._send(response, keep_alive=request.keep_alive, head=request.verb == b"HEAD")
        except asyncio.CancelledError:
            self._send(web.CANCELLED, keep_alive=False)
            raise
        finally:
            self._task = None
            self._since = self._loop.time()
        self._go_on()

    def _send(self, response: HttpResponse, *, keep_alive: bool, head: bool = False) -> None:
        transport = self._transport
        if transport is None or self._ended:
            return
        keep_alive = keep_alive and not (self._draining and not self._waiting and self._reading is None)
        parts = [_REASONS[response.status], b"date: ", self._now()]
        if response.content_type:
            parts += [b"content-type: ", response.content_type.encode("latin-1"), b"\r\n"]
        if response.allow:
            parts += [b"allow: ", response.allow.encode(), b"\r\n"]
        if not keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"content-length: %d\r\n\r\n" % len(response.body))
        if not head:
            parts.append(response.body)
        transport.write(b"".join(parts))
        if not keep_alive:
            self._end(transport)

    def _end(self, transport: asyncio.Transport) -> None:
        self._ended = True
        self._since = self._loop.time()
        self._waiting.clear()
        self._reading = None
        if self._refusal is not None and transport.can_write_eof():
            transport.resume_reading()
            transport.write_eof()
        else:
            transport.close()

    def _now(self) -> bytes:
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True).encode() + b"\r\n")
        return self._date[1]

    # What the server asks of each connection.

    def drain(self) -> None:
        """Finish what was asked, then close."""
        self._draining = True
        if self._task is None and self._reading is None and not self._waiting and not self._ended and self._transport:
            self._end(self._transport)

    def abort(self) -> None:
        """Close now, with whatever is unsent."""
        if self._transport is not None:
            self._transport.abort()

    def check(self, now: float) -> None:
        """Give up on a caller that is too slow."""
        if self._transport is None:
            return
        lasted = now - self._since
        if self._blocked:
            if lasted > REQUEST_SECONDS:
                self._transport.abort()
        elif self._ended:
            if lasted > LINGER_SECONDS:
                self._transport.close()
        elif self._task is not None:
            return
        elif self._reading is not None:
            if lasted > REQUEST_SECONDS:
                self._refuse_with(_TOO_SLOW)
                self._send_refusal()
        elif lasted > IDLE_SECONDS:
            self._transport.close()


def _body_head(request: _Request) -> bytes:
    """Return a head that announces the request's body and nothing else, b"" if it has none."""
    framing = [b"%s: %s\r\n" % field for field in request.headers if field[0] in _FRAMING]
    return b"POST * HTTP/1.1\r\n" + b"".join(framing) + b"\r\n" if framing else b""
