"""HTTP/2 frames and header blocks as bytes (RFC 9113, RFC 7541)."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEADER_SIZE = 9
DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1
MIN_MAX_FRAME_SIZE = 16_384
MAX_MAX_FRAME_SIZE = 2**24 - 1

# Frame types. Plain numbers: they are compared for every frame, and an enum member costs a look-up each time.
DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

# Flags.
ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """The parameters that a SETTINGS frame carries (RFC 9113, section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


# A frame header: 24 bits of length (as 16 + 8), type, flags, stream id.
_HEAD = struct.Struct(">HBBBL")
read_head = _HEAD.unpack_from
_pack_head = _HEAD.pack
_UINT32 = struct.Struct(">L")
_SETTING = struct.Struct(">HL")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one whole frame."""
    size = len(payload)
    return _pack_head(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def grpc_message(message: bytes) -> bytes:
    """Return a message with gRPC's own prefix: not compressed, and its length."""
    return b"\0" + _UINT32.pack(len(message)) + message


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a frame that lets the peer send `increment` more bytes."""
    return frame(WINDOW_UPDATE, 0, stream_id, _UINT32.pack(increment))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """Return a frame that ends one stream."""
    return frame(RST_STREAM, 0, stream_id, _UINT32.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, debug: str = "") -> bytes:
    """Return a frame that announces the connection's end; `debug` tells a person why."""
    return frame(GOAWAY, 0, 0, _UINT32.pack(last_stream_id) + _UINT32.pack(code) + debug.encode())


def settings(values: dict[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the parameters of a SETTINGS frame, in their order, unknown ones included."""
    return list(_SETTING.iter_unpack(payload))


def read_uint32(payload: bytes, offset: int = 0) -> int:
    """Return the 32-bit number at `offset`."""
    value: int = _UINT32.unpack_from(payload, offset)[0]
    return value


def _integer(value: int, prefix_bits: int, first: int) -> bytes:
    """Encode an integer after the bits of `first` (RFC 7541, section 5.1)."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(name: bytes, value: bytes, *, secret: bool = False) -> bytes:
    """Return a header field as a literal that enters no table (RFC 7541, section 6.2.2 and 6.2.3).

    Blocks made of such literals depend on nothing that was sent before, so they can be built once and sent by any
    connection. `secret` forbids intermediaries to index the field either.
    """
    first = b"\x10" if secret else b"\x00"
    return first + _integer(len(name), 7, 0) + name + _integer(len(value), 7, 0) + value


def fields(*pairs: tuple[bytes, bytes]) -> bytes:
    """Return a header block of literals."""
    return b"".join(field(name, value) for name, value in pairs)
