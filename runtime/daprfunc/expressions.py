"""Binding expressions: ``%SETTING%`` put in at load, ``{trigger.path}`` and built-ins at each invocation.

The syntax and the built-in names are those of Azure Functions. A template is compiled once; rendering walks
dictionaries and lists of the parsed payload and nothing else, so an expression cannot reach beyond the trigger's own
data.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Final, TypeAlias
from urllib.parse import unquote_plus

import msgspec

from daprfunc.errors import CallerError
from daprfunc.payload import Payload

_Part: TypeAlias = Callable[[Payload], str]
_Escape: TypeAlias = Callable[[str, int], bool]

_METADATA_PREFIX: Final = "metadata."
_BUILT_INS: Final = ("rand-guid", "DateTime", "sys.randguid", "sys.utcnow", "sys.methodname")

# A percent escape, unless it reads as a setting's name between two percent signs of which the second escapes nothing.
_PERCENT_ESCAPE: Final = re.compile(r"%(?![A-Za-z_]\w*%(?![0-9A-Fa-f]{2}))[0-9A-Fa-f]{2}")
_SEGMENT: Final = re.compile(r"[\w-]+")
_INDEX: Final = re.compile(r"[0-9]{1,9}")

_GUID_FORMS: Final[Mapping[str, Callable[[uuid.UUID], str]]] = {
    "N": lambda guid: guid.hex,
    "D": str,
    "B": lambda guid: f"{{{guid}}}",
    "P": lambda guid: f"({guid})",
}
_ISO_8601: Final = "yyyy-MM-ddTHH:mm:ssZ"
_TIME_FORMAT: Final = re.compile(r"(?:yyyy|MM|dd|HH|mm|ss|[TZ]|[^A-Za-z])+")
_TIME_FIELDS: Final = {
    "yyyy": "{0.year:04}",
    "MM": "{0.month:02}",
    "dd": "{0.day:02}",
    "HH": "{0.hour:02}",
    "mm": "{0.minute:02}",
    "ss": "{0.second:02}",
}
_TIME_FIELD: Final = re.compile("|".join(_TIME_FIELDS))

_JSON_KINDS: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


class ExpressionError(ValueError):
    """A declared text that cannot be compiled; the error says what is wrong without showing any setting's value."""


@dataclass(frozen=True, slots=True)
class Template:
    """One compiled text.

    Attributes:
        text: the text as declared.
        constant: what it renders to, when that is the same for every invocation.
        render: makes the text for one invocation. Raises CallerError when the payload lacks what an expression names.
    """

    text: str
    constant: str | None = field(repr=False)
    render: Callable[[Payload], str] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Metadata:
    """One compiled metadata string.

    Attributes:
        text: the text as declared, such as ``metadata.namespace=default&version_id={payload.version}``.
        constant: what it renders to, when that is the same for every invocation.
        render: makes a map for one invocation, a new one each time. Raises CallerError as :attr:`Template.render` does.
    """

    text: str
    constant: Mapping[str, str] | None = field(repr=False)
    render: Callable[[Payload], dict[str, str]] = field(repr=False, compare=False)


# What most bindings leave out is not made anew for each of them.
_EMPTY: Final = Template("", "", lambda payload: "")
_NO_METADATA: Final = Metadata("", MappingProxyType({}), lambda payload: {})


def resolve_settings(text: str, app_settings: Mapping[str, str]) -> str:
    """Put in the value of each ``%SETTING%``. Percent signs inside a value stay as they are.

    Args:
        text: the text as declared.
        app_settings: the app settings by name.

    Raises:
        ExpressionError: a setting is not defined, or a percent sign has no partner.
    """
    return _resolve(text, app_settings, lambda text, at: False)


def compile_template(text: str, *, app_settings: Mapping[str, str], trigger: str, function: str) -> Template:
    """Compile a text in which ``%SETTING%``, ``{trigger.path}`` and built-in expressions may stand.

    Settings are put in first, as the .NET host does: braces in a setting's value are an expression.

    Args:
        text: the text as declared.
        app_settings: the app settings by name.
        trigger: the name of the trigger's parameter, with which a path starts, in any case.
        function: the function's name, for ``{sys.methodname}``.

    Raises:
        ExpressionError: the text is malformed, or names a setting or an expression that does not exist.
    """
    return _compile(resolve_settings(text, app_settings), text, trigger, function) if text else _EMPTY


