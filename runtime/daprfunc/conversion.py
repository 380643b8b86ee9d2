"""Between what travels (JSON, a map of strings) and the Python types that a user's function declares.

Readers are made once, at load, and are then plain closures. No error text holds a value: it says which parameter, which
place in the data and which kind of mismatch.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import inspect as shapes

from daprfunc.errors import AppError, CallerError
from daprfunc.payload import Payload, not_json

PayloadReader: TypeAlias = Callable[[Payload], object]
SecretReader: TypeAlias = Callable[[Mapping[str, str], str, str], object]

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"

_UNTYPED: Final = (inspect.Parameter.empty, Any, object)
_BYTE_SHAPES: Final = (shapes.BytesType, shapes.ByteArrayType, shapes.MemoryViewType)
# A pydantic model is a custom type to msgspec; no other custom type has a converter.
_MAP_SHAPES: Final = (
    shapes.DictType,
    shapes.TypedDictType,
    shapes.DataclassType,
    shapes.StructType,
    shapes.CustomType,
)
_PLAIN_SHAPES: Final = (shapes.AnyType(), shapes.StrType(), shapes.CustomType(object))

_FOR_PAYLOADS: Final = (
    "leave the annotation out or use str, bytes, dict, list, int, float, bool, a TypedDict, a dataclass, "
    "a msgspec.Struct, a pydantic model, or an Optional, Union, dict or list of these"
)
_FOR_SECRETS: Final = (
    "leave the annotation out or use str, bytes, dict[str, str], Mapping[str, str], a TypedDict, a dataclass, "
    "a msgspec.Struct or a pydantic model"
)

# Where msgspec says a mismatch is, and those of its texts that hold nothing of the data. Its others quote it.
_PLACE: Final = re.compile(r" - at (?:`key` in )?`(\$(?:\.[\w-]+|\[[\d.]*\])*)`$")
_VALUE_FREE: Final = re.compile(
    r"Expected |Object missing required field |Invalid (?!enum value |value )|"
    r"(?:Integer value|Number|Duration|Timestamp) "
)
_QUOTING: Final = {
    "Invalid enum value ": "not one of the allowed values",
    "Invalid value ": "not one of the allowed tags",
    "Object contains unknown field ": "a field that the type does not have",
}


class UnsupportedAnnotation(ValueError):  # noqa: N818 - it is a finding at load, reported as a Problem
    """A parameter is annotated with what cannot be made from the data; the text names it and says what can."""


def payload_reader(annotation: object, *, function: str, parameter: str) -> PayloadReader:
    """Make the reader that turns a payload into what the trigger's parameter takes.

    Numbers, booleans and strings are not turned into each other, except for a whole number where a float is wanted. A
    pydantic model follows its own rules.

    Args:
        annotation: the parameter's resolved type; ``inspect.Parameter.empty`` when it has none.
        function: the function's name, for error texts.
        parameter: the parameter's name, for error texts.

    Returns:
        The reader. It raises CallerError when the payload does not fit and AppError when a check in the user's own
        type fails in a way that is not the caller's fault.

    Raises:
        UnsupportedAnnotation: no payload can become such a type.
    """
    bare, optional = _bare(annotation)
    if bare in _UNTYPED or bare is str:
        return Payload.text
    if bare is bytes:
        return _read_optional_body if optional else attrgetter("body")
    converter = _converter(annotation, _FOR_PAYLOADS)
    if isinstance(converter.shape, _BYTE_SHAPES):
        raise _unsupported(annotation, _FOR_PAYLOADS)
    place = _place(function, parameter)
    wanted = f"{place} takes {_name(annotation)}"
    nullable = _allows_none(converter.shape)
    decode = converter.from_json

    def read(payload: Payload) -> object:
        body = payload.body
        if not body:
            if nullable:
                return None
            raise CallerError(f"no body; {wanted}")
        try:
            return decode(body)
        except Exception as error:
            # A payload that is no JSON is the first thing to say, whichever library found out.
            if isinstance(error, UnicodeDecodeError | RecursionError):
                raise not_json(body, error) from None
            mismatch = converter.explain(error)
            if mismatch is None:
                raise _broken_type(place, error) from None
            payload.tree()
            raise CallerError(f"{wanted}; the payload does not fit {mismatch}") from None

    return read


def secret_reader(annotation: object, *, function: str, parameter: str) -> SecretReader:
    """Make the reader that turns a fetched secret into what its parameter takes.

    Values are strings on the wire, so a field of type int, float or bool is made from its text.

    Args:
        annotation: the parameter's resolved type; ``inspect.Parameter.empty`` when it has none.
        function: the function's name, for error texts.
        parameter: the parameter's name, for error texts.

    Returns:
        The reader: ``reader(values, store, key)``, where `values` is GetSecret's map. It raises AppError when a field
        is missing or does not convert.

    Raises:
        UnsupportedAnnotation: no secret can become such a type.
    """
    bare, _ = _bare(annotation)
    if bare in _UNTYPED or bare is str:
        return _read_json_text
    if bare is bytes:
        return _read_json_bytes
    converter = _converter(bare, _FOR_SECRETS)
    if not isinstance(converter.shape, _MAP_SHAPES):
        raise _unsupported(annotation, _FOR_SECRETS)
    if _is_map_of_strings(converter.shape):
        return _read_map
    place = _place(function, parameter)
    wanted = _name(annotation)
    build = converter.from_strings

    def read(values: Mapping[str, str], store: str, key: str) -> object:
        try:
            return build(dict(values))
        except Exception as error:
            mismatch = converter.explain(error)
            if mismatch is None:
                raise _broken_type(place, error) from None
            raise AppError(
                f"{place} takes {wanted}; secret '{key}' of store '{store}' does not fit {mismatch}"
            ) from None

    return read


def encode_result(value: object) -> tuple[bytes, str]:
    """Turn what a function returned into a reply.

    The rule is that of the Dapr extension for Azure Functions: nothing for None, bytes as they are, JSON for the rest.

    Args:
        value: the function's result. A float that JSON has no form for (NaN, infinity) becomes null.

    Returns:
        The body and its content type, both empty for None.

    Raises:
        AppError: `value` has no JSON form.
    """
    if value is None:
        return b"", ""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), OCTETS
    try:
        return _encode(value), JSON
    except Exception as error:
        raise AppError(f"the function returned {_kind(value)}, which has no JSON form: {_obstacle(error)}") from None


@dataclass(frozen=True, slots=True)
class _Converter:
    """How one type is made.

    Attributes:
        shape: the type as msgspec sees it.
        from_json: JSON to the type.
        from_strings: a map of strings to the type.
        explain: where and why a conversion failed, without values; None when the error is not about the data.
    """

    shape: shapes.Type
    from_json: Callable[[bytes], object]
    from_strings: Callable[[dict[str, str]], object]
    explain: Callable[[Exception], str | None]


def _converter(annotation: Any, supported: str) -> _Converter:
    try:
        shape = shapes.type_info(annotation)
        classes = [cls for cls in _classes(shape, set()) if cls is not object]
        if any(map(_is_pydantic, classes)):
            return _pydantic_converter(annotation, shape)
        decode = msgspec.json.Decoder(annotation).decode
    except Exception as error:
        # A name that is not defined, or what else the libraries or the type itself raise. The first sentence says it.
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise _unsupported(annotation, supported, reason) from None
    if classes:
        raise _unsupported(annotation, supported, f"of {_name(classes[0])}")

    def from_strings(values: dict[str, str]) -> object:
        return msgspec.convert(values, annotation, strict=False)

    return _Converter(shape, decode, from_strings, _explain_msgspec)


def _pydantic_converter(annotation: Any, shape: shapes.Type) -> _Converter:
    import pydantic  # noqa: PLC0415 - the annotation is one of its models, so the app has it

    adapter: pydantic.TypeAdapter[object] = pydantic.TypeAdapter(annotation)
    try:
        fields = frozenset(_properties(adapter.json_schema()))
    except pydantic.errors.PydanticInvalidForJsonSchema:
        fields = frozenset()

    def from_strings(values: dict[str, str]) -> object:
        return adapter.validate_python(values, strict=False)

    def explain(error: Exception) -> str | None:
        if not isinstance(error, pydantic.ValidationError):
            return None
        found = error.errors(include_url=False, include_context=False)
        return "; ".join(f"at `{_path(fault['loc'], fields)}`: {fault['type']}" for fault in found)

    return _Converter(shape, adapter.validate_json, from_strings, explain)


def _classes(shape: object, seen: set[int]) -> Iterator[type]:
    """The classes inside `shape` that msgspec cannot make, or that pydantic would rather make itself."""
    if isinstance(shape, tuple):
        for part in shape:
            yield from _classes(part, seen)
    if not isinstance(shape, shapes.Type | shapes.Field) or id(shape) in seen:
        return
    seen.add(id(shape))
    if isinstance(shape, shapes.CustomType) or (isinstance(shape, shapes.DataclassType) and _is_pydantic(shape.cls)):
        yield shape.cls
    for name in shape.__struct_fields__:
        yield from _classes(getattr(shape, name), seen)


def _is_pydantic(cls: object) -> bool:
    return hasattr(cls, "__pydantic_core_schema__")


def _properties(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _properties(part)


def _path(location: tuple[int | str, ...], fields: frozenset[str]) -> str:
    """A place in the data. Keys that are not the model's fields are the caller's data, so they are left out."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" if step in fields else "[...]" for step in location)
    return "$" + "".join(steps)


