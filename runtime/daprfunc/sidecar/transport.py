"""A gRPC channel for unary calls on our own HTTP/2: what the generated stubs call the sidecar through.

It has grpc's channel interface as far as the stubs use it, so ``grpc.aio``'s channel can stand in its place. It exists
because it costs a fraction of that channel's time per call (docs/performance.md), and because it reconnects on demand:
the first call after a restart of the sidecar succeeds, where grpc's would still be waiting out its backoff.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from daprfunc.endpoint import Endpoint
from daprfunc.http2 import frames
from daprfunc.http2.connection import Connection, Headers, ProtocolError, Stream
from daprfunc.http2.frames import END_HEADERS, ErrorCode, Setting

# No more than one attempt to connect per this many seconds, so that a missing sidecar is not stormed.
RECONNECT_SECONDS = 0.05
# How long one attempt may take: packets to a host that is gone are lost without a word.
CONNECT_SECONDS = 5.0
# A peer that answers no PING for this long after a call's deadline passed is taken for dead.
PING_SECONDS = 2.0
# How long the end of a connection may take; a peer that does not read, or end its side of TLS, would hold it up.
CLOSE_SECONDS = 0.25
# How often a call is sent that the peer refuses before it looks at it.
MAX_SENDS = 10
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
_CLOSED = "the channel was closed"
_HINT = "is the Dapr sidecar running, and is this its gRPC address (DAPR_GRPC_ENDPOINT or DAPR_GRPC_PORT)?"

Metadata = tuple[tuple[str, str], ...]


class RpcError(grpc.RpcError):
    """A call failed; has what grpc's own errors have."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        """Return gRPC's status code."""
        return self._code

    def details(self) -> str:
        """Return the server's message, or ours where it never answered."""
        return self._details


class Channel:
    """A channel to one endpoint, with a connection that is made when a call needs it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._connection: _ClientConnection | None = None
        # With those that take no further calls but have some to finish.
        self._connections: set[_ClientConnection] = set()
        self._connecting: asyncio.Task[_ClientConnection] | None = None
        self._next_attempt = 0.0
        self._sending: set[asyncio.Task[None]] = set()
        self._closed = False

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_: object,
    ) -> Callable[..., asyncio.Future[Any]]:
        """Return a callable for one method (grpc.aio.Channel.unary_unary).

        The callable takes the request, `timeout` in seconds and `metadata`; awaiting it gives the response or raises
        :class:`RpcError`.
        """
        # Every call of a method carries the same head, as long as its metadata and its timeout do not change.
        heads: dict[tuple[Metadata, float], bytes] = {}

        def deserialize(message: bytes) -> Any:
            try:
                return response_deserializer(message)
            except DecodeError:
                _fail(grpc.StatusCode.INTERNAL, f"{self._endpoint} answered {method} with another message")

        def call(request: Any, *, timeout: float, metadata: Metadata = ()) -> asyncio.Future[Any]:
            head = heads.get((metadata, timeout))
            if head is None:
                heads.clear()
                head = heads[metadata, timeout] = self._head(method, metadata, timeout)
            message = request_serializer(request)
            return self._send(_Call(head, message, deserialize, self._loop, timeout))

        return call

    def _head(self, method: str, metadata: Metadata, timeout: float) -> bytes:
        return frames.fields(
            (b":method", b"POST"),
            (b":scheme", b"https" if self._endpoint.tls else b"http"),
            (b":path", method.encode()),
            (b":authority", self._endpoint.authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-accept-encoding", b"identity"),
            (b"grpc-timeout", b"%dm" % max(1, min(timeout * 1000, 99_999_999))),
        ) + b"".join(frames.field(name.encode(), value.encode(), secret=True) for name, value in metadata)

    def _send(self, call: _Call) -> asyncio.Future[Any]:
        connection = self._connection
        if connection is not None and connection.has_room:
            connection.send(call)
        else:
            self._send_later(call)
        return call.future

    def _send_later(self, call: _Call) -> None:
        """Send when there is a connection that takes the call."""
        task = self._loop.create_task(self._wait_and_send(call))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        call.future.add_done_callback(lambda _: task.cancel())

    async def _wait_and_send(self, call: _Call) -> None:
        try:
            while call.refusals < MAX_SENDS:
                connection = self._connection
                if connection is None or not connection.usable:
                    connection = await self._connect(call.deadline)
                while connection.usable and not connection.has_room:
                    await connection.room(call.deadline)
                if connection.usable:
                    connection.send(call)
                    return
                call.refusals += 1
            _fail(grpc.StatusCode.UNAVAILABLE, f"{self._endpoint} refused the call {MAX_SENDS} times")
        except RpcError as error:
            call.settle(error)

    async def _connect(self, deadline: float) -> _ClientConnection:
        if self._closed:
            _fail(grpc.StatusCode.UNAVAILABLE, _CLOSED)
        attempt = self._connecting
        if attempt is None:
            attempt = self._connecting = self._loop.create_task(self._open())
            attempt.add_done_callback(self._connected)
        # One caller that leaves must not take the connection from those who wait with it: wait() cancels nothing.
        await asyncio.wait({attempt}, timeout=max(0.0, deadline - self._loop.time()))
        if not attempt.done():
            _fail(grpc.StatusCode.DEADLINE_EXCEEDED, f"no connection to {self._endpoint} before the deadline")
        if attempt.cancelled():
            _fail(grpc.StatusCode.UNAVAILABLE, _CLOSED)
        try:
            connection = attempt.result()
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # (ValueError: uvloop, of a socket's path)
            _fail(grpc.StatusCode.UNAVAILABLE, f"cannot connect to {self._endpoint}: {_reason(error)}; {_HINT}")
        if connection.failure is not None:
            _fail(grpc.StatusCode.UNAVAILABLE, connection.failure)
        return connection

    def _connected(self, attempt: asyncio.Task[_ClientConnection]) -> None:
        self._connecting = None
        if attempt.cancelled() or attempt.exception() is not None:
            return
        connection = attempt.result()
        self._connection = connection
        self._connections.add(connection)
        connection.ended.add_done_callback(lambda _: self._connections.discard(connection))

    async def _open(self) -> _ClientConnection:
        wait = self._next_attempt - self._loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        self._next_attempt = self._loop.time() + RECONNECT_SECONDS
        return await asyncio.wait_for(self._meet(), CONNECT_SECONDS)

    async def _meet(self) -> _ClientConnection:
        connection = await self._dial()
        try:
            # Only then is it known how many calls the server takes at once; it may do worse to others than refuse them.
            await connection.greeted
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _dial(self) -> _ClientConnection:
        endpoint = self._endpoint
        if endpoint.path is not None:
            _, connection = await self._loop.create_unix_connection(self._new_connection, endpoint.path)
            return connection
        context = None
        if endpoint.tls:
            context = ssl.create_default_context()
            context.set_alpn_protocols(["h2"])
        _, connection = await self._loop.create_connection(
            self._new_connection, endpoint.host, endpoint.port, ssl=context
        )
        return connection

    def _new_connection(self) -> _ClientConnection:
        return _ClientConnection(self._loop, str(self._endpoint), self._send_later)

    async def close(self) -> None:
        """End the connections; calls under way fail, and so does every later one."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
            # What the attempt has called back is scheduled before what continues here.
        await asyncio.gather(*(connection.end() for connection in list(self._connections)))


