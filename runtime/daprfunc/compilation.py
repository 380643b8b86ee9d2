"""From a loaded app to one that can be dispatched: every binding looked up, checked and compiled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from daprfunc.bindings import INPUTS, TRIGGERS, BindingError, Declaration
from daprfunc.bindings.base import Services
from daprfunc.bindings.secret import SecretInput
from daprfunc.bindings.service_invocation import ServiceInvocationTrigger
from daprfunc.dispatch import Dispatcher, Limits
from daprfunc.errors import Problem
from daprfunc.executor import Executor
from daprfunc.expressions import ExpressionError, resolve_settings
from daprfunc.model import Binding, BrokenFunction, Function, FunctionApp
from daprfunc.plan import Plan

Kind = type[ServiceInvocationTrigger] | type[SecretInput]

_KINDS: Mapping[str, Kind] = MappingProxyType({**TRIGGERS, **INPUTS})
# By type, the properties that a binding may have: in lower case -> as documented. Every binding may have a dataType,
# which makes no difference here.
_PROPERTIES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {type_: {name.lower(): name for name in (*kind.properties, "dataType")} for type_, kind in _KINDS.items()}
)


def compile_app(
    app: FunctionApp, *, services: Services, app_settings: Mapping[str, str], executor: Executor, limits: Limits
) -> Dispatcher:
    """Compile every function of `app`.

    A function that cannot be compiled joins the app's broken ones: its route answers with the reason, the others work.

    Args:
        app: as loaded.
        services: what bindings call.
        app_settings: what ``%NAME%`` stands for.
        executor: calls the functions.
        limits: bounds invocations; its retry policy serves the functions without their own.
    """
    plans: dict[str, list[Plan]] = defaultdict(list)
    broken = list(app.broken)
    warnings = [str(problem) for function in app.functions for problem in _unknown_properties(function)]
    for function in app.functions:
        compiled = _compile(function, services, app_settings, executor, limits)
        if isinstance(compiled, Plan):
            plans[compiled.route.lower()].append(compiled)
        else:
            broken.append(compiled)
    for sharing in plans.values():
        if len(sharing) > 1:
            broken.extend(_same_route(plan, sharing) for plan in sharing)
    return Dispatcher(
        {route: sharing[0] for route, sharing in plans.items() if len(sharing) == 1},
        limits,
        broken=broken,
        warnings=warnings,
        reasons=_reasons(broken, app_settings),
    )


def _compile(
    function: Function, services: Services, app_settings: Mapping[str, str], executor: Executor, limits: Limits
) -> Plan | BrokenFunction:
    compiled: dict[str, Any] = {}
    problems: list[Problem] = []
    for binding in function.bindings:
        declaration = Declaration(binding, function, app_settings, services)
        try:
            compiled[binding.name] = _find(binding)(declaration)
        except BindingError as error:
            problems.append(Problem(str(error), function.file, function.name, binding.name))
    if problems:
        return BrokenFunction(function.name, tuple(problems), function.bindings)
    trigger = compiled.pop(function.trigger.name)
    return Plan(function, trigger, compiled, executor.compile(function), function.retry or limits.retry)


def _find(binding: Binding) -> Kind:
    known: Mapping[str, Kind] = TRIGGERS if binding.is_trigger else INPUTS
    if binding.is_trigger or binding.direction == "in":
        kind = known.get(binding.kind)
        if kind is not None:
            return kind
    what = "a trigger" if binding.is_trigger else f"a binding with direction {binding.direction}"
    supported = f"the trigger {_names(TRIGGERS.values())}, and with direction in {_names(INPUTS.values())}"
    raise BindingError(f"'{binding.type}' is {what} that daprfunc does not support; it supports {supported}")


def _unknown_properties(function: Function) -> Iterator[Problem]:
    """What is declared and means nothing: most likely a misspelt name, whose default is taken without a word."""
    for binding in function.bindings:
        known = _PROPERTIES.get(binding.kind)
        if known is None:
            continue
        for name in sorted(binding.properties.keys() - known.keys()):
            kind = _KINDS[binding.kind]
            close = get_close_matches(name, known, 1)
            advice = f"did you mean {known[close[0]]}?" if close else f"it has {', '.join(kind.properties)}"
            found = f"'{name}' is no property of {kind.type_name} and has no effect; {advice}"
            yield Problem(found, function.file, function.name, binding.name)


def _names(kinds: Iterable[Kind]) -> str:
    return ", ".join(kind.type_name for kind in kinds)


def _same_route(plan: Plan, sharing: list[Plan]) -> BrokenFunction:
    others = ", ".join(f"'{other.function.name}'" for other in sharing if other is not plan)
    message = f"its route '{plan.route}' is also that of {others} (case is ignored); give each its own methodName"
    function = plan.function
    return BrokenFunction(function.name, (Problem(message, function.file, function.name),), function.bindings)


def _reasons(broken: Iterable[BrokenFunction], app_settings: Mapping[str, str]) -> dict[str, str]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for function in broken:
        text = f"function '{function.name}' did not load: " + "; ".join(map(str, function.problems))
        reasons[_route(function, app_settings)].append(text)
    return {route: "; ".join(texts) for route, texts in reasons.items()}


def _route(function: BrokenFunction, app_settings: Mapping[str, str]) -> str:
    """Return the route that a function would have, as far as that can be told."""
    method = next((each.properties.get("methodname") for each in function.bindings if each.is_trigger), None)
    try:
        route = resolve_settings(method, app_settings) if isinstance(method, str) else ""
    except ExpressionError:
        route = ""
    return (route.strip("/") or function.name).lower()
