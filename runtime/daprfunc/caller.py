"""Calls a running app, as the sidecar would: what ``daprfunc invoke`` does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import grpc

from daprfunc.endpoint import Endpoint
from daprfunc.errors import DEADLINE_EXCEEDED, UNAVAILABLE, InvocationError
from daprfunc.rpc.appcallback_pb2_grpc import AppCallbackStub
from daprfunc.rpc.common_pb2 import HTTPExtension, InvokeRequest
from daprfunc.settings import Settings

_CHANNEL_OPTIONS = (
    # The app is on this machine or near it, never behind the proxy that http_proxy names.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


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
        InvocationError: nobody answers there, or not in time.
    """
    connection = HTTPConnection(settings.app_address, settings.app_port, timeout=timeout)
    headers = {"content-type": "application/json", **dict(_token(settings))}
    try:
        connection.request("POST", "/" + quote(method), data, headers)
        response = connection.getresponse()
        return Outcome(response.status == 200, f"{response.status} {response.reason}", response.read())
    except TimeoutError:
        raise _too_late(settings, timeout) from None
    except ConnectionResetError:  # (RemoteDisconnected too)
        text = f"{_address(settings)} closed the connection before it answered; its log may say why"
        raise InvocationError(UNAVAILABLE, text) from None
    except HTTPException as error:
        raise _no_answer(settings, f"what answers speaks no HTTP ({type(error).__name__})") from None
    except OSError as error:
        raise _no_answer(settings, error.strerror or str(error)) from None
    finally:
        connection.close()


def call_grpc(settings: Settings, method: str, data: bytes, timeout: float) -> Outcome:
    """Invoke `method` over gRPC; everything else as :func:`call_http`."""
    request: Any = InvokeRequest(method=method, content_type="application/json")
    request.data.value = data
    request.http_extension.verb = HTTPExtension.POST
    _require_listener(settings, timeout)
    with grpc.insecure_channel(_address(settings).authority, options=_CHANNEL_OPTIONS) as channel:
        try:
            stub: Any = AppCallbackStub(channel)
            response = stub.OnInvoke(request, timeout=timeout, metadata=_token(settings))
        except grpc.RpcError as error:
            failure: Any = error
            return Outcome(False, failure.code().name, (failure.details() or "").encode())
    return Outcome(True, "OK", response.data.value)


CALLS: Mapping[str, Callable[[Settings, str, bytes, float], Outcome]] = MappingProxyType(
    {"http": call_http, "grpc": call_grpc}
)
"""How to call an app, by ``--app-protocol``."""


def _token(settings: Settings) -> tuple[tuple[str, str], ...]:
    return (("dapr-api-token", settings.app_api_token),) if settings.app_api_token else ()


def _address(settings: Settings) -> Endpoint:
    return Endpoint(settings.app_address, settings.app_port)


def _require_listener(settings: Settings, timeout: float) -> None:
    """Fail if nobody listens: in gRPC's own words, an app that answers UNAVAILABLE looks the same."""
    try:
        socket.create_connection((settings.app_address, settings.app_port), timeout).close()
    except TimeoutError:
        raise _too_late(settings, timeout) from None
    except OSError as error:
        raise _no_answer(settings, error.strerror or str(error)) from None


def _no_answer(settings: Settings, reason: str) -> InvocationError:
    return InvocationError(
        UNAVAILABLE,
        f"no app answers at {_address(settings)}: {reason}; start it, or name its port with --app-port",
    )


def _too_late(settings: Settings, timeout: float) -> InvocationError:
    return InvocationError(DEADLINE_EXCEEDED, f"{_address(settings)} did not answer within {timeout:g} s (--timeout)")
