"""A small Dapr sidecar inside this process, for development: Dapr's gRPC API on a loopback port.

It answers in threads of its own: an async function that calls a blocking Dapr client holds up the app's event loop, and
must still get its answer. Codes and messages are daprd 1.18's, since users and their tests compare them.
"""

from __future__ import annotations

import hmac
import posixpath
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from daprfunc import __version__
from daprfunc.errors import SettingsError
from daprfunc.rpc import appcallback_pb2_grpc, common_pb2, dapr_pb2, dapr_pb2_grpc
from daprfunc.standalone.components import NAMESPACE, Resources
from daprfunc.standalone.health import HealthServer
from daprfunc.standalone.secretstores import SecretStore, StoreError

LOOPBACK = "127.0.0.1"
RUNTIME_VERSION = f"daprfunc-{__version__}"
"""What GetMetadata gives as the runtime's version."""

MAX_INVOCATIONS = 192
"""Service invocations in flight; each waits in a thread for the app, whose functions may need other threads here."""

_THREADS = 256
_TOKEN = "dapr-api-token"  # noqa: S105 (the name of the header, not a token)
# The identity of a caller is the sidecar's to tell, never the caller's own.
_IDENTITY = ("dapr-caller-app-id", "dapr-caller-namespace", "dapr-callee-app-id")
_NOT_FORWARDED = frozenset({_TOKEN, "user-agent", "content-type", "te", "destination-app-id", *_IDENTITY})
_CHANNEL_OPTIONS = (
    # The app may open its port after the sidecar does, and may be restarted: look again soon.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)

_Metadata = tuple[tuple[str, str | bytes], ...]


class EmbeddedSidecar:
    """A Dapr sidecar for one app, inside this process.

    Serves GetSecret, GetBulkSecret, GetMetadata and InvokeService over gRPC, and over HTTP the health check that Dapr's
    SDKs make before their first call. Everything else is UNIMPLEMENTED (over HTTP: 404).

    Args:
        resources: the secret stores and what may be read of them.
        app_id: the app's id: the only one that InvokeService reaches.
        app_port: the port on which the app answers OnInvoke.
        app_address: the host on which it does.
        app_protocol: what GetMetadata says that the app speaks.
        port: the gRPC port on 127.0.0.1; 0 takes any free one.
        api_token: if set, what every gRPC call must bring as ``dapr-api-token``.
        app_api_token: if set, what the app is sent as ``dapr-api-token``.
        http_port: the port of the health check on 127.0.0.1; 0 takes any free one.
    """

    def __init__(
        self,
        resources: Resources,
        *,
        app_id: str,
        app_port: int,
        app_address: str = LOOPBACK,
        app_protocol: str = "grpc",
        port: int = 0,
        api_token: str | None = None,
        app_api_token: str | None = None,
        http_port: int = 0,
    ) -> None:
        self._port = port
        self._http_port = http_port
        self._resources = resources
        self._app = _App(app_id, app_port, app_address, app_protocol, app_api_token)
        self._api_token = api_token
        self._running: _Running | None = None

    @property
    def port(self) -> int:
        """The gRPC port; the one asked for until :meth:`start`."""
        return self._running.port if self._running else self._port

    @property
    def http_port(self) -> int:
        """The port of the health check (the SDKs' ``DAPR_HTTP_PORT``); the one asked for until :meth:`start`."""
        return self._running.http_port if self._running else self._http_port

    def start(self) -> None:
        """Open the ports and answer; does nothing while already started.

        Raises:
            SettingsError: a port cannot be bound; names the port.
        """
        if self._running:
            return
        service = _Service(self._resources, self._app)
        try:
            self._running = _Running(service, self._api_token, self._port, self._http_port)
        except SettingsError:
            service.close()
            raise

    def stop(self, grace: float) -> None:
        """Close the ports, let running calls end, and return when they have; blocks.

        Args:
            grace: seconds after which calls that still run are cancelled.
        """
        running, self._running = self._running, None
        if running:
            running.stop(grace)


class _Running:
    """The open ports of one start."""

    def __init__(self, service: _Service, api_token: str | None, port: int, http_port: int) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(_THREADS, "daprfunc-sidecar")
        self._server = grpc.server(
            self._threads,
            interceptors=[_TokenCheck(api_token)] if api_token else None,
            # With SO_REUSEPORT a second sidecar on the port would take part of the calls instead of failing.
            options=(("grpc.so_reuseport", 0),),
        )
        dapr_pb2_grpc.add_DaprServicer_to_server(service, self._server)
        self._health = _open_health(http_port)
        try:
            self.port = _bind(self._server, port)
        except SettingsError:
            self._health.close()
            raise
        self.http_port = self._health.port
        self._server.start()
        self._health.start()

    def stop(self, grace: float) -> None:
        self._health.close()
        self._server.stop(grace).wait()
        self._service.close()
        self._threads.shutdown(wait=False)


def _bind(server: grpc.Server, port: int) -> int:
    try:
        # Tried first, for grpcio writes lines of its own to standard error when it cannot.
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((LOOPBACK, port))
        bound = server.add_insecure_port(f"{LOOPBACK}:{port}")
    except (OSError, RuntimeError):
        bound = 0
    if not bound:
        raise _cannot_bind(port, "--dapr-grpc-port")
    return bound


def _open_health(port: int) -> HealthServer:
    try:
        return HealthServer(LOOPBACK, port)
    except (OSError, OverflowError):
        raise _cannot_bind(port, "its HTTP port") from None


def _cannot_bind(port: int, setting: str) -> SettingsError:
    return SettingsError(
        f"the embedded sidecar cannot listen on {LOOPBACK}:{port}: stop what uses that port, or set {setting} to "
        "another"
    )


@dataclass(frozen=True, slots=True)
class _App:
    """The app that the sidecar belongs to, and how it is reached."""

    id: str
    port: int
    address: str
    protocol: str
    api_token: str | None = field(repr=False)

    @property
    def target(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class _Service(dapr_pb2_grpc.DaprServicer):
    """The API itself; each method is one call."""

    def __init__(self, resources: Resources, app: _App) -> None:
        self._resources = resources
        self._app = app
        self._channel = grpc.insecure_channel(app.target, options=_CHANNEL_OPTIONS)
        self._callback = appcallback_pb2_grpc.AppCallbackStub(self._channel)
        self._invocations = threading.BoundedSemaphore(MAX_INVOCATIONS)

    def close(self) -> None:
        self._channel.close()

    def GetSecret(  # noqa: N802 (named by the proto)
        self, request: dapr_pb2.GetSecretRequest, context: grpc.ServicerContext
    ) -> dapr_pb2.GetSecretResponse:
        """Read one secret."""
        name, key = request.store_name, request.key
        store = self._store(name, context)
        if not self._allows(name, key):
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"access denied by policy to get {quoted(key)} from {quoted(name)}"
            )
        try:
            return dapr_pb2.GetSecretResponse(data=store.get(key))
        except StoreError as error:
            context.abort(
                grpc.StatusCode.INTERNAL, f"failed getting secret with key {key} from secret store {name}: {error}"
            )

    def GetBulkSecret(  # noqa: N802 (named by the proto)
        self, request: dapr_pb2.GetBulkSecretRequest, context: grpc.ServicerContext
    ) -> dapr_pb2.GetBulkSecretResponse:
        """Read all secrets of a store that its scope allows."""
        store = self._store(request.store_name, context)
        return dapr_pb2.GetBulkSecretResponse(
            data={
                key: dapr_pb2.SecretResponse(secrets=values)
                for key, values in store.get_all().items()
                if self._allows(request.store_name, key)
            }
        )

    def GetMetadata(  # noqa: N802 (named by the proto)
        self, request: dapr_pb2.GetMetadataRequest, context: grpc.ServicerContext
    ) -> dapr_pb2.GetMetadataResponse:
        """Tell what this sidecar is."""
        return dapr_pb2.GetMetadataResponse(
            id=self._app.id,
            registered_components=[_registered(store) for store in self._resources.stores.values()],
            extended_metadata={"daprRuntimeVersion": RUNTIME_VERSION},
            app_connection_properties=dapr_pb2.AppConnectionProperties(
                port=self._app.port, protocol=self._app.protocol, channel_address=self._app.address
            ),
            runtime_version=RUNTIME_VERSION,
        )

    def InvokeService(  # noqa: N802 (named by the proto)
        self, request: dapr_pb2.InvokeServiceRequest, context: grpc.ServicerContext
    ) -> common_pb2.InvokeResponse:
        """Hand an invocation to the app, and back what it answers: headers, trailers, code and message."""
        problem = self._unreachable(request)
        if problem:
            context.abort(grpc.StatusCode.INTERNAL, f"failed to invoke, id: {request.id}, err: {problem}")
        request.message.method = normalized(request.message.method)
        if not self._invocations.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the embedded sidecar has {MAX_INVOCATIONS} service invocations in flight: retry later",
            )
        try:
            return self._invoke(request.message, context)
        finally:
            self._invocations.release()

    def _invoke(self, message: common_pb2.InvokeRequest, context: grpc.ServicerContext) -> common_pb2.InvokeResponse:
        call = self._callback.OnInvoke.future(message, metadata=self._forwarded(context.invocation_metadata()))
        # A caller that is gone (its deadline too) must not hold the app's answer up in a thread here.
        if not context.add_callback(call.cancel):
            call.cancel()
        code: grpc.StatusCode = call.code()
        context.send_initial_metadata(tuple(call.initial_metadata() or ()))
        context.set_trailing_metadata(tuple(call.trailing_metadata() or ()))
        if code is not grpc.StatusCode.OK:
            context.abort(code, call.details() or "")
        answer: common_pb2.InvokeResponse = call.result()
        return answer

    def _store(self, name: str, context: grpc.ServicerContext) -> SecretStore:
        stores = self._resources.stores
        if not stores:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "secret store is not configured")
        if name not in stores:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"failed finding secret store with key {name}")
        return stores[name]

    def _allows(self, store: str, key: str) -> bool:
        scope = self._resources.scopes.get(store)
        return scope is None or scope.allows(key)

    def _unreachable(self, request: dapr_pb2.InvokeServiceRequest) -> str | None:
        """Return why the request cannot be handed to the app, in the order of daprd's own checks."""
        forbidden = _forbidden(request.message.method)
        if forbidden:
            return f"rpc error: code = InvalidArgument desc = invalid method: {forbidden}"
        if not request.id:
            return "app id is empty"
        # Outside Kubernetes daprd finds an app by its name alone, whatever namespace follows it.
        name, *namespace = request.id.split(".")
        if len(namespace) > 1:
            return f"invalid app id {request.id}"
        if name != self._app.id:
            return f"couldn't find service: {name}"
        return None

    def _forwarded(self, metadata: Iterable[tuple[str, str | bytes]]) -> _Metadata:
        token = [(_TOKEN, self._app.api_token)] if self._app.api_token else []
        identity = zip(_IDENTITY, (self._app.id, NAMESPACE, self._app.id), strict=True)
        return (*_user_metadata(metadata), *identity, *token)