def _fail(code: grpc.StatusCode, details: str) -> NoReturn:
    raise RpcError(code, details) from None


def _reason(error: Exception) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {CONNECT_SECONDS:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)  # asyncio's own text repeats the address.
    return str(error)


class _Call:
    """One call, on whichever connection it is sent.

    Attributes:
        head: its header block.
        message: the request, serialized.
        future: gives the response, or fails with RpcError.
        deadline: the loop's time at which it is given up.
        refusals: how often a peer refused it without having looked at it.
    """

    __slots__ = ("_deserialize", "deadline", "future", "head", "message", "refusals")

    def __init__(
        self,
        head: bytes,
        message: bytes,
        deserialize: Callable[[bytes], Any],
        loop: asyncio.AbstractEventLoop,
        timeout: float,
    ) -> None:
        self.head = head
        self.message = message
        self.future: asyncio.Future[Any] = loop.create_future()
        self.deadline = loop.time() + timeout
        self.refusals = 0
        self._deserialize = deserialize

    def settle(self, outcome: bytes | RpcError) -> None:
        """Give the caller the response or the error; without effect if it has left or has one."""
        if self.future.done():
            return
        if not isinstance(outcome, bytes):
            self.future.set_exception(outcome)
            return
        try:
            response = self._deserialize(outcome)
        except RpcError as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(response)


class _Exchange(Stream):
    """A call on the wire, and what of the response is there."""

    __slots__ = ("call", "chunks", "http_status", "message", "size", "status", "timer")

    def __init__(self, stream_id: int, send_window: int, call: _Call, timer: asyncio.TimerHandle) -> None:
        super().__init__(stream_id, send_window)
        self.call = call
        self.timer = timer
        self.chunks: list[bytes] = []
        self.size = 0
        self.http_status = b""
        self.status: bytes | None = None
        self.message = b""


