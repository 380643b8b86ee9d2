"""What the sidecar takes by itself: several GetSecret at once, as bytes that are there already, beside our own reads.

`run.py --experiments sidecar_alone` starts the daprd; alone: `python benchmarks/sidecar_alone.py PORT`.

The bytes are built before the clock starts, go out in one write, and of what comes back only the frames' heads are
looked at. No client can be faster, so the difference between one read and twenty is the sidecar's and the system's.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Sequence
from statistics import median

from inprocess import show

from apps import SECRETS, STORE
from daprfunc.endpoint import parse_endpoint
from daprfunc.host import run_loop
from daprfunc.http2 import frames
from daprfunc.rpc.dapr_pb2 import GetSecretRequest
from daprfunc.sidecar.client import SecretRead, Sidecar
from daprfunc.sidecar.transport import Channel

ROUNDS = 5
BATCHES = 400
AT_ONCE = (1, 20)
_KEYS = tuple(key for key in SECRETS if key.startswith("secret-"))
_MICRO = 1e6
_LIMIT_SECONDS = 10


class Replay:
    """A connection to the sidecar that knows no more of HTTP/2 than it must."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_LIMIT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = frames.fields(
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/dapr.proto.runtime.v1.Dapr/GetSecret"),
            (b":authority", b"127.0.0.1"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
        self._next_id = 1
        self._rest = b""
        # Answers to what the sidecar asks in between: they are sent when nobody is timed.
        self._owed = frames.frame(frames.SETTINGS, frames.ACK, 0)
        window = frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW)
        self._socket.sendall(frames.PREFACE + frames.settings({}) + window)

    def read(self, keys: Sequence[str]) -> float:
        """Return the seconds from writing the calls until the last of them is answered."""
        calls = b"".join(map(self._call, keys))
        began = time.perf_counter()
        self._socket.sendall(calls)
        missing = len(keys)
        while missing:
            missing -= self._ended(self._socket.recv(65_536))
        took = time.perf_counter() - began
        self._socket.sendall(self._owed)
        self._owed = b""
        return took

    def _call(self, key: str) -> bytes:
        stream, self._next_id = self._next_id, self._next_id + 2
        message = frames.grpc_message(GetSecretRequest(store_name=STORE, key=key).SerializeToString())
        return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, self._head) + frames.frame(
            frames.DATA, frames.END_STREAM, stream, message
        )

    def _ended(self, data: bytes) -> int:
        """Return how many calls came to an end in `data`."""
        if not data:
            raise ConnectionError("the sidecar has closed the connection")
        data = self._rest + data
        at = ended = 0
        while len(data) - at >= frames.HEADER_SIZE:
            high, low, kind, flags, _ = frames.read_head(data, at)
            end = at + frames.HEADER_SIZE + (high << 8 | low)
            if end > len(data):
                break
            if kind == frames.HEADERS and flags & frames.END_STREAM:
                ended += 1
            elif kind == frames.PING and not flags & frames.ACK:
                self._owed += frames.frame(frames.PING, frames.ACK, 0, data[at + frames.HEADER_SIZE : end])
            at = end
        self._rest = data[at:]
        return ended

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def _alone(port: int, at_once: int) -> float:
    replay = Replay(port)
    took = median(replay.read(_KEYS[:at_once]) for _ in range(BATCHES))
    replay.close()
    return took


async def _ours(port: int, at_once: int) -> float:
    sidecar = Sidecar(Channel(parse_endpoint(f"127.0.0.1:{port}")), timeout=_LIMIT_SECONDS)
    reads = [SecretRead(STORE, key) for key in _KEYS[:at_once]]
    took = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        await asyncio.gather(*map(sidecar.get_secret, reads))
        took.append(time.perf_counter() - began)
    await sidecar.close()
    return median(took)


def compare(port: int) -> dict[str, list[float]]:
    """Median microseconds until all of some reads are answered, A B A B."""
    found: dict[str, list[float]] = {f"{name}, {count} at once": [] for count in AT_ONCE for name in ("bytes", "ours")}
    for _ in range(ROUNDS):
        for count in AT_ONCE:
            found[f"bytes, {count} at once"].append(_alone(port, count) * _MICRO)
            found[f"ours, {count} at once"].append(run_loop(_ours(port, count)) * _MICRO)
    return found


if __name__ == "__main__":
    show(compare(int(sys.argv[1])))
