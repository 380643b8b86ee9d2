"""An hour's worth of invocations in miniature: 200,000 at full speed, over both protocols, and no memory stays."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from daprfunc.http2 import frames
from daprfunc.http2.frames import Setting
from tests.e2e.app import FunctionApp, dapr_run
from tests.e2e.daprd import component, write_resources, write_secrets
from tests.e2e.memory import MIB, resident
from tests.e2e.wire import call, connect, invoke, post

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

APP = Path(__file__).parents[1] / "apps" / "faults"
ROUNDS = 10
ROUND = 20_000
# How many invocations a caller sends before it waits for their answers.
BATCH = 100
GROWTH = 0.05


def http_caller(port: int, function: str, body: bytes, count: int) -> int:
    """Invoke a function `count` times over one HTTP/1.1 connection, pipelined; returns how many were answered 200."""
    answered = 0
    burst = post(f"/{function}", body) * BATCH
    with connect(port, 30) as connection:
        for _ in range(count // BATCH):
            connection.sendall(burst)
            received, fine = b"", 0
            while fine < BATCH:
                data = connection.recv(262_144)
                if not data:
                    return answered + fine
                received += data
                fine = received.count(b"HTTP/1.1 200 OK\r\n")
                assert received.count(b"HTTP/1.1 ") == fine, received[-300:]
            # The last head has come; so must its body.
            while not complete(received):
                received += connection.recv(262_144)
            answered += fine
    return answered


def complete(received: bytes) -> bool:
    head = received.rpartition(b"HTTP/1.1 ")[2]
    top, separator, body = head.partition(b"\r\n\r\n")
    if not separator:
        return False
    return len(body) == int(top.rpartition(b"content-length: ")[2])


def grpc_caller(port: int, function: str, body: bytes, count: int) -> int:
    """The same over one HTTP/2 connection, as gRPC; returns how many calls ended with status 0."""
    message, answered, stream = invoke(function, body), 0, 1
    with connect(port, 30) as connection:
        wide = frames.settings({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW})
        connection.sendall(frames.PREFACE + wide + frames.window_update(0, frames.MAX_WINDOW - 65_535))
        answers = ends_of_calls(connection)
        for _ in range(count // BATCH):
            connection.sendall(b"".join(call(stream + 2 * at, message) for at in range(BATCH)))
            stream += 2 * BATCH
            for _ in range(BATCH):
                trailers = next(answers)
                assert trailers.endswith(b"grpc-status\x010"), trailers
                answered += 1
    return answered


def ends_of_calls(connection: socket.socket) -> Iterator[bytes]:
    """The header blocks with which calls end, as they come."""
    received = b""
    while True:
        position, size = 0, len(received)
        while size - position >= frames.HEADER_SIZE:
            high, low, kind, flags, _ = frames.read_head(received, position)
            end = position + frames.HEADER_SIZE + (high << 8 | low)
            if end > size:
                break
            if kind == frames.HEADERS and flags & frames.END_STREAM:
                yield received[position + frames.HEADER_SIZE : end]
            assert kind not in (frames.RST_STREAM, frames.GOAWAY)
            position = end
        data = connection.recv(262_144)
        assert data, "the connection was closed"
        received = received[position:] + data


# caller, function, its share of a round; half of all read a secret through daprd.
MIX = (
    (http_caller, "echo", 5_000),
    (http_caller, "secret", 5_000),
    (http_caller, "secret_in_thread", 2_000),
    (grpc_caller, "echo", 3_000),
    (grpc_caller, "secret", 3_000),
    (grpc_caller, "echo_in_thread", 2_000),
)


@contextmanager
def app_with_store(tmp_path: Path) -> Iterator[FunctionApp]:
    secrets = write_secrets(tmp_path / "secrets.json", {"fast": "abcd"})
    file = component("secretstores.local.file", "store", {"secretsFile": str(secrets)})
    write_resources(tmp_path / "resources" / "store.yaml", file)
    with dapr_run(APP, "grpc", resources=tmp_path / "resources") as (app, _):
        yield app


def test_200_000_invocations(tmp_path: Path, figure: Callable[[object], None]) -> None:
    assert sum(share for *_, share in MIX) == ROUND
    sizes, answered = [], 0
    with app_with_store(tmp_path) as app, ThreadPoolExecutor(len(MIX)) as threads:
        started = time.monotonic()
        for _ in range(ROUNDS):
            callers = [threads.submit(caller, app.port, name, b'{"k":"v"}', share) for caller, name, share in MIX]
            answered += sum(caller.result(60) for caller in callers)
            sizes.append(resident(app.process.pid))
        took = time.monotonic() - started
    sent = ROUNDS * ROUND
    figure(
        f"sent {sent}, answered {answered}, lost {sent - answered}; {took:.0f} s, {sent / took:.0f} a second; "
        f"resident after each {ROUND}: {', '.join(f'{size / MIB:.1f}' for size in sizes)} MiB"
    )
    assert answered == sent
    assert abs(sizes[-1] - sizes[0]) < GROWTH * sizes[0]
    assert "Traceback" not in app.output, app.output[-2000:]
