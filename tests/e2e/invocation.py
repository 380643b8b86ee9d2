"""The ways in which a caller reaches a function through daprd, and what daprd makes of its answer on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from daprfunc.rpc.appcallback_pb2_grpc import AppCallbackStub
from daprfunc.rpc.common_pb2 import HTTPExtension, InvokeRequest, InvokeResponse
from daprfunc.rpc.dapr_pb2 import InvokeServiceRequest
from tests.e2e.daprd import Daprd

JSON = "application/json"
OCTETS = "application/octet-stream"
TIMEOUT_SECONDS = 30
# What daprd keeps of an error's text when it turns an HTTP app's answer into a gRPC caller's.
KEPT_CHARACTERS = 63


@dataclass(frozen=True)
class Call:
    """One service invocation."""

    method: str
    body: bytes = b""
    content_type: str = JSON
    verb: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verb} {self.method} {self.body[:20]!r}"


@dataclass(frozen=True)
class Answer:
    """What a caller got.

    Attributes:
        status: the HTTP status, or gRPC's code.
        body: the reply's bytes, or the error's text.
        content_type: "" where there is none, and for errors.
    """

    status: int | grpc.StatusCode
    body: bytes
    content_type: str = ""


@dataclass(frozen=True)
class Failure:
    """An error as the app answers it on either app protocol."""

    http: int
    grpc: grpc.StatusCode
    message: str


Caller = Callable[[Daprd, Call], Answer]


def over_http(daprd: Daprd, call: Call) -> Answer:
    """Call through daprd's HTTP API."""
    reply = daprd.http.request(
        call.verb,
        f"/v1.0/invoke/{daprd.app_id}/method/{call.method}",
        content=call.body,
        headers={"content-type": call.content_type, **call.headers},
    )
    content_type = reply.headers.get("content-type", "") if reply.is_success else ""
    return Answer(reply.status_code, reply.content, content_type)


def over_grpc(daprd: Daprd, call: Call) -> Answer:
    """Call through daprd's gRPC API, ``Dapr.InvokeService``."""
    request = InvokeServiceRequest(id=daprd.app_id, message=_message(call))
    return _answer(daprd.stub.InvokeService, request, tuple(call.headers.items()))


def over_grpc_proxying(daprd: Daprd, call: Call) -> Answer:
    """Call the app's own gRPC service; daprd passes the call on to the app that the metadata names."""
    stub: Any = AppCallbackStub(daprd.channel)
    return _answer(stub.OnInvoke, _message(call), (*call.headers.items(), ("dapr-app-id", daprd.app_id)))


def _message(call: Call) -> InvokeRequest:
    extension = HTTPExtension(verb=call.verb)
    message = InvokeRequest(method=call.method, content_type=call.content_type, http_extension=extension)
    message.data.value = call.body
    return message


def _answer(method: Any, request: Any, metadata: tuple[tuple[str, str], ...]) -> Answer:
    try:
        response: Any = method(request, timeout=TIMEOUT_SECONDS, metadata=metadata)
    except grpc.RpcError as error:
        return Answer(error.code(), _error_text(error).encode())
    assert isinstance(response, InvokeResponse)
    return Answer(grpc.StatusCode.OK, response.data.value, response.content_type)


def _error_text(error: Any) -> str:
    """The error's text; for an HTTP app daprd puts the start of it into the details."""
    info = ErrorInfo()
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return str(info.metadata["http.error_message"])
    return str(error.details())


# daprd's own two tables, HTTPStatusFromCode and CodeFromHTTPStatus; what they do not list is 500 and UNKNOWN.
HTTP_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
GRPC_CODES = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def expected(failure: Failure, app_protocol: str, caller: Caller) -> Answer:
    """What `caller` gets when an app, called by daprd with `app_protocol`, fails so."""
    if app_protocol in {"grpc", "grpcs"}:
        if caller is not over_http:
            return Answer(failure.grpc, failure.message.encode())
        escaped = failure.message.replace("\\", "\\\\").replace('"', '\\"')
        text = f'{{"code":{failure.grpc.value[0]}, "message":"{escaped}"}}'
        return Answer(HTTP_STATUSES.get(failure.grpc, 500), text.encode())
    if caller is over_http:
        return Answer(failure.http, failure.message.encode())
    code = GRPC_CODES.get(failure.http, grpc.StatusCode.UNKNOWN)
    return Answer(code, failure.message[:KEPT_CHARACTERS].encode())