def compile_metadata(text: str, *, app_settings: Mapping[str, str], trigger: str, function: str) -> Metadata:
    """Compile ``key=value&key=value``, each key with or without the prefix ``metadata.`` that Dapr's HTTP API needs.

    Settings are put in first; then the text is split and decoded as HTML forms encode it (``%20``, ``+``); expressions
    are put into the values last, so that what a caller sends cannot add or change a key.

    Args:
        text: the text as declared.
        app_settings: the app settings by name.
        trigger: the name of the trigger's parameter.
        function: the function's name.

    Raises:
        ExpressionError: as :func:`compile_template`; also an entry without ``=``, an empty or repeated key, or an
            expression in a key.
    """
    if not text:
        return _NO_METADATA
    resolved = _resolve(text, app_settings, _is_percent_escape)
    templates: dict[str, Template] = {}
    for number, entry in enumerate(resolved.split("&") if resolved else (), start=1):
        try:
            key, value = _parse_entry(entry)
            if key in templates:
                raise ExpressionError("repeats the key of an earlier entry; keep one of them")
        except ExpressionError as error:
            raise ExpressionError(f"entry {number} of {text!r} {error}") from None
        templates[key] = _compile(value, text, trigger, function)
    constants = {key: template.constant for key, template in templates.items() if template.constant is not None}
    constant = constants if len(constants) == len(templates) else None
    renders = [(key, template.render) for key, template in templates.items()]
    return Metadata(text, constant, lambda payload: {key: render(payload) for key, render in renders})


def _resolve(text: str, app_settings: Mapping[str, str], is_escape: _Escape) -> str:
    if "%" not in text:
        return text
    parts = []
    position = 0
    while (start := text.find("%", position)) >= 0:
        parts.append(text[position:start])
        end = text.find("%", start + 1)
        name = text[start + 1 : end] if end >= 0 else None
        if name is not None and name in app_settings:
            parts.append(app_settings[name])
            position = end + 1
        elif is_escape(text, start):
            parts.append("%")
            position = start + 1
        elif name is None:
            raise ExpressionError(f"{text!r} has a '%' that is not closed; a setting is written %NAME%")
        else:
            raise ExpressionError(f"{text!r} needs the app setting {name!r}, which is not defined")
    parts.append(text[position:])
    return "".join(parts)


def _is_percent_escape(text: str, at: int) -> bool:
    return _PERCENT_ESCAPE.match(text, at) is not None