def _user_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[tuple[str, str | bytes]]:
    """Yield what a caller sent for the app, without what gRPC and Dapr send for themselves."""
    for key, value in metadata:
        # grpc-trace-bin is not among them in any case: grpcio shows it to no server.
        if key not in _NOT_FORWARDED and not key.startswith("grpc-"):
            yield key, value


def _registered(store: SecretStore) -> dapr_pb2.RegisteredComponents:
    component = store.component
    return dapr_pb2.RegisteredComponents(
        name=component.name, type=component.type, version=component.version, capabilities=store.capabilities
    )


def _forbidden(method: str) -> str | None:
    """Return what daprd says of a method name that it does not let through, None of one that it does."""
    if set(method) & set("#?\0"):
        return f"method contains forbidden character: {quoted(method)}"
    for index, character in enumerate(method):
        if character < " " or character == "\x7f":
            position = len(method[:index].encode())
            return f"method contains control character at position {position}: {quoted(method)}"
    return None


def normalized(method: str) -> str:
    """Return a method name as daprd hands it to an app: its path resolved, never above its root."""
    # posixpath keeps two leading slashes, Go's path.Clean makes them one.
    path = posixpath.normpath("/" + method.lstrip("/") if method.startswith("/") else method)
    while path.startswith("../"):
        path = path[3:]
    return "" if path in {".", ".."} else path


_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
_ESCAPES |= {'"': r"\"", "\\": r"\\"}


def quoted(text: str) -> str:
    """Return `text` as Go's ``%q`` writes it, which daprd's messages use."""
    return f'"{"".join(map(_quoted_character, text))}"'


def _quoted_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _TokenCheck(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses every call that does not bring the API token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._refusal = grpc.unary_unary_rpc_method_handler(_refuse)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Let a call with the token through."""
        tokens = [value for key, value in handler_call_details.invocation_metadata if key == _TOKEN]
        # daprd too looks at the first one only.
        if tokens and hmac.compare_digest(_bytes(tokens[0]), self._token):
            return continuation(handler_call_details)
        return self._refusal


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _refuse(_request: bytes, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "Unauthorized")
