"""A real daprd, and the resource files that it reads."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml

from daprfunc.rpc.dapr_pb2_grpc import DaprStub
from tests.e2e.build import DAPRD, Program
from tests.e2e.processes import Process, answers, free_ports, is_listening

SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def binary(program: Program, make: str) -> Path:
    """The built `program`; never a skip, since a test that did not run would look like one that passed.

    Raises:
        AssertionError: it is missing, or older than its go.mod; the text says which make target builds it.
    """
    assert program.is_built(), f"{program.binary} is missing or out of date: run `make {make}`"
    return program.binary


class Daprd:
    """One daprd on loopback, with ports of its own that it keeps over restarts.

    As a context manager it is started, waited for (its outbound health: an app need not be there) and stopped.

    Attributes:
        app_id: the id under which it serves its app.
        app_port: where it expects its app, None without one.
        app_protocol: how it speaks to its app.
        http_port: the port of its HTTP API.
        grpc_port: the port of its gRPC API.
        sockets: the directory of its unix sockets, which then replace those two ports; None without.
        metrics_port: the port of its metrics.
        http: a client of its HTTP API.
        channel: a grpcio channel to its gRPC API.
        stub: our generated stub on that channel.
    """

    def __init__(
        self,
        app_port: int | None = None,
        app_protocol: str = "http",
        resources: Path | None = None,
        config: Path | None = None,
        app_id: str = "functionapp",
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        sockets: Path | None = None,
    ) -> None:
        self.app_id = app_id
        self.app_port = app_port
        self.app_protocol = app_protocol
        self.http_port, self.grpc_port, self.metrics_port, internal_port = free_ports(4)
        self.sockets = sockets
        self.grpc_address = f"unix:{self._socket('grpc')}" if sockets else f"127.0.0.1:{self.grpc_port}"
        options: dict[str, object] = {
            "app-id": app_id,
            "dapr-http-port": self.http_port,
            "dapr-grpc-port": self.grpc_port,
            "dapr-listen-addresses": "127.0.0.1",
            "dapr-internal-grpc-port": internal_port,
            "dapr-internal-grpc-listen-address": "127.0.0.1",
            "metrics-port": self.metrics_port,
            "metrics-listen-address": "127.0.0.1",
            "dapr-graceful-shutdown-seconds": 1,
        }
        if app_port is not None:
            options |= {"app-port": app_port, "app-protocol": app_protocol}
        if resources is not None:
            options["resources-path"] = resources
        if config is not None:
            options["config"] = config
        if sockets is not None:
            options["unix-domain-socket"] = sockets
        self._arguments = [f"--{name}={value}" for name, value in options.items()] + list(extra_args)
        self._env = dict(env or {})
        self._cwd = cwd
        self._process: Process | None = None
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.http_port}",
            timeout=30,
            trust_env=False,
            transport=httpx.HTTPTransport(uds=self._socket("http")) if sockets else None,
        )
        self._metrics = httpx.Client(base_url=f"http://127.0.0.1:{self.metrics_port}", timeout=30, trust_env=False)
        self.channel = grpc.insecure_channel(self.grpc_address, options=[("grpc.enable_http_proxy", 0)])
        self.stub: Any = DaprStub(self.channel)

    def _socket(self, api: str) -> str:
        return f"{self.sockets}/dapr-{self.app_id}-{api}.socket"

    def _listens(self) -> bool:
        """Whether its HTTP API accepts connections. (httpx leaves a socket open when a unix socket refuses.)"""
        if self.sockets is None:
            return is_listening(self.http_port)
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self._socket("http")) == 0

    @property
    def process(self) -> Process:
        """The daprd that runs, or ran last."""
        assert self._process, "daprd was not started"
        return self._process

    @property
    def output(self) -> str:
        """All that it wrote since its last start."""
        return self.process.output

    @property
    def app_environment(self) -> dict[str, str]:
        """What ``dapr run`` puts into the environment of the app."""
        environment = {
            "APP_ID": self.app_id,
            "DAPR_HTTP_PORT": str(self.http_port),
            "DAPR_GRPC_PORT": str(self.grpc_port),
            "DAPR_METRICS_PORT": str(self.metrics_port),
        }
        if self.sockets is not None:
            environment["DAPR_GRPC_ENDPOINT"] = self.grpc_address
        if self.app_port is None:
            return environment
        app = {"APP_PORT": str(self.app_port), "APP_PROTOCOL": self.app_protocol, "APP_CHANNEL_ADDRESS": "127.0.0.1"}
        return environment | app

    def launch(self) -> Process:
        """Start it without waiting for anything."""
        self._process = Process("daprd", [binary(DAPRD, "daprd"), *self._arguments], env=self._env, cwd=self._cwd)
        return self._process

    def start(self, seconds: float = 30) -> Daprd:
        """Start it and wait until its APIs serve (``/v1.0/healthz/outbound``)."""
        process = self.launch()
        try:
            process.wait_until(self._listens, "its HTTP API", seconds)
            process.wait_until(lambda: answers(self.http, "/v1.0/healthz/outbound"), "outbound health", seconds)
        except AssertionError:
            process.kill()
            raise
        return self

    def wait_until_ready(self, seconds: float = 30) -> None:
        """Wait until all of it is ready, its app (if it has one) included (``/v1.0/healthz``)."""
        self.process.wait_until(lambda: answers(self.http, "/v1.0/healthz"), "health", seconds)

    def wait_until_app_is_healthy(self, seconds: float = 30) -> None:
        """Wait until it passes calls on to its app.

        With --enable-app-health-check it refuses all until its first probe, which comes after it says that it is ready.
        """
        call = f"/v1.0/invoke/{self.app_id}/method/healthz"
        refusal = b"app is not in a healthy state"
        self.process.wait_until(lambda: refusal not in self.http.get(call).content, "a healthy app", seconds)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        return self.process.stop()

    def kill(self) -> int:
        """SIGKILL, and its exit code."""
        return self.process.kill()

    def restart(self) -> Daprd:
        """Start it again on the same ports, after :meth:`kill` or :meth:`stop`, or after killing it here."""
        self.kill()
        return self.start()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples called `name` whose labels have these values; 0 when there is none yet.

        Args:
            name: the metric's full name, such as ``dapr_component_secret_count``.
            labels: label -> exact value.
        """
        text = self._metrics.get("/metrics").raise_for_status().text
        samples = (match for match in SAMPLE.finditer(text) if match["name"] == name)
        return sum(
            float(match["value"])
            for match in samples
            if labels.items() <= dict(LABEL.findall(match["labels"] or "")).items()
        )

    def close(self) -> None:
        """Stop it and close the clients."""
        self.http.close()
        self._metrics.close()
        self.channel.close()
        if self._process:
            self._process.stop()

    def __enter__(self) -> Daprd:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