def _parse_entry(entry: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals:
        raise ExpressionError("has no '='; metadata is written key=value&key=value")
    try:
        key = unquote_plus(name, errors="strict").removeprefix(_METADATA_PREFIX)
        value = unquote_plus(value, errors="strict")
    except UnicodeDecodeError:
        raise ExpressionError("is not UTF-8 once its percent escapes are decoded") from None
    if not key:
        raise ExpressionError("has an empty key; metadata is written key=value&key=value")
    if "{" in key or "}" in key:
        raise ExpressionError("has an expression in its key; only values may hold expressions")
    return key, value


def _compile(resolved: str, text: str, trigger: str, function: str) -> Template:
    """Compile `resolved`, which came from the declared `text` once its settings were put in."""
    if "{" not in resolved and "}" not in resolved:
        return Template(text, resolved, _literal(resolved))
    parts: list[str | _Part] = []
    for literal, expression in _split(resolved, text):
        parts.append(literal)
        if expression is None:
            continue
        try:
            parts.append(_compile_expression(expression, trigger, function))
        except ExpressionError as error:
            # What came out of a setting may be a secret that only looks like an expression.
            declared = repr(f"{{{expression}}}") if f"{{{expression}}}" in text else f"in {text!r}"
            raise ExpressionError(f"expression {declared} {error}") from None
    if all(isinstance(part, str) for part in parts):
        constant = "".join(map(str, parts))
        return Template(text, constant, _literal(constant))
    renders = [_literal(part) if isinstance(part, str) else part for part in parts if part != ""]
    if len(renders) == 1:
        return Template(text, None, renders[0])
    return Template(text, None, lambda payload: "".join([render(payload) for render in renders]))


def _literal(text: str) -> _Part:
    return lambda payload: text


def _split(resolved: str, text: str) -> list[tuple[str, str | None]]:
    """Pairs of a literal and the expression after it; the last has none."""
    pairs: list[tuple[str, str | None]] = []
    *heads, last = resolved.split("}")
    for head in heads:
        literal, brace, expression = head.partition("{")
        if not brace:
            raise ExpressionError(f"{text!r} has a '}}' without a '{{' before it")
        if "{" in expression:
            raise ExpressionError(f"{text!r} has a '{{' that is not closed")
        pairs.append((literal, expression))
    if "{" in last:
        raise ExpressionError(f"{text!r} has a '{{' that is not closed")
    return [*pairs, (last, None)]


def _compile_expression(expression: str, trigger: str, function: str) -> str | _Part:
    name, *path = expression.split(".")
    if name.lower() == trigger.lower():
        return _compile_path(name, path)
    built_in, colon, form = expression.partition(":")
    match built_in.lower():
        case "rand-guid" | "sys.randguid":
            return _compile_guid(form if colon else "D")
        case "datetime" | "sys.utcnow":
            return _compile_time(form if colon else _ISO_8601)
        case "sys.methodname" if not colon:
            return function
    names = ", ".join(f"{{{known}}}" for known in (trigger, f"{trigger}.path", *_BUILT_INS))
    raise ExpressionError(f"names nothing that exists; there are {names}")


def _compile_guid(form: str) -> _Part:
    write = _GUID_FORMS.get(form.upper())
    if write is None:
        raise ExpressionError(f"has an unknown format; a GUID is written as {', '.join(_GUID_FORMS)}")
    return lambda payload: write(uuid.uuid4())


def _compile_time(form: str) -> _Part:
    if not _TIME_FORMAT.fullmatch(form):
        raise ExpressionError(f"has an unknown format; a time is written with {' '.join(_TIME_FIELDS)} and separators")
    pattern = _TIME_FIELD.sub(lambda found: _TIME_FIELDS[found.group()], form)
    return lambda payload: pattern.format(datetime.now(timezone.utc))


def _compile_path(name: str, path: list[str]) -> _Part:
    if "" in path:
        raise ExpressionError("has an empty segment; a path has a name before and after each dot")
    if not all(map(_SEGMENT.fullmatch, path)):
        raise ExpressionError("has a segment with other characters than letters, digits, '_' and '-'")
    label = f"expression '{{{'.'.join([name, *path])}}}'"
    if not path:
        return lambda payload: _whole(payload, label)
    steps = [(segment, int(segment) if _INDEX.fullmatch(segment) else None) for segment in path]

    def render(payload: Payload) -> str:
        node = _tree(payload, label)
        for depth, (key, index) in enumerate(steps):
            if type(node) is dict and key in node:
                node = node[key]
            elif type(node) is list and index is not None and index < len(node):
                node = node[index]
            else:
                raise CallerError(f"{label}: {_where(name, path[:depth])} {_lack(node, key)}")
        return node if type(node) is str else _write(node, label, _where(name, path))

    return render


def _whole(payload: Payload, label: str) -> str:
    try:
        text = payload.text()
    except CallerError as error:
        raise CallerError(f"{label}: {error}") from None
    if text is None:
        raise CallerError(f"{label}: there is no payload")
    if text == "null" and payload.body.strip() == b"null":
        raise CallerError(f"{label}: the payload is null")
    return text


def _tree(payload: Payload, label: str) -> object:
    if not payload.body:
        raise CallerError(f"{label}: there is no payload")
    try:
        return payload.tree()
    except CallerError as error:
        raise CallerError(f"{label}: {error}") from None


def _where(name: str, path: list[str]) -> str:
    return f"'{'.'.join([name, *path])}' of the payload" if path else "the payload"


def _lack(node: object, key: str) -> str:
    if type(node) is dict:
        return f"has no field '{key}'"
    kind = _JSON_KINDS[type(node)]
    if type(node) is list:
        return f"is {kind}, which has no element '{key}'"
    return f"is {kind}, which has no field '{key}'"


def _write(node: object, label: str, where: str) -> str:
    if node is None:
        raise CallerError(f"{label}: {where} is null")
    try:
        return msgspec.json.encode(node).decode()
    except (ValueError, RecursionError):
        raise CallerError(f"{label}: {where} nests too deeply or holds too long a number") from None
