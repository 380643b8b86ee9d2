"""What a gRPC call to the app means: Dapr's AppCallback and AppCallbackHealthCheck services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError

from daprfunc.channel.app import App, HeaderList
from daprfunc.errors import INTERNAL, INVALID_ARGUMENT, METHOD_NOT_ALLOWED, UNAVAILABLE, CallerError, InvocationError
from daprfunc.rpc.appcallback_pb2 import (
    HealthCheckResponse,
    ListInputBindingsResponse,
    ListTopicSubscriptionsResponse,
)
from daprfunc.rpc.common_pb2 import HTTPExtension, InvokeRequest, InvokeResponse

Method = Callable[[App, HeaderList, bytes], Awaitable[bytes]]
"""Takes the app, the call's metadata and the request message; returns the response message.

Raises:
    InvocationError: the call's status and message.
"""

# What an InvokeRequest may hold besides the data, and a message besides itself.
MAX_OVERHEAD = 65_536

_OTHER_VERBS = frozenset(HTTPExtension.Verb.values()) - {HTTPExtension.NONE, HTTPExtension.POST}
_NO_TOPICS = ListTopicSubscriptionsResponse().SerializeToString()
_NO_BINDINGS = ListInputBindingsResponse().SerializeToString()
_HEALTHY = HealthCheckResponse().SerializeToString()


async def on_invoke(app: App, metadata: HeaderList, message: bytes) -> bytes:
    """Run a function: gRPC's ``POST /{method}``."""
    try:
        request: Any = InvokeRequest.FromString(message)
    except DecodeError:
        raise CallerError("the request is no dapr.proto.common.v1.InvokeRequest") from None
    method = request.method.strip("/")
    verb = request.http_extension.verb
    if verb in _OTHER_VERBS:
        app.authorize(metadata)
        plan = app.dispatcher.find(method)
        name = HTTPExtension.Verb.Name(verb)
        raise CallerError(
            f"{name} {method[:200]}: functions are invoked with POST (here {plan.route})", METHOD_NOT_ALLOWED
        )
    data: bytes = request.data.value
    if len(data) > app.max_body_size:
        raise app.too_large()
    reply = await app.invoke(method, data, request.content_type, metadata)
    response: Any = InvokeResponse(content_type=reply.content_type)
    response.data.value = reply.body
    serialized: bytes = response.SerializeToString()
    return serialized


async def list_topic_subscriptions(app: App, metadata: HeaderList, message: bytes) -> bytes:
    """List the topics; no binding of ours subscribes to any yet."""
    return _NO_TOPICS


async def list_input_bindings(app: App, metadata: HeaderList, message: bytes) -> bytes:
    """List the input bindings; no trigger of ours listens to any yet."""
    return _NO_BINDINGS


async def health_check(app: App, metadata: HeaderList, message: bytes) -> bytes:
    """Answer while the app takes invocations."""
    if not app.healthy:
        raise InvocationError(UNAVAILABLE, "draining")
    return _HEALTHY


METHODS: MappingProxyType[bytes, Method] = MappingProxyType(
    {
        b"/dapr.proto.runtime.v1.AppCallback/OnInvoke": on_invoke,
        b"/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions": list_topic_subscriptions,
        b"/dapr.proto.runtime.v1.AppCallback/ListInputBindings": list_input_bindings,
        b"/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck": health_check,
    }
)


def find(app: App, path: bytes, metadata: HeaderList) -> Method:
    """Return the method at `path`.

    Raises:
        CallerError: there is none; it names those that there are, to a caller with the app's token.
    """
    method = METHODS.get(path)
    if method is None:
        app.authorize(metadata)
        known = ", ".join(name.decode().rpartition("/")[2] for name in METHODS)
        text = f"no gRPC method {path[:200].decode('latin-1')}; dapr.proto.runtime.v1.AppCallback has {known}"
        raise CallerError(text, METHOD_NOT_ALLOWED)
    return method


def message_of(body: bytes) -> bytes:
    """Return the one message in a unary call's body (a flag, 4 bytes of length, the message).

    Raises:
        InvocationError: it is compressed, or not one whole message.
    """
    if len(body) < 5:
        raise InvocationError(INVALID_ARGUMENT, "the call carries no whole gRPC message")
    if body[0]:
        raise InvocationError(METHOD_NOT_ALLOWED, "the message is compressed; send it with grpc-encoding: identity")
    if int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise InvocationError(INTERNAL, "the call carries other than one gRPC message")
    return body[5:]
