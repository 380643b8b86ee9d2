"""Callers that flood, stall or never read: the app gives them up, stays small, and answers the others."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daprfunc.http2 import frames
from daprfunc.http2.frames import Setting
from tests.e2e.app import FunctionApp
from tests.e2e.load import GrpcCaller, HttpCaller, Tally
from tests.e2e.memory import MIB, open_files, resident
from tests.e2e.processes import wait_until
from tests.e2e.wire import (
    GREETING,
    call,
    call_head,
    connect,
    invoke,
    parse_frames,
    parse_responses,
    post,
    read_to_end,
    send_all,
)

pytestmark = pytest.mark.e2e

APP = Path(__file__).parents[1] / "apps" / "faults"
ENHANCE_YOUR_CALM = 0xB
# What an attack may leave behind: allocators keep some of what they once had.
MEMORY = 48 * MIB
SLACK = 1.0


@pytest.fixture(scope="module")
def app() -> Iterator[FunctionApp]:
    with FunctionApp(APP, env={"DAPR_GRPC_PORT": "1", "DAPR_HEALTH_TIMEOUT": "3600"}) as running:
        with HttpCaller(running.port) as http, GrpcCaller(running.port) as grpc:
            for _ in range(200):  # so that what is made once is made before memory is measured
                http.post("echo", "warm")
                grpc.post("echo", "warm")
        yield running


@pytest.fixture(autouse=True)
def unharmed(app: FunctionApp, figure: Callable[[object], None]) -> Iterator[None]:
    """The app ends each test as it began: no more memory, no more files, no traceback, and it answers."""
    memory, files = resident(app.process.pid), open_files(app.process.pid)
    with GrpcCaller(app.port) as grpc, HttpCaller(app.port) as http:
        assert grpc.post("echo", "before") == ("OK", '"before"')
        yield
        assert grpc.post("echo", "after") == ("OK", '"after"')
        assert http.post("echo", "after") == (200, '"after"')
    wait_until(lambda: open_files(app.process.pid) <= files, "its sockets to be closed", 5)
    grown = resident(app.process.pid) - memory
    figure(f"memory grew by {grown / MIB:.1f} MiB; the next invocations were answered")
    assert grown < MEMORY
    assert "Traceback" not in app.output, app.output[-3000:]


def last_word(data: bytes) -> tuple[int, str]:
    """The code and the text of the GOAWAY at the end of a connection."""
    frame = next(frame for frame in parse_frames(data) if frame.kind == frames.GOAWAY)
    return frames.read_uint32(frame.payload, 4), frame.payload[8:].decode()


@pytest.mark.parametrize(
    ("flood", "status"),
    [
        (b"".join(b"x-%d: y\r\n" % number for number in range(20_000)), 431),
        (b"x: " + b"y" * 2_000_000 + b"\r\n", 431),
        (b"x" * 2_000_000 + b": y\r\n", 431),
    ],
    ids=["many headers", "a long value", "a long name"],
)
def test_header_flood_over_http1(app: FunctionApp, flood: bytes, status: int) -> None:
    with connect(app.port) as connection:
        send_all(connection, b"POST /echo HTTP/1.1\r\nhost: app\r\n" + flood + b"\r\n\r\n")
        received, closed = read_to_end(connection)
    assert closed
    # What it had not read yet when it closed may have reset the connection, and the answer with it.
    assert not received or parse_responses(received)[0][0] == status


def test_a_target_without_end(app: FunctionApp) -> None:
    with connect(app.port) as connection:
        send_all(connection, b"POST /" + b"a" * 60_000 + b" HTTP/1.1\r\nhost: app\r\n\r\n")
        received, closed = read_to_end(connection)
    assert closed
    assert [status for status, _ in parse_responses(received)] == [414]


@pytest.mark.parametrize("beginning", [b"x-name", b"x: ", b"x: y\r\n "], ids=["name", "value", "folded value"])
def test_a_header_without_end(app: FunctionApp, beginning: bytes, figure: Callable[[object], None]) -> None:
    before, sent = resident(app.process.pid), 0
    with connect(app.port, seconds=3) as connection:
        going = send_all(connection, b"POST /echo HTTP/1.1\r\nhost: app\r\n" + beginning)
        while going and sent < 80 * MIB:
            going = send_all(connection, b"y" * 65_536)
            sent += 65_536
        grown = resident(app.process.pid) - before
        received, _ = read_to_end(connection)
    figure(f"sent {sent / MIB:.1f} MiB of one header; it grew by {grown / MIB:.1f} MiB")
    assert grown < MEMORY
    # It may read on for a while, so that its answer is not lost in a reset.
    assert going or not received or parse_responses(received)[0][0] in (400, 431)
    assert not going or parse_responses(received)[0][0] in (400, 431), "it should have refused the header"


def header_flood() -> bytes:
    block = frames.fields(*((b"x-%d" % number, b"y" * 100) for number in range(2_000)))
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    return frames.frame(frames.HEADERS, 0, 1, pieces[0]) + b"".join(
        frames.frame(frames.CONTINUATION, 0, 1, piece) for piece in pieces[1:]
    )


def continuation_flood() -> bytes:
    return frames.frame(frames.HEADERS, 0, 1, call_head()) + frames.frame(frames.CONTINUATION, 0, 1) * 100_000


def header_bomb() -> bytes:
    """One large field that enters the table, then thousands of references to it (one byte each)."""
    enters = b"\x40" + frames.field(b"x", b"y" * 3_900)[1:]
    return frames.frame(frames.HEADERS, 5, 1, call_head() + enters + b"\xbe" * 12_000)


@pytest.mark.parametrize("flood", [header_flood, continuation_flood, header_bomb])
def test_header_flood_over_http2(app: FunctionApp, flood: Callable[[], bytes]) -> None:
    with connect(app.port) as connection:
        send_all(connection, GREETING + flood())
        received, closed = read_to_end(connection)
    assert closed
    if received.startswith(b"\0"):
        code, text = last_word(received)
        assert code == ENHANCE_YOUR_CALM
        assert "header" in text


@pytest.mark.parametrize("began", [True, False], ids=["functions began", "functions did not begin"])
def test_rapid_reset(app: FunctionApp, began: bool, figure: Callable[[object], None]) -> None:
    calls = 30_000
    request = invoke("sleeps", b'{"seconds": 30, "name": "reset"}')
    tally = Tally()
    with connect(app.port) as connection, HttpCaller(app.port) as neighbour:
        send_all(connection, GREETING)
        sent = 0
        while sent < calls:
            burst = b"".join(
                (call(stream, request) if began else frames.frame(frames.HEADERS, 4, stream, call_head()))
                + frames.rst_stream(stream, frames.ErrorCode.CANCEL)
                for stream in range(2 * sent + 1, 2 * sent + 2_001, 2)
            )
            sent += 1_000
            if not send_all(connection, burst):
                break
            tally.take(lambda: neighbour.post("echo", "neighbour")[0])
        received, closed = read_to_end(connection)
    assert closed
    if b"cancelled requests" in received:
        assert last_word(received)[0] == ENHANCE_YOUR_CALM
    figure(f"the attacker was cut off after {sent} calls at most; a neighbour meanwhile: {tally}")
    assert sent < calls
    assert set(tally.answers) == {"200"}
    with HttpCaller(app.port) as counter:
        wait_until(lambda: counter.post("running", "reset") == (200, "0"), "every function to be cancelled", 5)


def pings() -> bytes:
    return frames.frame(frames.PING, 0, 0, b"01234567") * 4_000


def setting_changes() -> bytes:
    return frames.settings({Setting.HEADER_TABLE_SIZE: 4_096}) * 4_000


@pytest.mark.parametrize("flood", [pings, setting_changes])
def test_a_flood_that_is_never_read(
    app: FunctionApp, flood: Callable[[], bytes], figure: Callable[[object], None]
) -> None:
    """Each frame wants an answer, and the caller reads none: the app must not pile them up."""
    before, burst, sent = resident(app.process.pid), flood(), 0
    with connect(app.port, seconds=3) as connection:
        going = send_all(connection, GREETING)
        while going and sent < 128 * MIB:
            going = send_all(connection, burst)
            sent += len(burst)
        with HttpCaller(app.port) as neighbour:
            assert neighbour.post("echo", "neighbour")[0] == 200
        grown = resident(app.process.pid) - before
    figure(f"took {sent / MIB:.0f} MiB of frames, and grew by {grown / MIB:.1f} MiB while they were unread")
    assert grown < MEMORY


@pytest.mark.parametrize("protocol", ["http1", "http2"])
def test_replies_that_are_never_read(app: FunctionApp, protocol: str, figure: Callable[[object], None]) -> None:
    before, body, sent, stream = resident(app.process.pid), b"y" * 15_000, 0, 1
    with connect(app.port, seconds=3) as connection:
        if protocol == "http2":
            wide = frames.settings({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW})
            send_all(connection, frames.PREFACE + wide + frames.window_update(0, frames.MAX_WINDOW - 65_535))
        going = True
        while going and sent < 128 * MIB:
            if protocol == "http1":
                request = post("/echo", body) * 16
            else:
                request = b"".join(call(stream + 2 * at, invoke("echo", body)) for at in range(16))
                stream += 32
            going = send_all(connection, request)
            sent += len(request)
        with HttpCaller(app.port) as neighbour:
            assert neighbour.post("echo", "neighbour")[0] == 200
        grown = resident(app.process.pid) - before
    figure(f"took {sent / MIB:.0f} MiB of requests, and grew by {grown / MIB:.1f} MiB while its replies were unread")
    assert grown < MEMORY


def slow_callers(port: int, stack: ExitStack) -> dict[str, list[socket.socket]]:
    """Connections that say too little, by what they say."""
    beginnings = {
        "nothing": b"",
        "half a preface": frames.PREFACE[:10],
        "half a head": b"POST /echo HTTP/1.1\r\nhost: a",
        "half a body": post("/echo", b"x" * 10)[:-5],
        "half a call": GREETING + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, call_head()),
    }
    callers = {}
    for name, beginning in beginnings.items():
        callers[name] = [stack.enter_context(connect(port)) for _ in range(1_000 if name == "nothing" else 50)]
        for caller in callers[name]:
            send_all(caller, beginning)
    return callers


@pytest.mark.timeout(150)
def test_idle_connections_and_slow_loris(app: FunctionApp, figure: Callable[[object], None]) -> None:
    """1,000 connections that say nothing and 200 that trickle. After a minute the app has given them up."""
    tally, took, ends = Tally(), [], {}
    with ExitStack() as stack:
        callers = slow_callers(app.port, stack)
        http = stack.enter_context(HttpCaller(app.port))
        grpc = stack.enter_context(GrpcCaller(app.port))
        started = time.monotonic()
        while time.monotonic() < started + 64:
            begun = time.monotonic()
            tally.take(lambda: http.post("echo", "neighbour")[0])
            tally.take(lambda: grpc.post("echo", "neighbour")[0])
            took.append(time.monotonic() - begun)
            for caller in callers["half a head"]:
                send_all(caller, b"a")
            time.sleep(0.5)
        for name, connections in callers.items():
            ends[name] = Counter(how_it_ended(caller) for caller in connections)
    figure(f"{tally} beside 1,200 slow callers, at most {max(took) * 1000:.0f} ms; they ended: {ends}")
    assert tally.lost == 0
    assert max(took) < SLACK
    assert ends == {
        "nothing": {"closed": 1_000},
        "half a preface": {"closed": 50},
        "half a head": {"408": 50},
        "half a body": {"408": 50},
        "half a call": {"reset": 50},
    }


def how_it_ended(caller: socket.socket) -> str:
    caller.settimeout(0.05)
    received, closed = read_to_end(caller)
    if received.startswith(b"HTTP"):
        return str(parse_responses(received)[0][0])
    if any(frame.kind == frames.RST_STREAM for frame in parse_frames(received)):
        return "reset"
    return "closed" if closed else "open"
