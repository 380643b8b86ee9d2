"""Sidecars that misbehave, on loopback: one that speaks gRPC and answers what it is told, one that sends any bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from daprfunc.rpc.dapr_pb2 import GetMetadataResponse, GetSecretResponse
from daprfunc.rpc.dapr_pb2_grpc import DaprServicer, add_DaprServicer_to_server

Answer = Callable[[str, grpc.ServicerContext], Mapping[str, str]]
"""Takes the key that is asked for; returns the secret's values, or aborts the call, in its own time."""


def environment(port: int, **more: str) -> dict[str, str]:
    """What an app needs to know of a sidecar at `port`."""
    return {"DAPR_GRPC_PORT": str(port), "DAPR_DISABLE_SIDECAR_METADATA_CHECK": "true", **more}


class GrpcSidecar(DaprServicer):
    """A gRPC server with Dapr's GetSecret.

    Attributes:
        port: where it listens.
        reads: how often each key was asked for.
    """

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self._answer = answer
        self.reads: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(64)
        # daprd bears PINGs, grpcio's server by default but two without data.
        self._server = grpc.server(self._threads, options=[("grpc.http2.max_ping_strikes", 0)])
        add_DaprServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")

    def GetSecret(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.reads[request.key] += 1
        return GetSecretResponse(data=self._answer(request.key, context))

    def GetMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        return GetMetadataResponse(id="fake", runtime_version="0.0.0")

    def __enter__(self) -> GrpcSidecar:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._threads.shutdown()


class RawSidecar:
    """A TCP server that treats each connection as `serve` does, then closes it.

    Attributes:
        port: where it listens.
        accepted: when each connection was accepted, in :func:`time.monotonic`'s seconds.
        ended: set at the end; a `serve` that waits should wait for this.
    """

    def __init__(self, serve: Callable[[socket.socket, threading.Event], None], port: int = 0) -> None:
        self._serve = serve
        self.accepted: list[float] = []
        self.ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._serving: list[threading.Thread] = []

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted.append(time.monotonic())
            thread = threading.Thread(target=self._handle, args=(connection,), daemon=True)
            self._serving.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            try:
                self._serve(connection, self.ended)
            except OSError:
                return  # The app has hung up.

    def __enter__(self) -> RawSidecar:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._accepting, *self._serving):
            thread.join(5)


def most_in_a_second(times: list[float]) -> int:
    """How many of `times` lie within the one second that holds the most of them."""
    return max((sum(start <= other < start + 1 for other in times) for start in times), default=0)
