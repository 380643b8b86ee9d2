"""Servers with a daprd beside each, started once and kept until the benchmark ends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import wire
from cases import Case, Server, Via
from load import Amount, Sample, load_grpc, load_http
from prepare import CACHE, Toolbox
from processes import LOOPBACK, Process, ProcessError, free_ports, wait_for_port

READY_SECONDS = 20.0
LOGS = CACHE / "logs"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running daprd and its API ports."""

    process: Process
    grpc_port: int
    http_port: int

    def environment(self) -> dict[str, str]:
        """What `dapr run` tells an app about its sidecar."""
        return {"DAPR_GRPC_PORT": str(self.grpc_port), "DAPR_HTTP_PORT": str(self.http_port)}

    def wait(self) -> None:
        """Returns once its API answers, whether or not an app is there."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.process.check()
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(f"http://{LOOPBACK}:{self.http_port}/v1.0/healthz/outbound", timeout=1),
            ):
                return
            time.sleep(0.02)
        raise ProcessError(f"{self.process.name} was not ready in {READY_SECONDS:.0f} s; see {self.process.log}")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers, and its sidecar."""

    server: Server
    app: Process
    sidecar: Sidecar
    port: int

    def load(self, tools: Toolbox, case: Case, via: Via, amount: Amount) -> Sample:
        """Load on the app itself, or on its sidecar's HTTP API."""
        if via == "daprd":
            return load_http(tools, case, self.sidecar.http_port, amount, _invoke_path(self.server))
        if self.server.protocol == "grpc":
            return load_grpc(tools, case, self.port, amount)
        return load_http(tools, case, self.port, amount)

    def probe(self, case: Case, via: Via) -> None:
        """One invocation whose reply is compared with what it must be."""
        if via == "daprd":
            wire.probe(case, "http", self.sidecar.http_port, _invoke_path(self.server))
        else:
            wire.probe(case, self.server.protocol, self.port)


@contextlib.contextmanager
def sidecar(tools: Toolbox, name: str, app: Server | None = None, app_port: int = 0) -> Iterator[Sidecar]:
    """A daprd whose API answers. Without `app` it serves secrets only."""
    grpc_port, http_port, internal_port, metrics_port = free_ports(4)
    command = [
        *(str(tools.daprd), "--app-id", name, "--resources-path", "components", "--log-level", "warn"),
        *("--dapr-grpc-port", str(grpc_port), "--dapr-http-port", str(http_port)),
        *("--dapr-internal-grpc-port", str(internal_port), "--metrics-port", str(metrics_port)),
        *("--dapr-listen-addresses", LOOPBACK, "--metrics-listen-address", LOOPBACK),
        *("--dapr-graceful-shutdown-seconds", "1"),
    ]
    if app:
        command += ["--app-port", str(app_port), "--app-protocol", app.protocol]
    log = LOGS / f"daprd-{name}.log"
    with Process.start(f"daprd of {name}", command, log, {}, cwd=tools.resources) as process:
        started = Sidecar(process, grpc_port, http_port)
        started.wait()
        yield started


def start_app(tools: Toolbox, server: Server, port: int, beside: Sidecar) -> Process:
    """Starts the server's process, ready or not."""
    places = {name: str(place) for name, place in dataclasses.asdict(tools).items()}
    command = server.command.format(**places, port=port).split()
    dapr = {**beside.environment(), "APP_PORT": str(port), "APP_PROTOCOL": server.protocol}
    return Process.start(server.name, command, LOGS / f"{server.name}.log", {**dapr, **server.environment})


@contextlib.contextmanager
def running(tools: Toolbox, case: Case) -> Iterator[Running]:
    """The case's server, once it has answered the case both directly and through its daprd."""
    server = case.server
    (port,) = free_ports(1)
    with (
        sidecar(tools, server.name, server, port) as beside,
        start_app(tools, server, port, beside) as app,
    ):
        wait_for_port(port, app)
        one = Running(server, app, beside, port)
        first_success(one, case, "direct")
        first_success(one, case, "daprd")
        yield one


def first_success(one: Running, case: Case, via: Via) -> None:
    """Invokes `case` until it answers as it must.

    Raises:
        ProcessError: the app ended, or did not answer in time; the text holds its last failure.
    """
    deadline = time.monotonic() + READY_SECONDS
    while True:
        one.app.check()
        try:
            return one.probe(case, via)
        except (OSError, grpc.RpcError, wire.WrongReplyError, json.JSONDecodeError) as error:
            if time.monotonic() > deadline:
                raise ProcessError(f"{one.server.name}, {via}: {case.name} still fails: {error}") from error
        time.sleep(0.002)


def _invoke_path(server: Server) -> str:
    return f"/v1.0/invoke/{server.name}/method"
