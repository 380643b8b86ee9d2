"""The app's port: tells HTTP/2 from HTTP/1.1 by the first bytes, and ends calmly."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Protocol

from daprfunc.channel.app import App
from daprfunc.channel.http1 import Http1Connection
from daprfunc.channel.http2 import Http2Connection
from daprfunc.http2.frames import PREFACE

# How long a caller may take to send the first bytes.
GREETING_SECONDS = 60.0
# The same while the server drains: long enough for what is on its way.
DRAINING_SECONDS = 1.0
# How often callers are looked at for being too slow.
CHECK_SECONDS = 1.0
BACKLOG = 1_024


class _Connection(Protocol):
    """What every connection on the port can be asked."""

    def drain(self) -> None: ...
    def abort(self) -> None: ...
    def check(self, now: float) -> None: ...


class Server:
    """Listens for callers.

    Args:
        app: what they call.
        tls: for callers that speak TLS (``--app-protocol https`` or ``grpcs``); None for plain text.
    """

    def __init__(self, app: App, *, tls: ssl.SSLContext | None = None) -> None:
        self.app = app
        self.connections: set[_Connection] = set()
        self.draining = False
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._checks: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()

    async def start(self, listener: socket.socket) -> None:
        """Listen on a bound socket."""
        # Connections inherit it. asyncio sets it itself only where a socket was made with its protocol's number.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = await self._loop.create_server(
            lambda: _Sniffer(self), sock=listener, ssl=self._tls, backlog=BACKLOG
        )
        self._checks = self._loop.call_later(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        now = self._loop.time()
        for connection in list(self.connections):
            connection.check(now)
        self._checks = self._loop.call_later(CHECK_SECONDS, self._check)

    def joined(self, connection: _Connection) -> None:
        """A connection was made."""
        self.connections.add(connection)

    def left(self, connection: _Connection) -> None:
        """A connection was lost."""
        self.connections.discard(connection)
        if not self.connections:
            self._closed.set()

    async def drain(self, timeout: float) -> None:
        """Take no new connections; let those that are open finish, but for no longer than `timeout` seconds."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            self._closed.clear()
            try:
                await asyncio.wait_for(self._closed.wait(), timeout)
            except asyncio.TimeoutError:
                for connection in list(self.connections):
                    connection.abort()
        if self._checks is not None:
            self._checks.cancel()


class _Sniffer(asyncio.Protocol):
    """Reads just enough of a new connection to know its protocol, then hands it over."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._server.joined(self)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._seen.startswith(PREFACE):
            self._hand_over(
                Http2Connection(self._server.app, self._loop, self._server.left), self._seen[len(PREFACE) :]
            )
        elif not PREFACE.startswith(self._seen):
            if self._agreed_on_http2():
                self.abort()
            else:
                self._hand_over(Http1Connection(self._server.app, self._loop, self._server.left), self._seen)

    def _agreed_on_http2(self) -> bool:
        tls = self._transport.get_extra_info("ssl_object") if self._transport else None
        return tls is not None and tls.selected_alpn_protocol() == "h2"

    def _hand_over(self, connection: Http1Connection | Http2Connection, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        self._server.joined(connection)
        self._server.left(self)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if data:
            connection.data_received(data)
        if self._server.draining:
            connection.drain()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.left(self)

    def drain(self) -> None:
        """Wait a little for a first request that may be on its way."""
        self._since = self._loop.time()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def check(self, now: float) -> None:
        if now - self._since > (DRAINING_SECONDS if self._server.draining else GREETING_SECONDS):
            self.abort()
