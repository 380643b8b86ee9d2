"""Addresses of gRPC servers, as Dapr's settings write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import SplitResult, urlsplit

_FORMS = "host:port, https://host:port, or unix:/path"
# The port that daprd serves gRPC on unless told otherwise.
DAPR_GRPC_PORT = 50_001

# What may be secret in an address: who asks, and any query.
_USER_INFO = re.compile(r"^((?:\w+:)?//)?.*@", re.DOTALL)
_QUERY = re.compile(r"\?.*", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
# Labels of at most 63 bytes: resolvers of longer ones fail with errors that are no OSError.
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.ASCII)
_SHOWN = 200


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

    Takes ``host``, ``host:port``, ``http://`` and ``https://`` URLs (https is TLS), ``dns:host:port``, ``unix:path``
    and ``unix:///path``, and, where no URL has said it, the query ``?tls=true``.

    Raises:
        ValueError: it is none of these; the text says what was found, without any password, and which forms there are.
    """
    found = quoted(text)
    if _UNPRINTABLE.search(text):
        raise ValueError(f"{found} has white space or a control character; write {_FORMS}")
    if text.startswith("unix:"):
        return _unix(text)
    if "@" in text:
        raise ValueError(f"{found} has a user name, which gRPC endpoints have not; write {_FORMS}")
    url = _split(_with_scheme(text, found), found)
    if url.path.strip("/") or url.fragment:
        raise ValueError(f"{found} has a path, which gRPC endpoints have not; write {_FORMS}")
    tls = _tls(url, found)
    return Endpoint(_host(url, found), _port(url, found) or (443 if tls else DAPR_GRPC_PORT), None, tls)


def quoted(text: str) -> str:
    """Return an address for a message: in quotes, short, on one line, and without user name, password and query."""
    shown = _QUERY.sub("?***", _USER_INFO.sub(r"\1***@", text))
    return repr(shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "...")


def _unix(text: str) -> Endpoint:
    path = text.removeprefix("unix:")
    # After two slashes a URL names a host, which a socket has not.
    if path.startswith("//") and not path.startswith("///"):
        raise ValueError(f"{quoted(text)} names no absolute path; write unix:///path or unix:path")
    path = path.removeprefix("//")
    if not path:
        raise ValueError(f"{quoted(text)} names no socket; write unix:/path")
    return Endpoint(path=path)


def _split(text: str, found: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError(f"{found} is no gRPC endpoint; write {_FORMS}") from None


def _with_scheme(text: str, found: str) -> str:
    """Return a URL whose scheme is ``http`` or ``https``, or empty where the text has none."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme in ("http", "https"):
        return text
    if separator and scheme == "dns":
        # dns://resolver/host:port names a resolver; the system's is used.
        return "//" + rest.rpartition("/")[2]
    if text.startswith("dns:"):
        return "//" + text.removeprefix("dns:")
    if separator:
        raise ValueError(f"{found} has the scheme {quoted(scheme)}, which is not supported; write {_FORMS}")
    return "//" + text


def _tls(url: SplitResult, found: str) -> bool:
    if not url.query:
        return url.scheme == "https"
    if url.query not in ("tls=true", "tls=false"):
        raise ValueError(f"{found} has a query other than tls=true or tls=false; write {_FORMS}")
    if url.scheme:
        raise ValueError(f"{found} says tls twice; write https:// for TLS and no query")
    return url.query == "tls=true"


def _host(url: SplitResult, found: str) -> str:
    host = url.hostname or ""
    if "[" in url.netloc:
        try:
            return str(IPv6Address(host))
        except AddressValueError:
            pass
    elif _HOST.fullmatch(host):
        return host
    raise ValueError(f"{found} is no gRPC endpoint; write {_FORMS}")


def _port(url: SplitResult, found: str) -> int | None:
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"{found} has a port that is no number from 1 to 65535; write {_FORMS}")
    return port