class _ClientConnection(Connection[_Exchange], asyncio.Protocol):
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

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: str, send_again: Callable[[_Call], None]) -> None:
        super().__init__(loop, {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: 1_048_576})
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.failure: str | None = None
        self._peer = peer
        self._send_again = send_again
        self._next_id = 1
        self._going_away = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._ping_timer: asyncio.TimerHandle | None = None

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
        self._fail_calls(_CLOSED)
        await asyncio.wait({self.ended}, timeout=CLOSE_SECONDS)
        if not self.ended.done():
            self.abort()
            await self.ended

    def _doubt(self) -> str:
        return "" if self._settings_seen else f" (it never spoke gRPC; {_HINT})"

    def _fail_calls(self, reason: str) -> None:
        self.failure = reason
        self._greet()
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        for exchange in list(self.streams.values()):
            self._forget(exchange)
            exchange.call.settle(RpcError(grpc.StatusCode.UNAVAILABLE, reason))
        self._admit()

    # Calls.

    def send(self, call: _Call) -> None:
        """Send a call; there must be room for it."""
        timer = self.loop.call_at(call.deadline, self._expire, self._next_id)
        exchange = _Exchange(self._next_id, self._peer_initial_window, call, timer)
        self._next_id += 2
        self.streams[exchange.id] = exchange
        call.future.add_done_callback(lambda future: self._left(exchange) if future.cancelled() else None)
        head = frames.frame(frames.HEADERS, END_HEADERS, exchange.id, call.head)
        self.send_body(exchange, head, b"\0" + len(call.message).to_bytes(4, "big") + call.message, b"")
        self.flush_soon()

    def _left(self, exchange: _Exchange) -> None:
        """The caller waits no longer."""
        if not exchange.closed:
            self.reset(exchange.id, ErrorCode.CANCEL)
            self.flush_soon()

    async def room(self, deadline: float) -> None:
        """Wait until there is room for one call, or the connection is no longer usable.

        Raises:
            RpcError: the deadline came first.
        """
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiting.append(waiter)
        try:
            await asyncio.wait({waiter}, timeout=max(0.0, deadline - self.loop.time()))
        except asyncio.CancelledError:
            if not waiter.cancel():
                self._admit()  # It was let in and leaves: the next one may have its place.
            raise
        if waiter.cancel():
            _fail(grpc.StatusCode.DEADLINE_EXCEEDED, f"{self._peer} took no further call before the deadline")

    def _admit(self) -> None:
        room = self._peer_max_streams - len(self.streams) if self.usable else len(self._waiting)
        while self._waiting and room > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    def _expire(self, stream_id: int) -> None:
        exchange = self.streams.get(stream_id)
        if exchange is None:
            return
        self.reset(stream_id, ErrorCode.CANCEL)
        exchange.call.settle(self._too_late())
        if self._ping_timer is None:
            # The peer may be gone without a word; if it is, the next calls must not wait for it as well.
            self.ping(b"deadline")
            self._ping_timer = self.loop.call_later(PING_SECONDS, self._give_up)
        self.flush_soon()

    def _too_late(self) -> RpcError:
        return RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer from {self._peer} before the deadline")

    def ping_acknowledged(self, payload: bytes) -> None:
        """The peer is alive."""
        if self._ping_timer is not None:
            self._ping_timer.cancel()
            self._ping_timer = None

    def _give_up(self) -> None:
        self.abort()  # Nobody would read a GOAWAY.
        self._fail_calls(f"{self._peer} gave no sign of life")

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
            return RpcError(code, f"{self._peer} answered without a gRPC status (HTTP status {status or 'missing'})")
        if exchange.status != b"0":
            code = _CODES.get(exchange.status, grpc.StatusCode.UNKNOWN)
            return RpcError(code, unquote(exchange.message.decode("ascii", "replace")))
        body = exchange.chunks[0] if len(exchange.chunks) == 1 else b"".join(exchange.chunks)
        if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(body) - 5:
            what = "a compressed message, which we do not take" if body[:1] == b"\1" else "what is not one gRPC message"
            return RpcError(grpc.StatusCode.INTERNAL, f"{self._peer} answered with {what}")
        return body[5:]

    def stream_reset(self, stream: _Exchange, code: int) -> None:
        """The server gave the call up."""
        if code == ErrorCode.REFUSED_STREAM:
            self._refused(stream)
        elif code == ErrorCode.CANCEL and stream.call.deadline - self.loop.time() < _CLOCK_SECONDS:
            stream.call.settle(self._too_late())
        else:
            name = ErrorCode(code).name if code in ErrorCode.__members__.values() else str(code)
            status = _RESET_CODES.get(code, grpc.StatusCode.INTERNAL)
            stream.call.settle(RpcError(status, f"{self._peer} reset the call ({name})"))

    def _refused(self, exchange: _Exchange) -> None:
        call = exchange.call
        call.refusals += 1
        if not call.future.done():
            self._send_again(call)

    def stream_closed(self, stream: _Exchange) -> None:
        """A call ended: another may begin."""
        stream.timer.cancel()
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
