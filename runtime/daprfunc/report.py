"""What was loaded, for a person (a table) and for tools (JSON)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # cli imports this module also for what needs no app
    from daprfunc.assembly import Assembly
    from daprfunc.dispatch import Dispatcher
    from daprfunc.model import BrokenFunction
    from daprfunc.plan import Plan

_HEADINGS = ("FUNCTION", "TRIGGER", "ROUTE", "BINDINGS", "CALLED")


def table(dispatcher: Dispatcher) -> str:
    """Return the functions that can be called, a line each under a heading."""
    rows = [_HEADINGS, *sorted(map(_row, dispatcher.plans.values()))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(plan: Plan) -> tuple[str, ...]:
    function = plan.function
    bindings = ", ".join(f"{name}={source.describe()}" for name, source in plan.inputs.items())
    how = "on the loop" if function.is_async else "in a thread"
    return function.name, function.trigger.type, f"POST /{plan.route}", bindings or "-", how


def secret_stores(dispatcher: Dispatcher) -> dict[str, list[str]]:
    """Return the secret stores that the app cannot do without, each with the parameters that are filled from it."""
    stores: dict[str, list[str]] = {}
    for plan in dispatcher.plans.values():
        for parameter, source in plan.inputs.items():
            if source.secret_store is not None:
                where = f"function '{plan.function.name}', parameter '{parameter}'"
                stores.setdefault(source.secret_store, []).append(where)
    return stores


def as_json(assembly: Assembly) -> str:
    """Return the app as JSON. Its keys are stable: tools may rely on them; new ones may join.

    ``{"directory", "functions": [{"name", "script", "async", "trigger": {"type", "parameter", "route"}, "inputs":
    [{"type", "parameter", "source"}]}], "broken": [{"name", "problems": [{"file", "parameter", "message"}]}],
    "warnings": [...]}``, functions by name.
    """
    dispatcher = assembly.dispatcher
    document = {
        "directory": str(assembly.functions.directory),
        "functions": [_function(plan) for plan in sorted(dispatcher.plans.values(), key=_name)],
        "broken": [_broken(function) for function in sorted(dispatcher.broken, key=lambda broken: broken.name)],
        "warnings": assembly.warnings,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _name(plan: Plan) -> str:
    return plan.function.name


def _function(plan: Plan) -> dict[str, object]:
    function = plan.function
    types = {binding.name: binding.type for binding in function.bindings}
    trigger = function.trigger
    return {
        "name": function.name,
        "script": str(function.script),
        "async": function.is_async,
        "trigger": {"type": trigger.type, "parameter": trigger.name, "route": plan.route},
        "inputs": [
            {"type": types[name], "parameter": name, "source": source.describe()}
            for name, source in plan.inputs.items()
        ],
    }


def _broken(function: BrokenFunction) -> dict[str, object]:
    return {
        "name": function.name,
        "problems": [
            {
                "file": str(problem.file) if problem.file else None,
                "parameter": problem.parameter,
                "message": problem.message,
            }
            for problem in function.problems
        ],
    }


def summary(assembly: Assembly) -> str:
    """Return one line that counts."""
    loaded, broken = len(assembly.dispatcher.plans), len(assembly.dispatcher.broken)
    return f"{loaded} function(s) load, {broken} do not, {len(assembly.warnings)} warning(s)"
