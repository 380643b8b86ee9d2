"""A small app of inline functions on a loopback port, in the test's own loop."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from daprfunc.channel.app import App
from daprfunc.channel.http2 import Http2Connection
from daprfunc.channel.server import Server
from daprfunc.compilation import compile_app
from daprfunc.dispatch import Dispatcher, Limits
from daprfunc.endpoint import Endpoint
from daprfunc.errors import UNAVAILABLE, SidecarError
from daprfunc.executor import Executor
from daprfunc.model import Binding, BrokenFunction, Function, FunctionApp
from daprfunc.sidecar.client import SecretRead

MAX_BODY = 300_000
HERE = Path(__file__)


class ScriptedSecrets:
    """A sidecar that knows one secret; the others are on a store that is down."""

    def secrets(self, endpoint: Endpoint | None) -> ScriptedSecrets:
        return self

    def get_secret(self, read: SecretRead) -> asyncio.Future[Mapping[str, str]]:
        future: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        if read.key == "known":
            future.set_result({"known": "open sesame"})
        else:
            future.set_exception(SidecarError(UNAVAILABLE, f"store down: {read.key}"))
        return future


def function(call: Callable[..., Any], route: str = "", *, secret: str = "", payload: type = str) -> Function:
    """One function with a trigger `payload`, and with `secret` as the key of a secret input if that is given."""
    bindings = [Binding("daprServiceInvocationTrigger", "payload", "in", {"methodname": route} if route else {})]
    annotations: dict[str, Any] = {"payload": payload}
    if secret:
        bindings.append(Binding("daprSecret", "secret", "in", {"secretstorename": "store", "key": secret}))
        annotations["secret"] = str
    return Function(
        name=call.__name__,
        directory=HERE.parent,
        script=HERE,
        file=HERE,
        call=call,
        is_async=inspect.iscoroutinefunction(call),
        bindings=tuple(bindings),
        annotations=annotations,
    )


class Gate:
    """A function that waits until it is let through, and tells what becomes of it."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.running = 0

    async def gate(self, payload: str) -> str:
        self.running += 1
        self.started.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1
        return payload


async def echo(payload: bytes) -> bytes:
    return payload


async def big(payload: str) -> bytes:
    return bytes(min(int(payload or 0), 10_000_000))


def new_dispatcher(
    *functions: Function,
    broken: tuple[BrokenFunction, ...] = (),
    timeout: float | None = None,
    max_concurrency: int = 100_000,
) -> Dispatcher:
    """Compile functions; ``echo`` (bytes) and ``big`` (so many bytes) are always there."""
    common = (function(echo, payload=bytes), function(big))
    return compile_app(
        FunctionApp(HERE.parent, (*common, *functions), broken),
        services=ScriptedSecrets(),
        app_settings={},
        executor=Executor(2),
        limits=Limits(timeout, max_concurrency),
    )


def new_app(*functions: Function, max_body_size: int = MAX_BODY) -> App:
    """An app that no server serves."""
    return App(new_dispatcher(*functions), api_token=None, max_body_size=max_body_size)


class Served:
    """An app that is being served.

    Attributes:
        port: where.
        server: its server, with its connections.
        app: what the server serves.
    """

    def __init__(self, app: App, server: Server, port: int) -> None:
        self.app = app
        self.server = server
        self.port = port

    @property
    def connection(self) -> Any:
        """The one connection that there is."""
        (connection,) = self.server.connections
        return connection

    @property
    def http2_connections(self) -> list[Http2Connection]:
        return [connection for connection in self.server.connections if isinstance(connection, Http2Connection)]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait, a turn of the loop at a time, until `condition` is true; the test's own timeout bounds it."""
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    *functions: Function,
    api_token: str | None = None,
    max_body_size: int = MAX_BODY,
    tls: ssl.SSLContext | None = None,
    send_buffer: int = 0,
    **limits: Any,
) -> AsyncIterator[Served]:
    """Serve functions while the context lasts. A small `send_buffer` (bytes) makes the kernel hold little for us."""
    dispatcher = new_dispatcher(*functions, **limits)
    app = App(dispatcher, api_token=api_token, max_body_size=max_body_size)
    server = Server(app, tls=tls)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listener.bind(("127.0.0.1", 0))
    await server.start(listener)
    served = Served(app, server, listener.getsockname()[1])
    try:
        yield served
    finally:
        for connection in list(server.connections):
            connection.abort()
        await server.drain(0)
        await served.until(lambda: not server.connections)
        await dispatcher.drained()
