"""Our HTTP/2 connection beside one made of a state machine library (jh2): CPU per unary gRPC call, in one process.

Both get the same bytes, run the same function in a task of its own and answer with one write per turn of the loop.
`python benchmarks/http2_library.py`; run.py puts the same into its results.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from hops import InstantChannel
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
from jh2.config import H2Configuration
from jh2.connection import H2Connection
from jh2.events import DataReceived, RequestReceived, StreamEnded

from daprfunc.channel import callback
from daprfunc.channel.app import App
from daprfunc.channel.http2 import Http2Connection
from daprfunc.http2 import frames

CALLS = 1_800
WARM_UP = 0.1


class LibraryConnection:
    """As little around the library as a server needs; no limits, no timeouts, no cancellation."""

    def __init__(self, app: App, transport: Recorder) -> None:
        self.streams: dict[int, tuple[list[tuple[bytes, bytes]], bytearray]] = {}
        self._app = app
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flushing = False
        # What we send is ours, so the library may leave out to check and to tidy it.
        settings = H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._state = H2Connection(settings)
        self._state.initiate_connection()
        self._state.increment_flow_control_window(2**24)

    def data_received(self, data: bytes) -> None:
        for event in self._state.receive_data(data):
            self._take(event)
        self._flush_soon()

    def _take(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self.streams[event.stream_id] = (list(event.headers), bytearray())
        elif isinstance(event, DataReceived):
            self.streams[event.stream_id][1].extend(event.data)
            self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            task = self._loop.create_task(self._call(event.stream_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(self, stream: int) -> None:
        headers, body = self.streams[stream]
        path = next(value for name, value in headers if name == b":path")
        method = callback.find(self._app, path, headers)
        message = await method(self._app, headers, callback.message_of(bytes(body)))
        self._state.send_headers(stream, [(b":status", b"200"), (b"content-type", b"application/grpc")])
        self._state.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
        self._state.send_headers(stream, [(b"grpc-status", b"0")], end_stream=True)
        del self.streams[stream]
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        data = self._state.data_to_send()
        if data:
            self._transport.write(data)


async def _measure(batch: int, *, ours: bool) -> float:
    app, executor = make_app(InstantChannel())
    transport = Recorder()
    connection: Http2Connection | LibraryConnection
    if ours:
        connection = Http2Connection(app, asyncio.get_running_loop(), lambda _: None)
        connection.connection_made(transport)  # type: ignore[arg-type]  # no whole transport
        connection.data_received(greeting())
    else:
        connection = LibraryConnection(app, transport)
        connection.data_received(frames.PREFACE + greeting())
    reads = grpc_requests(INVOKE, invoke_message("EchoAsync"), CALLS // batch, batch)
    warm_up = int(len(reads) * WARM_UP)
    streams: dict[int, Any] = connection.streams
    await drive(connection, streams, transport, reads[:warm_up])
    seconds = await drive(connection, streams, transport, reads[warm_up:])
    executor.close()
    return per_call(seconds, (len(reads) - warm_up) * batch)


if __name__ == "__main__":
    measures: dict[str, Measure] = {
        f"{name}, x{batch}": partial(_measure, batch, ours=name == "ours")
        for batch in (1, 9)
        for name in ("jh2", "ours")
    }
    show(interleaved(measures))
