"""The embedded sidecar's HTTP port: the health check that Dapr's SDKs make before their first gRPC call."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

_PATHS = frozenset({"/v1.0/healthz", "/v1.0/healthz/outbound"})
_NOT_SERVED = (
    b'{"errorCode":"ERR_METHOD_NOT_FOUND","message":"the embedded sidecar serves its API over gRPC only; '
    b'for the Dapr SDK set DAPR_API_METHOD_INVOCATION_PROTOCOL=grpc"}'
)
_POLL_SECONDS = 0.05


class HealthServer:
    """Answers 204 on the health check's paths and 404 elsewhere; like daprd's, it asks for no API token.

    Args:
        host: the address to listen on.
        port: the port; 0 takes any free one.

    Raises:
        OSError: the port cannot be bound.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = _Server((host, port), _Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="daprfunc-sidecar-http", daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Close the port, whether started or not."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingTCPServer):
    """Plain TCP, as http.server's own class looks the host's name up."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    timeout = 5.0  # seconds a client may take to say what it wants

    def do_GET(self) -> None:
        if self.path.partition("?")[0].rstrip("/") in _PATHS:
            self.send_response_only(204)
            self.end_headers()
        else:
            self.do_POST()

    def do_POST(self) -> None:
        self.send_response_only(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(_NOT_SERVED)))
        self.end_headers()
        self.wfile.write(_NOT_SERVED)

    do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815 (named by http.server)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (named by http.server)
        """Stay silent: a health check is no event."""
