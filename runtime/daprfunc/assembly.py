"""From settings to an app that can be invoked: what serving it, checking it and testing it have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from daprfunc.bindings.base import Services
from daprfunc.channel.app import App
from daprfunc.compilation import compile_app
from daprfunc.dispatch import Dispatcher, Limits
from daprfunc.errors import LoadError, Problem
from daprfunc.executor import Executor
from daprfunc.loading import load_app
from daprfunc.logs import SecretMask
from daprfunc.masking import MaskingApp, RememberingServices
from daprfunc.model import FunctionApp
from daprfunc.settings import Settings, export_app_settings


@dataclass(frozen=True, slots=True)
class Assembly:
    """An app, ready to be invoked.

    Attributes:
        functions: what was loaded.
        dispatcher: the same, compiled.
        app: the same, as callers see it.
    """

    functions: FunctionApp
    dispatcher: Dispatcher
    app: App

    def problems(self) -> Iterator[Problem]:
        """Yield every reason why a function cannot be called."""
        for function in self.dispatcher.broken:
            yield from function.problems

    @property
    def warnings(self) -> list[str]:
        """What was assumed or tolerated, one line each."""
        return [*self.functions.warnings, *self.dispatcher.warnings]

    def require_functions(self) -> None:
        """Make sure that there is something to call.

        Raises:
            LoadError: every function is broken, or none is enabled.
        """
        if not self.dispatcher.plans:
            problems = list(self.problems())
            if not problems:
                found = "; ".join(["no function in it is declared and enabled", *self.warnings])
                problems = [Problem(found, self.functions.directory)]
            raise LoadError(*problems)


def assemble(settings: Settings, services: Services, executor: Executor, mask: SecretMask | None = None) -> Assembly:
    """Load the app and compile it. Its settings are put into the process's environment first, as its code expects.

    Args:
        settings: what the runtime was told.
        services: what bindings call.
        executor: calls the functions.
        mask: learns every secret value, and hides it in errors; None leaves errors as they are.

    Raises:
        LoadError: the app as a whole cannot load. A broken function does not raise; see :meth:`Assembly.problems`.
    """
    export_app_settings(settings)
    functions = load_app(settings.app_dir, script_name=settings.script_name, app_settings=settings.app_settings)
    dispatcher = compile_app(
        functions,
        services=RememberingServices(services, mask) if mask else services,
        app_settings=settings.app_settings,
        executor=executor,
        limits=Limits(settings.function_timeout, settings.max_concurrency, settings.retry),
    )
    return Assembly(functions, dispatcher, _app(dispatcher, settings, mask))


def _app(dispatcher: Dispatcher, settings: Settings, mask: SecretMask | None) -> App:
    if mask is None:
        return App(dispatcher, api_token=settings.app_api_token, max_body_size=settings.max_body_size)
    return MaskingApp(dispatcher, api_token=settings.app_api_token, max_body_size=settings.max_body_size, mask=mask)
