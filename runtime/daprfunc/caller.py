"""Calls a running app, as the sidecar would: what ``daprfunc invoke`` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import MappingProxyType
from typing import Any

import grpc

from daprfunc.endpoint import Endpoint
from daprfunc.errors import UNAVAILABLE, CallerError
from daprfunc.rpc.appcallback_pb2_grpc import AppCallbackStub
from daprfunc.rpc.common_pb2 import HTTPExtension, InvokeRequest
from daprfunc.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the app answered.

    Attributes:
        ok: whether the function ran and answered.
        status: the status in the protocol's own words, such as ``200 OK`` or ``NOT_FOUND``.
        body: the reply, or the error's text.
    """

    ok: bool
    status: str
    body: bytes


def call_http(settings: Settings, method: str, data: bytes, timeout: float) -> Outcome:
    """Invoke `method` of the app at the settings' address over HTTP.

    Args:
        settings: where the app listens, and the token it wants.
        method: the function's route.
        data: the payload.
        timeout: seconds to wait.

    Raises:
        CallerError: nobody answers there.
    """
    connection = HTTPConnection(settings.app_address, settings.app_port, timeout=timeout)
    headers = {"content-type": "application/json", **dict(_token(settings))}
    try:
        connection.request("POST", f"/{method}", data, headers)
        response = connection.getresponse()
        return Outcome(response.status == 200, f"{response.status} {response.reason}", response.read())
    except (OSError, HTTPException) as error:
        raise _no_answer(settings, getattr(error, "strerror", None) or str(error)) from None
    finally:
        connection.close()


def call_grpc(settings: Settings, method: str, data: bytes, timeout: float) -> Outcome:
    """Invoke `method` over gRPC; everything else as :func:`call_http`."""
    request: Any = InvokeRequest(method=method, content_type="application/json")
    request.data.value = data
    request.http_extension.verb = HTTPExtension.POST
    address = Endpoint(settings.app_address, settings.app_port).authority
    with grpc.insecure_channel(address) as channel:
        try:
            stub: Any = AppCallbackStub(channel)  # type: ignore[no-untyped-call]
            response = stub.OnInvoke(request, timeout=timeout, metadata=_token(settings))
        except grpc.RpcError as error:
            failure: Any = error
            if failure.code() is grpc.StatusCode.UNAVAILABLE:
                raise _no_answer(settings, failure.details()) from None
            return Outcome(False, failure.code().name, failure.details().encode())
    return Outcome(True, "OK", response.data.value)


CALLS: Mapping[str, Callable[[Settings, str, bytes, float], Outcome]] = MappingProxyType(
    {"http": call_http, "grpc": call_grpc}
)
"""How to call an app, by ``--app-protocol``."""


def _token(settings: Settings) -> tuple[tuple[str, str], ...]:
    return (("dapr-api-token", settings.app_api_token),) if settings.app_api_token else ()


def _no_answer(settings: Settings, reason: str) -> CallerError:
    where = f"{settings.app_address}:{settings.app_port}"
    return CallerError(f"no app answers at {where}: {reason}; start it, or name its port with --app-port", UNAVAILABLE)
