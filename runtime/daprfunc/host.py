"""The life of a running app: start, serve, drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from daprfunc import logs, report
from daprfunc.assembly import Assembly, assemble
from daprfunc.channel.app import App
from daprfunc.channel.server import Server
from daprfunc.endpoint import Endpoint
from daprfunc.errors import SettingsError
from daprfunc.executor import Executor
from daprfunc.logs import LogHandler, SecretMask
from daprfunc.settings import Settings, export_sidecar_ports, process_environment
from daprfunc.sidecar.pool import Sidecars
from daprfunc.sidecar.watch import AppAddress, watch
from daprfunc.watchdog import Watchdog

if TYPE_CHECKING:
    from daprfunc.standalone.service import EmbeddedSidecar

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long the embedded sidecar may take to end calls when the app has ended.
_SIDECAR_GRACE = 1.0
# How long the process may take to end after its invocations have, or were given up.
_EXIT_SECONDS = 3.0
# Signals less than this far apart count as one.
_SAME_SIGNAL_SECONDS = 0.1
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 (compared, not bound)


def run(settings: Settings) -> int:
    """Run the app until it is told to stop; returns the process's exit status.

    Raises:
        LoadError: no function of the app can be called.
        SettingsError: a port, a certificate or a component cannot be used.
    """
    mask = SecretMask() if settings.mask_secrets else None
    handler = logs.configure(
        level=settings.log_level, levels=settings.log_levels, log_format=settings.log_format, mask=mask
    )
    host = Host(settings, mask, handler)
    try:
        return run_loop(host.main())
    except KeyboardInterrupt:
        return 128 + host.signal_number


def inspect(settings: Settings) -> Assembly:
    """Load and compile the app without serving it.

    Raises:
        LoadError: the app as a whole cannot load.
    """

    async def load() -> Assembly:
        sidecars = Sidecars(settings.dapr_grpc_endpoint, timeout=settings.api_timeout, api_token=None)
        return assemble(settings, sidecars, Executor(settings.thread_count))

    return run_loop(load())


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a loop of its own, the fastest that there is on this platform."""
    try:
        import uvloop  # noqa: PLC0415 (not on every platform)
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


class Host:
    """One app in this process.

    Args:
        settings: what the runtime was told.
        mask: learns the secret values; None where nothing is masked.
        handler: writes the log.

    Attributes:
        signal_number: what interrupted the start, if anything did.
    """

    def __init__(self, settings: Settings, mask: SecretMask | None, handler: LogHandler) -> None:
        self._settings = settings
        self._mask = mask
        self._handler = handler
        self._stopping = _Stopping(settings.drain_timeout)

    @property
    def signal_number(self) -> int:
        """The signal that the process was sent; 0 if none."""
        return self._stopping.signal_number

    async def main(self) -> int:
        """Start, serve until asked to stop, drain."""
        self._stopping.install()
        listener = _bind(self._settings)
        sidecar = self._start_embedded_sidecar(listener)
        try:
            await self._serve(listener, sidecar)
        finally:
            listener.close()
            if sidecar is not None:
                await asyncio.get_running_loop().run_in_executor(None, sidecar.stop, _SIDECAR_GRACE)
        return 0

    def _start_embedded_sidecar(self, listener: socket.socket) -> EmbeddedSidecar | None:
        settings = self._settings
        if settings.resources_path is None:
            return None
        # Imported here: with a real sidecar, neither grpcio's server nor YAML is needed.
        from daprfunc.standalone.components import load_resources  # noqa: PLC0415
        from daprfunc.standalone.service import EmbeddedSidecar  # noqa: PLC0415

        resources = load_resources(settings.resources_path, app_id=settings.app_id, environ=process_environment())
        for warning in resources.warnings:
            log.warning("%s", warning)
        address, port = listener.getsockname()[:2]
        sidecar = EmbeddedSidecar(
            resources,
            app_id=settings.app_id,
            app_port=port,
            app_address=_ANYWHERE.get(address, address),
            port=settings.dapr_grpc_port or 0,
            api_token=settings.dapr_api_token,
            app_api_token=settings.app_api_token,
        )
        sidecar.start()
        # Before the user's code is imported: Dapr's SDK reads these once, then.
        export_sidecar_ports(sidecar.port, sidecar.http_port)
        log.info(
            "embedded Dapr sidecar for development: gRPC on 127.0.0.1:%d, secret stores: %s",
            sidecar.port,
            ", ".join(resources.stores) or "none",
        )
        return sidecar

    async def _serve(self, listener: socket.socket, embedded: EmbeddedSidecar | None) -> None:
        settings = self._settings
        tls = _tls(settings)
        endpoint = Endpoint(port=embedded.port) if embedded else settings.dapr_grpc_endpoint
        executor = Executor(settings.thread_count)
        sidecars = Sidecars(
            endpoint,
            timeout=settings.api_timeout,
            api_token=settings.dapr_api_token,
            secret_ttl=settings.secret_ttl,
        )
        assembly = self._load(sidecars, executor)
        server = Server(assembly.app, tls=tls)
        await _listen(server, listener, settings)
        host, port = listener.getsockname()[:2]
        with Watchdog(assembly.functions.functions):
            count = len(assembly.dispatcher.plans)
            log.info("ready: %d function(s) on %s (HTTP and gRPC)", count, Endpoint(host, port))
            stores = report.secret_stores(assembly.dispatcher)
            watching = asyncio.create_task(self._watch_sidecar(sidecars, endpoint, listener, stores))
            await self._stopping.requested()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._drain(assembly.app, server)
        await sidecars.close()
        executor.close()

    def _load(self, sidecars: Sidecars, executor: Executor) -> Assembly:
        # Loading makes objects that stay. Collections would look through them again and again to free nothing.
        gc.disable()
        try:
            assembly = assemble(self._settings, sidecars, executor, self._mask)
        finally:
            kept = self._handler.keep()
        if not kept:
            log.warning(
                "the app's code has replaced the log's handler (basicConfig with force, or dictConfig): what it logs "
                "is written as it says there, without the function and the invocation; leave the root logger's "
                "handlers out of it to have them"
            )
        for warning in assembly.warnings:
            log.warning("%s", warning)
        assembly.require_functions()
        if log.isEnabledFor(logging.INFO):
            log.info("%d function(s):\n%s", len(assembly.dispatcher.plans), report.table(assembly.dispatcher))
        for problem in assembly.problems():
            log.error("%s", problem)
        # What is loaded now lives as long as the process. Out of the garbage collector's sight, it makes no full
        # collection longer, which some invocation would have to wait for. The little garbage among it stays: to look
        # for it would take as long as the first invocation.
        gc.freeze()
        gc.enable()
        return assembly

    async def _watch_sidecar(
        self, sidecars: Sidecars, endpoint: Endpoint, listener: socket.socket, stores: Mapping[str, Sequence[str]]
    ) -> None:
        settings = self._settings
        host, port = listener.getsockname()[:2]
        address = AppAddress(host, port, tls=settings.app_tls_cert_file is not None)
        check = settings.check_sidecar_metadata
        await watch(sidecars.own, str(endpoint), address, stores, check=check, patience=settings.health_timeout)

    async def _drain(self, app: App, server: Server) -> None:
        log.info("draining: %d invocation(s) in flight", app.dispatcher.in_flight)
        app.healthy = False
        await server.drain(self._settings.drain_timeout)
        if app.dispatcher.in_flight:
            log.warning(
                "%d invocation(s) still ran after %g s and were given up (--drain-timeout)",
                app.dispatcher.in_flight,
                self._settings.drain_timeout,
            )
        self._stopping.drained = True
        log.info("stopped")


