"""What an HTTP request to the app means, whichever version of HTTP carried it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from daprfunc.channel.app import App, HeaderList
from daprfunc.errors import METHOD_NOT_ALLOWED, CallerError, InvocationError

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class HttpResponse(NamedTuple):
    """An answer, ready to be framed.

    Attributes:
        status: HTTP status code.
        body: its bytes.
        content_type: "" where there is no body.
        allow: for 405, the verbs that would have done.
    """

    status: int
    body: bytes = b""
    content_type: str = ""
    allow: str = ""

    def __repr__(self) -> str:
        # Not the body: it may hold secrets.
        return f"HttpResponse({self.status}, {len(self.body)} bytes, {self.content_type!r})"


CANCELLED = HttpResponse(500, b"the invocation was cancelled", TEXT)


async def respond(app: App, verb: bytes, target: bytes, headers: HeaderList, body: bytes) -> HttpResponse:
    """Answer one request. Raises nothing but CancelledError: a failure is an answer too.

    Args:
        app: the app that is asked.
        verb: the request's method.
        target: its path, with or without a query.
        headers: names in lower case.
        body: the whole body.
    """
    try:
        path = _path(target)
        if verb == b"POST":
            content_type = next((value for name, value in headers if name == b"content-type"), b"")
            reply = await app.invoke(path, body, content_type.decode("latin-1"), headers)
            return HttpResponse(200, reply.body, reply.content_type)
        return _built_in(app, verb, path) or _not_allowed(app, verb, path, headers)
    except InvocationError as error:
        return failure(error)
    except Exception:
        return failure(app.failed())


def failure(error: InvocationError) -> HttpResponse:
    """Return the answer that says why there is none; its text is all the body, as in the .NET extension."""
    return HttpResponse(error.status.http, _encoded(str(error)), TEXT)


def _encoded(text: str) -> bytes:
    # What a function raised may hold half a surrogate pair, which UTF-8 has no bytes for.
    return text.encode("utf-8", "replace")


def _path(target: bytes) -> str:
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        # RFC 9112, section 3.2.2: a request may name the whole URL.
        path = path.partition(b"://")[2].partition(b"/")[2] or path
    if b"%" in path:
        path = unquote_to_bytes(path)
    return path.decode("utf-8", "replace").strip("/")


def _built_in(app: App, verb: bytes, path: str) -> HttpResponse | None:
    """Answer what daprd and probes ask of every app; needs no token, as daprd sends none with it."""
    if verb not in (b"GET", b"HEAD"):
        return None
    if path == "healthz":
        return HttpResponse(200) if app.healthy else HttpResponse(503, b"draining", TEXT)
    if path == "dapr/subscribe":
        return HttpResponse(200, b"[]", JSON)
    return None


def _not_allowed(app: App, verb: bytes, path: str, headers: HeaderList) -> HttpResponse:
    app.authorize(headers)
    plan = app.dispatcher.find(path)
    error = CallerError(
        f"{verb.decode('latin-1')} /{path[:200]}: functions are invoked with POST (here /{plan.route})",
        METHOD_NOT_ALLOWED,
    )
    return HttpResponse(405, _encoded(str(error)), TEXT, allow="POST")
