"""One table of secret requests with what Dapr answers, and the ways in which they are asked.

The answers were measured against daprd 1.18.0. Those for values that are not text look odd, and are what users get.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx

from daprfunc.endpoint import Endpoint
from daprfunc.errors import SidecarError
from daprfunc.rpc.dapr_pb2 import GetSecretRequest
from daprfunc.sidecar.client import SecretRead, Sidecar
from daprfunc.sidecar.transport import Channel
from tests.e2e.daprd import component, configuration, write_resources, write_secrets

AWKWARD = 'ç\n"quoted" <&> \u2028'
SECRETS = {
    "my-secret": "abcd",
    "redis": {"password": "p", "hosts": ["a", "b", {"name": "c"}]},
    "empty": "",
    "no values": {},
    "a/b ü": AWKWARD,
    "integer": 1,
    "large": 123456789012,
    "fraction": 1.5,
    "tiny": 1e-7,
    "huge": 1e21,
    "true": True,
    "null": None,
    "list": ["first"],
}
ENVIRONMENT = {
    "E2E_SECRET": "from the environment",
    "E2E_P_SECRET": "with a prefix",
    "E2E_EMPTY": "",
    "DAPR_E2E": "Dapr's own",
    "APP_API_TOKEN": "the app's token",
}
APP_ID = "functionapp"


@dataclass(frozen=True)
class Outcome:
    """What one request came to, in HTTP's terms.

    Attributes:
        status: the HTTP status.
        data: the secret's values by name; None for a failure.
        message: the failure's text; None for a success.
    """

    status: int
    data: Mapping[str, str] | None = None
    message: str | None = None


@dataclass(frozen=True)
class Request:
    """One request for a secret, and what Dapr answers."""

    store: str
    key: str
    outcome: Outcome
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.store}-{self.key}" + "".join(f"-{name}={value}" for name, value in self.metadata.items())


def found(store: str, key: str, value: str | Mapping[str, str], **metadata: str) -> Request:
    """A request that is answered; one value is named like its key."""
    return Request(store, key, Outcome(200, {key: value} if isinstance(value, str) else value), metadata)


def missing(store: str, key: str) -> Request:
    """A request for a key that the store does not have."""
    return Request(store, key, store_failure(store, key, f"secret {key} not found"))


def store_failure(store: str, key: str, reason: str) -> Outcome:
    """How Dapr words a failure of the store itself."""
    return Outcome(500, message=f"failed getting secret with key {key} from secret store {store}: {reason}")


def unknown(store: str, key: str) -> Request:
    """A request to a store that this app does not have."""
    return Request(store, key, Outcome(401, message=f"failed finding secret store with key {store}"))


def denied(store: str, key: str, quoted: str | None = None) -> Request:
    """A request that a scope forbids; `quoted` is the key as the message shows it, if not as it is."""
    return Request(store, key, Outcome(403, message=f'access denied by policy to get "{quoted or key}" from "{store}"'))


REQUESTS = (
    found("flat", "my-secret", "abcd"),
    found("flat", "my-secret", "abcd", namespace="default"),
    found("flat", "redis:password", "p"),
    found("flat", "redis:hosts:0", "a"),
    found("flat", "redis:hosts:2:name", "c"),
    found("flat", "empty", ""),
    found("flat", "a/b ü", AWKWARD),
    found("flat", "integer", "%!s(float64=1)"),
    found("flat", "large", "%!s(float64=1.23456789012e+11)"),
    found("flat", "fraction", "%!s(float64=1.5)"),
    found("flat", "tiny", "%!s(float64=1e-07)"),
    found("flat", "huge", "%!s(float64=1e+21)"),
    found("flat", "true", "%!s(bool=true)"),
    found("flat", "null", "%!s(<nil>)"),
    found("flat", "list:0", "first"),
    missing("flat", "redis"),
    missing("flat", "no values"),
    missing("flat", "nothing"),
    missing("flat", "My-Secret"),
    found("dotted", "redis.password", "p"),
    found("dotted", "redis.hosts.2.name", "c"),
    missing("dotted", "redis:password"),
    found("multi", "my-secret", "abcd"),
    found("multi", "redis", {"password": "p", "hosts:0": "a", "hosts:1": "b", "hosts:2:name": "c"}),
    found("multi", "no values", {}),
    missing("multi", "redis:password"),
    missing("multi", "integer"),
    missing("multi", "list"),
    found("environment", "E2E_SECRET", "from the environment"),
    found("environment", "E2E_EMPTY", ""),
    found("environment", "E2E_UNSET", ""),
    found("environment", "DAPR_E2E", ""),
    found("environment", "dapr_e2e", ""),
    found("environment", "APP_API_TOKEN", ""),
    found("prefixed", "SECRET", "with a prefix"),
    found("prefixed", "E2E_P_SECRET", ""),
    unknown("nowhere", "my-secret"),
    unknown("Flat", "my-secret"),
    unknown("another app's", "my-secret"),
    found("some allowed", "my-secret", "abcd"),
    denied("some allowed", "empty"),
    denied("some allowed", "nothing"),
    found("only allowed", "my-secret", "abcd"),
    denied("only allowed", "empty"),
    denied("some denied", "my-secret"),
    found("some denied", "empty", ""),
    denied("all denied", "my-secret"),
    denied("all denied", "\u2028\t\"\\ü", r"\u2028\t\"\\ü"),
)  # fmt: skip

SCOPES = (
    {"storeName": "some allowed", "defaultAccess": "allow", "allowedSecrets": ["my-secret"]},
    {"storeName": "only allowed", "defaultAccess": "deny", "allowedSecrets": ["my-secret"]},
    {"storeName": "some denied", "defaultAccess": "allow", "deniedSecrets": ["my-secret", "other"]},
    {"storeName": "all denied", "defaultAccess": "deny"},
)


@dataclass(frozen=True)
class Stores:
    """The files behind the table.

    Attributes:
        resources: the directory for ``--resources-path``.
        config: the file for daprd's ``--config``; it lies in `resources`, where the embedded sidecar looks for it.
    """

    resources: Path
    config: Path


def write_stores(directory: Path) -> Stores:
    """Write the stores that the table asks into `directory`."""
    file = {"secretsFile": str(write_secrets(directory / "secrets.json", SECRETS))}
    resources = directory / "resources"
    write_resources(
        resources / "stores.yaml",
        component("secretstores.local.file", "flat", file),
        component("secretstores.local.file", "dotted", file | {"nestedSeparator": "."}),
        component("secretstores.local.file", "multi", file | {"multiValued": "true"}),
        component("secretstores.local.env", "environment"),
        component("secretstores.local.env", "prefixed", {"prefix": "E2E_P_"}),
        component("secretstores.local.file", "another app's", file, scopes=["another"]),
        *(component("secretstores.local.file", str(scope["storeName"]), file) for scope in SCOPES),
    )
    config = write_resources(resources / "config.yaml", configuration(secrets={"scopes": list(SCOPES)}))
    return Stores(resources, config)


# Any other code means that the request was routed elsewhere.
ERROR_CODES = {
    "ERR_PERMISSION_DENIED",
    "ERR_SECRET_GET",
    "ERR_SECRET_STORE_NOT_FOUND",
    "ERR_SECRET_STORES_NOT_CONFIGURED",
}

Ask = Callable[[Request], Outcome]

# What daprd's HTTP API makes of its gRPC API's codes: a fact of Dapr, so not taken from the runtime's own table.
HTTP_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.FAILED_PRECONDITION: 500,
    grpc.StatusCode.INTERNAL: 500,
}


def over_grpc(stub: Any) -> Ask:
    """Ask through a grpcio stub."""

    def ask(request: Request) -> Outcome:
        message = GetSecretRequest(store_name=request.store, key=request.key, metadata=request.metadata)
        try:
            return Outcome(200, dict(stub.GetSecret(message, timeout=10).data))
        except grpc.RpcError as error:
            return Outcome(HTTP_STATUSES[error.code()], message=error.details())

    return ask


def over_our_grpc(port: int, api_token: str | None = None) -> Ask:
    """Ask through the runtime's own client, which also says which HTTP status a caller gets."""

    async def read(request: Request) -> Outcome:
        sidecar = Sidecar(Channel(Endpoint(port=port)), timeout=10, api_token=api_token)
        try:
            values = await sidecar.get_secret(SecretRead(request.store, request.key, tuple(request.metadata.items())))
            return Outcome(200, dict(values))
        except SidecarError as error:
            return Outcome(error.status.http, message=str(error))
        finally:
            await sidecar.close()

    return lambda request: asyncio.run(read(request))


def over_http(client: httpx.Client) -> Ask:
    """Ask through Dapr's HTTP API; a failure's body is checked to be Dapr's, not a proxy's or a router's."""

    def ask(request: Request) -> Outcome:
        path = f"/v1.0/secrets/{quote(request.store, safe='')}/{quote(request.key, safe='')}"
        reply = client.get(path, params={f"metadata.{name}": value for name, value in request.metadata.items()})
        body = reply.json()
        if reply.is_success:
            return Outcome(reply.status_code, body)
        assert body["errorCode"] in ERROR_CODES, body
        return Outcome(reply.status_code, message=body["message"])

    return ask
