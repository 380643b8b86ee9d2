"""One invocation of an app or of daprd: what a probe sends and how its reply reads.

The gRPC side uses grpcio with daprfunc's own stubs; ghz gets the same bytes.
"""

from __future__ import annotations

import http.client
import json

import grpc
from cases import Case, Protocol
from processes import LOOPBACK

from daprfunc.rpc import common_pb2

ON_INVOKE = "dapr.proto.runtime.v1.AppCallback/OnInvoke"
JSON_TYPE = "application/json"


class WrongReplyError(Exception):
    """An invocation failed, or answered something else than it must."""


def invoke_request(case: Case) -> bytes:
    """A serialized InvokeRequest, as daprd sends it."""
    request = common_pb2.InvokeRequest(
        method=case.method,
        content_type=JSON_TYPE,
        http_extension=common_pb2.HTTPExtension(verb="POST"),
    )
    request.data.value = case.body
    return request.SerializeToString()


def probe(case: Case, protocol: Protocol, port: int, path: str = "") -> None:
    """Invokes `case` once and compares the reply.

    Args:
        case: what to invoke.
        protocol: which protocol the port speaks.
        port: on loopback.
        path: what stands before the method's name in an HTTP path.

    Raises:
        WrongReplyError: the status or the body is not the expected one.
        OSError, grpc.RpcError: nobody answered.
    """
    body = _grpc(case, port) if protocol == "grpc" else _http(case, port, path)
    expected = json.loads(case.body) if case.reply is None else case.reply
    if json.loads(body) != expected:
        raise WrongReplyError(f"{case.name} answered {body[:80]!r} instead of {str(expected)[:80]}")


def _grpc(case: Case, port: int) -> bytes:
    with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        call = channel.unary_unary("/" + ON_INVOKE, None, common_pb2.InvokeResponse.FromString)
        return bytes(call(invoke_request(case), timeout=10).data.value)


def _http(case: Case, port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request("POST", f"{path}/{case.method}", case.body, {"Content-Type": JSON_TYPE})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise WrongReplyError(f"{case.name} answered {response.status} {body[:200]!r}")
    return body
