"""Callers by hand: HTTP/2 frame by frame, HTTP/1.1 byte by byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jh2._hazmat import Decoder

from daprfunc.http2 import frames
from daprfunc.rpc.common_pb2 import InvokeRequest, InvokeResponse

ON_INVOKE = b"/dapr.proto.runtime.v1.AppCallback/OnInvoke"


class Frame(NamedTuple):
    """One frame as it was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ended(self) -> bool:
        return self.kind in (frames.DATA, frames.HEADERS) and bool(self.flags & frames.END_STREAM)

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return frames.read_uint32(self.payload, 4 if self.kind == frames.GOAWAY else 0)


def request_fields(verb: bytes = b"POST", path: bytes = b"/echo", *more: tuple[bytes, bytes]) -> bytes:
    """The header block of a plain HTTP request."""
    return frames.fields((b":method", verb), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"), *more)


def grpc_fields(*more: tuple[bytes, bytes], path: bytes = ON_INVOKE) -> bytes:
    """The header block of a gRPC call."""
    return request_fields(b"POST", path, (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more)


def message(data: bytes) -> bytes:
    """A gRPC message in its frame."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def invoke_request(method: str, data: bytes = b"", content_type: str = "application/json", verb: int = 0) -> bytes:
    request: Any = InvokeRequest(method=method, content_type=content_type)
    request.data.value = data
    request.http_extension.verb = verb
    serialized: bytes = request.SerializeToString()
    return serialized


def headers(stream: int, block: bytes, *, end: bool = True) -> bytes:
    flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
    return frames.frame(frames.HEADERS, flags, stream, block)


def data(stream: int, payload: bytes, *, end: bool = True) -> bytes:
    """DATA frames of at most 16 KiB."""
    parts = [payload[at : at + 16_384] for at in range(0, len(payload), 16_384)] or [b""]
    last = len(parts) - 1
    return b"".join(
        frames.frame(frames.DATA, frames.END_STREAM if end and at == last else 0, stream, part)
        for at, part in enumerate(parts)
    )


def post(stream: int, path: bytes, body: bytes = b"") -> bytes:
    """A whole HTTP request."""
    return headers(stream, request_fields(b"POST", path), end=not body) + (data(stream, body) if body else b"")


def call(stream: int, method: str, body: bytes = b"") -> bytes:
    """A whole OnInvoke."""
    return headers(stream, grpc_fields(), end=False) + data(stream, message(invoke_request(method, body)))


class Reply:
    """What came back on one stream."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.reset: int | None = None

    @property
    def status(self) -> str:
        return self.headers.get("grpc-status") or self.headers[":status"]

    @property
    def data(self) -> bytes:
        """The data in an OnInvoke's response."""
        assert self.body[:5] == b"\0" + len(self.body[5:]).to_bytes(4, "big")
        response: Any = InvokeResponse.FromString(self.body[5:])
        value: bytes = response.data.value
        return value


class Http2Peer:
    """A caller that sends what it is told and reads only when it is asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.replies: dict[int, Reply] = {}
        self._decoder = Decoder(1_000_000)

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def greet(self, settings: dict[frames.Setting, int] | None = None) -> None:
        self.send(frames.PREFACE, frames.settings(settings or {}))

    async def frame(self) -> Frame:
        """The next frame."""
        high, low, kind, flags, stream = frames.read_head(await self.reader.readexactly(9))
        frame = Frame(kind, flags, stream, await self.reader.readexactly(high << 8 | low))
        self._record(frame)
        return frame

    def _record(self, frame: Frame) -> None:
        reply = self.replies.setdefault(frame.stream, Reply())
        if frame.kind == frames.HEADERS:
            block = self._decoder.decode(frame.payload, True)
            reply.headers.update({name.decode(): value.decode("latin-1") for name, value, _ in block})
        elif frame.kind == frames.DATA:
            reply.body += frame.payload
        elif frame.kind == frames.RST_STREAM:
            reply.reset = frame.code
        reply.ended = reply.ended or frame.ended

    async def frame_of(self, kind: int) -> Frame:
        """The next frame of one kind; what comes before it is recorded."""
        while (frame := await self.frame()).kind != kind:
            pass
        return frame

    async def reply(self, stream: int) -> Reply:
        """The whole reply on one stream."""
        while not (reply := self.replies.setdefault(stream, Reply())).ended and reply.reset is None:
            await self.frame()
        return reply

    async def settled(self) -> None:
        """Wait until the other side has done all that it was asked so far that needs no function."""
        self.send(frames.frame(frames.PING, 0, 0, b"settled?"))
        while (await self.frame_of(frames.PING)).payload != b"settled?":
            pass

    async def goodbye(self) -> Frame:
        """The GOAWAY with which the other side closes; fails if it does not close."""
        goaway = await self.frame_of(frames.GOAWAY)
        try:
            while True:
                frame = await self.frame()
                goaway = frame if frame.kind == frames.GOAWAY else goaway
        except (asyncio.IncompleteReadError, ConnectionError):
            return goaway


@asynccontextmanager
async def connected(
    port: int, *, receive_buffer: int = 0, limit: int = 65_536, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection; with a small `receive_buffer` (bytes) the kernel takes little for us."""
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=limit, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):  # That it was broken already is what some tests are about.
            await writer.wait_closed()


@runtime_checkable
class ReadSide(Protocol):
    """What a connection's transport has for reading."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def read_side(writer: asyncio.StreamWriter) -> ReadSide:
    """The transport as what reads: a StreamWriter tells only that it can write."""
    assert isinstance(writer.transport, ReadSide)
    return writer.transport


@asynccontextmanager
async def http2(
    port: int, settings: dict[frames.Setting, int] | None = None, **options: Any
) -> AsyncIterator[Http2Peer]:
    """An HTTP/2 connection that has greeted."""
    async with connected(port, **options) as (reader, writer):
        peer = Http2Peer(reader, writer)
        peer.greet(settings)
        yield peer


class HttpAnswer(NamedTuple):
    """An HTTP/1.1 response."""

    status: int
    headers: dict[str, str]
    body: bytes


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> HttpAnswer:
    """Read one response; `head` says that it answers a HEAD request."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:-2])
    size = 0 if head else int(fields.get("content-length", 0))
    return HttpAnswer(int(lines[0].split()[1]), fields, await reader.readexactly(size))
