"""HTTP/1.1 and HTTP/2 by hand: callers that send any bytes, and a strict reading of what they get."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from daprfunc.http2 import frames
from daprfunc.rpc.common_pb2 import InvokeRequest

GREETING = frames.PREFACE + frames.settings({})
ON_INVOKE = b"/dapr.proto.runtime.v1.AppCallback/OnInvoke"


def connect(port: int, seconds: float = 10.0) -> socket.socket:
    """Connect to an app on loopback; nothing on the connection may take longer than `seconds`."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def send_all(connection: socket.socket, data: bytes) -> bool:
    """Send `data`; False if the other side closed or stopped reading before its end."""
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True


def read_to_end(connection: socket.socket) -> tuple[bytes, bool]:
    """Read until the other side closes: what came, and whether it did close before the time was over."""
    received = b""
    try:
        while data := connection.recv(65_536):
            received += data
    except TimeoutError:
        return received, False
    except OSError:
        return received, True
    return received, True


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    """One HTTP/1.1 request."""
    head = "\r\n".join((f"POST {path} HTTP/1.1", "host: app", f"content-length: {len(body)}", *headers, "", ""))
    return head.encode("latin-1") + body


def call_head(path: bytes = ON_INVOKE) -> bytes:
    """The header block of a gRPC call."""
    return frames.fields(
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"app"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )


def call(stream: int, message: bytes, path: bytes = ON_INVOKE) -> bytes:
    """The frames of a gRPC call."""
    body = b"\0" + len(message).to_bytes(4, "big") + message
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, call_head(path)) + frames.frame(
        frames.DATA, frames.END_STREAM, stream, body
    )


def invoke(method: str, data: bytes) -> bytes:
    """A serialized InvokeRequest."""
    request = InvokeRequest(method=method)
    request.data.value = data
    return bytes(request.SerializeToString())


@dataclass(frozen=True)
class Frame:
    """One HTTP/2 frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def parse_frames(data: bytes) -> list[Frame]:
    """Read whole frames; fails on what no HTTP/2 server would send."""
    parsed, position = [], 0
    while position < len(data):
        assert len(data) - position >= frames.HEADER_SIZE, f"a cut frame: {data[position:]!r}"
        high, low, kind, flags, stream = frames.read_head(data, position)
        start, position = position + frames.HEADER_SIZE, position + frames.HEADER_SIZE + (high << 8 | low)
        assert position <= len(data), f"a cut frame of type {kind}"
        assert kind <= frames.CONTINUATION, f"an unknown frame type {kind}"
        parsed.append(Frame(kind, flags, stream, data[start:position]))
    return parsed


RESPONSE = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[!-9;-~]+: [^\r\n]*\r\n)+)\r\n")


def parse_responses(data: bytes) -> list[tuple[int, bytes]]:
    """Read whole HTTP/1.1 responses, status and body; fails on anything else."""
    parsed, position = [], 0
    while position < len(data):
        match = RESPONSE.match(data, position)
        assert match, f"no HTTP/1.1 response: {data[position : position + 200]!r}"
        length = re.search(rb"^content-length: (\d+)\r$", match[2], re.MULTILINE)
        assert length or match[1] == b"100", f"no content-length: {match[0]!r}"
        end = match.end() + (int(length[1]) if length else 0)
        assert end <= len(data), "a cut body"
        parsed.append((int(match[1]), data[match.end() : end]))
        position = end
    return parsed
