"""One HTTP/2 connection, for either side: framing, header blocks, settings, flow control, and a calm end.

It speaks HTTP/2 and nothing above it. A role (:mod:`daprfunc.channel.http2` serves, :mod:`daprfunc.sidecar.connection`
calls) subclasses :class:`Connection` and is told of headers, data and resets by method calls.

Why not a state machine library: ``h2`` and its fork ``jh2`` turn every frame into objects and events, and for the two
small frames of a unary call that costs more than the call (docs/performance.md has the figures). Header compression
does come from a library, ``jh2``'s Rust HPACK decoder. Our own header blocks are literals, so nothing is encoded here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

# The decoder that jh2's own connection uses; its public jh2.hpack is a slower one in Python.
from jh2._hazmat import Decoder, HPACKError, OversizedHeaderListError

from daprfunc.http2 import frames
from daprfunc.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEADER_SIZE,
    MAX_WINDOW,
    PADDED,
    PRIORITIZED,
    ErrorCode,
    Setting,
)

Headers = Sequence[tuple[bytes, bytes, bool]]

MAX_HEADER_BYTES = 65_536
# What we let the peer send ahead of our reading, for one stream and for all of them.
STREAM_WINDOW = 1_048_576
CONNECTION_WINDOW = 16_777_216
# How long the answer to a frame that nobody waits for may wait for company.
ACK_SECONDS = 0.001
# How many streams that we reset are remembered, so that what the peer had already sent for them is no offence.
_REMEMBERED_RESETS = 256
# SETTINGS frames per second from which on a peer is taken for an attacker: each may change every stream's window.
MAX_SETTINGS_PER_SECOND = 100
# How much of the waiting bodies is queued before the transport is asked whether it can take more.
_WRITE_SIZE = 65_536


class WriteTransport(Protocol):
    """What a connection needs of an asyncio transport."""

    def write(self, data: bytes, /) -> None:
        """Send, or buffer."""

    def close(self) -> None:
        """Close after what is buffered was sent."""

    def abort(self) -> None:
        """Close now."""

    def is_closing(self) -> bool:
        """Tell whether it is closed, or will be when what is buffered was sent."""


class Rate:
    """Tells when something happens more often in a second than it may.

    Args:
        limit: how often it may happen.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second = 0
        self._count = 0

    def exceeded(self, now: float) -> bool:
        """Count it once more."""
        if int(now) != self._second:
            self._second, self._count = int(now), 0
        self._count += 1
        return self._count > self._limit


class ProtocolError(Exception):
    """The peer broke the protocol in a way that ends the connection."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamError(Exception):
    """The peer broke the protocol in a way that ends one stream."""

    def __init__(self, stream_id: int, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.stream_id = stream_id
        self.code = code


class Stream:
    """One stream's state on the wire; roles add what they know of it."""

    __slots__ = ("closed", "id", "local_ended", "received", "remote_ended", "send_window", "unsent")

    def __init__(self, stream_id: int, send_window: int) -> None:
        self.id = stream_id
        self.send_window = send_window
        # Bytes of DATA that the peer has not yet been given new room for.
        self.received = 0
        self.remote_ended = False
        self.local_ended = False
        self.closed = False
        # The rest of a message that waits for the peer's window: (data, what follows it).
        self.unsent: tuple[memoryview, bytes] | None = None


S = TypeVar("S", bound=Stream)


