"""Real processes, real ports, real clients; no Dapr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from daprfunc.rpc.appcallback_pb2_grpc import AppCallbackStub
from daprfunc.rpc.common_pb2 import InvokeRequest, InvokeResponse
from tests.e2e.app import FunctionApp

ROOT = Path(__file__).parents[2]
APP = ROOT / "tests" / "apps" / "end_to_end"
COMPONENTS = APP / "components"
EMBEDDED = ("--resources-path", str(COMPONENTS))

Start = Callable[..., FunctionApp]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack_:
        yield stack_


@pytest.fixture
def start(stack: ExitStack) -> Start:
    """Start `daprfunc start DIRECTORY ARGUMENTS` and wait until it is healthy; stopped after the test."""

    def start_(directory: Path = APP, *arguments: str, **options: Any) -> FunctionApp:
        return stack.enter_context(FunctionApp(directory, *arguments, **options))

    return start_


@pytest.fixture
def on_invoke(stack: ExitStack) -> Callable[..., bytes]:
    """Call OnInvoke of an app with grpcio's client; raises grpc.RpcError."""
    channels: dict[str, grpc.Channel] = {}

    def call(app: FunctionApp, method: str, data: bytes = b"", metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
        if app.address not in channels:
            options = (("grpc.enable_http_proxy", 0),)
            channels[app.address] = stack.enter_context(grpc.insecure_channel(app.address, options=options))
        request = InvokeRequest(method=method, content_type="application/json")
        request.data.value = data
        stub: Any = AppCallbackStub(channels[app.address])
        response = stub.OnInvoke(request, timeout=30, metadata=metadata)
        assert isinstance(response, InvokeResponse)
        return response.data.value

    return call
