"""Judges a function's Python signature against what it declares.

The rules are those of the Azure Functions Python worker, which loads the same apps under the .NET host.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Annotated, Any, TypeAlias, TypeGuard

import azure.functions as func
import typing_extensions

from daprfunc.errors import Problem
from daprfunc.loading.candidate import Candidate, Code
from daprfunc.loading.functionjson import RETURN
from daprfunc.model import Binding

ASSUMED_TRIGGER = "daprServiceInvocationTrigger"

_CONTEXT = "context"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_EMPTY = inspect.Parameter.empty
_UNNAMEABLE = (*_VARIADIC, inspect.Parameter.POSITIONAL_ONLY)
_TYPE_FORMS = (
    type,
    typing.TypeVar,
    typing.NewType,
    type(typing.Union),  # Any, Literal and their like, which are no classes
    typing_extensions.TypeAliasType,
    getattr(typing, "TypeAliasType", type),
)

# What a rule finds: a message, and the parameter that it concerns.
_Finding: TypeAlias = tuple[str, "str | None"]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function's signature says, in the terms of :class:`daprfunc.model.Function`.

    Attributes:
        is_async: whether calling it gives a coroutine.
        bindings: as declared, and the trigger that was assumed, if one was.
        annotations: parameter name -> resolved type, for the parameters that have one.
        context: the parameter that takes ``func.Context``, if there is one.
        problems: what does not fit the declaration.
        warnings: what was assumed.
    """

    is_async: bool
    bindings: tuple[Binding, ...]
    annotations: Mapping[str, Any]
    context: str | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


def judge(candidate: Candidate, code: Code) -> Signature:
    """Compare the callable's signature with the candidate's declaration; every misfit becomes a problem."""
    declaration = candidate.declaration
    reading = _Reading(code.call, declaration.bindings, complete=declaration.complete)
    warnings: tuple[str, ...] = ()
    if assumed := _assumed_trigger(reading):
        reading = _Reading(code.call, (assumed, *reading.bindings), complete=reading.complete)
        found = f"no trigger is declared, so this parameter, which no binding names, is taken for a {ASSUMED_TRIGGER}'s"
        warnings = (str(Problem(found, candidate.file, candidate.name, assumed.name)),)
    findings = [
        (message, parameter, candidate.file) for rule in _DECLARATION_RULES for message, parameter in rule(reading)
    ]
    findings += [(message, parameter, code.script) for rule in _CODE_RULES for message, parameter in rule(reading)]
    return Signature(
        is_async=any(map(inspect.iscoroutinefunction, reading.called)),
        bindings=reading.bindings,
        annotations=reading.annotations,
        context=next(iter(reading.contexts), None),
        problems=tuple(Problem(message, file, candidate.name, parameter) for message, parameter, file in findings),
        warnings=warnings,
    )


class _Reading:
    """A signature beside its declaration, as the rules look at it.

    Attributes:
        call: the function.
        bindings: what it declares.
        complete: whether all its bindings could be read.
        called: what a call of it runs.
        parameters: by name.
        unreadable: why there are no parameters to look at.
        annotations: by parameter, for those that could be resolved.
        unresolved: why the others could not.
        has_trigger: whether one of the bindings is one.
        is_open: whether nobody can tell which parameters there are.
        bound: bindings by parameter.
        contexts: the parameters that take the invocation's context.
        free: the parameters that somebody must fill and nobody does.
    """

    def __init__(self, call: Callable[..., Any], bindings: tuple[Binding, ...], *, complete: bool) -> None:
        self.call = call
        self.bindings = bindings
        self.complete = complete
        self.called = _called(call)
        self.parameters, self.unreadable = _parameters(call)
        self.annotations, self.unresolved = _annotations(self.parameters, call)
        self.has_trigger = any(binding.is_trigger for binding in bindings)
        self.is_open = bool(self.unreadable) or any(each.kind in _VARIADIC for each in self.parameters.values())
        self.bound = {binding.name: binding for binding in bindings}
        unbound = [name for name in self.parameters if name not in self.bound]
        self.contexts = [name for name in unbound if self._takes_context(name)]
        self.free = [name for name in unbound if name not in self.contexts and self._must_be_filled(name)]

    def _takes_context(self, parameter: str) -> bool:
        return parameter == _CONTEXT or _bare(self.annotations.get(parameter)) is func.Context

    def _must_be_filled(self, parameter: str) -> bool:
        found = self.parameters[parameter]
        return found.default is found.empty and found.kind not in _UNNAMEABLE

    @property
    def name(self) -> str:
        return getattr(self.call, "__name__", type(self.call).__name__)