class _Stopping:
    """What SIGTERM and SIGINT do: the first asks the app to stop, the second ends the process at once.

    Not the loop's own signal handlers: those run only when the loop does, and a function may block it.

    Args:
        drain_timeout: seconds that invocations get to finish.

    Attributes:
        signal_number: the first signal; 0 before.
        drained: whether the invocations have ended, or were given up.
    """

    def __init__(self, drain_timeout: float) -> None:
        self.signal_number = 0
        self.drained = False
        self._signalled_at = 0.0
        self._drain_timeout = drain_timeout
        self._event = asyncio.Event()
        self._serving = False

    def install(self) -> None:
        """Handle both signals from now on. Until the app serves, the first one interrupts its start."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    async def requested(self) -> None:
        """Wait until the app is to stop."""
        self._serving = True
        await self._event.wait()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number:
            if time.monotonic() - self._signalled_at < _SAME_SIGNAL_SECONDS:
                return  # A supervisor that tells the process and its group asks once.
            log.warning("asked twice to stop: what still runs is given up")
            os._exit(128 + number)
        self.signal_number = number
        self._signalled_at = time.monotonic()
        if not self._serving:
            raise KeyboardInterrupt
        threading.Thread(target=self._exit_in_the_end, name="daprfunc-exit", daemon=True).start()
        self._loop.call_soon_threadsafe(self._event.set)

    def _exit_in_the_end(self) -> None:
        """End the process even if the user's code keeps it alive: a thread of its own, or a loop that is blocked."""
        time.sleep(self._drain_timeout + _EXIT_SECONDS)
        ours = (threading.main_thread(), threading.current_thread())
        others = ", ".join(thread.name for thread in threading.enumerate() if thread not in ours and not thread.daemon)
        culprit = f"these threads run on: {others}" if self.drained and others else "the event loop is blocked"
        log.warning("the process had not ended %g s after it should have (%s) and ends now", _EXIT_SECONDS, culprit)
        os._exit(0 if self.drained else 1)


def _bind(settings: Settings) -> socket.socket:
    """Take the port before anything else, so that a port in use is said first; it is not open yet."""
    family = socket.AF_INET6 if ":" in settings.app_address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.app_address, settings.app_port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(settings, error) from None
    return listener


async def _listen(server: Server, listener: socket.socket, settings: Settings) -> None:
    try:
        await server.start(listener)
    except OSError as error:  # Another process took the same port after we did and was faster to open it.
        raise _cannot_listen(settings, error) from None


def _cannot_listen(settings: Settings, error: OSError) -> SettingsError:
    return SettingsError(
        f"cannot listen on {Endpoint(settings.app_address, settings.app_port)}: {error.strerror or error}; "
        "choose another with --app-port or --app-address"
    )


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.app_tls_cert_file is None or settings.app_tls_key_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        context.load_cert_chain(settings.app_tls_cert_file, settings.app_tls_key_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"--app-tls-cert-file {settings.app_tls_cert_file} and --app-tls-key-file {settings.app_tls_key_file}: "
            f"{error.strerror or error}"
        ) from None
    return context