class Connection(Generic[S]):
    """The common part of a client's and a server's HTTP/2 connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, own_settings: dict[Setting, int]) -> None:
        self.loop = loop
        self.transport: WriteTransport | None = None
        self.streams: dict[int, S] = {}
        self.closing = False
        self._own_settings = own_settings
        self._decoder = Decoder(MAX_HEADER_BYTES)
        self._out: list[bytes] = []
        self._flush_scheduled = False
        self._flush_due = False
        self._write_paused = False
        self._rest = b""
        self._settings_seen = False
        self._settings_rate = Rate(MAX_SETTINGS_PER_SECOND)
        # The flags of an unfinished header block's first frame, and what of the block is there.
        self._block: tuple[int, bytearray] | None = None
        # The only kind of frame, and its stream, that may come next; None while any may.
        self._awaited: tuple[int, int] | None = (frames.SETTINGS, 0)
        self._last_peer_stream = 0
        self._send_window = frames.DEFAULT_WINDOW
        self._received = 0
        self._peer_initial_window = frames.DEFAULT_WINDOW
        self._peer_max_frame = frames.MIN_MAX_FRAME_SIZE
        self._peer_max_streams = frames.MAX_STREAM_ID
        self._reset_by_us: OrderedDict[int, None] = OrderedDict()
        # Streams that have more to send and room in their own window: they take turns in the connection's.
        self._blocked: OrderedDict[int, S] = OrderedDict()
        self._handlers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._on_data,
            self._on_headers,
            self._on_priority,
            self._on_rst_stream,
            self._on_settings,
            self._on_push_promise,
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            self._on_continuation,
        )

    # What a role overrides.

    def open_stream(self, stream_id: int) -> S | None:
        """The peer opens a stream; return it, or None to refuse it."""
        raise NotImplementedError

    def headers_received(self, stream: S, headers: Headers, *, ended: bool) -> None:
        """A header block arrived (a second one on the same stream is trailers)."""
        raise NotImplementedError

    def data_received_on(self, stream: S, data: bytes, *, ended: bool) -> None:
        """A piece of the body arrived."""
        raise NotImplementedError

    def stream_reset(self, stream: S, code: int) -> None:
        """The peer (or a fault of its) ended the stream early."""

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        """The peer will take no stream above `last_stream_id`."""

    def ping_acknowledged(self, payload: bytes) -> None:
        """The peer answered a PING of ours."""

    # In.

    def start(self, transport: WriteTransport, preface: bytes = b"") -> None:
        """Greet the peer over `transport`."""
        self.transport = transport
        grow = CONNECTION_WINDOW - frames.DEFAULT_WINDOW
        self.write(preface + frames.settings(self._own_settings) + frames.window_update(0, grow))
        self.flush()

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer. What it breaks is answered with RST_STREAM or GOAWAY, never raised."""
        if self.closing:
            return
        try:
            self._parse(self._rest + data if self._rest else data)
        except ProtocolError as error:
            self.close(error.code, str(error))
        if self._out and not self._flush_due:
            # What is queued now answers frames that nobody waits for (PING, SETTINGS, windows). It goes along with the
            # next write: a write of its own costs both sides more than all else that they do for the frame.
            self._flush_due = True
            self.loop.call_later(ACK_SECONDS, self._flush_overdue)

    def _parse(self, data: bytes) -> None:
        position, size = 0, len(data)
        while size - position >= HEADER_SIZE and not self.closing:
            high, low, kind, flags, stream_id = frames.read_head(data, position)
            length = high << 8 | low
            if length > frames.MIN_MAX_FRAME_SIZE:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes; 16384 is the most")
            start = position + HEADER_SIZE
            end = start + length
            if end > size:
                break
            position = end
            stream_id &= 0x7FFFFFFF
            if self._awaited is not None and self._awaited != (kind, stream_id):
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, self._not_awaited())
            if kind >= len(self._handlers):
                continue  # RFC 9113, section 4.1: unknown types are ignored.
            try:
                self._handlers[kind](flags, stream_id, data[start:end])
            except StreamError as error:
                self._fail_stream(error)
        self._rest = data[position:]

    def _not_awaited(self) -> str:
        return "a header block was not finished" if self._settings_seen else "the first frame was not SETTINGS"

    def _fail_stream(self, error: StreamError) -> None:
        stream = self.streams.get(error.stream_id)
        self.reset(error.stream_id, error.code)
        if stream is not None:
            self.stream_reset(stream, error.code)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        # Windows grow as data arrives, so that no peer can be found to send more than they allow. What bounds a request
        # is its role's business.
        size = len(payload)
        self._received += size
        if self._received > CONNECTION_WINDOW // 2:
            self.write(frames.window_update(0, self._received))
            self._received = 0
        stream = self._known_stream(stream_id, "DATA")
        if stream is None:
            return
        if stream.remote_ended:
            raise StreamError(stream_id, ErrorCode.STREAM_CLOSED)
        ended = bool(flags & END_STREAM)
        stream.remote_ended = ended
        stream.received += size
        if stream.received > STREAM_WINDOW // 2 and not ended:
            self.write(frames.window_update(stream_id, stream.received))
            stream.received = 0
        self.data_received_on(stream, _unpadded(payload) if flags & PADDED else payload, ended=ended)

    def _known_stream(self, stream_id: int, what: str) -> S | None:
        """Return an open stream; None for one that we have reset; raise for one that cannot take the frame."""
        stream = self.streams.get(stream_id)
        if stream is not None or stream_id in self._reset_by_us:
            return stream
        if self._is_idle(stream_id):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"{what} for stream {stream_id}, which is not open")
        raise StreamError(stream_id, ErrorCode.STREAM_CLOSED)

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id > self._last_peer_stream or stream_id % 2 == 0

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "HEADERS for stream 0")
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & PRIORITIZED:
            payload = self._without_priority(stream_id, payload)
        if flags & END_HEADERS:
            self._header_block(flags, stream_id, payload)
        else:
            self._block = (flags, bytearray(payload))
            self._awaited = (frames.CONTINUATION, stream_id)

    def _without_priority(self, stream_id: int, payload: bytes) -> bytes:
        if len(payload) < 5:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
        if frames.read_uint32(payload) & 0x7FFFFFFF == stream_id:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} depends on itself")
        return payload[5:]

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        first_flags, block = self._block
        block += payload
        if flags & END_HEADERS:
            self._block = self._awaited = None
            self._header_block(first_flags, stream_id, bytes(block))
        elif not payload or len(block) > MAX_HEADER_BYTES:
            # Empty ones are legal, but nobody needs them and a flood of them would cost us without end.
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of over {MAX_HEADER_BYTES} bytes")

    def _header_block(self, flags: int, stream_id: int, block: bytes) -> None:
        # Decoded even if the stream is refused: both sides' tables must stay the same.
        headers = self._decode(block)
        stream = self.streams.get(stream_id) or self._new_stream(stream_id)
        if stream is None:
            return
        if stream.remote_ended:
            raise StreamError(stream_id, ErrorCode.STREAM_CLOSED)
        ended = bool(flags & END_STREAM)
        stream.remote_ended = ended
        self.headers_received(stream, headers, ended=ended)

    def _decode(self, block: bytes) -> Headers:
        try:
            headers: Headers = self._decoder.decode(block, True)
        except OversizedHeaderListError:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"over {MAX_HEADER_BYTES} bytes of headers") from None
        except BaseException as error:
            # The Rust decoder panics on a block that was cut short, and a panic is no Exception.
            if isinstance(error, HPACKError) or type(error).__name__ == "PanicException":
                raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "a header block that cannot be decoded") from None
            raise
        return headers

    def _new_stream(self, stream_id: int) -> S | None:
        if stream_id in self._reset_by_us:
            return None
        if stream_id % 2 == 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"HEADERS for stream {stream_id}, which is not the peer's")
        if stream_id <= self._last_peer_stream:
            raise ProtocolError(ErrorCode.STREAM_CLOSED, f"HEADERS for stream {stream_id}, which is closed")
        self._last_peer_stream = stream_id
        stream = self.open_stream(stream_id)
        if stream is None:
            self.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return None
        self.streams[stream_id] = stream
        return stream

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        # RFC 9113 section 5.3 deprecates priorities; only the frame's form matters.
        if stream_id == 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PRIORITY for stream 0")
        if len(payload) != 5:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of other than 5 bytes")
        self._without_priority(stream_id, payload)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of other than 4 bytes")
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._forget(stream)
            self.stream_reset(stream, frames.read_uint32(payload))
        elif stream_id not in self._reset_by_us and self._is_idle(stream_id):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM for stream {stream_id}, which is not open")

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "SETTINGS for a stream")
        if flags & ACK:
            if payload:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
            return
        if len(payload) % 6:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a size that is no multiple of 6")
        if not self._settings_seen:
            self._settings_seen, self._awaited = True, None
        if self._settings_rate.exceeded(self.loop.time()):
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"over {MAX_SETTINGS_PER_SECOND} SETTINGS in a second")
        # The last value of each parameter is the one that stays: no need to go through the streams for the others.
        for key, value in dict(frames.read_settings(payload)).items():
            self._apply_setting(key, value)
        self.write(frames.frame(frames.SETTINGS, ACK, 0))
        self._send_unsent()

    def _apply_setting(self, key: int, value: int) -> None:
        if key == Setting.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1")
            grow, self._peer_initial_window = value - self._peer_initial_window, value
            for stream in self.streams.values():
                stream.send_window += grow
                if stream.send_window > MAX_WINDOW:
                    raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window above 2^31-1")
                self._unblock(stream)
        elif key == Setting.MAX_FRAME_SIZE:
            if not frames.MIN_MAX_FRAME_SIZE <= value <= frames.MAX_MAX_FRAME_SIZE:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE out of range")
            self._peer_max_frame = value
        elif key == Setting.MAX_CONCURRENT_STREAMS:
            self._peer_max_streams = value
        elif key == Setting.ENABLE_PUSH and value > 1:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is neither 0 nor 1")

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody asked for")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PING for a stream")
        if len(payload) != 8:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "PING of other than 8 bytes")
        if flags & ACK:
            self.ping_acknowledged(payload)
        else:
            self.write(frames.frame(frames.PING, ACK, 0, payload))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "GOAWAY for a stream")
        if len(payload) < 8:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of less than 8 bytes")
        self.goaway_received(frames.read_uint32(payload) & 0x7FFFFFFF, frames.read_uint32(payload, 4))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of other than 4 bytes")
        increment = frames.read_uint32(payload) & 0x7FFFFFFF
        if stream_id == 0:
            self._send_window += increment
            if increment == 0:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            if self._send_window > MAX_WINDOW:
                raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window above 2^31-1")
        else:
            self._grow_stream(stream_id, increment)
        if self._blocked:
            self._send_unsent()

    def _grow_stream(self, stream_id: int, increment: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id not in self._reset_by_us and self._is_idle(stream_id):
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE for stream {stream_id}, not open")
            return
        if increment == 0:
            raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR)
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            raise StreamError(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        self._unblock(stream)

    def _unblock(self, stream: S) -> None:
        if stream.unsent is not None and stream.send_window > 0:
            self._blocked[stream.id] = stream

    # Out.

    def write(self, data: bytes) -> None:
        """Queue bytes for the next write. Queued bytes go out together, once per turn of the loop."""
        self._out.append(data)

    def flush_soon(self) -> None:
        """Write what is queued, and what this turn of the loop will add to it, in one go."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self.flush)

    def _flush_overdue(self) -> None:
        self._flush_due = False
        self.flush()

    def flush(self) -> None:
        """Write what is queued; after the end it goes nowhere."""
        self._flush_scheduled = False
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            if self.transport is not None and not self.transport.is_closing():
                self.transport.write(data)

    def send_body(self, stream: S, head: bytes, body: bytes, tail: bytes) -> None:
        """Send `head` (whole frames), then `body` as DATA as the peer's windows allow, then `tail` (whole frames).

        With an empty `tail` the last DATA ends the stream. The frames are queued; call :meth:`flush_soon`.
        """
        size = len(body)
        if (
            size <= stream.send_window
            and size <= self._send_window
            and size <= self._peer_max_frame
            and not self._write_paused
        ):
            stream.send_window -= size
            self._send_window -= size
            self._out.append(head + frames.frame(frames.DATA, 0 if tail else END_STREAM, stream.id, body) + tail)
            self._end_locally(stream)
            return
        self._out.append(head)
        stream.unsent = (memoryview(body), tail)
        self._unblock(stream)
        self._send_unsent()

    def _send_unsent(self) -> None:
        """Send as much of the waiting bodies as the windows and the transport allow, a frame of each in turn."""
        queued = 0
        while self._blocked and self._send_window > 0 and not self._write_paused:
            queued += self._send_some(self._blocked.popitem(last=False)[1])
            if queued >= _WRITE_SIZE:
                self.flush()
                queued = 0
        if queued:
            self.flush_soon()

    def _send_some(self, stream: S) -> int:
        """Queue one frame of a stream's body; returns its size."""
        if stream.unsent is None or stream.send_window <= 0:
            return 0
        body, tail = stream.unsent
        size = min(len(body), stream.send_window, self._send_window, self._peer_max_frame)
        stream.send_window -= size
        self._send_window -= size
        last = size == len(body)
        flags = END_STREAM if last and not tail else 0
        self._out.append(frames.frame(frames.DATA, flags, stream.id, bytes(body[:size])))
        if last:
            self._out.append(tail)
            self._end_locally(stream)
        else:
            stream.unsent = (body[size:], tail)
            self._unblock(stream)
        return size

    def end_stream(self, stream: S, last: bytes) -> None:
        """Queue `last`, whole frames that end our side of the stream."""
        self._out.append(last)
        self._end_locally(stream)

    def _end_locally(self, stream: S) -> None:
        stream.local_ended = True
        stream.unsent = None
        if stream.remote_ended:
            self._forget(stream)
        else:
            self.answered_early(stream)

    def answered_early(self, stream: S) -> None:
        """Our side of the stream ended before the peer's."""

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End one stream early."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._forget(stream)
        self._remember_reset(stream_id)
        self.write(frames.rst_stream(stream_id, code))

    def _remember_reset(self, stream_id: int) -> None:
        self._reset_by_us[stream_id] = None
        if len(self._reset_by_us) > _REMEMBERED_RESETS:
            self._reset_by_us.popitem(last=False)

    def _forget(self, stream: S) -> None:
        stream.closed = True
        self.streams.pop(stream.id, None)
        if stream.unsent is not None:
            stream.unsent = None
            self._blocked.pop(stream.id, None)
        self.stream_closed(stream)

    def stream_closed(self, stream: S) -> None:
        """A stream has ended for both sides or was reset; it is no longer in :attr:`streams`."""

    def ping(self, payload: bytes) -> None:
        """Ask the peer for a sign of life; see :meth:`ping_acknowledged`."""
        self.write(frames.frame(frames.PING, 0, 0, payload))

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, reason: str = "") -> None:
        """Say GOAWAY and close."""
        if self.closing:
            return
        self.closing = True
        self.write(frames.goaway(self._last_peer_stream, code, reason))
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now, with whatever is unsent."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    # The transport's back pressure (asyncio.BaseProtocol calls these).

    def pause_writing(self) -> None:
        """The peer does not read: hold bodies back."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._write_paused = False
        self._send_unsent()
        self.flush()


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "padding as long as the frame")
    return payload[1 : len(payload) - payload[0]]
