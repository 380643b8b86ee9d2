"""Bytes on the app's port, generated, against a real process: never a hang, a crash, or a traceback to the caller."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from hypothesis import strategies as st

from daprfunc.http2 import frames
from tests.e2e.app import FunctionApp
from tests.e2e.load import GrpcCaller, HttpCaller
from tests.e2e.memory import MIB, open_files, resident
from tests.e2e.processes import wait_until
from tests.e2e.wire import (
    GREETING,
    ON_INVOKE,
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
from tests.fuzz.depth import depths, fuzz

# One example is so many connections at once: most of the time of one goes by in waiting for an answer that never comes.
BATCH = 8
# How long a connection that says too little for an answer is given for one.
PATIENCE = 0.03
MEMORY = 24 * MIB


@pytest.fixture(autouse=True)
def unharmed(app: FunctionApp) -> Iterator[None]:
    """One connection of each protocol outlives all that goes wrong on others; nothing is left behind."""
    with GrpcCaller(app.port) as grpc_caller, HttpCaller(app.port) as http:
        for _ in range(20):
            assert grpc_caller.post("echo", "before") == ("OK", '"before"')
            assert http.post("echo", "before") == (200, '"before"')
        memory, files = resident(app.process.pid), open_files(app.process.pid)
        yield
        assert grpc_caller.post("echo", "after") == ("OK", '"after"')
        assert http.post("echo", "after") == (200, '"after"')
    wait_until(lambda: open_files(app.process.pid) <= files, "its sockets to be closed", 5)
    assert resident(app.process.pid) - memory < MEMORY
    assert "Traceback" not in app.output, app.output[-3000:]


def exchange(port: int, requests: list[bytes]) -> list[tuple[bytes, bool]]:
    """Send each request on a connection of its own; what came back of each, and whether it was closed."""
    connections = [connect(port) for _ in requests]
    try:
        for connection, request in zip(connections, requests, strict=True):
            send_all(connection, request)
        received = []
        patience = PATIENCE
        for connection in connections:
            connection.settimeout(patience)
            received.append(read_to_end(connection))
            patience = 0.002  # all of them have waited while the first one did
        return received
    finally:
        for connection in connections:
            connection.close()


def assert_harmless(text: bytes) -> None:
    for word in (b"Traceback", b'File "', b".py", b"0x7f"):
        assert word not in text, text


verbs = st.sampled_from([b"POST", b"GET", b"HEAD", b"PUT", b"CONNECT", b"post", b"", b"PRI", b"P\0ST"])
targets = st.sampled_from([b"/echo", b"/", b"*", b"//echo", b"/%ff%00", b"http://x/echo", b"/echo?a=b#c", b"", b"/e\0"])
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"", b"http/1.1", b"HTTP/1.1 "])
header_lines = st.sampled_from(
    [
        b"content-length: 3",
        b"content-length: -1",
        b"content-length: 99999999999999999999",
        b"content-length: 3\r\ncontent-length: 4",
        b"transfer-encoding: chunked",
        b"transfer-encoding: chunked, gzip",
        b"transfer-encoding: chunked\r\ncontent-length: 3",
        b"expect: 100-continue",
        b"connection: close",
        b"connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA",
        b"upgrade: websocket",
        b"content-type: application/json",
        b"content-type: \xff\xfe",
        b"traceparent: nonsense",
        b": no name",
        b"no colon",
        b" folded",
        b"dapr-api-token: x",
    ]
) | st.binary(max_size=12)
bodies = st.sampled_from(
    [b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffff\r\nabc", b'"\xff"']
) | st.binary(max_size=20)


@st.composite
def http1_requests(draw: st.DrawFn) -> bytes:
    lines = [draw(verbs) + b" " + draw(targets) + b" " + draw(versions), *draw(st.lists(header_lines, max_size=5))]
    ending = draw(st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\n\r\n"]))
    request = ending.join(lines) + ending * 2 + draw(bodies)
    pipelined = draw(st.sampled_from([b"", post("/echo", b'"x"'), request]))
    return (request + pipelined)[: draw(st.integers(0, 400) | st.just(100_000))]


@depths(190)
def test_http1_bytes(app: FunctionApp, examples: int) -> None:
    def check(requests: list[bytes]) -> None:
        for received, _ in exchange(app.port, requests):
            # What answers a preface is HTTP/2; a HEAD's answer says the length of a body that does not come.
            if received[:1] == b"\0" or any(request.startswith(b"HEAD") for request in requests):
                continue
            for status, body in parse_responses(received):
                assert status < 500 or body == b"", (status, body)
                assert_harmless(body)

    fuzz(examples, st.lists(http1_requests() | st.binary(max_size=80), min_size=BATCH, max_size=BATCH), check)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /e\0cho HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting to a port without TLS",
    ],
)
def test_what_is_no_request_is_refused(app: FunctionApp, request_bytes: bytes) -> None:
    with connect(app.port, seconds=5) as connection:
        send_all(connection, request_bytes)
        received, closed = read_to_end(connection)
    assert closed
    ((status, body),) = parse_responses(received)
    assert status == 400
    assert body
    assert_harmless(body)


@st.composite
def http2_frames(draw: st.DrawFn) -> bytes:
    stream = draw(st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]))
    if draw(st.booleans()):
        data = draw(st.sampled_from([call(stream, invoke("echo", b'"x"')), call(stream, b"\xff", b"/no/such")]))
        at = draw(st.integers(0, len(data) - 1))
        return data[:at] + draw(st.binary(max_size=3)) + data[at + 1 :]
    payload = draw(
        st.sampled_from(
            [b"", bytes(4), bytes(5), bytes(8), b"\xff" * 6, call_head(), frames.field(b"X", b"y"), b"\x82" * 9]
        )
        | st.binary(max_size=30)
    )
    frame = frames.frame(draw(st.integers(0, 11)), draw(st.integers(0, 255)), stream, payload)
    if draw(st.integers(0, 20)) == 0:
        return draw(st.binary(min_size=3, max_size=3)) + frame[3:]  # any length
    return frame


def http2_requests() -> st.SearchStrategy[bytes]:
    greeting = st.sampled_from([GREETING, GREETING, GREETING, frames.PREFACE])
    return st.builds(lambda start, rest: start + b"".join(rest), greeting, st.lists(http2_frames(), max_size=8))


@depths(190)
def test_http2_bytes(app: FunctionApp, examples: int) -> None:
    def check(requests: list[bytes]) -> None:
        for received, _ in exchange(app.port, requests):
            parse_frames(received)
            assert_harmless(received)

    fuzz(examples, st.lists(http2_requests(), min_size=BATCH, max_size=BATCH), check)


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda data, at, junk: data[: at % (len(data) + 1)] + junk + data[at % (len(data) + 1) + 1 :],
        whole,
        st.integers(0, 1_000),
        st.binary(max_size=3),
    )


routes = st.sampled_from(["echo", "typed", "tree", "no such", "", "/echo/", "ECHO", "e" * 5_000, "e\ncho", "\u2028"])
json_bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "tags", "price", "x"]), inner),
    max_leaves=10,
).map(lambda tree: json.dumps(tree).encode())
odd_bodies = st.sampled_from(
    [
        b"",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"' + b"\\u0000" * 1_000,
        b"1" * 5_000,
        b"1e999999",
        b"-",
        b"\xff\xfe",
        b'{"id": 1' + b"0" * 400 + b', "tags": []}',
        b"[" + b"1," * 50_000 + b"1]",
        b'"\\ud800"',
        b"\xef\xbb\xbf1",
        b" " * 9,
    ]
)
all_bodies = json_bodies | damaged(json_bodies) | odd_bodies | st.binary(max_size=40)

# What a message from outside can be answered with; a function's own failure would be UNKNOWN or INTERNAL.
CALLERS_FAULT = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}


@depths(1_500)
def test_protobuf_bytes(app: FunctionApp, examples: int) -> None:
    with GrpcCaller(app.port) as caller:
        on_invoke: Callable[..., bytes] = caller.channel.unary_unary(ON_INVOKE.decode(), None, None)

        def check(message: bytes) -> None:
            try:
                on_invoke(message, timeout=10)
            except grpc.RpcError as error:
                failure: Any = error
                assert failure.code().name in CALLERS_FAULT, (failure.code(), failure.details())
                assert failure.details()
                assert "Traceback" not in failure.details()

        messages = st.builds(invoke, routes, all_bodies)
        fuzz(examples, messages | damaged(messages) | st.binary(max_size=60), check)


@depths(1_500)
def test_json_bodies(app: FunctionApp, examples: int) -> None:
    with HttpCaller(app.port) as caller:

        def check(case: tuple[str, bytes]) -> None:
            function, body = case
            caller.connection.request("POST", f"/{function}", body, {"content-type": "application/json"})
            status, text = caller.answer()
            assert status in (200, 400), (status, text)
            assert status == 200 or text
            assert "Traceback" not in text

        fuzz(examples, st.tuples(st.sampled_from(["typed", "tree", "echo", "echo_in_thread"]), all_bodies), check)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("size", [4 * MIB - 100, 4 * MIB + 1, 64 * MIB], ids=["most", "too large", "far too large"])
def test_json_size(app: FunctionApp, protocol: str, size: int) -> None:
    body = '"' + "x" * (size - 2) + '"'
    if protocol == "grpc":
        with GrpcCaller(app.port) as caller:
            status: object = caller.post("echo", body[1:-1])[0]
        assert status == ("OK" if size < 4 * MIB else "RESOURCE_EXHAUSTED")
        return
    with connect(app.port) as connection:
        whole = send_all(connection, post("/echo", body.encode(), "connection: close"))
        received, closed = read_to_end(connection)
    assert closed
    if size < 4 * MIB:
        assert whole
        assert parse_responses(received)[0] == (200, body.encode())
    elif received:  # else the close of a connection that was still being written to has reset it
        status, text = parse_responses(received)[0]
        assert (status, b"larger than" in text) == (413, True)
