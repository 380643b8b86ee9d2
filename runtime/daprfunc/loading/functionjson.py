"""function.json's contents: the one shape in which both programming models declare a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard, cast

from daprfunc.errors import Problem
from daprfunc.jsonc import describe
from daprfunc.model import Binding, Retry
from daprfunc.retry import parse_retry

RETURN = "$return"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a function declares, as far as it could be read.

    Attributes:
        bindings: those that could be read.
        complete: whether all could; only then can a parameter be said to be undeclared.
        script_file: where the code is, relative to the function's folder; None leaves it to the convention.
        entry_point: the function's name in that file; None leaves it to the convention.
        disabled: whether the declaration itself switches the function off.
        retry: the retry policy, if there is one.
        problems: what is wrong with the declaration itself.
        warnings: what was tolerated.
    """

    bindings: tuple[Binding, ...] = ()
    complete: bool = True
    script_file: str | None = None
    entry_point: str | None = None
    disabled: bool = False
    retry: Retry | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def parse(value: object, *, file: Path, function: str) -> Declaration:
    """Read a declaration, whatever it holds; what cannot be used becomes a problem.

    Args:
        value: the parsed JSON. Property names in any case; ``null`` counts as absent.
        file: where it stands, for the problems.
        function: whose it is, for the problems.
    """
    return _Reader(file, function).read(value)


class _Reader:
    def __init__(self, file: Path, function: str) -> None:
        self._file = file
        self._function = function
        self._problems: list[Problem] = []
        self._warnings: list[str] = []

    def read(self, value: object) -> Declaration:
        if not isinstance(value, dict):
            self._fault("must hold a JSON object with 'bindings'")
            return Declaration(complete=False, problems=tuple(self._problems))
        fields = _lowered(value)
        entries = self._entries(fields)
        bindings = tuple(binding for entry in entries or () if (binding := self._binding(entry)))
        self._judge(bindings)
        return Declaration(
            bindings=bindings,
            complete=entries is not None and len(bindings) == len(entries),
            script_file=self._text(fields, "scriptFile"),
            entry_point=self._text(fields, "entryPoint"),
            disabled=self._disabled(fields),
            retry=self._retry(fields),
            problems=tuple(self._problems),
            warnings=tuple(self._warnings),
        )

    def _fault(self, message: str, parameter: str | None = None) -> None:
        self._problems.append(Problem(message, self._file, self._function, parameter))

    def _entries(self, fields: Mapping[str, Any]) -> list[object] | None:
        entries = fields.get("bindings")
        if isinstance(entries, list):
            return entries
        if isinstance(entries, dict):
            found = "'bindings' is one object; it is taken as a list of one"
            self._warnings.append(str(Problem(found, self._file, self._function)))
            return [entries]
        self._fault(f"'bindings' {describe(entries)}; make it a list of objects, one per binding")
        return None

    def _binding(self, entry: object) -> Binding | None:
        if not isinstance(entry, dict):
            self._fault(f"an entry of 'bindings' {describe(entry)}; make it an object with type, direction and name")
            return None
        fields = _lowered(entry)
        name, kind = fields.pop("name", None), fields.pop("type", None)
        direction = self._direction(fields.pop("direction", "in"), name)
        if not _is_parameter(name):
            self._fault(f"a binding's 'name' {describe(name)}; write the name of the Python parameter that it binds")
        elif not isinstance(kind, str) or not kind.strip():
            self._fault(f"the binding's 'type' {describe(kind)}; write one, such as daprSecret", name)
        elif direction:
            return Binding(kind, name, direction, fields)
        return None

    def _direction(self, value: object, name: object) -> Literal["in", "out", "inout"] | None:
        if isinstance(value, str) and value.lower() in ("in", "out", "inout"):
            return cast('Literal["in", "out", "inout"]', value.lower())
        self._fault(
            f"the binding's 'direction' {describe(value)}; write in or out", name if _is_parameter(name) else None
        )
        return None

    def _judge(self, bindings: tuple[Binding, ...]) -> None:
        names = [binding.name for binding in bindings]
        for name in dict.fromkeys(names):
            if (count := names.count(name)) > 1:
                self._fault(f"declared by {count} bindings; keep one", name)
        triggers = [binding for binding in bindings if binding.is_trigger]
        if len(triggers) > 1:
            listed = ", ".join(f"'{trigger.name}'" for trigger in triggers)
            self._fault(f"has {len(triggers)} triggers, for {listed}; a function has one: keep one")
        for binding in bindings:
            if message := _direction_fault(binding):
                self._fault(message, binding.name)

    def _text(self, fields: Mapping[str, Any], name: str) -> str | None:
        value = fields.get(name.lower())
        if value is None or isinstance(value, str):
            return value or None
        self._fault(f"'{name}' {describe(value)}; write a text")
        return None

    def _disabled(self, fields: Mapping[str, Any]) -> bool:
        value = fields.get("disabled", False)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if isinstance(value, bool):
            return value
        # The host also takes a setting's name here. It is refused rather than guessed at: the function would
        # start, or stay silent, against its author's will.
        self._fault(f"'disabled' {describe(value)}; write true or false, or set AzureWebJobs.{self._function}.Disabled")
        return False

    def _retry(self, fields: Mapping[str, Any]) -> Retry | None:
        if "retry" not in fields:
            return None
        try:
            return parse_retry(fields["retry"])
        except ValueError as error:
            self._fault(f"retry: {error}")
            return None


def _lowered(fields: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name).lower(): value for name, value in fields.items() if value is not None}


def _is_parameter(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and (name == RETURN or name.isidentifier())


def _direction_fault(binding: Binding) -> str:
    if binding.direction == "inout":
        return "direction 'inout' is not supported by Python functions; declare an 'in' and an 'out' binding instead"
    if binding.name == RETURN and binding.direction != "out":
        return "binds the return value, so its direction must be 'out'"
    if binding.is_trigger and binding.direction != "in":
        return f"a trigger's direction must be 'in', not '{binding.direction}'"
    return ""
