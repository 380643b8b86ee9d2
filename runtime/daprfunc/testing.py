"""Runs a function app inside a test: no port, no sidecar, the same code from loading to the reply as in production.

from daprfunc.testing import TestApp

def test_orders_are_signed():
with TestApp("my-app", secrets={"vault": {"signing-key": {"signing-key": "k"}}}) as app:
reply = app.invoke("SignOrder", {"id": 1})
assert (reply.status, reply.json()) == (200, {"id": 1, "signature": "..."})
assert any("signed order 1" in line.message for line in app.logs)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, TypeVar

import grpc
import msgspec

from daprfunc import logs
from daprfunc.assembly import Assembly, assemble
from daprfunc.endpoint import Endpoint
from daprfunc.errors import OK, InvocationError, Problem
from daprfunc.executor import Executor
from daprfunc.loading import unload_app
from daprfunc.rpc.dapr_pb2 import GetSecretRequest, GetSecretResponse
from daprfunc.settings import Settings, process_environment, read_settings, restored_environment
from daprfunc.sidecar.call import RpcError
from daprfunc.sidecar.client import Secrets, Sidecar

__all__ = ["LogLine", "Reply", "TestApp"]

SecretStores = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Store -> key -> the secret's values by name; most secrets have one value, whose name is the key."""

T = TypeVar("T")

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a caller would have got.

    Attributes:
        status: the HTTP status: 200, or what kind of failure it was.
        code: gRPC's name of the same, such as ``OK`` or ``INVALID_ARGUMENT``.
        body: the function's answer, or the error's text.
        content_type: the body's; "" where there is none.
    """

    status: int
    code: str
    body: bytes
    content_type: str

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body's JSON as Python values.

        Raises:
            msgspec.DecodeError: it is none; an error's text is not.
        """
        return msgspec.json.decode(self.body)


class LogLine(msgspec.Struct, frozen=True, rename="camel"):
    """One line of the log, as ``--log-format json`` writes it; what there is nothing to say of is "".

    Attributes:
        time: when, in UTC (ISO 8601).
        level: :mod:`logging`'s name of the level.
        logger: the logger's name; the runtime's own begin with ``daprfunc.``.
        message: the text.
        function: the function that ran.
        invocation_id: its invocation's id.
        trace_id: the trace id of its caller's ``traceparent``.
        exception: the traceback, where one was logged.
    """

    time: str
    level: str
    logger: str
    message: str
    function: str = ""
    invocation_id: str = ""
    trace_id: str = ""
    exception: str = ""


class TestApp:
    """A function app, loaded for the length of a ``with`` block.

    One at a time: the app's modules, its settings in the environment and its log are this process's. They are taken
    back when the block ends, so that the next test starts afresh, with this app or another.

    Args:
        app_dir: the app's root directory.
        secrets: what the secret stores hold. Read anew for each invocation, so a test may change it meanwhile; a store
            or key that is not in it fails as it does in Dapr.
        app_settings: environment variables on top of this process's own; they win over local.settings.json.
        flags: what ``daprfunc start`` would be told, by field of :class:`~daprfunc.settings.Settings`, such as
            ``{"log_level": "debug", "mask_secrets": True}``.

    Raises:
        LoadError: on entering: no function of the app can be called; says why.
        SettingsError: on entering: one of the settings cannot be.
    """

    __test__ = False  # pytest must not take it for a class of tests

    def __init__(
        self,
        app_dir: Path | str,
        *,
        secrets: SecretStores = _NOTHING,
        app_settings: Mapping[str, str] = _NOTHING,
        flags: Mapping[str, object] = _NOTHING,
    ) -> None:
        self._app_dir = Path(app_dir)
        self._secrets = secrets
        self._app_settings = app_settings
        self._flags = flags
        self._log = io.StringIO()
        self._running: _Running | None = None

    def __enter__(self) -> TestApp:
        if self._running is not None:
            raise RuntimeError("this TestApp is in use; make another one")
        environment = {**process_environment(), **self._app_settings}
        settings = read_settings(self._app_dir, self._flags, environment)
        with ExitStack() as stack:
            stack.enter_context(restored_environment())
            mask = logs.SecretMask() if settings.mask_secrets else None
            handler = logs.configure(
                level=settings.log_level,
                levels=settings.log_levels,
                log_format="json",
                stream=self._log,
                mask=mask,
            )
            stack.callback(handler.uninstall)
            stack.callback(unload_app)
            self._running = stack.enter_context(_Running(settings, self._secrets, mask))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running = None
        self._stack.close()

    @property
    def logs(self) -> list[LogLine]:
        """All that was logged so far, by the app and the runtime; also after the block."""
        lines = self._log.getvalue().split("\n")
        return [msgspec.json.decode(line, type=LogLine) for line in lines if line]

    @property
    def problems(self) -> list[Problem]:
        """Why some functions cannot be called. To invoke one of them answers 500 with the reason."""
        return list(self._require().assembly.problems())

    @property
    def warnings(self) -> list[str]:
        """What was assumed on the app's behalf when it was loaded."""
        return self._require().assembly.warnings

    def invoke(
        self, method: str, data: object = None, *, headers: Mapping[str, str] = _NOTHING, timeout: float = 60.0
    ) -> Reply:
        """Invoke a function as a caller through Dapr would, and wait for the reply. Any thread may call this.

        Args:
            method: the function's route, in any case.
            data: the payload: bytes as they are, None for no body, anything else as its JSON.
            headers: the caller's headers, such as ``traceparent``.
            timeout: seconds to wait.

        Raises:
            TimeoutError: no reply in time; the invocation was cancelled.
        """
        running = self._require()
        body, content_type = _encoded(data)
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        try:
            reply = running.run(running.assembly.app.invoke(method.strip("/"), body, content_type, pairs), timeout)
        except InvocationError as error:
            return Reply(error.status.http, error.status.name, str(error).encode(), "text/plain; charset=utf-8")
        return Reply(OK.http, OK.name, reply.body, reply.content_type)

    def _require(self) -> _Running:
        if self._running is None:
            raise RuntimeError("this TestApp is not running; use it inside its with block")
        return self._running


