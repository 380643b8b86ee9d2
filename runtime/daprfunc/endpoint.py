"""Addresses of gRPC servers, as Dapr's settings write them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

_FORMS = "host:port, https://host:port, or unix:/path"
# The port that daprd serves gRPC on unless told otherwise.
DAPR_GRPC_PORT = 50_001


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a gRPC server listens.

    Attributes:
        host: name or address; meaningless with a `path`.
        port: TCP port; meaningless with a `path`.
        path: a unix socket's path.
        tls: whether to speak TLS.
    """

    host: str = "127.0.0.1"
    port: int = DAPR_GRPC_PORT
    path: str | None = None
    tls: bool = False

    @property
    def authority(self) -> str:
        """What HTTP/2's ``:authority`` says."""
        if self.path is not None:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path is not None else self.authority


def parse_endpoint(text: str) -> Endpoint:
    """Read an endpoint as Dapr's SDKs do (``DAPR_GRPC_ENDPOINT``).

    Takes ``host``, ``host:port``, ``http://`` and ``https://`` URLs (https is TLS), ``dns:host:port``, ``unix:/path``
    and ``unix:///path``, and the query ``?tls=true``.

    Raises:
        ValueError: it is none of these; the text says what was found and which forms there are.
    """
    if text.startswith("unix:"):
        return _unix(text)
    url = urlsplit(_with_scheme(text))
    try:
        port = url.port
    except ValueError:
        raise ValueError(f"'{text}' has a port that is no number from 1 to 65535; write {_FORMS}") from None
    if not url.hostname or port == 0:
        raise ValueError(f"'{text}' is no gRPC endpoint; write {_FORMS}")
    if url.path.strip("/"):
        raise ValueError(f"'{text}' has a path, which gRPC endpoints have not; write {_FORMS}")
    tls = url.scheme == "https" or parse_qs(url.query).get("tls") == ["true"]
    return Endpoint(url.hostname, port or (443 if tls else DAPR_GRPC_PORT), None, tls)


def _unix(text: str) -> Endpoint:
    path = text.removeprefix("unix:")
    if path.startswith("//"):
        path = path.removeprefix("//")
    if not path:
        raise ValueError(f"'{text}' names no socket; write unix:/path")
    return Endpoint(path=path)


def _with_scheme(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if separator and scheme in ("http", "https"):
        return text
    if separator and scheme == "dns":
        # dns://resolver/host:port names a resolver; the system's is used.
        return "http://" + rest.rpartition("/")[2]
    if text.startswith("dns:"):
        return "http://" + text.removeprefix("dns:")
    if separator:
        raise ValueError(f"'{text}' has the scheme '{scheme}', which is not supported; write {_FORMS}")
    return "http://" + text
