"""Where the microseconds of one invocation go: CPU per invocation at successive depths, in one process.

Each row adds a hop to the one above it. A transport that only counts stands for the socket, everything else is what
serves. `python benchmarks/hops.py`; run.py puts the same into its results.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from inprocess import (
    INVOKE,
    Measure,
    Recorder,
    drive,
    greeting,
    grpc_requests,
    interleaved,
    invoke_message,
    make_app,
    per_call,
    show,
)

from daprfunc.channel.app import App
from daprfunc.channel.http1 import Http1Connection
from daprfunc.channel.http2 import Http2Connection
from daprfunc.endpoint import parse_endpoint
from daprfunc.http2 import frames
from daprfunc.rpc.dapr_pb2 import GetSecretResponse
from daprfunc.sidecar.connection import ClientConnection
from daprfunc.sidecar.transport import Channel

CALLS = 1_800
WARM_UP = 0.1
BATCHES = (1, 9)
HEALTH = b"/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck"
_SECRET = GetSecretResponse(data={"my-secret": "abcd"})


class InstantChannel:
    """Answers every GetSecret in the same turn of the loop."""

    def __init__(self) -> None:
        self.peer = None

    def unary_unary(self, *_arguments: object, **_serializers: object) -> Any:
        loop = asyncio.get_running_loop()

        def call(_request: object, **_options: object) -> asyncio.Future[Any]:
            future = loop.create_future()
            future.set_result(_SECRET)
            return future

        return call


class Peer(Recorder):
    """A sidecar made of frames: answers each call that is written to it in the next turn of the loop."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self.seconds = 0.0
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._greeted = False

    def write(self, data: bytes) -> None:
        began = time.thread_time()
        if self._greeted:
            answer = answers(data)
        else:
            self._greeted, answer = True, greeting()
        if answer:
            self._loop.call_soon(self._connection.data_received, answer)
        self.seconds += time.thread_time() - began


class PeerChannel(Channel):
    """The real channel and its real connection, with a Peer instead of a socket."""

    def __init__(self) -> None:
        super().__init__(parse_endpoint("127.0.0.1:50001"))
        self.peer: Peer | None = None

    async def _dial(self) -> ClientConnection:
        connection = self._new_connection()
        self.peer = Peer(connection)
        connection.connection_made(self.peer)  # type: ignore[arg-type]  # no whole transport
        return connection


def answers(data: bytes) -> bytes:
    """The responses to the calls in `data`."""
    found = []
    at = 0
    while at < len(data):
        high, low, kind, flags, stream = frames.read_head(data, at)
        at += frames.HEADER_SIZE + (high << 8 | low)
        if kind == frames.DATA and flags & frames.END_STREAM:
            found.append(
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream, _HEAD)
                + frames.frame(frames.DATA, 0, stream, _BODY)
                + frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, _TAIL)
            )
    return b"".join(found)


_HEAD = b"\x88" + frames.field(b"content-type", b"application/grpc")
_TAIL = frames.field(b"grpc-status", b"0") + frames.field(b"grpc-message", b"")
_BODY = b"\0" + _SECRET.ByteSize().to_bytes(4, "big") + _SECRET.SerializeToString()

# depth, method (none: the cheapest answer that there is), how the sidecar is called
DEPTHS = (
    ("request and cheapest answer", None, InstantChannel),
    ("+ dispatch, mapping, async function", "EchoAsync", InstantChannel),
    ("+ a thread (sync function)", "Echo", InstantChannel),
    ("+ secret binding, read answered at once", "RetrieveSecret", InstantChannel),
    ("+ the sidecar's connection", "RetrieveSecret", PeerChannel),
)


async def _measure(protocol: str, method: str | None, channel: type[InstantChannel | PeerChannel], batch: int) -> float:
    sidecar = channel()
    app, executor = make_app(sidecar)
    measure = _http2 if protocol == "HTTP/2" else _http1
    rounds = CALLS // batch
    warm_up = int(rounds * WARM_UP)
    try:
        seconds = await measure(app, method, rounds, warm_up, batch, sidecar)
    finally:
        executor.close()
    return per_call(seconds, (rounds - warm_up) * batch)


async def _http2(
    app: App, method: str | None, rounds: int, warm_up: int, batch: int, sidecar: InstantChannel | PeerChannel
) -> float:
    transport = Recorder()
    connection = Http2Connection(app, asyncio.get_running_loop(), lambda _: None)
    connection.connection_made(transport)  # type: ignore[arg-type]  # no whole transport
    connection.data_received(greeting())
    path, message = (INVOKE, invoke_message(method)) if method else (HEALTH, b"")
    reads = grpc_requests(path, message, rounds, batch)
    await drive(connection, connection.streams, transport, reads[:warm_up])
    before = _peer_seconds(sidecar)
    seconds = await drive(connection, connection.streams, transport, reads[warm_up:])
    return seconds - _peer_seconds(sidecar) + before


async def _http1(
    app: App, method: str | None, rounds: int, warm_up: int, batch: int, sidecar: InstantChannel | PeerChannel
) -> float:
    transport = Recorder()
    connections = [Http1Connection(app, asyncio.get_running_loop(), lambda _: None) for _ in range(batch)]
    for connection in connections:
        connection.connection_made(transport)  # type: ignore[arg-type]  # no whole transport
    line = b"POST /%s HTTP/1.1" % method.encode() if method else b"GET /healthz HTTP/1.1"
    fields = b"Host: 127.0.0.1:3001\r\nUser-Agent: bombardier\r\nContent-Type: application/json\r\n"
    request = line + b"\r\n" + fields + (b"Content-Length: 2\r\n\r\n{}" if method else b"\r\n")

    async def calls(count: int) -> None:
        for _ in range(count):
            answered = transport.writes + batch
            for connection in connections:
                connection.data_received(request)
            while transport.writes < answered:
                await transport.written()
            await asyncio.sleep(0)  # the tasks that have answered end

    await calls(warm_up)
    before, began = _peer_seconds(sidecar), time.process_time()
    await calls(rounds - warm_up)
    return time.process_time() - began - _peer_seconds(sidecar) + before


def _peer_seconds(sidecar: InstantChannel | PeerChannel) -> float:
    return sidecar.peer.seconds if sidecar.peer else 0.0


def row(protocol: str, batch: int, depth: str) -> str:
    """A row's name; publish.py takes it apart."""
    return f"{protocol} x{batch}: {depth}"


if __name__ == "__main__":
    measures: dict[str, Measure] = {
        row(protocol, batch, depth): partial(_measure, protocol, method, channel, batch)
        for protocol in ("HTTP/2", "HTTP/1.1")
        for batch in BATCHES
        for depth, method, channel in DEPTHS
    }
    show(interleaved(measures))
