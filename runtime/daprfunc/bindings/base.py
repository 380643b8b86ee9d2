"""What every binding is compiled from and compiled into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from daprfunc.endpoint import Endpoint
from daprfunc.model import Binding, Function
from daprfunc.payload import Payload
from daprfunc.sidecar.client import Secrets


class BindingError(Exception):
    """A binding's declaration cannot be compiled; the text says what was found and what to do."""


class Services(Protocol):
    """What bindings call while an invocation runs."""

    def secrets(self, endpoint: Endpoint | None) -> Secrets:
        """Return the sidecar at `endpoint`; None is the app's own."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A binding and what surrounds it.

    Attributes:
        binding: as declared.
        function: the function that declares it.
        app_settings: what ``%NAME%`` stands for.
        services: what the compiled binding may call.
    """

    binding: Binding
    function: Function
    app_settings: Mapping[str, str]
    services: Services

    @property
    def parameter(self) -> str:
        """The parameter that the binding fills."""
        return self.binding.name

    def annotation(self, default: Any) -> Any:
        """Return the parameter's type, `default` where it has none."""
        return self.function.annotations.get(self.parameter, default)

    def text(self, name: str, *, required: bool = False) -> str:
        """Return a property that has to be text, "" where it is absent.

        Raises:
            BindingError: it is something else, or absent or empty though `required`.
        """
        value = self.binding.properties.get(name.lower())
        if value is None or value == "":
            if required:
                raise BindingError(f"{self.binding.type} has no '{name}'; set it in the binding")
            return ""
        if not isinstance(value, str):
            raise BindingError(f"{self.binding.type} has a '{name}' that is {type(value).__name__}; write it as text")
        return value


class Trigger(Protocol):
    """A compiled trigger."""

    @property
    def route(self) -> str:
        """Under which name callers reach the function, as declared."""

    def read(self, payload: Payload) -> object:
        """Return the trigger parameter's value.

        Raises:
            CallerError: the payload does not fit the parameter's type.
        """


class Fetch(NamedTuple):
    """An input that is on its way.

    Attributes:
        future: gives what was fetched, or fails with an InvocationError.
        convert: makes the parameter's value of it; raises AppError if it does not fit the parameter's type.
    """

    future: asyncio.Future[Any]
    convert: Callable[[Any], object]


class Input(Protocol):
    """A compiled input binding."""

    def start(self, payload: Payload) -> Fetch:
        """Begin to fetch; all inputs of a function are begun before the first is awaited.

        Raises:
            CallerError: the payload lacks what an expression of the binding needs.
        """

    def describe(self) -> str:
        """Return the source as a person would name it; no values."""

    @property
    def secret_store(self) -> str | None:
        """The store of the app's own sidecar that every invocation reads; None if that depends on the payload."""
