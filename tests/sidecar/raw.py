"""Servers that speak HTTP/2 by hand, so that they can speak it badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from daprfunc.endpoint import Endpoint
from daprfunc.http2 import frames
from daprfunc.http2.frames import ACK, END_HEADERS, END_STREAM, ErrorCode, Setting
from daprfunc.rpc.dapr_pb2 import GetSecretResponse

ANSWER = GetSecretResponse(data={"key": "value"}).SerializeToString()


def message(body: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(body).to_bytes(4, "big") + body


def headers(stream: int, *fields: tuple[bytes, bytes], ended: bool = False) -> bytes:
    return frames.frame(frames.HEADERS, END_HEADERS | (END_STREAM if ended else 0), stream, frames.fields(*fields))


def data(stream: int, body: bytes, *, ended: bool = False) -> bytes:
    return frames.frame(frames.DATA, END_STREAM if ended else 0, stream, body)


def answer(stream: int, body: bytes = ANSWER) -> bytes:
    """A whole good response."""
    head = headers(stream, (b":status", b"200"), (b"content-type", b"application/grpc"))
    return head + data(stream, message(body)) + headers(stream, (b"grpc-status", b"0"), ended=True)


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.acknowledges_pings = True
        self.resets: list[int] = []

    def send(self, *parts: bytes) -> None:
        self._writer.write(b"".join(parts))

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()

    async def greet(self, **settings: int) -> None:
        assert await self._reader.readexactly(len(frames.PREFACE)) == frames.PREFACE
        self.send(frames.settings({Setting[name]: value for name, value in settings.items()}))

    async def frame(self) -> tuple[int, int, int, bytes]:
        high, low, kind, flags, stream = frames.read_head(await self._reader.readexactly(frames.HEADER_SIZE))
        return kind, flags, stream, await self._reader.readexactly(high << 8 | low)

    async def until(self, kind: int) -> tuple[int, int, bytes]:
        """Skip to the next frame of a kind; gives its flags, stream and payload. PINGs are answered meanwhile."""
        while True:
            found, flags, stream, payload = await self.frame()
            if found == frames.RST_STREAM:
                self.resets.append(stream)
            if found == kind:
                return flags, stream, payload
            if found == frames.PING and not flags & ACK and self.acknowledges_pings:
                self.send(frames.frame(frames.PING, ACK, 0, payload))

    async def request(self) -> int:
        """Take the next whole request; gives its stream."""
        while True:
            flags, stream, _ = await self.until(frames.DATA)
            if flags & END_STREAM:
                return stream

    async def ended(self) -> bytes:
        """Read to the end."""
        return await self._reader.read()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class RawServer:
    """Runs one script per connection: the first for the first, ..., the last for all that follow."""

    scripts: tuple[Script, ...]
    connections: int = 0
    errors: list[BaseException] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            await script(peer)
            await peer.ended()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def raw_server(*scripts: Script, port: int = 0) -> AsyncIterator[tuple[Endpoint, RawServer]]:
    """Serve by script; gives the endpoint and what counts the connections."""
    raw = RawServer(scripts)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(raw._serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    try:
        yield Endpoint(port=server.sockets[0].getsockname()[1]), raw
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
    assert not raw.errors


async def good(peer: Peer) -> None:
    """Answer every request."""
    await peer.greet()
    while True:
        peer.send(answer(await peer.request()))


def goaway(last: int) -> bytes:
    return frames.goaway(last, ErrorCode.NO_ERROR)


def reset(stream: int, code: ErrorCode) -> bytes:
    return frames.rst_stream(stream, code)