def component(
    kind: str, name: str, metadata: Mapping[str, str] | None = None, scopes: Sequence[str] = ()
) -> dict[str, Any]:
    """A Component resource.

    Args:
        kind: its ``spec.type``, such as ``secretstores.local.file``.
        name: the name that apps use.
        metadata: ``spec.metadata`` as name -> value.
        scopes: the app ids that may use it; none means all.
    """
    items = [{"name": key, "value": value} for key, value in (metadata or {}).items()]
    resource: dict[str, Any] = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"type": kind, "version": "v1", "metadata": items},
    }
    return resource | {"scopes": list(scopes)} if scopes else resource


def configuration(**spec: Any) -> dict[str, Any]:
    """A Configuration resource with this ``spec``, for daprd's ``--config``."""
    return {"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "tests"}, "spec": spec}


def resiliency(store: str, **policies: Any) -> dict[str, Any]:
    """A Resiliency resource that applies `policies`, such as ``retry={...}``, to all calls of a secret store.

    daprd looks for its kind in the first document of a file only.
    """
    kinds = {"retry": "retries", "timeout": "timeouts", "circuitBreaker": "circuitBreakers"}
    return {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Resiliency",
        "metadata": {"name": "tests"},
        "spec": {
            "policies": {kinds[name]: {"tested": policy} for name, policy in policies.items()},
            "targets": {"components": {store: {"outbound": dict.fromkeys(policies, "tested")}}},
        },
    }


def write_resources(file: Path, *resources: Mapping[str, Any]) -> Path:
    """Write `resources` into the YAML `file`, one document each, making its directory; return `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump_all(resources))
    return file


def write_secrets(file: Path, secrets: Mapping[str, Any]) -> Path:
    """Write a secrets file that only its owner can read; return it."""
    file.touch(mode=0o600)
    file.write_text(json.dumps(secrets))
    return file