def _explain_msgspec(error: Exception) -> str | None:
    if not isinstance(error, msgspec.DecodeError):
        return None
    text = str(error)
    place = _PLACE.search(text)
    where = place.group(1) if place else "$"
    return f"at `{where}`: {_reason(text[: place.start()] if place else text, error.__cause__)}"


def _reason(text: str, cause: BaseException | None) -> str:
    if cause is not None:  # the user's own check raised, and may have quoted what it saw
        return f"refused by the type's own check ({type(cause).__name__})"
    if _VALUE_FREE.match(text):
        return text[0].lower() + text[1:]
    return next((reason for start, reason in _QUOTING.items() if text.startswith(start)), "not a valid value")


def _broken_type(place: str, error: Exception) -> AppError:
    *_, frame = traceback.extract_tb(error.__traceback__)
    where = f"{PurePath(frame.filename).name}, line {frame.lineno}"
    return AppError(f"{place}: making its value raised {type(error).__name__} ({where})")


def _unsupported(annotation: object, supported: str, reason: str = "") -> UnsupportedAnnotation:
    because = f" ({reason})" if reason and reason != f"of {_name(annotation)}" else ""
    return UnsupportedAnnotation(f"a parameter of type {_name(annotation)} cannot be filled{because}: {supported}")


def _bare(annotation: Any) -> tuple[Any, bool]:
    """What is left of an annotation without its names, its notes and its None, and whether None was allowed."""
    if isinstance(annotation, type):  # A plain class, as most are, has none of these.
        return annotation, False
    if hasattr(annotation, "__supertype__"):  # typing.NewType
        return _bare(annotation.__supertype__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and not any(isinstance(note, msgspec.Meta) for note in arguments[1:]):
        return _bare(arguments[0])
    rest = [argument for argument in arguments if argument is not NoneType]
    if origin in (Union, UnionType) and len(rest) == 1:
        return _bare(rest[0])[0], len(rest) < len(arguments)
    return annotation, False


def _allows_none(shape: shapes.Type) -> bool:
    if isinstance(shape, shapes.Metadata):
        return _allows_none(shape.type)
    if isinstance(shape, shapes.UnionType):
        return any(map(_allows_none, shape.types))
    return isinstance(shape, (shapes.NoneType, shapes.AnyType))


def _is_map_of_strings(shape: shapes.Type) -> bool:
    return isinstance(shape, shapes.DictType) and shape.key_type in _PLAIN_SHAPES and shape.value_type in _PLAIN_SHAPES


def _read_optional_body(payload: Payload) -> object:
    return payload.body or None


_sorted_json = msgspec.json.Encoder(order="deterministic").encode


def _read_json_bytes(values: Mapping[str, str], _store: str, _key: str) -> object:
    return _sorted_json(dict(values))


def _read_json_text(values: Mapping[str, str], _store: str, _key: str) -> object:
    return _sorted_json(dict(values)).decode()


def _read_map(values: Mapping[str, str], _store: str, _key: str) -> object:
    return dict(values)


def _place(function: str, parameter: str) -> str:
    return f"parameter '{parameter}' of function '{function}'"


def _name(annotation: object) -> str:
    return inspect.formatannotation(annotation)


def _kind(value: object) -> str:
    """The type's name; with its module, since numpy's ``bool`` is another than Python's."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


_NEVER_KEYS: Final = (NoneType, bool, list, tuple, dict, set, frozenset)
_BAD_KEY: Final = "the keys of a dict must be text or numbers"

# What msgspec leaves to us, by base class: subclasses of JSON's own types, and collections that are not built in.
_JSON_FORMS: Final[tuple[tuple[type, Callable[[Any], object]], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (abc.Mapping, dict),
    (abc.Set, list),
    (abc.Sequence, list),
)


def _json_form(value: object) -> object:
    """The hook for what msgspec does not know."""
    if isinstance(value, _NEVER_KEYS):  # as a value msgspec would have written it
        raise _NoJsonFormError(_BAD_KEY)
    dump = getattr(value, "model_dump_json", None)
    if dump is not None and _is_pydantic(type(value)):
        return msgspec.Raw(dump().encode())
    for base, form in _JSON_FORMS:
        if isinstance(value, base):
            return form(value)
    raise _NoJsonFormError(f"{_advice(value)} instead of {_kind(value)}")


def _advice(value: object) -> str:
    """What to return, where it is plain what was meant."""
    if inspect.iscoroutine(value):
        value.close()  # or Python would warn that nobody awaited it
        return "await it in an async function and return what that gives"
    if _kind(value).startswith("azure.functions.") and type(value).__name__ == "HttpResponse":
        return "return its body (callers are answered by Dapr, not by HTTP triggers)"
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return "return its .tolist()"
    return "return a dict, a dataclass or another type that JSON can say"


class _NoJsonFormError(Exception):
    """A part of a result has no JSON form; the text says what to do."""


_encode = msgspec.json.Encoder(enc_hook=_json_form).encode


def _obstacle(error: Exception) -> str:
    if isinstance(error, _NoJsonFormError):
        return str(error)
    if isinstance(error, RecursionError):
        return "it nests too deeply or holds itself"
    if isinstance(error, UnicodeEncodeError):
        return "it holds text that is not valid Unicode"
    return f"writing it raised {type(error).__name__}"
