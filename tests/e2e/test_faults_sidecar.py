"""Sidecars that never answer, answer late, answer garbage or hang up: an error in time, no neighbour disturbed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from daprfunc.http2 import frames
from tests.e2e.app import FunctionApp
from tests.e2e.fakes import GrpcSidecar, RawSidecar, environment
from tests.e2e.load import GrpcCaller, HttpCaller, Tally
from tests.e2e.processes import wait_until

pytestmark = pytest.mark.e2e

APP = Path(__file__).parents[1] / "apps" / "faults"
DEADLINE = 1.0
# A busy machine may be this much late, in seconds.
SLACK = 1.0
CALLERS = 20

Serve = Callable[[socket.socket, threading.Event], None]


def read_until_the_end(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def never_answers(connection: socket.socket, ended: threading.Event) -> None:
    read_until_the_end(connection)


def reads_nothing(connection: socket.socket, ended: threading.Event) -> None:
    ended.wait(30)


def hangs_up(connection: socket.socket, ended: threading.Event) -> None:
    connection.recv(65_536)


def speaks_http1(connection: socket.socket, ended: threading.Event) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    read_until_the_end(connection)


def sends_noise(connection: socket.socket, ended: threading.Event) -> None:
    connection.recv(65_536)
    connection.sendall(bytes(range(256)) * 16)
    read_until_the_end(connection)


def calls(connection: socket.socket) -> Iterator[int]:
    """Shake hands as an HTTP/2 server, then yield the stream of each call whose request is whole."""
    connection.sendall(frames.settings({}))
    received, position = b"", len(frames.PREFACE)
    while data := connection.recv(65_536):
        received += data
        while len(received) >= position + frames.HEADER_SIZE:
            high, low, kind, flags, stream = frames.read_head(received, position)
            end = position + frames.HEADER_SIZE + (high << 8 | low)
            if len(received) < end:
                break
            position = end
            if kind == frames.DATA and flags & frames.END_STREAM:
                yield stream


def reply(*answer: tuple[int, int, bytes], hang_up: bool = False) -> Serve:
    """A server that answers every call with frames (type, flags, payload), or the first call and then hangs up."""

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        for stream in calls(connection):
            connection.sendall(b"".join(frames.frame(kind, flags, stream, payload) for kind, flags, payload in answer))
            if hang_up:
                # Not a reset, which might overtake what was sent.
                connection.shutdown(socket.SHUT_WR)
                read_until_the_end(connection)

    return serve


HEAD = (frames.HEADERS, frames.END_HEADERS, b"\x88" + frames.field(b"content-type", b"application/grpc"))
FINE = (frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, frames.field(b"grpc-status", b"0"))


def message(data: bytes, announced: int | None = None, compressed: int = 0) -> tuple[int, int, bytes]:
    size = len(data) if announced is None else announced
    return (frames.DATA, 0, bytes([compressed]) + size.to_bytes(4, "big") + data)


AT_ONCE = 0.0
# What the sidecar does; the statuses that callers may get; after how many seconds.
FAULTS: Mapping[str, tuple[Serve, set[int], float]] = {
    "accepts and never answers": (never_answers, {504}, DEADLINE),
    "accepts and never reads": (reads_nothing, {504}, DEADLINE),
    "hangs up on every call": (hangs_up, {503}, AT_ONCE),
    "speaks HTTP/1.1": (speaks_http1, {503}, AT_ONCE),
    "sends noise": (sends_noise, {503}, AT_ONCE),
    "closes after the head": (reply(HEAD, hang_up=True), {503}, AT_ONCE),
    "closes mid-message": (reply(HEAD, message(b"\n\x05abc", announced=100), hang_up=True), {503}, AT_ONCE),
    "closes before the trailers": (reply(HEAD, message(b""), hang_up=True), {503}, AT_ONCE),
    "a message that is no protobuf": (reply(HEAD, message(b"\xff" * 40), FINE), {500}, AT_ONCE),
    "a message longer than it says": (reply(HEAD, message(b"\n\x05abc", announced=1), FINE), {500}, AT_ONCE),
    "a message said to be compressed": (reply(HEAD, message(b"abc", compressed=1), FINE), {500}, AT_ONCE),
    "a map entry that is cut": (reply(HEAD, message(b"\n\x10\n\x01k\x12\x50v"), FINE), {500}, AT_ONCE),
    "a status that is no number": (
        reply((frames.HEADERS, 5, b"\x88" + frames.fields((b"grpc-status", b"what?")))),
        {500},
        AT_ONCE,
    ),
    "a head that cannot be decoded": (reply((frames.HEADERS, frames.END_HEADERS, b"\xff" * 20)), {503}, AT_ONCE),
    "a frame beyond all limits": (lambda at, _: at.sendall(b"\xff\xff\xff\x00\x00\0\0\0\1" + b"x" * 9), {503}, AT_ONCE),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_sidecar_that_misbehaves(name: str, figure: Callable[[object], None]) -> None:
    serve, expected, seconds = FAULTS[name]
    tally, took, texts = Tally(), [], set()
    with RawSidecar(serve) as sidecar:
        env = environment(sidecar.port, DAPR_API_TIMEOUT_SECONDS=str(DEADLINE))
        with FunctionApp(APP, env=env) as app, ThreadPoolExecutor(CALLERS) as threads:

            def call(number: int) -> None:
                with HttpCaller(app.port) as caller:

                    def post() -> int:
                        # Half of them share their reads with others, half do not.
                        key = "shared" if number % 2 else f"key-{number}"
                        started = time.monotonic()
                        status, text = caller.post("secret_named", {"key": key})
                        took.append(time.monotonic() - started)
                        texts.add(text)
                        return status

                    tally.take(post)

            list(threads.map(call, range(CALLERS)))
            with HttpCaller(app.port) as caller:
                assert caller.post("echo", "still here") == (200, '"still here"')
        figure(f"{tally}; between {min(took):.2f} and {max(took):.2f} s; {len(texts)} texts, such as {min(texts)!r}")
        assert tally.lost == 0
        assert set(tally.answers) <= set(map(str, expected)), texts
        # One that closes each connection after its first call lets the others wait for the next, 50 ms apart.
        assert seconds - 0.05 <= min(took)
        assert max(took) < seconds + SLACK + CALLERS * 0.05
        # One line that says more than the name of a status.
        assert all(" " in text and "\n" not in text and "Traceback" not in text for text in texts), texts
        assert "Traceback" not in app.output, app.output[-2000:]


def test_a_slow_key_slows_no_other(figure: Callable[[object], None]) -> None:
    delays = {"slow": 5.0}

    def answer(key: str, context: grpc.ServicerContext) -> Mapping[str, str]:
        time.sleep(delays.get(key, 0))
        return {key: "value"}

    slow, fast, took = Tally(), Tally(), []
    with GrpcSidecar(answer) as sidecar, FunctionApp(APP, env=environment(sidecar.port)) as app:

        def call_slow() -> None:
            with HttpCaller(app.port) as caller:
                started = time.monotonic()
                slow.take(lambda: caller.post("secret_named", {"key": "slow"})[0])
                took.append(time.monotonic() - started)

        waiting = [threading.Thread(target=call_slow) for _ in range(10)]
        for thread in waiting:
            thread.start()
        wait_until(lambda: sidecar.reads["slow"], "the slow read to begin")
        fast_took = []
        with HttpCaller(app.port) as caller:
            while any(thread.is_alive() for thread in waiting) and fast.sent < 300:
                started = time.monotonic()
                fast.take(lambda: caller.post("secret_named", {"key": f"fast-{fast.sent}"})[0])
                fast_took.append(time.monotonic() - started)
        assert all(thread.is_alive() for thread in waiting), "the slow reads ended before the fast ones"
        for thread in waiting:
            thread.join(30)
    fast_took.sort()
    figure(
        f"slow key: {slow}, {max(took):.2f} s at most; other keys meanwhile: {fast}, "
        f"median {fast_took[150] * 1000:.1f} ms, at most {fast_took[-1] * 1000:.0f} ms"
    )
    assert (slow.answers, fast.answers) == ({"200": 10}, {"200": 300})
    assert fast_took[150] < 0.1
    assert fast_took[-1] < SLACK
    # All ten asked at about the same time, so none waits for two reads in a row.
    assert max(took) < 5 + SLACK
    assert sidecar.reads["slow"] <= 3


def test_deadlines_fire_on_time_for_those_who_share_a_read(figure: Callable[[object], None]) -> None:
    never = threading.Event()

    def answer(key: str, context: grpc.ServicerContext) -> Mapping[str, str]:
        never.wait(10)
        return {}

    tally, took, texts = Tally(), [], set()
    with GrpcSidecar(answer) as sidecar:
        env = environment(sidecar.port, DAPR_API_TIMEOUT_SECONDS=str(DEADLINE))
        with FunctionApp(APP, env=env) as app, ThreadPoolExecutor(40) as threads:

            def call(number: int) -> None:
                # They arrive over half a second: while the first read is under way, and after it.
                time.sleep(number / 80)
                with GrpcCaller(app.port) as caller:
                    started = time.monotonic()
                    status, text = caller.post("secret")
                    tally.take(lambda: status)
                    texts.add(text)
                    took.append(time.monotonic() - started)

            list(threads.map(call, range(40)))
        reads = sidecar.reads["fast"]
        never.set()
    figure(f"{tally}; {reads} reads; between {min(took):.2f} and {max(took):.2f} s after they asked; {texts}")
    assert tally.answers == {"DEADLINE_EXCEEDED": 40}
    assert min(took) > DEADLINE - 0.05
    assert max(took) < DEADLINE + SLACK
    assert reads < 40


def test_a_caller_that_leaves_takes_no_neighbour_along(figure: Callable[[object], None]) -> None:
    release = threading.Event()

    def answer(key: str, context: grpc.ServicerContext) -> Mapping[str, str]:
        release.wait(20)
        return {key: "value"}

    tally = Tally()
    with GrpcSidecar(answer) as sidecar, FunctionApp(APP, env=environment(sidecar.port)) as app:
        # Of those who share a read, some leave: over HTTP/1.1 by closing, over gRPC by a reset.
        callers = [HttpCaller(app.port) for _ in range(20)]
        with GrpcCaller(app.port) as grpc_caller:
            callers[0].send("secret")
            wait_until(lambda: sidecar.reads["fast"] == 1, "the first read")
            for caller in callers[1:]:
                caller.send("secret")
            calls = [grpc_caller.send("secret") for _ in range(20)]
            wait_until(lambda: sidecar.reads["fast"] == 2, "the read that they share")
            for caller in callers[::2]:
                caller.connection.close()
            for call in calls[::2]:
                call.cancel()
            release.set()
            for caller in callers[1::2]:
                tally.take(lambda: caller.answer()[0])  # noqa: B023 (called at once)
                caller.connection.close()
            for call in calls[1::2]:
                tally.take(lambda: grpc_caller.answer(call)[0])  # noqa: B023 (called at once)
    figure(f"20 of 40 left; of those who stayed: {tally}; {sidecar.reads['fast']} reads")
    assert tally.answers == {"200": 10, "OK": 10}
    assert "Traceback" not in app.output, app.output[-2000:]


@pytest.mark.parametrize("seconds", [0.0, 1.5])
def test_the_sidecar_is_back_at_once(seconds: float, figure: Callable[[object], None]) -> None:
    """The first invocation after the sidecar's restart succeeds, however long the outage was."""
    tally = Tally()
    with ExitStack() as stack:
        with GrpcSidecar(lambda key, _: {key: "before"}) as sidecar:
            app = stack.enter_context(FunctionApp(APP, env=environment(sidecar.port)))
            caller = stack.enter_context(HttpCaller(app.port))
            assert caller.post("secret") == (200, '{"fast":"before"}')
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            tally.take(lambda: caller.post("secret")[0])
        with GrpcSidecar(lambda key, _: {key: "after"}, sidecar.port):
            started = time.monotonic()
            assert caller.post("secret") == (200, '{"fast":"after"}')
            took = time.monotonic() - started
    figure(f"{tally} during {seconds} s of outage; the first one after it took {took * 1000:.0f} ms")
    assert set(tally.answers) <= {"503"}
    assert tally.lost == 0
    assert took < SLACK
