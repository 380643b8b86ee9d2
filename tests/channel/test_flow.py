"""Flow control and back pressure on HTTP/2: what callers may hold up, and what they may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daprfunc.http2 import frames
from daprfunc.http2.frames import ErrorCode, Setting
from tests.channel.peer import Frame, Http2Peer, call, data, headers, http2, post, read_side, request_fields
from tests.channel.serving import Served, serving

MIB = 2**20
WINDOW = frames.DEFAULT_WINDOW
FRAME = frames.MIN_MAX_FRAME_SIZE


class Meter:
    """Reads replies, holds the server to the windows that it was given, and opens them only when they are used up."""

    def __init__(self, peer: Http2Peer, step: int, *, stream_window: int = WINDOW) -> None:
        self.peer = peer
        self.step = step
        self.connection = WINDOW
        self.initial = stream_window
        self.streams: dict[int, int] = {}

    async def frame(self) -> Frame:
        """Read one frame; grant more where a window is used up."""
        frame = await self.peer.frame()
        if frame.kind == frames.DATA:
            self.connection -= len(frame.payload)
            window = self.streams.get(frame.stream, self.initial) - len(frame.payload)
            assert min(window, self.connection) >= 0
            assert len(frame.payload) <= FRAME
            if window == 0 and not frame.ended:
                self.peer.send(frames.window_update(frame.stream, self.step))
                window = self.step
            if self.connection == 0:
                self.peer.send(frames.window_update(0, self.step))
                self.connection = self.step
            self.streams[frame.stream] = window
        return frame

    async def until_ended(self, *streams: int) -> None:
        while not all(stream in self.peer.replies and self.peer.replies[stream].ended for stream in streams):
            await self.frame()


def blocked(served: Served) -> list[int]:
    """Streams that have more to send than the windows allow."""
    return [
        stream.id for connection in served.http2_connections for stream in connection.streams.values() if stream.unsent
    ]


async def assert_well(served: Served, peer: Http2Peer, stream: int) -> None:
    """The connection serves on, and nothing is left of what went before."""
    peer.send(frames.window_update(0, 1_000_000), post(stream, b"/echo"))
    assert (await peer.reply(stream)).ended
    connection = served.connection
    await served.until(lambda: not connection._running)
    assert not connection.streams
    assert not connection._blocked
    assert connection._buffered == 0


@pytest.mark.parametrize(
    ("size", "step"),
    [
        (50_000, 7),
        (WINDOW, 100),
        (WINDOW + 1, 5_000),
        (200_000, 1_000),
        (MIB, 7_777),
        (MIB, FRAME),
        (4 * MIB, WINDOW),
        (4 * MIB, MIB),
    ],
)
async def test_replies_that_the_caller_takes_slowly(size: int, step: int) -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(post(1, b"/big", b"%d" % size), call(3, "big", b"%d" % (size // 2)))
        await Meter(peer, step).until_ended(1, 3)
        assert peer.replies[1].body == bytes(size)
        assert peer.replies[3].data == bytes(size // 2)
        assert peer.replies[3].status == "0"
        await assert_well(served, peer, 5)


async def test_streams_take_turns_in_the_connections_window() -> None:
    streams = range(1, 41, 2)
    async with serving() as served, http2(served.port, {Setting.INITIAL_WINDOW_SIZE: MIB}) as peer:
        for stream in streams:
            peer.send(post(stream, b"/big", b"200000"))
        await served.until(lambda: len(blocked(served)) == len(streams))
        await peer.settled()
        begun = {stream: len(peer.replies[stream].body) for stream in streams}
        assert sum(begun.values()) == WINDOW
        for _ in range(4):
            before = {stream: len(peer.replies[stream].body) for stream in streams}
            peer.send(frames.window_update(0, FRAME * len(streams)))
            await peer.settled()
            assert [len(peer.replies[stream].body) - before[stream] for stream in streams] == [FRAME] * len(streams)
        peer.send(frames.window_update(0, 8 * MIB))
        for stream in streams:
            assert (await peer.reply(stream)).body == bytes(200_000)
        await assert_well(served, peer, 99)


async def test_a_stream_whose_window_is_closed_holds_up_no_other() -> None:
    async with serving() as served, http2(served.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(frames.window_update(0, 8 * MIB), *(post(stream, b"/big", b"100") for stream in range(1, 21, 2)))
        await served.until(lambda: len(blocked(served)) == 10)
        assert not served.connection._blocked  # Nothing that a WINDOW_UPDATE would have to go through.
        peer.send(frames.window_update(7, 40), frames.window_update(9, 1_000))
        assert (await peer.reply(9)).body == bytes(100)
        await peer.settled()
        assert {stream: len(reply.body) for stream, reply in peer.replies.items() if reply.body} == {7: 40, 9: 100}
        peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 60}))
        assert (await peer.reply(7)).body == bytes(100)
        await peer.settled()
        assert [len(peer.replies[stream].body) for stream in (1, 3, 5, 11)] == [60] * 4
        peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: WINDOW}))
        for stream in range(1, 21, 2):
            assert (await peer.reply(stream)).body == bytes(100)
        await assert_well(served, peer, 99)


async def test_only_streams_that_could_go_on_wait_for_the_connections_window() -> None:
    """Else each WINDOW_UPDATE of one byte could make us go through thousands of streams that it does not help."""
    async with serving() as served, http2(served.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(post(1, b"/big", b"100000"), frames.window_update(1, 100_000))
        await served.until(lambda: blocked(served) == [1])
        peer.send(*(post(stream, b"/big", b"100") for stream in range(3, 21, 2)))
        await served.until(lambda: len(blocked(served)) == 10)
        assert list(served.connection._blocked) == [1]


async def test_windows_may_become_negative() -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(frames.window_update(0, MIB), post(1, b"/big", b"200000"))
        await served.until(lambda: blocked(served) == [1])

        async def taken(*sent: bytes) -> int:
            peer.send(*sent)
            await peer.settled()
            return len(peer.replies[1].body)

        assert await taken() == WINDOW
        assert await taken(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10_000})) == WINDOW
        assert await taken(frames.window_update(1, WINDOW - 10_000)) == WINDOW
        assert await taken(frames.window_update(1, 1)) == WINDOW + 1
        # Streams that open now have the new size.
        assert await taken(post(3, b"/big", b"20000")) == WINDOW + 1
        await served.until(lambda: blocked(served) == [1, 3])
        await peer.settled()
        assert len(peer.replies[3].body) == 10_000
        assert await taken(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0})) == WINDOW + 1
        assert await taken(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10_007})) == WINDOW + 8
        assert len(peer.replies[3].body) == 10_007
        peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: MIB}))
        assert (await peer.reply(1)).body == bytes(200_000)
        assert (await peer.reply(3)).body == bytes(20_000)
        await assert_well(served, peer, 5)


@pytest.mark.parametrize("largest", [FRAME, 20_000, 100_000, frames.MAX_MAX_FRAME_SIZE])
async def test_frames_are_as_large_as_the_caller_takes(largest: int) -> None:
    settings = {Setting.INITIAL_WINDOW_SIZE: 8 * MIB, Setting.MAX_FRAME_SIZE: largest}
    async with serving() as served, http2(served.port, settings) as peer:
        peer.send(frames.window_update(0, 8 * MIB), post(1, b"/big", b"300000"))
        sizes = []
        frame = await peer.frame()
        while not frame.ended:
            frame = await peer.frame()
            if frame.kind == frames.DATA:
                sizes.append(len(frame.payload))
        assert max(sizes) == min(largest, 300_000)
        assert sum(sizes) == 300_000


async def test_the_callers_settings_count_from_its_first_request_on() -> None:
    settings = {Setting.INITIAL_WINDOW_SIZE: 5, Setting.MAX_FRAME_SIZE: FRAME}
    async with serving() as served, http2(served.port, settings) as peer:
        peer.send(call(1, "echo", b"x" * 100))
        await served.until(lambda: blocked(served) == [1])
        await peer.settled()
        assert len(peer.replies[1].body) == 5
        peer.send(frames.window_update(1, 1_000))
        assert (await peer.reply(1)).data == b"x" * 100


@pytest.mark.parametrize("how", ["RST_STREAM", "a fault"])
async def test_a_reset_frees_what_was_waiting(how: str) -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(post(1, b"/big", b"200000"), post(3, b"/big", b"200000"))
        await served.until(lambda: blocked(served) == [1, 3])
        reset = frames.rst_stream(1, ErrorCode.CANCEL) if how == "RST_STREAM" else frames.window_update(1, 0)
        peer.send(reset, frames.window_update(0, MIB), frames.window_update(3, MIB))
        assert (await peer.reply(3)).body == bytes(200_000)
        await assert_well(served, peer, 5)
        assert len(peer.replies[1].body) <= WINDOW


@pytest.mark.parametrize("size", [600_000, 4 * MIB])
async def test_large_requests_within_the_servers_windows(size: int) -> None:
    async with serving(max_body_size=8 * MIB) as served, http2(served.port) as peer:
        peer.send(headers(1, request_fields(), end=False), frames.window_update(0, 8 * MIB))
        peer.send(frames.window_update(1, 8 * MIB))
        windows = {0: WINDOW, 1: WINDOW}
        left = size
        while left:
            room = min(left, FRAME, *windows.values())
            if room:
                left -= room
                windows = {stream: window - room for stream, window in windows.items()}
                peer.send(data(1, bytes(room), end=not left))
                continue
            frame = await peer.frame()
            if frame.kind == frames.WINDOW_UPDATE:
                windows[frame.stream] += frames.read_uint32(frame.payload)
            elif frame.kind == frames.SETTINGS and not frame.flags:
                windows[1] += dict(frames.read_settings(frame.payload))[Setting.INITIAL_WINDOW_SIZE] - WINDOW
        assert (await peer.reply(1)).body == bytes(size)
        await assert_well(served, peer, 3)


async def test_what_arrives_for_streams_that_are_gone_is_given_back_to_the_connection() -> None:
    async with serving() as served, http2(served.port) as peer:
        peer.send(headers(1, request_fields(), end=False), frames.rst_stream(1, ErrorCode.CANCEL))
        peer.send(headers(3, request_fields(b"POST", b"/echo", (b"content-length", b"999999")), end=False))
        assert (await peer.reply(3)).status == "413"
        granted = 0
        for _ in range(320):
            peer.send(data(3, bytes(FRAME), end=False), frames.frame(frames.DATA, frames.PADDED, 3, b"\x09" + bytes(9)))
        for _ in range(320):
            peer.send(data(3, bytes(2 * FRAME), end=False))
        await peer.writer.drain()
        while granted < 8 * MIB:
            frame = await peer.frame_of(frames.WINDOW_UPDATE)
            assert frame.stream == 0
            granted += frames.read_uint32(frame.payload)
        await assert_well(served, peer, 5)


# A caller that does not read.


GET_HEALTH = request_fields(b"GET", b"/healthz")


def pings(count: int, first: int) -> bytes:
    return frames.frame(frames.PING, 0, 0, b"floodfld") * count


def requests(count: int, first: int) -> bytes:
    return b"".join(headers(stream, GET_HEALTH) for stream in range(first, first + 2 * count, 2))


@pytest.mark.parametrize("flood", [pings, requests])
async def test_a_caller_that_does_not_read_is_not_read_from(flood: Callable[[int, int], bytes]) -> None:
    """CVE-2019-9512, "ping flood", and its kin: what we would have to answer must not pile up here."""
    async with (
        serving(send_buffer=8_192) as served,
        http2(served.port, receive_buffer=8_192, limit=1_024) as peer,
    ):
        await peer.settled()
        read_side(peer.writer).pause_reading()
        connection = served.connection
        transport = connection.transport
        first = 1
        while not connection._write_paused:
            peer.send(flood(500, first))
            first += 1_000
            await a_few_turns(served)
            assert first < 1_000_000, "it never stopped to take more"
        assert not transport.is_reading()
        await a_few_turns(served)
        held = transport.get_write_buffer_size()
        assert held < MIB
        peer.send(flood(20_000, first))
        first += 40_000
        await a_few_turns(served)
        assert transport.get_write_buffer_size() == held
        # It reads again: nothing was lost, and the connection is as good as ever.
        read_side(peer.writer).resume_reading()
        await peer.settled()
        await served.until(lambda: not connection.streams)
        await assert_well(served, peer, first)
        assert transport.is_reading()


async def a_few_turns(served: Served) -> None:
    """Let both ends do what they can now."""
    turns = iter(range(20))
    await served.until(lambda: next(turns, None) is None)


async def test_bodies_are_held_back_from_a_caller_that_does_not_read() -> None:
    settings = {Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW}
    async with (
        serving(send_buffer=8_192) as served,
        http2(served.port, settings, receive_buffer=8_192, limit=1_024) as peer,
    ):
        peer.send(frames.window_update(0, frames.MAX_WINDOW - WINDOW))
        await peer.settled()
        read_side(peer.writer).pause_reading()
        peer.send(*(post(stream, b"/big", b"%d" % (4 * MIB)) for stream in range(1, 17, 2)))
        connection = served.connection
        await served.until(lambda: len(blocked(served)) == 8)
        assert connection.transport.get_write_buffer_size() < MIB
        read_side(peer.writer).resume_reading()
        for stream in range(1, 17, 2):
            assert len((await peer.reply(stream)).body) == 4 * MIB
        await assert_well(served, peer, 99)