def _parameters(call: Callable[..., Any]) -> tuple[Mapping[str, inspect.Parameter], str]:
    """The parameters, or why they cannot be read."""
    try:
        return _plain_parameters(call) if _is_plain(call) else inspect.signature(call).parameters, ""
    except (TypeError, ValueError, NameError) as error:
        return {}, str(error)


def _is_plain(call: Any) -> TypeGuard[FunctionType]:
    """Whether it is a function that nothing wraps or speaks for, and all its parameters have names."""
    if type(call) is not FunctionType or vars(call):
        return False
    code = call.__code__
    return not (code.co_posonlyargcount or code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS))


def _plain_parameters(function: FunctionType) -> dict[str, inspect.Parameter]:
    """What inspect.signature() gives, which takes longer than all rules together: it is ready for much more."""
    code, annotations = function.__code__, function.__annotations__
    positional = code.co_varnames[: code.co_argcount]
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    values = function.__defaults__ or ()
    defaults = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
    defaults.update(function.__kwdefaults__ or {})
    return {
        name: inspect.Parameter(
            name, kind, default=defaults.get(name, _EMPTY), annotation=annotations.get(name, _EMPTY)
        )
        for kind, names in ((_POSITIONAL, positional), (_KEYWORD_ONLY, keywords))
        for name in names
    }


