"""A gRPC channel for unary calls on our own HTTP/2: what the generated stubs call the sidecar through.

It has grpc's channel interface as far as the stubs use it, so ``grpc.aio``'s channel can stand in its place. It exists
because it costs a fraction of that channel's time per call (docs/performance.md), and because it reconnects on demand:
the first call after a restart of the sidecar succeeds, where grpc's would still be waiting out its backoff.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from daprfunc.deadlines import Deadlines
from daprfunc.endpoint import Endpoint
from daprfunc.http2 import frames
from daprfunc.sidecar.call import CLOSED, HINT, Call, RpcError, fail
from daprfunc.sidecar.connection import ClientConnection

# No more than one attempt to connect per this many seconds, so that a missing sidecar is not stormed.
RECONNECT_SECONDS = 0.05
# How long one attempt may take: packets to a host that is gone are lost without a word.
CONNECT_SECONDS = 5.0
# How often a call is sent that the peer refuses before it looks at it.
MAX_SENDS = 10
_GRACE_MILLISECONDS = 1_000

Metadata = tuple[tuple[str, str], ...]


class Channel:
    """A channel to one endpoint, with a connection that is made when a call needs it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._connection: ClientConnection | None = None
        # With those that take no further calls but have some to finish.
        self._connections: set[ClientConnection] = set()
        self._connecting: asyncio.Task[ClientConnection] | None = None
        self._next_attempt = 0.0
        self._sending: set[asyncio.Task[None]] = set()
        self._closed = False

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_: object,
    ) -> Callable[..., Call]:
        """Return a callable for one method (grpc.aio.Channel.unary_unary).

        The callable takes the request, `timeout` in seconds and `metadata`; awaiting it gives the response or raises
        :class:`RpcError`.
        """
        # Every call of a method carries the same head, as long as its metadata and its timeout do not change.
        heads: dict[tuple[Metadata, float], tuple[bytes, Deadlines[Call]]] = {}

        def deserialize(message: bytes) -> Any:
            try:
                return response_deserializer(message)
            except DecodeError:
                fail(grpc.StatusCode.INTERNAL, f"{self._endpoint} answered {method} with another message")

        def call(request: Any, *, timeout: float, metadata: Metadata = ()) -> Call:
            found = heads.get((metadata, timeout))
            if found is None:
                heads.clear()
                found = heads[metadata, timeout] = (
                    self._head(method, metadata, timeout),
                    Deadlines(timeout, self._expire),
                )
            head, deadlines = found
            return self._send(Call(head, request_serializer(request), deserialize, deadlines, self._loop))

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
            # A little longer than our own timer: otherwise the sidecar's may fire first, and it words that as it likes.
            (b"grpc-timeout", b"%dm" % max(1, min(timeout * 1000 + _GRACE_MILLISECONDS, 99_999_999))),
        ) + b"".join(frames.field(name.encode(), value.encode(), secret=True) for name, value in metadata)

    def _send(self, call: Call) -> Call:
        connection = self._connection
        if connection is not None and connection.has_room:
            connection.send(call)
        else:
            self._send_later(call)
        return call

    def flush(self) -> None:
        """Write what the calls so far have queued, where it would otherwise wait for the next turn of the loop."""
        if self._connection is not None:
            self._connection.flush()

    def _expire(self, call: Call) -> None:
        if call.carrier is not None:
            call.carrier.expire(call)
        else:
            call.settle(RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, f"{call.obstacle} before the deadline"))

    def _send_later(self, call: Call) -> None:
        """Send when there is a connection that takes the call."""
        task = self._loop.create_task(self._wait_and_send(call))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        call.add_done_callback(lambda _: task.cancel())

    async def _wait_and_send(self, call: Call) -> None:
        try:
            while call.refusals < MAX_SENDS:
                connection = self._connection
                if connection is None or not connection.usable:
                    call.obstacle = f"no connection to {self._endpoint}"
                    connection = await self._connect()
                call.obstacle = f"{self._endpoint} took no further call"
                while connection.usable and not connection.has_room:
                    await connection.room()
                if connection.usable:
                    connection.send(call)
                    return
                call.refusals += 1
            fail(grpc.StatusCode.UNAVAILABLE, f"{self._endpoint} refused the call {MAX_SENDS} times")
        except RpcError as error:
            call.settle(error)

    async def _connect(self) -> ClientConnection:
        if self._closed:
            fail(grpc.StatusCode.UNAVAILABLE, CLOSED)
        attempt = self._connecting
        if attempt is None:
            attempt = self._connecting = self._loop.create_task(self._open())
            attempt.add_done_callback(self._connected)
        # One caller that leaves must not take the connection from those who wait with it: wait() cancels nothing.
        await asyncio.wait({attempt})
        if attempt.cancelled():
            fail(grpc.StatusCode.UNAVAILABLE, CLOSED)
        try:
            connection = attempt.result()
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # (ValueError: uvloop, of a socket's path)
            fail(grpc.StatusCode.UNAVAILABLE, f"cannot connect to {self._endpoint}: {_reason(error)}; {HINT}")
        if connection.failure is not None:
            fail(grpc.StatusCode.UNAVAILABLE, connection.failure)
        return connection

    def _connected(self, attempt: asyncio.Task[ClientConnection]) -> None:
        self._connecting = None
        if attempt.cancelled() or attempt.exception() is not None:
            return
        connection = attempt.result()
        self._connection = connection
        self._connections.add(connection)
        connection.ended.add_done_callback(lambda _: self._connections.discard(connection))

    async def _open(self) -> ClientConnection:
        wait = self._next_attempt - self._loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        self._next_attempt = self._loop.time() + RECONNECT_SECONDS
        return await asyncio.wait_for(self._meet(), CONNECT_SECONDS)

    async def _meet(self) -> ClientConnection:
        connection = await self._dial()
        try:
            # Only then is it known how many calls the server takes at once; it may do worse to others than refuse them.
            await connection.greeted
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _dial(self) -> ClientConnection:
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

    def _new_connection(self) -> ClientConnection:
        return ClientConnection(self._loop, str(self._endpoint), self._send_later)

    async def close(self) -> None:
        """End the connections; calls under way fail, and so does every later one."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
            # What the attempt has called back is scheduled before what continues here.
        await asyncio.gather(*(connection.end() for connection in list(self._connections)))


def _reason(error: Exception) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {CONNECT_SECONDS:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)  # asyncio's own text repeats the address.
    return str(error)
