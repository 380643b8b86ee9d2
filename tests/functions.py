"""Functions without an app directory: what a test needs to compile and invoke a few lines of user code."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daprfunc.compilation import compile_app
from daprfunc.dispatch import Dispatcher, Limits
from daprfunc.endpoint import Endpoint
from daprfunc.executor import Executor
from daprfunc.invocation import Invocation
from daprfunc.model import Binding, BrokenFunction, Function, FunctionApp, Retry
from daprfunc.payload import Payload
from daprfunc.sidecar.client import SecretRead


def trigger(name: str = "payload", type: str = "daprServiceInvocationTrigger", **properties: Any) -> Binding:
    return Binding(type, name, "in", {key.lower(): value for key, value in properties.items()})


def secret(name: str = "secret", **properties: Any) -> Binding:
    """An input binding for ``store/key``, unless `properties` say otherwise; None leaves one out."""
    declared = {"secretStoreName": "store", "key": "key", **properties}
    return Binding(
        "daprSecret", name, "in", {key.lower(): value for key, value in declared.items() if value is not None}
    )


def function(
    call: Callable[..., Any], *bindings: Binding, name: str | None = None, retry: Retry | None = None
) -> Function:
    """A function as loading would find it; with no trigger among `bindings`, ``payload`` is one."""
    if not any(binding.is_trigger for binding in bindings):
        bindings = (trigger(), *bindings)
    return Function(
        name=name or call.__name__,
        directory=Path(__file__).parent,
        script=Path(inspect.getfile(call)),
        file=Path(inspect.getfile(call)),
        call=call,
        is_async=inspect.iscoroutinefunction(call),
        bindings=bindings,
        annotations={key: each for key, each in typing.get_type_hints(call).items() if key != "return"},
        context="context" if "context" in inspect.signature(call).parameters else None,
        retry=retry,
    )


@dataclass
class Store:
    """Secrets that a test decides on; services and sidecar in one.

    Attributes:
        values: what a key's read gives or raises.
        held: whether reads wait until a test ends their futures.
        reads: what was asked for, of which endpoint, and the futures.
    """

    values: Mapping[str, Mapping[str, str] | Exception] = field(default_factory=dict)
    held: bool = False
    reads: list[tuple[Endpoint | None, SecretRead, asyncio.Future[Mapping[str, str]]]] = field(default_factory=list)

    def secrets(self, endpoint: Endpoint | None) -> _Secrets:
        return _Secrets(self, endpoint)

    @property
    def asked(self) -> list[SecretRead]:
        return [read for _, read, _ in self.reads]


@dataclass
class _Secrets:
    store: Store
    endpoint: Endpoint | None

    def get_secret(self, read: SecretRead) -> asyncio.Future[Mapping[str, str]]:
        future: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        self.store.reads.append((self.endpoint, read, future))
        if not self.store.held:
            value = self.store.values.get(read.key, {read.key: f"value of {read.key}"})
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)
        return future


@contextmanager
def compiled(
    *functions: Function | BrokenFunction | Callable[..., Any],
    store: Store | None = None,
    app_settings: Mapping[str, str] | None = None,
    threads: int = 4,
    timeout: float | None = None,
    max_concurrency: int = 100,
    retry: Retry | None = None,
) -> Iterator[Dispatcher]:
    """Compile functions into a dispatcher."""
    loaded = [each if isinstance(each, (Function, BrokenFunction)) else function(each) for each in functions]
    executor = Executor(threads)
    try:
        yield compile_app(
            FunctionApp(
                directory=Path(__file__).parent,
                functions=tuple(each for each in loaded if isinstance(each, Function)),
                broken=tuple(each for each in loaded if isinstance(each, BrokenFunction)),
            ),
            services=store or Store(),
            app_settings=app_settings or {},
            executor=executor,
            limits=Limits(timeout, max_concurrency, retry),
        )
    finally:
        executor.close()


def invocation(method: str, body: bytes = b"", content_type: str = "", /, **headers: str) -> Invocation:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Invocation(method, Payload(body, content_type), pairs)
