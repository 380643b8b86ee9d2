"""The sidecar as the runtime sees it: a few methods, one error type."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from daprfunc.errors import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    UNAUTHENTICATED,
    UNAVAILABLE,
    SidecarError,
    Status,
)
from daprfunc.rpc.dapr_pb2 import GetMetadataRequest, GetMetadataResponse, GetSecretRequest, GetSecretResponse
from daprfunc.rpc.dapr_pb2_grpc import DaprStub
from daprfunc.sidecar.cache import Cache
from daprfunc.sidecar.coalesce import Coalescer

if TYPE_CHECKING:
    import asyncio

# The HTTP statuses that daprd's own HTTP secrets API answers with (measured against daprd 1.18.0). What is not listed
# is 500 there as well.
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: Status("INVALID_ARGUMENT", 3, 401),
    grpc.StatusCode.PERMISSION_DENIED: Status("PERMISSION_DENIED", 7, 403),
    grpc.StatusCode.UNAUTHENTICATED: UNAUTHENTICATED,
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL: INTERNAL,
}


@dataclass(frozen=True, slots=True)
class SecretRead:
    """A request for one secret, serialized once if it is always the same.

    Attributes:
        store: the secret store component's name.
        key: the secret's name.
        metadata: what the store needs besides, such as ``{"namespace": "default"}``; Dapr's HTTP API would want these
            keys prefixed with ``metadata.``, gRPC must not have that prefix.
    """

    store: str
    key: str
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    request: GetSecretRequest = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        request = GetSecretRequest(store_name=self.store, key=self.key, metadata=dict(self.metadata))
        object.__setattr__(self, "request", request)
        object.__setattr__(self, "_hash", hash((self.store, self.key, self.metadata)))

    def __hash__(self) -> int:
        return self._hash


class Secrets(Protocol):
    """Where secret bindings get their values."""

    def get_secret(self, read: SecretRead) -> asyncio.Future[Mapping[str, str]]:
        """Return a future of the secret's values by name; it fails with :class:`SidecarError`."""


class Sidecar:
    """One sidecar's API.

    Args:
        channel: anything with grpc's channel interface whose calls can be awaited; see :mod:`.transport`. If it has a
            ``flush``, that is called when calls were made that may go out together.
        timeout: seconds until a call is given up.
        api_token: sent with every call, where daprd demands one (DAPR_API_TOKEN).
        secret_ttl: for how many seconds a secret may be given again; 0 is not at all.
    """

    def __init__(self, channel: Any, *, timeout: float, api_token: str | None = None, secret_ttl: float = 0.0) -> None:
        self._channel = channel
        self._stub: Any = DaprStub(channel)
        self._timeout = timeout
        self._metadata = (("dapr-api-token", api_token),) if api_token else ()
        self._secrets: Coalescer[SecretRead, Mapping[str, str]] = Coalescer(
            self._get_secret, _values, begun=getattr(channel, "flush", lambda: None)
        )
        self._cache = Cache(self._secrets.read, secret_ttl) if secret_ttl else None
        self.get_secret = self._cache.read if self._cache else self._secrets.read

    def _get_secret(self, read: SecretRead) -> Awaitable[GetSecretResponse]:
        call: Awaitable[GetSecretResponse] = self._stub.GetSecret(
            read.request, timeout=self._timeout, metadata=self._metadata
        )
        return call

    async def get_metadata(self) -> GetMetadataResponse:
        """Return what the sidecar says of itself and of its app.

        Raises:
            SidecarError: it cannot be asked.
        """
        try:
            response: GetMetadataResponse = await self._stub.GetMetadata(
                GetMetadataRequest(), timeout=self._timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise _sidecar_error(error) from None
        return response

    async def idle(self) -> None:
        """Wait until no secret is being read."""
        await self._secrets.idle()

    async def close(self) -> None:
        """Give up the reads under way and end the connection."""
        if self._cache is not None:
            self._cache.close()
        await self._secrets.close(SidecarError(UNAVAILABLE, "the connection to the Dapr sidecar was closed"))
        await self._channel.close()


def _values(read: SecretRead, ended: asyncio.Future[GetSecretResponse]) -> Mapping[str, str]:
    try:
        data = ended.result().data
        return {name: data[name] for name in data}  # (a third of the time that dict() takes for protobuf's map)
    except grpc.RpcError as error:
        raise _sidecar_error(error, store=read.store, key=read.key) from None


def _sidecar_error(error: Any, *, store: str | None = None, key: str | None = None) -> SidecarError:
    code: grpc.StatusCode = error.code()
    status = _STATUSES.get(code) or Status(code.name, code.value[0], 500)
    return SidecarError(status, error.details() or code.name, store=store, key=key)
