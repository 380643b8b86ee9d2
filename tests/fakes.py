"""Stand-ins for what is outside the process, with real gRPC between them and us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from daprfunc.endpoint import Endpoint
from daprfunc.rpc.dapr_pb2 import GetMetadataRequest, GetMetadataResponse, GetSecretRequest, GetSecretResponse
from daprfunc.rpc.dapr_pb2_grpc import DaprServicer, add_DaprServicer_to_server

Answer = Callable[[GetSecretRequest, Any], Awaitable[GetSecretResponse]]


@dataclass
class FakeSidecar(DaprServicer):
    """A sidecar that answers by script.

    Attributes:
        answer: answers GetSecret; by default every key has one value, ``value of KEY``.
        properties: what GetMetadata answers.
        requests: the GetSecret requests, as they came.
        metadata: what each came with.
        remaining: how many seconds each had left.
        running: how many are being answered, and the most there ever were.
    """

    answer: Answer | None = None
    properties: GetMetadataResponse = field(default_factory=GetMetadataResponse)
    requests: list[GetSecretRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def GetSecret(self, request: GetSecretRequest, context: Any) -> GetSecretResponse:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining.append(context.time_remaining())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.answer is not None:
                return await self.answer(request, context)
            return GetSecretResponse(data={request.key: f"value of {request.key}"})
        finally:
            self.running -= 1

    async def GetMetadata(self, request: GetMetadataRequest, context: Any) -> GetMetadataResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        return self.properties

    @asynccontextmanager
    async def serving(
        self, address: str = "127.0.0.1:0", *, credentials: Any = None, options: tuple[tuple[str, Any], ...] = ()
    ) -> AsyncIterator[Endpoint]:
        """Serve while the context lasts; gives the endpoint. With `credentials`, over TLS."""
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *options))
        add_DaprServicer_to_server(self, server)
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        await server.start()
        try:
            if address.startswith("unix:"):
                yield Endpoint(path=address.removeprefix("unix:"))
            else:
                yield Endpoint("localhost" if credentials else "127.0.0.1", port, tls=credentials is not None)
        finally:
            await server.stop(None)


def fail_with(code: grpc.StatusCode, details: str = "scripted") -> Answer:
    """Answer every GetSecret with a failure."""

    async def answer(request: GetSecretRequest, context: grpc.aio.ServicerContext[Any, Any]) -> GetSecretResponse:
        await context.abort(code, details)

    return answer
