from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from daprfunc.rpc import appcallback_pb2_grpc, common_pb2, dapr_pb2_grpc
from daprfunc.standalone.components import Resources, load_resources
from daprfunc.standalone.service import EmbeddedSidecar

APP_ID = "app"

Write = Callable[[str, str], Path]
Load = Callable[..., Resources]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file under the test's directory, readable by its owner only."""

    def write_(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    return write_


def component(name: str = "store", type: str = "secretstores.local.file", extra: str = "", **metadata: str) -> str:
    """The YAML of a component."""
    pairs = "".join(f"\n    - name: {key}\n      value: {value}" for key, value in metadata.items())
    return (
        f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\n{extra}"
        f"spec:\n  type: {type}\n  version: v1\n  metadata:{pairs or ' []'}\n"
    )


def configuration(*scopes: str) -> str:
    """The YAML of a Configuration with these secret scopes, each in flow style."""
    entries = "".join(f"\n      - {scope}" for scope in scopes)
    return f"apiVersion: dapr.io/v1alpha1\nkind: Configuration\nspec:\n  secrets:\n    scopes:{entries}\n"


@pytest.fixture
def load(tmp_path: Path, write: Write) -> Load:
    """Load the test's directory; keyword arguments are files to write first: ``store=`` is store.yaml."""

    def load_(*documents: str, secrets: str = "{}", environ: Mapping[str, str] | None = None) -> Resources:
        write("secrets.json", secrets)
        write("resources.yaml", "\n---\n".join(documents))
        return load_resources(tmp_path, app_id=APP_ID, environ=environ or {})

    return load_


@dataclass
class FakeApp(appcallback_pb2_grpc.AppCallbackServicer):
    """An app that records what it is called with and answers by `behave`."""

    behave: Callable[[common_pb2.InvokeRequest, grpc.ServicerContext], common_pb2.InvokeResponse]
    port: int = 0
    requests: list[common_pb2.InvokeRequest] = field(default_factory=list)
    metadata: list[list[tuple[str, str | bytes]]] = field(default_factory=list)

    def OnInvoke(self, request: common_pb2.InvokeRequest, context: grpc.ServicerContext) -> common_pb2.InvokeResponse:
        self.requests.append(request)
        self.metadata.append([(key, value) for key, value in context.invocation_metadata()])
        return self.behave(request, context)


def echo(request: common_pb2.InvokeRequest, context: grpc.ServicerContext) -> common_pb2.InvokeResponse:
    return common_pb2.InvokeResponse(data=request.data, content_type=request.content_type)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack_:
        yield stack_


@pytest.fixture
def fake_app(stack: ExitStack) -> Callable[..., FakeApp]:
    """Start an app, on any free port unless told which."""

    def start(behave: Any = echo, port: int = 0) -> FakeApp:
        app = FakeApp(behave)
        threads = stack.enter_context(ThreadPoolExecutor(64))
        server = grpc.server(threads, options=(("grpc.so_reuseport", 0),))
        appcallback_pb2_grpc.add_AppCallbackServicer_to_server(app, server)
        app.port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        stack.callback(lambda: server.stop(None).wait())
        return app

    return start


@pytest.fixture
def sidecar(stack: ExitStack) -> Callable[..., EmbeddedSidecar]:
    """Start an embedded sidecar; stopped after the test."""

    def start(resources: Resources, **options: Any) -> EmbeddedSidecar:
        embedded = EmbeddedSidecar(resources, **{"app_id": APP_ID, "app_port": 1, **options})
        embedded.start()
        stack.callback(embedded.stop, 0)
        return embedded

    return start


@pytest.fixture
def stub(stack: ExitStack) -> Callable[[EmbeddedSidecar], Any]:
    """Our stub on a channel to a sidecar."""

    def connect(embedded: EmbeddedSidecar) -> Any:
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{embedded.port}"))
        return dapr_pb2_grpc.DaprStub(channel)

    return connect