def _annotations(
    parameters: Mapping[str, inspect.Parameter], call: Callable[..., Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The annotations that could be resolved, and why the others could not."""
    resolved: dict[str, Any] = {}
    unresolved: dict[str, str] = {}
    for name, parameter in parameters.items():
        if parameter.annotation is not parameter.empty:
            try:
                resolved[name] = _resolved(parameter.annotation, call)
            except Exception as error:
                unresolved[name] = f"{type(error).__name__}: {error}"
    return resolved, unresolved


def _resolved(annotation: Any, call: Callable[..., Any]) -> Any:
    """The type that an annotation stands for; raises whatever evaluating it raises."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation  # A plain class, as most are, stands for itself.

    def carrier() -> None: ...

    carrier.__annotations__ = {"it": annotation}
    return typing.get_type_hints(carrier, globalns=_globals(call), include_extras=True)["it"]


def _globals(call: Callable[..., Any]) -> dict[str, Any]:
    """The names that the annotations of `call` were written with, under whatever wraps it."""
    inner = inspect.unwrap(_called(call)[-1])
    return getattr(inspect.unwrap(getattr(inner, "__func__", inner)), "__globals__", {})


def _called(call: Any) -> tuple[Any, ...]:
    """What a call of `call` runs: itself, or for an object its class's ``__call__``; both, as either may be marked."""
    while isinstance(call, functools.partial):
        call = call.func
    method = type(call).__call__
    return (call, method) if inspect.isfunction(method) else (call,)


def _bare(annotation: Any) -> Any:
    if isinstance(annotation, type):
        return annotation  # As most are; what typing makes is looked into.
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _is_out(bare: Any) -> bool:
    kind = typing.get_origin(bare) or bare
    return isinstance(kind, type) and issubclass(kind, func.Out)


def _is_type(annotation: Any) -> bool:
    return isinstance(annotation, _TYPE_FORMS) or typing.get_origin(annotation) is not None


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else repr(annotation).replace("typing.", "")


def _assumed_trigger(reading: _Reading) -> Binding | None:
    """The trigger of a function that declares none, where only one parameter can be its.

    The .NET host refuses such a function; Microsoft's page for the secret binding shows one all the same.
    """
    if reading.has_trigger or reading.is_open or not reading.complete or len(reading.free) != 1:
        return None
    return Binding(ASSUMED_TRIGGER, reading.free[0], "in", {})


def _no_trigger(reading: _Reading) -> Iterator[_Finding]:
    if reading.has_trigger or reading.is_open or not reading.complete:
        return
    types = ", ".join(dict.fromkeys(binding.type for binding in reading.bindings))
    what = f"no trigger is declared{f' (only {types})' if types else ''}; declare one, such as {ASSUMED_TRIGGER}"
    if reading.free:
        yield f"{what}, for one of its parameters {', '.join(map(repr, reading.free))}", None
    else:
        yield f"{what}, with a parameter for it", None


def _not_declared(reading: _Reading) -> Iterator[_Finding]:
    if reading.has_trigger and reading.complete and not reading.is_open:
        for name in reading.free:
            yield f"is a parameter of {reading.name}() but no binding names it; declare a binding or remove it", name


def _not_in_python(reading: _Reading) -> Iterator[_Finding]:
    if reading.is_open:
        return
    known = {RETURN, *reading.parameters}
    for name in (name for name in reading.bound if name not in known):
        yield (
            (
                f"declared as a binding but {reading.name}() has no such parameter; add it to the function or"
                " remove the binding"
            ),
            name,
        )


def _is_generator(reading: _Reading) -> Iterator[_Finding]:
    kinds = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(call) for is_kind in kinds for call in reading.called):
        yield f"{reading.name}() is a generator; return one value instead of yielding several", None


def _is_unreadable(reading: _Reading) -> Iterator[_Finding]:
    if reading.unreadable:
        yield f"the parameters of {reading.name} cannot be read: {reading.unreadable}; make it a function", None


def _is_unnameable(reading: _Reading) -> Iterator[_Finding]:
    for name, parameter in reading.parameters.items():
        if parameter.kind in _VARIADIC:
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            yield (
                (
                    f"{reading.name}() takes {stars}{name}, but parameters are passed by their bindings' names;"
                    " name each one (a decorator shows its function's with functools.wraps)"
                ),
                name,
            )
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            yield "is positional-only, but parameters are passed by name; move it behind the '/'", name


def _is_unresolved(reading: _Reading) -> Iterator[_Finding]:
    for name, reason in reading.unresolved.items():
        annotation = reading.parameters[name].annotation
        shown = annotation if isinstance(annotation, str) else _shown(annotation)
        yield f"its annotation {shown!r} cannot be resolved: {reason}; import the type where the app runs", name


def _is_no_type(reading: _Reading) -> Iterator[_Finding]:
    for name, annotation in reading.annotations.items():
        if not _is_type(annotation):
            yield f"is annotated with a value ({type(annotation).__name__}) instead of a type; write a type", name


def _context_misfits(reading: _Reading) -> Iterator[_Finding]:
    for name in reading.contexts:
        annotation = reading.annotations.get(name, func.Context)
        if _is_type(annotation) and _bare(annotation) is not func.Context:
            yield f"receives the invocation's context, so annotate it func.Context, not {_shown(annotation)}", name
    for name in reading.contexts[1:]:
        yield f"would receive the context like '{reading.contexts[0]}'; keep one of them", name


def _binding_misfits(reading: _Reading) -> Iterator[_Finding]:
    for name, binding in reading.bound.items():
        annotation, direction = reading.annotations.get(name), binding.direction
        if (
            name not in reading.parameters
            or name in reading.unresolved
            or (annotation is not None and not _is_type(annotation))
        ):
            continue
        bare = _bare(annotation)
        if direction == "in" and _is_out(bare):
            yield "is annotated func.Out but its binding is 'in'; mend the direction or the annotation", name
        elif direction == "in" and bare is func.Context:
            yield "is annotated func.Context but a binding fills it; remove the binding or the annotation", name
        elif direction == "out" and not _is_out(bare):
            found = "has no annotation" if annotation is None else f"is annotated {_shown(annotation)}"
            remedy = "annotate it func.Out[...], or make the direction 'in' if it is an input, as daprSecret is"
            yield f"its binding is 'out' but it {found}; {remedy}", name


# Mended where the bindings are declared, and where the function is defined.
_DECLARATION_RULES = (_no_trigger, _not_declared, _not_in_python)
_CODE_RULES = (
    _is_generator,
    _is_unreadable,
    _is_unnameable,
    _is_unresolved,
    _is_no_type,
    _context_misfits,
    _binding_misfits,
)
