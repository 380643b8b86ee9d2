"""A function app run by ``daprfunc start`` in a process of its own, as a user runs it."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.daprd import Daprd
from tests.e2e.processes import Process, answers, free_port, is_listening


class FunctionApp:
    """``python -m daprfunc start DIRECTORY --app-port N ARGUMENTS``, ready once the port accepts and /healthz says 200.

    Attributes:
        port: its app port, to be given to daprd.
        address: ``127.0.0.1:port``.
        http: a client of its HTTP channel.
        process: the running process, with its output.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        python: str | Path = sys.executable,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """See :class:`FunctionApp`; `trust` is for an app that speaks TLS, and says which certificate is its own."""
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        scheme = "https" if trust else "http"
        url = f"{scheme}://{self.address}"
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False, verify=trust or True)
        self._command = [python, "-m", "daprfunc", "start", directory, "--app-port", str(self.port), *arguments]
        self._env = env
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process, "the app was not started"
        return self._process

    @property
    def output(self) -> str:
        """All that it wrote so far."""
        return self.process.output

    def start(self) -> FunctionApp:
        """Start it and wait until it answers."""
        self._process = Process("daprfunc", self._command, env=self._env)
        try:
            self._process.wait_until(lambda: is_listening(self.port), f"port {self.port}")
            self._process.wait_until(lambda: answers(self.http, "/healthz"), "/healthz")
        except AssertionError:
            self._process.kill()
            raise
        return self

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        return self.process.stop()

    def kill(self) -> int:
        """SIGKILL, and its exit code."""
        return self.process.kill()

    def __enter__(self) -> FunctionApp:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.stop()


@contextmanager
def dapr_run(
    directory: Path,
    app_protocol: str,
    *,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
    daprd_env: Mapping[str, str] | None = None,
    **daprd: Any,
) -> Iterator[tuple[FunctionApp, Daprd]]:
    """Run the app in `directory` beside a daprd, as ``dapr run`` does; both are ready when the block begins.

    Args:
        directory: the app's directory.
        app_protocol: how daprd speaks to the app.
        arguments: more arguments of ``daprfunc start``.
        env: more environment of the app.
        trust: for an app that speaks TLS, see :class:`FunctionApp`.
        daprd_env: environment of daprd.
        daprd: more arguments of :class:`Daprd`, such as ``resources``.
    """
    sidecar = Daprd(free_port(), app_protocol, env=daprd_env, **daprd)
    environment = sidecar.app_environment | dict(env or {})
    with FunctionApp(directory, *arguments, env=environment, port=sidecar.app_port, trust=trust) as app, sidecar:
        sidecar.wait_until_ready()
        sidecar.wait_until_app_is_healthy()
        yield app, sidecar