def _encoded(data: object) -> tuple[bytes, str]:
    if data is None:
        return b"", ""
    if isinstance(data, bytes):
        return data, "application/octet-stream"
    return msgspec.json.encode(data), "application/json"


class _Running:
    """The app on a loop of its own, in a thread of its own."""

    def __init__(self, settings: Settings, stores: SecretStores, mask: logs.SecretMask | None) -> None:
        # Whoever calls from a test may do so, whatever APP_API_TOKEN says.
        self._settings = replace(settings, app_api_token=None)
        self._stores = stores
        self._mask = mask
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="daprfunc-test-app", daemon=True)

    def __enter__(self) -> _Running:
        self._thread.start()
        try:
            self.assembly = self.run(self._load())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.run(self._close())
        self._end()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run `coroutine` on the loop and wait for it; it is cancelled if the wait ends before it does."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise  # the app's own
            raise TimeoutError(f"no reply within {timeout:g} s") from None
        finally:
            future.cancel()

    async def _load(self) -> Assembly:
        self._executor = Executor(self._settings.thread_count)
        self._sidecar = Sidecar(_GivenSecrets(self._stores), timeout=self._settings.api_timeout)
        assembly = assemble(self._settings, _Services(self._sidecar), self._executor, self._mask)
        assembly.require_functions()
        return assembly

    async def _close(self) -> None:
        await self._sidecar.close()
        self._executor.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_STOP_SECONDS)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive():  # a function may block it for good; its thread does not outlive the process
            self._loop.close()


class _Services:
    """Sends every binding to the one sidecar that a test has, whatever its ``daprAddress``."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def secrets(self, endpoint: Endpoint | None) -> Secrets:
        return self._sidecar


class _GivenSecrets:
    """A gRPC channel that ends here: GetSecret, with the codes and messages of daprd 1.18."""

    def __init__(self, stores: SecretStores) -> None:
        self._stores = stores

    def unary_unary(self, method: str, **_: object) -> Callable[..., Awaitable[GetSecretResponse]]:
        async def call(request: GetSecretRequest, **_: object) -> GetSecretResponse:
            return GetSecretResponse(data=self._find(request.store_name, request.key))

        return call

    def _find(self, store: str, key: str) -> Mapping[str, str]:
        if not self._stores:
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, "secret store is not configured")
        if store not in self._stores:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"failed finding secret store with key {store}")
        values = self._stores[store].get(key)
        if values is None:
            raise RpcError(
                grpc.StatusCode.INTERNAL,
                f"failed getting secret with key {key} from secret store {store}: secret {key} not found",
            )
        return values

    async def close(self) -> None:
        """There is nothing to end."""
