"""What is compared: the servers, and the cases that are measured on them. Tables only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from apps import FUNCTION_COUNTS, SECRET_COUNTS

Protocol = Literal["grpc", "http"]
Via = Literal["direct", "daprd"]
_DIRECT: tuple[Via, ...] = ("direct",)
_BOTH: tuple[Via, ...] = ("direct", "daprd")

_OURS = "{ours} -m daprfunc start APP --app-port {port} --log-level warning"
_UVICORN = (
    "{peers} -m uvicorn --app-dir {here}/peers MODULE:app --host 127.0.0.1 --port {port}"
    " --loop uvloop --http httptools --no-access-log --log-level warning"
)
_GO = "{go_peer} -protocol PROTOCOL -address 127.0.0.1:{port}"


@dataclass(frozen=True, slots=True)
class Server:
    """One process to start, always with a daprd of its own beside it.

    Attributes:
        name: also its Dapr app id.
        protocol: its app channel's.
        command: its command line; the names in braces are prepare.Toolbox's, and ``port``.
        environment: what it gets besides what `dapr run` would give it.
    """

    name: str
    protocol: Protocol
    command: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to call on one server.

    Attributes:
        name: what the command line and the results call it; ours start with the protocol, peers with their own name.
        group: the part of the benchmark it belongs to.
        server: on what.
        method: the method that is invoked.
        body: the request's body.
        reply: what the reply must be as JSON; None where it must equal the body.
        concurrencies: how many calls are in flight at once.
        vias: called directly or through daprd.
    """

    name: str
    group: str
    server: Server
    method: str
    body: bytes = b"{}"
    reply: object = None
    concurrencies: tuple[int, ...] = (1, 32, 256)
    vias: tuple[Via, ...] = _DIRECT


SERVERS = {
    server.name: server
    for server in (
        Server("ours-grpc", "grpc", _OURS.replace("APP", "{here}/apps/functions")),
        Server("ours-http", "http", _OURS.replace("APP", "{here}/apps/functions")),
        Server("dapr-ext-grpc", "grpc", "{peers} {here}/peers/dapr_ext_grpc_app.py {port}"),
        Server("fastapi", "http", _UVICORN.replace("MODULE", "fastapi_sync_app")),
        Server("fastapi-async", "http", _UVICORN.replace("MODULE", "fastapi_async_app")),
        Server("go-grpc", "grpc", _GO.replace("PROTOCOL", "grpc")),
        Server("go-http", "http", _GO.replace("PROTOCOL", "http")),
        Server("ours-bindings", "grpc", _OURS.replace("APP", "{apps}/bindings")),
        Server("ours-bindings-ttl", "grpc", f"{_OURS.replace('APP', '{apps}/bindings')} --secret-ttl 60"),
        *(
            Server(f"ours-functions-{count}", "grpc", _OURS.replace("APP", f"{{apps}}/functions-{count}"))
            for count in FUNCTION_COUNTS
        ),
    )
}

# case name, server, the methods' suffix
_SUBJECTS = (
    ("grpc-{}", "ours-grpc", ""),
    ("dapr-ext-grpc-{}", "dapr-ext-grpc", ""),
    ("go-grpc-{}", "go-grpc", ""),
    ("grpc-{}-async", "ours-grpc", "Async"),
    ("http-{}", "ours-http", ""),
    ("fastapi-{}", "fastapi", ""),
    ("go-http-{}", "go-http", ""),
    ("http-{}-async", "ours-http", "Async"),
    ("fastapi-async-{}", "fastapi-async", ""),
)
_SECRET = {"my-secret": "abcd"}
_PAYLOADS = (("1B", 1), ("64KiB", 64 * 1024), ("1MiB", 1024 * 1024))


def _payload(size: int) -> bytes:
    """A JSON text of exactly `size` bytes."""
    return b"1" if size == 1 else b'"' + b"x" * (size - 2) + b'"'


CASES = {
    case.name: case
    for case in (
        *(
            Case(
                name.format("get"),
                "get",
                SERVERS[server],
                f"RetrieveSecret{suffix}",
                reply=_SECRET,
                vias=_BOTH,
            )
            for name, server, suffix in _SUBJECTS
        ),
        *(Case(name.format("echo"), "echo", SERVERS[server], f"Echo{suffix}") for name, server, suffix in _SUBJECTS),
        *(
            Case(
                name.format(count),
                "bindings",
                SERVERS[server],
                f"Secrets{count}",
                reply={f"secret-{number}": f"value-{number}" for number in range(count)},
                concurrencies=(1, 32),
                vias=vias,
            )
            for name, server, vias in (
                ("grpc-secrets-{}", "ours-bindings", _BOTH),
                ("grpc-secrets-{}-ttl", "ours-bindings-ttl", _DIRECT),
                ("go-grpc-secrets-{}", "go-grpc", _DIRECT),
            )
            for count in SECRET_COUNTS
        ),
        *(
            Case(
                f"grpc-functions-{count}",
                "functions",
                SERVERS[f"ours-functions-{count}"],
                f"Function{count - 1}",
                reply=_SECRET,
                concurrencies=(1, 32),
            )
            for count in FUNCTION_COUNTS
        ),
        *(
            Case(
                f"{name.format('payload')}-{label}",
                "payload",
                SERVERS[server],
                "Echo",
                _payload(size),
                concurrencies=(8,),
            )
            for label, size in _PAYLOADS
            for name, server, suffix in _SUBJECTS
            if not suffix
        ),
    )
}

# Time from exec to the first successful invocation, and what is then called.
START_CASES = (
    "grpc-get",
    "http-get",
    "dapr-ext-grpc-get",
    "fastapi-get",
    "fastapi-async-get",
    "go-grpc-get",
    "go-http-get",
    *(f"grpc-functions-{count}" for count in FUNCTION_COUNTS),
)

# Where plain Python's import of the app is measured as well, in the same rounds: case -> the app's directory.
IMPORTS = {f"grpc-functions-{count}": f"functions-{count}" for count in FUNCTION_COUNTS}

# Resident memory after many invocations.
MEMORY_CASES = ("grpc-get", "http-get", "dapr-ext-grpc-get", "fastapi-get", "go-grpc-get", "go-http-get")
MEMORY_INVOCATIONS = 100_000
