"""Frames and header blocks, read back by decoders that are not ours."""

from __future__ import annotations

import pytest
from hpack import Decoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from daprfunc.http2 import frames
from daprfunc.http2.frames import ErrorCode, Setting

stream_ids = st.integers(1, frames.MAX_STREAM_ID)


def parse(data: bytes) -> Frame:
    frame, length = Frame.parse_frame_header(memoryview(data[:9]))
    assert length == len(data) - 9
    frame.parse_body(memoryview(data[9:]))
    return frame


@given(stream_ids, st.binary(max_size=70_000))
def test_data(stream_id: int, payload: bytes) -> None:
    frame = parse(frames.frame(frames.DATA, frames.END_STREAM, stream_id, payload))
    assert isinstance(frame, DataFrame)
    assert (frame.stream_id, frame.data, set(frame.flags)) == (stream_id, payload, {"END_STREAM"})


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, frames.MAX_STREAM_ID), st.integers(0, 70_000))
def test_heads_read_back(kind: int, flags: int, stream_id: int, size: int) -> None:
    high, low, *rest = frames.read_head(frames.frame(kind, flags, stream_id, bytes(size)))
    assert (high << 8 | low, *rest) == (size, kind, flags, stream_id)


@given(st.integers(0, frames.MAX_STREAM_ID), st.integers(1, frames.MAX_WINDOW))
def test_window_update(stream_id: int, increment: int) -> None:
    frame = parse(frames.window_update(stream_id, increment))
    assert isinstance(frame, WindowUpdateFrame)
    assert (frame.stream_id, frame.window_increment) == (stream_id, increment)


@given(stream_ids, st.sampled_from(ErrorCode))
def test_endings(stream_id: int, code: ErrorCode) -> None:
    reset = parse(frames.rst_stream(stream_id, code))
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (stream_id, code)
    goaway = parse(frames.goaway(stream_id, code, "why — ☃"))
    assert isinstance(goaway, GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code, goaway.additional_data.decode()) == (stream_id, code, "why — ☃")


@given(st.dictionaries(st.sampled_from(Setting), st.integers(0, 2**32 - 1)))
def test_settings(values: dict[Setting, int]) -> None:
    data = frames.settings(values)
    frame = parse(data)
    assert isinstance(frame, SettingsFrame)
    assert frame.settings == values
    assert dict(frames.read_settings(data[9:])) == values


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=300), st.booleans()), max_size=9))
def test_header_blocks(pairs: list[tuple[bytes, bytes, bool]]) -> None:
    decoder = Decoder()
    block = b"".join(frames.field(name, value, secret=secret) for name, value, secret in pairs)
    found = decoder.decode(block, raw=True)
    assert [(bytes(name), bytes(value)) for name, value in found] == [(name, value) for name, value, _ in pairs]
    assert [found_.indexable for found_ in found] == [not secret for _, _, secret in pairs]
    assert not list(decoder.header_table.dynamic_entries)  # Blocks depend on nothing, and leave nothing behind.


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 256, 16_382, 16_511, 16_512, 60_000])
def test_lengths(size: int) -> None:
    decoder = Decoder(max_header_list_size=200_000)
    (found,) = decoder.decode(frames.fields((b"n" * (size or 1), b"v" * size)), raw=True)
    assert (len(found[0]), len(found[1])) == (size or 1, size)
