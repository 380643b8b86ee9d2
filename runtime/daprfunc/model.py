"""A loaded function app, as both programming models describe it. Nothing here does anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from daprfunc.errors import Problem


@dataclass(frozen=True, slots=True)
class Binding:
    """One declared binding, in function.json's terms.

    Attributes:
        type: the binding's type as declared, such as ``daprSecret``. Compare it with :attr:`kind`.
        name: the parameter that it binds; ``$return`` for the return value.
        direction: ``in``, ``out`` or ``inout``.
        properties: everything else that was declared; keys in lower case, since function.json ignores it.
        kind: the type in lower case: the key under which bindings are registered.
        is_trigger: whether this binding starts the function. Azure Functions names every trigger's type so.
    """

    type: str
    name: str
    direction: Literal["in", "out", "inout"]
    properties: Mapping[str, Any]
    kind: str = field(init=False, repr=False, compare=False)
    is_trigger: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Asked for at every step of loading, so they are found once.
        kind = self.type.lower()
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "is_trigger", kind.endswith("trigger"))


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy, from function.json's ``retry`` or ``@app.retry``.

    Attributes:
        strategy: how the delay grows.
        max_retry_count: retries after the first attempt; -1 means without end.
        delay: seconds between attempts, for ``fixedDelay``.
        minimum_interval: seconds before the first retry, for ``exponentialBackoff``.
        maximum_interval: seconds that no delay exceeds, for ``exponentialBackoff``.
    """

    strategy: Literal["fixedDelay", "exponentialBackoff"]
    max_retry_count: int
    delay: float = 0.0
    minimum_interval: float = 0.0
    maximum_interval: float = 0.0


@dataclass(frozen=True, slots=True)
class Function:
    """One function that can be called.

    Attributes:
        name: its name, unique in the app whatever the case.
        directory: the v1 function's folder; the app's for v2 (``func.Context.function_directory``).
        script: the file that defines it.
        file: the file that declares it: function.json for v1, the script for v2.
        call: the user's callable; takes the bound parameters by keyword.
        is_async: whether `call` returns a coroutine.
        bindings: as declared (or assumed, see :attr:`FunctionApp.warnings`), exactly one of them a trigger.
        annotations: parameter name -> resolved type, for the parameters that have one.
        context: the parameter that takes ``func.Context``, if there is one.
        retry: its own retry policy; None leaves it to host.json.
        trigger: the one of `bindings` that starts it.
    """

    name: str
    directory: Path
    script: Path
    file: Path
    call: Callable[..., Any]
    is_async: bool
    bindings: tuple[Binding, ...]
    annotations: Mapping[str, Any]
    context: str | None = None
    retry: Retry | None = None
    trigger: Binding = field(init=False)

    def __post_init__(self) -> None:
        # Looked at for every binding and every parameter, so it is looked for once.
        object.__setattr__(self, "trigger", next(binding for binding in self.bindings if binding.is_trigger))


@dataclass(frozen=True, slots=True)
class BrokenFunction:
    """A function that cannot be called, and every reason why.

    Attributes:
        name: its name, as far as it could be told.
        problems: at least one.
        bindings: what of its bindings could be read, so that its route can answer with the reason.
    """

    name: str
    problems: tuple[Problem, ...]
    bindings: tuple[Binding, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionApp:
    """An app directory, loaded.

    Attributes:
        directory: the app's root.
        functions: those that can be called, by name.
        broken: those that cannot.
        warnings: what was assumed on the app's behalf, one line each.
    """

    directory: Path
    functions: tuple[Function, ...]
    broken: tuple[BrokenFunction, ...] = ()
    warnings: tuple[str, ...] = field(default=())
