"""The life of a running app: start, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from daprfunc import logs
from daprfunc.channel.app import App
from daprfunc.channel.server import Server
from daprfunc.compilation import compile_app
from daprfunc.dispatch import Dispatcher, Limits
from daprfunc.endpoint import Endpoint
from daprfunc.errors import LoadError, Problem, SettingsError
from daprfunc.executor import Executor
from daprfunc.loading import load_app
from daprfunc.model import FunctionApp
from daprfunc.settings import Settings, export_app_settings, export_sidecar_ports
from daprfunc.sidecar.pool import Sidecars
from daprfunc.sidecar.watch import AppAddress, watch
from daprfunc.standalone.components import load_resources
from daprfunc.standalone.service import EmbeddedSidecar

log = logging.getLogger(__name__)

# How long the embedded sidecar may take to end calls when the app has ended.
_SIDECAR_GRACE = 1.0


def run(settings: Settings, describe: Callable[[FunctionApp, Dispatcher], None]) -> int:
    """Run the app until it is told to stop; returns the process's exit status.

    Args:
        settings: what the runtime was told.
        describe: shows a person what was loaded.

    Raises:
        LoadError: no function of the app can be called.
        SettingsError: a port, a certificate or a component cannot be used.
    """
    logs.configure(level=settings.log_level, levels=settings.log_levels, log_format=settings.log_format)
    return _new_loop_run(Host(settings, describe).main())


async def inspect(settings: Settings) -> tuple[FunctionApp, Dispatcher]:
    """Load and compile the app without serving it.

    Raises:
        LoadError: the app as a whole cannot load.
    """
    export_app_settings(settings)
    app = load_app(settings.app_dir, script_name=settings.script_name, app_settings=settings.app_settings)
    sidecars = Sidecars(settings.dapr_grpc_endpoint, timeout=settings.api_timeout, api_token=None)
    return app, _compile(app, settings, sidecars, Executor(settings.thread_count))


def _compile(app: FunctionApp, settings: Settings, sidecars: Sidecars, executor: Executor) -> Dispatcher:
    return compile_app(
        app,
        services=sidecars,
        app_settings=settings.app_settings,
        executor=executor,
        limits=Limits(settings.function_timeout, settings.max_concurrency, settings.retry),
    )


def _new_loop_run(main: object) -> int:
    try:
        import uvloop  # noqa: PLC0415 (not on every platform)
    except ImportError:
        return asyncio.run(main)  # type: ignore[arg-type]
    return uvloop.run(main)  # type: ignore[arg-type]


class Host:
    """One app in this process."""

    def __init__(self, settings: Settings, describe: Callable[[FunctionApp, Dispatcher], None]) -> None:
        self._settings = settings
        self._describe = describe
        self._stop = asyncio.Event()

    async def main(self) -> int:
        """Start, serve until asked to stop, drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_requested, number)
        listener = _bind(self._settings)
        sidecar = self._start_embedded_sidecar(listener)
        try:
            return await self._serve(listener, sidecar)
        finally:
            listener.close()
            if sidecar is not None:
                await loop.run_in_executor(None, sidecar.stop, _SIDECAR_GRACE)

    def _stop_requested(self, number: int) -> None:
        if self._stop.is_set():
            os._exit(128 + number)  # Asked twice: whatever still runs is given up.
        self._stop.set()

    def _start_embedded_sidecar(self, listener: socket.socket) -> EmbeddedSidecar | None:
        settings = self._settings
        if settings.resources_path is None:
            return None
        resources = load_resources(settings.resources_path, app_id=settings.app_id)
        for warning in resources.warnings:
            log.warning("%s", warning)
        sidecar = EmbeddedSidecar(
            resources,
            app_id=settings.app_id,
            app_port=listener.getsockname()[1],
            port=settings.dapr_grpc_port or 0,
            api_token=settings.dapr_api_token,
            app_api_token=settings.app_api_token,
        )
        sidecar.start()
        # Before the user's code is imported: Dapr's SDK reads these once, then.
        export_sidecar_ports(sidecar.port, sidecar.http_port)
        log.info("embedded Dapr sidecar for development: gRPC on 127.0.0.1:%d", sidecar.port)
        return sidecar

    async def _serve(self, listener: socket.socket, embedded: EmbeddedSidecar | None) -> int:
        settings = self._settings
        endpoint = Endpoint(port=embedded.port) if embedded else settings.dapr_grpc_endpoint
        export_app_settings(settings)
        functions = load_app(settings.app_dir, script_name=settings.script_name, app_settings=settings.app_settings)
        executor = Executor(settings.thread_count)
        sidecars = Sidecars(endpoint, timeout=settings.api_timeout, api_token=settings.dapr_api_token)
        dispatcher = _compile(functions, settings, sidecars, executor)
        self._describe(functions, dispatcher)
        if not dispatcher.plans:
            raise LoadError(*_all_problems(settings.app_dir, dispatcher))
        app = App(dispatcher, api_token=settings.app_api_token, max_body_size=settings.max_body_size)
        tls = _tls(settings)
        server = Server(app, tls=tls)
        await server.start(listener)
        host, port = listener.getsockname()[:2]
        log.info("ready: %d function(s) on %s:%d (HTTP and gRPC)", len(dispatcher.plans), host, port)
        address = AppAddress(host, port, tls is not None)
        watching = asyncio.create_task(
            watch(
                sidecars.own,
                str(endpoint),
                address,
                check=settings.check_sidecar_metadata and embedded is None,
                patience=settings.health_timeout,
            )
        )
        await self._stop.wait()
        watching.cancel()
        await self._drain(app, server)
        await sidecars.close()
        executor.close()
        return 0

    async def _drain(self, app: App, server: Server) -> None:
        log.info("draining: %d invocation(s) in flight", app.dispatcher.in_flight)
        app.healthy = False
        await server.drain(self._settings.drain_timeout)
        if app.dispatcher.in_flight:
            log.warning(
                "%d invocation(s) still ran after %g s and were given up",
                app.dispatcher.in_flight,
                self._settings.drain_timeout,
            )
        log.info("stopped")


def _bind(settings: Settings) -> socket.socket:
    """Take the port before anything else, so that a port in use is said first; it is not open yet."""
    family = socket.AF_INET6 if ":" in settings.app_address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.app_address, settings.app_port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {settings.app_address}:{settings.app_port}: {error.strerror}; "
            "choose another with --app-port or --app-address"
        ) from None
    return listener


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


def _all_problems(app_dir: Path, dispatcher: Dispatcher) -> list[Problem]:
    problems = [problem for function in dispatcher.broken for problem in function.problems]
    return problems or [Problem("no function in it is enabled", app_dir)]
