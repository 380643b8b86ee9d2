"""Our connections in this process, without sockets: requests go in as bytes, what would be written is counted.

What this measures is Python's share of an invocation. The operating system's, uvloop's and the peer's are not in it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from jh2.hpack import Encoder

from daprfunc.channel.app import App
from daprfunc.compilation import compile_app
from daprfunc.dispatch import Limits
from daprfunc.executor import Executor
from daprfunc.host import run_loop
from daprfunc.http2 import frames
from daprfunc.loading import load_app
from daprfunc.rpc.common_pb2 import InvokeRequest
from daprfunc.sidecar.client import Sidecar

FUNCTIONS = Path(__file__).resolve().parent / "apps" / "functions"
INVOKE = b"/dapr.proto.runtime.v1.AppCallback/OnInvoke"
ROUNDS = 5
WAIT_SECONDS = 10.0
_THREADS = 6
_MICRO = 1e6
_WINDOW = 2**30

Measure = Callable[[], Coroutine[Any, Any, float]]


class Server(Protocol):
    """One connection of a caller, ours or another that is compared with it."""

    def data_received(self, data: bytes, /) -> None: ...


class Recorder:
    """An asyncio transport that counts writes and keeps nothing."""

    def __init__(self) -> None:
        self.writes = 0
        self._written = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._written.set()

    async def written(self) -> None:
        """Waits for the next write, and does not spin meanwhile: other threads need this core."""
        self._written.clear()
        await asyncio.wait_for(self._written.wait(), WAIT_SECONDS)

    def close(self) -> None:
        raise RuntimeError("the connection was closed")

    abort = close

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    resume_reading = pause_reading

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default

    def set_write_buffer_limits(self, *_limits: object) -> None: ...


class _Services:
    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def secrets(self, _endpoint: object) -> Sidecar:
        return self._sidecar


def make_app(channel: object) -> tuple[App, Executor]:
    """The benchmark's functions, compiled as the host does it; `channel` is what their sidecar is called through."""
    executor = Executor(_THREADS)
    dispatcher = compile_app(
        load_app(FUNCTIONS),
        services=_Services(Sidecar(channel, timeout=60)),
        app_settings={},
        executor=executor,
        limits=Limits(1800, 1000),
    )
    gc.collect()
    gc.freeze()
    return App(dispatcher, api_token=None, max_body_size=4 << 20), executor


def greeting() -> bytes:
    """What a caller sends first, after the preface."""
    return frames.settings({}) + frames.window_update(0, _WINDOW)


def grpc_requests(path: bytes, message: bytes, count: int, batch: int) -> list[bytes]:
    """`count` reads off a caller's connection with `batch` calls in each, headers indexed as grpc-go does."""
    fields = (
        (b":method", b"POST", False),
        (b":scheme", b"http", False),
        (b":path", path, False),
        (b":authority", b"127.0.0.1:3001", False),
        (b"content-type", b"application/grpc", False),
        (b"user-agent", b"grpc-go/1.80.0", False),
        (b"te", b"trailers", False),
    )
    encoder = Encoder()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    calls = []
    for number in range(count * batch):
        stream = 2 * number + 1
        # It differs a little each time, as daprd's does.
        timeout = (b"grpc-timeout", b"%du" % (19_999_999 - number % 97), False)
        block = encoder.encode([*fields, timeout])
        calls.append(
            frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
            + frames.frame(frames.DATA, frames.END_STREAM, stream, body)
        )
    return [b"".join(calls[start : start + batch]) for start in range(0, len(calls), batch)]


def invoke_message(method: str) -> bytes:
    """A serialized InvokeRequest."""
    request = InvokeRequest(method=method, content_type="application/json")
    request.data.value = b"{}"
    serialized: bytes = request.SerializeToString()
    return serialized


async def drive(
    server: Server, open_streams: Mapping[int, object], transport: Recorder, reads: Sequence[bytes]
) -> float:
    """CPU seconds of this process for `reads`, each of which is sent when the one before has been answered."""
    began = time.process_time()
    for read in reads:
        server.data_received(read)
        while open_streams:
            await transport.written()
    return time.process_time() - began


def interleaved(measures: Mapping[str, Measure], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Runs A B C A B C, each on a loop of its own; gives what they return, round by round."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(run_loop(measure()))
            gc.unfreeze()
            gc.collect()
    return found


def per_call(seconds: float, calls: int) -> float:
    """Microseconds."""
    return seconds / calls * _MICRO


def show(found: Mapping[str, Sequence[float]]) -> None:
    """Prints one round's numbers per row: as JSON for run.py, else as medians for a reader."""
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    for name, numbers in found.items():
        print(f"{name:60} {median(numbers):10.1f}  ({min(numbers):.1f}-{max(numbers):.1f})")
