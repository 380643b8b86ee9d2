"""The calling side of an HTTP/2 connection to a gRPC server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from urllib.parse import unquote

import grpc

from daprfunc.http2 import frames
from daprfunc.http2.connection import STREAM_WINDOW, Connection, Headers, ProtocolError, Stream
from daprfunc.http2.frames import END_HEADERS, ErrorCode, Setting
from daprfunc.sidecar.call import CLOSED, HINT, Call, RpcError

# How long the end of a connection may take; a peer that does not read, or end its side of TLS, would hold it up.
CLOSE_SECONDS = 0.25
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# A server's own timer for the deadline may be this many seconds ahead of ours.
_CLOCK_SECONDS = 0.01

_CODES = {b"%d" % code.value[0]: code for code in grpc.StatusCode}
# gRPC over HTTP/2, "HTTP to gRPC status code mapping": for answers that come from a proxy and not from the sidecar.
_HTTP_CODES = {
    b"400": grpc.StatusCode.INTERNAL,
    b"401": grpc.StatusCode.UNAUTHENTICATED,
    b"403": grpc.StatusCode.PERMISSION_DENIED,
    b"404": grpc.StatusCode.UNIMPLEMENTED,
    b"429": grpc.StatusCode.UNAVAILABLE,
    b"502": grpc.StatusCode.UNAVAILABLE,
    b"503": grpc.StatusCode.UNAVAILABLE,
    b"504": grpc.StatusCode.UNAVAILABLE,
}

# The same, for streams that were reset. What is not listed is INTERNAL.
_RESET_CODES: dict[int, grpc.StatusCode] = {
    ErrorCode.CANCEL: grpc.StatusCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: grpc.StatusCode.PERMISSION_DENIED,
}


class _Exchange(Stream):
    """A call on the wire, and what of the response is there."""

    __slots__ = ("call", "chunks", "heard", "http_status", "message", "size", "status")

    def __init__(self, stream_id: int, send_window: int, call: Call, heard: int) -> None:
        super().__init__(stream_id, send_window)
        # How often the server had sent something when the call was sent.
        self.heard = heard
        self.call = call
        self.chunks: list[bytes] = []
        self.size = 0
        self.http_status = b""
        self.status: bytes | None = None
        self.message = b""


class ClientConnection(Connection[_Exchange], asyncio.Protocol):
    """The calling side of one connection.

    Args:
        loop: the loop.
        peer: the server's name in messages.
        send_again: takes calls that the peer refused without having looked at them.

    Attributes:
        greeted: done when the server has told its settings, or will not.
        ended: done when the transport has closed.
        failure: why it ended, unless it came to a good end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: str, send_again: Callable[[Call], None]) -> None:
        super().__init__(loop, {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW})
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.failure: str | None = None
        self._peer = peer
        self._send_again = send_again
        self._next_id = 1
        self._going_away = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        # How often the server sent something.
        self._heard = 0

    @property
    def usable(self) -> bool:
        """Whether a new call may use this connection."""
        return not (self.closing or self._going_away or self._next_id > frames.MAX_STREAM_ID)

    @property
    def has_room(self) -> bool:
        """Whether it may be used right now."""
        return self.usable and len(self.streams) < self._peer_max_streams

    # asyncio's protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the server."""
        self.start(transport, frames.PREFACE)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Take what the server sent."""
        self._heard += 1
        self.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls that were under way."""
        if not self.closing:
            self.closing = True
            self._fail_calls(f"the connection to {self._peer} was lost{self._doubt()}")
        self.ended.set_result(None)

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, reason: str = "") -> None:
        """Say GOAWAY and close; calls under way fail."""
        super().close(code, reason)
        if code != ErrorCode.NO_ERROR:
            self._fail_calls(f"{self._peer} broke HTTP/2: {reason}{self._doubt()}")

    async def end(self) -> None:
        """Close, and wait until it is closed."""
        self.close()
        self._fail_calls(CLOSED)
        await asyncio.wait({self.ended}, timeout=CLOSE_SECONDS)
        if not self.ended.done():
            self.abort()
            await self.ended

    def _doubt(self) -> str:
        return "" if self._settings_seen else f" (it never spoke gRPC; {HINT})"

    def _fail_calls(self, reason: str) -> None:
        self.failure = reason
        self._greet()
        for exchange in list(self.streams.values()):
            self._forget(exchange)
            exchange.call.settle(RpcError(grpc.StatusCode.UNAVAILABLE, reason))
        self._admit()

    # Calls.

    def send(self, call: Call) -> None:
        """Send a call; there must be room for it."""
        stream_id = self._next_id
        self._next_id = stream_id + 2
        exchange = self.streams[stream_id] = _Exchange(stream_id, self._peer_initial_window, call, self._heard)
        call.carrier, call.stream_id = self, stream_id
        head = frames.frame(frames.HEADERS, END_HEADERS, stream_id, call.head)
        self.send_body(exchange, head, frames.grpc_message(call.message), b"")
        self.flush_soon()

    def abandon(self, stream_id: int) -> None:
        """The caller waits no longer."""
        if stream_id in self.streams:
            self.reset(stream_id, ErrorCode.CANCEL)
            self.flush_soon()

    async def room(self) -> None:
        """Wait until there is room for one call, or the connection is no longer usable."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._admit()  # It was let in and leaves: the next one may have its place.
            raise

    def _admit(self) -> None:
        room = self._peer_max_streams - len(self.streams) if self.usable else len(self._waiting)
        while self._waiting and room > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    def expire(self, call: Call) -> None:
        """A call of this connection has reached its deadline."""
        if self.streams[call.stream_id].heard == self._heard:
            # Not a byte since the call was sent: the peer may be gone without a word, and then the next calls must not
            # wait for it as well. They get a connection of their own; this one ends with its last call.
            self._going_away = True
        self.abandon(call.stream_id)
        call.settle(self._too_late())

    def _too_late(self) -> RpcError:
        return RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer from {self._peer} before the deadline")

    # What the server sends.

    def open_stream(self, stream_id: int) -> None:
        """Servers open no streams: pushes are switched off."""

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id >= self._next_id or stream_id % 2 == 0

    def _new_stream(self, stream_id: int) -> None:
        if self._is_idle(stream_id):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"HEADERS for stream {stream_id}, which we did not open")

    def headers_received(self, stream: _Exchange, headers: Headers, *, ended: bool) -> None:
        """Take the response's head or its trailers."""
        for name, value, _ in headers:
            if name == b":status":
                stream.http_status = value
            elif name == b"grpc-status":
                stream.status = value
            elif name == b"grpc-message":
                stream.message = value
        if ended:
            self._complete(stream)

    def data_received_on(self, stream: _Exchange, data: bytes, *, ended: bool) -> None:
        """Take a piece of the response's message."""
        stream.size += len(data)
        if stream.size > MAX_MESSAGE_BYTES + 5:
            self.reset(stream.id, ErrorCode.CANCEL)
            details = f"a response of over {MAX_MESSAGE_BYTES} bytes"
            stream.call.settle(RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, details))
            return
        stream.chunks.append(data)
        if ended:
            self._complete(stream)

    def _complete(self, exchange: _Exchange) -> None:
        if exchange.local_ended:
            self._forget(exchange)
        else:
            self.reset(
                exchange.id, ErrorCode.CANCEL
            )  # It answered without the whole request: no need to send the rest.
        exchange.call.settle(self._outcome(exchange))

    def _outcome(self, exchange: _Exchange) -> bytes | RpcError:
        if exchange.status is None:
            status = exchange.http_status.decode("ascii", "replace")
            code = _HTTP_CODES.get(exchange.http_status, grpc.StatusCode.UNKNOWN)
            what = f"answered without a gRPC status (HTTP status {status or 'missing'})"
            return RpcError(code, f"{self._peer} {what}; {HINT}")
        if exchange.status != b"0":
            return self._failure(exchange.status, exchange.message)
        body = exchange.chunks[0] if len(exchange.chunks) == 1 else b"".join(exchange.chunks)
        if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(body) - 5:
            what = "a compressed message, which we do not take" if body[:1] == b"\1" else "what is not one gRPC message"
            return RpcError(grpc.StatusCode.INTERNAL, f"{self._peer} answered with {what}")
        return body[5:]

    def _failure(self, status: bytes, message: bytes) -> RpcError:
        code = _CODES.get(status)
        if code is None:
            # Only a number is shown: anything else could be anything.
            shown = status.decode() if status.isdigit() and len(status) < 6 else "that is no number"
            return RpcError(grpc.StatusCode.UNKNOWN, f"{self._peer} answered with a gRPC status {shown}")
        return RpcError(code, unquote(message.decode("ascii", "replace")))

    def stream_reset(self, stream: _Exchange, code: int) -> None:
        """The server gave the call up."""
        if code == ErrorCode.REFUSED_STREAM:
            self._refused(stream)
        elif code == ErrorCode.CANCEL and stream.call.remaining() < _CLOCK_SECONDS:
            stream.call.settle(self._too_late())
        else:
            name = ErrorCode(code).name if code in ErrorCode.__members__.values() else str(code)
            status = _RESET_CODES.get(code, grpc.StatusCode.INTERNAL)
            stream.call.settle(RpcError(status, f"{self._peer} reset the call ({name})"))

    def _refused(self, exchange: _Exchange) -> None:
        call = exchange.call
        call.refusals += 1
        if not call.done():
            self._send_again(call)

    def stream_closed(self, stream: _Exchange) -> None:
        """A call ended: another may begin."""
        stream.call.carrier = None
        if self._waiting:
            self._admit()
        if not self.usable and not self.streams:
            self.close()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        super()._on_settings(flags, stream_id, payload)
        self._greet()
        self._admit()

    def _greet(self) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        """Finish what the server took, send the rest elsewhere."""
        self._going_away = True
        for exchange in list(self.streams.values()):
            if exchange.id > last_stream_id:
                self._forget(exchange)
                self._refused(exchange)
        self._admit()
        if not self.streams:
            self.close()
