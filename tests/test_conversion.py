# ruff: noqa: UP007, UP045 - typing.Optional and typing.Union are what users write, beside the newer forms
from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import inspect
import re
import subprocess
import sys
import types
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, Union

import azure.functions as func
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import NotRequired, TypedDict

from daprfunc.conversion import UnsupportedAnnotation, encode_result, payload_reader, secret_reader
from daprfunc.errors import FUNCTION_FAILED, INVALID_ARGUMENT, AppError, CallerError
from daprfunc.payload import Payload

EMPTY = inspect.Parameter.empty
MARK = "s3cret"
MARKED = f'"{MARK}"'.encode()


class Color(enum.Enum):
    RED = "red"


class Grumpy(enum.Enum):
    ONLY = "only"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"no {value}")


class Order(TypedDict):
    id: int
    note: NotRequired[str]


@dataclasses.dataclass
class Line:
    amount: int
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Cart:
    lines: list[Line]
    next: Cart | None = None


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: float
    y: float = 0.0


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    age: int


@dataclasses.dataclass
class Checked:
    word: str

    def __post_init__(self) -> None:
        if self.word == MARK:
            raise ValueError(f"bad {self.word}")
        if self.word == "broken":
            raise KeyError(MARK)


class Model(pydantic.BaseModel):
    amount: int
    color: Literal["red"] = "red"
    extra: dict[str, int] = {}

    @pydantic.field_validator("amount")
    @classmethod
    def check(cls, value: int) -> int:
        if value == 7:
            raise ValueError(f"bad {MARK}")
        if value == 8:
            raise KeyError(MARK)
        return value


class Closed(pydantic.BaseModel, extra="forbid"):
    a: int = 0


class Alias(pydantic.BaseModel):
    password: pydantic.SecretStr = pydantic.Field(alias="db-password")
    port: int = 5432
    tls: bool = False


class StrictModel(pydantic.BaseModel, strict=True):
    port: int


@pydantic.dataclasses.dataclass
class Validated:
    amount: int

    @pydantic.field_validator("amount")
    @classmethod
    def double(cls, value: int) -> int:
        return value * 2


class Opaque: ...


@dataclasses.dataclass
class HoldsOpaque:
    inner: Opaque


class Unresolved(msgspec.Struct):
    field: Nowhere  # type: ignore[name-defined] # noqa: F821


class UnresolvedModel(pydantic.BaseModel):
    field: NowhereEither  # type: ignore[name-defined] # noqa: F821


class Pair(NamedTuple):
    a: int
    b: str


Name = NewType("Name", str)


def read_payload(annotation: object, body: bytes, content_type: str = "") -> object:
    return payload_reader(annotation, function="f", parameter="x")(Payload(body, content_type))


@pytest.mark.parametrize(
    "annotation", [EMPTY, str, Any, object, Optional[str], str | None, Name, Annotated[str, "a note"]]
)
@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"", None), (b'"a"', "a"), (b'{"a" : 1}', '{"a":1}'), (b"plain", "plain"), (b"null", "null")],
)
def test_untyped_and_str_parameters_take_the_text(annotation: object, body: bytes, expected: object) -> None:
    assert read_payload(annotation, body) == expected


@pytest.mark.parametrize(
    ("annotation", "none"), [(bytes, b""), (Optional[bytes], None), (Annotated[bytes, "a note"], b"")]
)
def test_bytes_parameters_take_the_raw_body(annotation: object, none: object) -> None:
    assert read_payload(annotation, b' "\xff" ') == b' "\xff" '
    assert read_payload(annotation, b"") == none


@pytest.mark.parametrize(
    ("annotation", "body", "expected"),
    [
        (dict, b'{"a": [1]}', {"a": [1]}),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (Mapping, b"{}", {}),
        (Mapping[str, Any], b'{"a": null}', {"a": None}),
        (list, b"[1, null]", [1, None]),
        (list[int], b"[]", []),
        (int, b"0", 0),
        (int, b"12345678901234567890123456789", 12345678901234567890123456789),
        (float, b"1", 1.0),
        (float, b"1.5", 1.5),
        (bool, b"false", False),
        (Optional[int], b"null", None),
        (Optional[int], b"", None),
        (Annotated[Optional[int], msgspec.Meta(title="n")], b"", None),
        (Union[int, str], MARKED, MARK),
        (int | list[int], b"[1]", [1]),
        (Order, b'{"id": 1, "unknown": 2}', {"id": 1}),
        (Cart, b'{"lines": [{"amount": 1}], "next": {"lines": []}}', Cart([Line(1)], Cart([]))),
        (Point, b'{"x": 1}', Point(1.0)),
        (Cat | Dog, b'{"type": "Dog", "age": 3}', Dog(3)),
        (Color, b'"red"', Color.RED),
        (datetime.date, b'"2026-01-02"', datetime.date(2026, 1, 2)),
        (Pair, b'[1, "b"]', Pair(1, "b")),
        (Model, b'{"amount": 1}', Model(amount=1)),
        (Model | None, b"", None),
        (list[Model], b'[{"amount": 1}]', [Model(amount=1)]),
        (Validated, b'{"amount": 2}', Validated(2)),
    ],
)
def test_payloads_become_what_is_declared(annotation: object, body: bytes, expected: object) -> None:
    result = read_payload(annotation, body)
    assert result == expected
    assert type(result) is type(expected)


def test_each_reading_is_the_functions_own() -> None:
    payload = Payload(b'{"a": []}')
    read = payload_reader(dict, function="f", parameter="x")
    first = read(payload)
    assert isinstance(first, dict)
    first["a"].append(1)
    assert read(payload) == payload.tree() == {"a": []}


@pytest.mark.parametrize(
    ("annotation", "name"),
    [(int, "int"), (dict[str, int], "dict[str, int]"), (Cart, "Cart"), (Model, "Model"), (list[Model], "Model")],
)
def test_a_typed_parameter_needs_a_body(annotation: object, name: str) -> None:
    with pytest.raises(
        CallerError, match=r"^no body; parameter 'x' of function 'f' takes .*" + re.escape(name)
    ) as caught:
        read_payload(annotation, b"")
    assert caught.value.status is INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("annotation", "body", "mismatch"),
    [
        (int, b"true", "at `$`: expected `int`, got `bool`"),
        (int, b"1.0", "at `$`: expected `int`, got `float`"),
        (int, MARKED, "at `$`: expected `int`, got `str`"),
        (float, MARKED, "at `$`: expected `float`, got `str`"),
        (bool, b"1", "at `$`: expected `bool`, got `int`"),
        (dict, b"null", "at `$`: expected `object`, got `null`"),
        (list, b"{}", "at `$`: expected `array`, got `object`"),
        (dict[str, int], b'{"s3cret": "s3cret"}', "at `$[...]`: expected `int`, got `str`"),
        (dict[int, int], b'{"s3cret": 1}', "at `$`: expected `int`, got `str`"),
        (Order, b"{}", "at `$`: object missing required field `id`"),
        (
            Cart,
            b'{"lines": [{"amount": 1}, {"amount": "s3cret"}]}',
            "at `$.lines[1].amount`: expected `int`, got `str`",
        ),
        (Point, b'{"x": 1, "s3cret": 2}', "at `$`: a field that the type does not have"),
        (Cat | Dog, b'{"type": "s3cret"}', "at `$.type`: not one of the allowed tags"),
        (Color, MARKED, "at `$`: not one of the allowed values"),
        (Grumpy, MARKED, "at `$`: not one of the allowed values"),
        (Literal["a"], MARKED, "at `$`: not one of the allowed values"),
        (list[Literal[1]], b"[77777]", "at `$[0]`: not one of the allowed values"),
        (datetime.datetime, MARKED, "at `$`: invalid RFC3339 encoded datetime"),
        (uuid.UUID, MARKED, "at `$`: invalid UUID"),
        (decimal.Decimal, MARKED, "at `$`: invalid decimal string"),
        (Annotated[int, msgspec.Meta(ge=5)], b"1", "at `$`: expected `int` >= 5"),
        (list[Checked], b'[{"word": "s3cret"}]', "at `$[0]`: refused by the type's own check (ValueError)"),
        (Model, b"{}", "at `$.amount`: missing"),
        (Model, b'{"amount": "s3cret"}', "at `$.amount`: int_parsing"),
        (Model, b'{"amount": 7}', "at `$.amount`: value_error"),
        (Model, b'{"amount": 1, "color": "s3cret"}', "at `$.color`: literal_error"),
        (Model, b'{"amount": 1, "extra": {"s3cret": "x"}}', "at `$.extra[...]`: int_parsing"),
        (list[Model], b'[{"amount": 1}, {}]', "at `$[1].amount`: missing"),
        (dict[str, Model], b'{"s3cret": {}}', "at `$[...].amount`: missing"),
        (Closed, b'{"s3cret": 1}', "at `$[...]`: extra_forbidden"),
        (Closed, b"[" * 250 + b"]" * 250, "at `$`: json_invalid"),
    ],
)
def test_a_mismatch_says_where_and_never_the_value(annotation: object, body: bytes, mismatch: str) -> None:
    with pytest.raises(CallerError) as caught:
        read_payload(annotation, body)
    text = str(caught.value)
    assert text.startswith("parameter 'x' of function 'f' takes ")
    assert text.endswith(f"; the payload does not fit {mismatch}")
    assert MARK not in text
    assert "77777" not in text
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("annotation", [int, dict, Cart, Model, list[Model]])
@pytest.mark.parametrize(
    ("body", "defect"),
    [
        (b'{"lines": s3cret}', "invalid character (byte 10)"),
        (b'{"lines', "ends too early (byte 7)"),
        (b'{"lines": [{"amount": 1, "tags": ["\xff"]}]}', "not UTF-8 (byte 35)"),
        (b"[" * 100_000, "nests too deeply"),
        (b'{"unknown":' + b"[" * 100_000, "nests too deeply"),
    ],
)
def test_a_payload_that_is_no_json_says_so(annotation: object, body: bytes, defect: str) -> None:
    with pytest.raises(CallerError) as caught:
        read_payload(annotation, body)
    assert str(caught.value).startswith("the payload cannot be read as JSON: ")
    assert str(caught.value).endswith(defect)


@pytest.mark.parametrize(("annotation", "body"), [(Checked, b'{"word": "broken"}'), (Model, b'{"amount": 8}')])
def test_a_type_that_breaks_is_the_apps_fault(annotation: object, body: bytes) -> None:
    with pytest.raises(AppError) as caught:
        read_payload(annotation, body)
    assert re.fullmatch(
        r"parameter 'x' of function 'f': making its value raised KeyError \(test_conversion.py, line \d+\)",
        str(caught.value),
    )
    assert MARK not in str(caught.value)


UNSUPPORTED = [
    (Opaque, "Opaque"),
    (complex, "complex"),
    (func.HttpRequest, "HttpRequest"),
    (func.InputStream, "InputStream"),
    (func.Out[str], "Out"),
    (func.Context, "Context"),
    (Callable[[], int], "Callable"),
    (list[Opaque], "Opaque"),
    (dict[str, HoldsOpaque], "Opaque"),
    (Opaque | None, "Opaque"),
    (HoldsOpaque, "Opaque"),
    (Unresolved, "Nowhere"),
    (UnresolvedModel, "` is not fully defined"),
    (str | bytes, "bytes"),
    (bytearray, "bytearray"),
    (memoryview, "memoryview"),
    ("Later", "Later"),
    (re.Pattern, "Pattern"),
    (5, "5"),
]


@pytest.mark.parametrize(("annotation", "name"), UNSUPPORTED)
@pytest.mark.parametrize(
    ("make", "supported"), [(payload_reader, "a pydantic model"), (secret_reader, "Mapping[str, str]")]
)
def test_what_cannot_be_made_is_found_at_load(
    annotation: object, name: str, make: Callable[..., object], supported: str
) -> None:
    with pytest.raises(UnsupportedAnnotation) as caught:
        make(annotation, function="f", parameter="x")
    assert name in str(caught.value)
    assert supported in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value).replace("_http", "")


@pytest.mark.parametrize(
    "annotation", [int, float, bool, list, list[str], Model | Order, Cat | Dog, Color, list[Model], Pair]
)
def test_a_secret_is_a_map_so_other_types_are_found_at_load(annotation: object) -> None:
    with pytest.raises(UnsupportedAnnotation, match="leave the annotation out or use str, bytes, dict"):
        secret_reader(annotation, function="f", parameter="x")


def read_secret(annotation: object, values: Mapping[str, str]) -> object:
    return secret_reader(annotation, function="f", parameter="x")(values, "vault", "my-secret")


@pytest.mark.parametrize("annotation", [EMPTY, str, Any, object, Optional[str]])
def test_an_untyped_secret_is_json_text(annotation: object) -> None:
    assert read_secret(annotation, {"my-secret": "abcd"}) == '{"my-secret":"abcd"}'
    assert read_secret(annotation, types.MappingProxyType({"b": 'q"', "a": "\u00e9"})) == '{"a":"\u00e9","b":"q\\""}'


def test_a_bytes_secret_is_the_same_text_in_utf8() -> None:
    assert read_secret(bytes, {"b": "\u00e9", "a": ""}) == '{"a":"","b":"\u00e9"}'.encode()


class Credentials(TypedDict):
    user: str
    port: int
    tls: NotRequired[bool]


@dataclasses.dataclass
class Database:
    user: str
    port: int
    ratio: float = 0.5
    tls: bool = False
    note: str | None = None


class Kebab(msgspec.Struct, rename="kebab"):
    db_user: str


@pytest.mark.parametrize(
    ("annotation", "values", "expected"),
    [
        (dict, {"a": "1"}, {"a": "1"}),
        (dict[str, str], {"a": "1"}, {"a": "1"}),
        (Mapping[str, str], {"a": "1"}, {"a": "1"}),
        (dict[str, object], {"a": "1"}, {"a": "1"}),
        (Optional[dict[str, str]], {"a": "null"}, {"a": "null"}),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (Credentials, {"user": "7", "port": "5432", "other": "x"}, {"user": "7", "port": 5432}),
        (
            Database,
            {"user": "u", "port": "1", "ratio": "2", "tls": "true", "note": "null"},
            Database("u", 1, 2.0, True, "null"),
        ),
        (Kebab, {"db-user": "u"}, Kebab("u")),
        (StrictModel, {"port": "1"}, StrictModel(port=1)),
        (Validated, {"amount": "2"}, Validated(2)),
    ],
)
def test_secrets_become_what_is_declared(annotation: object, values: dict[str, str], expected: object) -> None:
    result = read_secret(annotation, types.MappingProxyType(values))
    assert result == expected
    assert type(result) is type(expected)


def test_a_secret_fits_pydantics_own_secret_type() -> None:
    result = read_secret(Alias, {"db-password": MARK, "port": "1", "tls": "true"})
    assert isinstance(result, Alias)
    assert (result.password.get_secret_value(), result.port, result.tls) == (MARK, 1, True)


@pytest.mark.parametrize(
    "annotation",
    [dict, dict[str, str], Mapping[str, str], Optional[dict[str, str]], dict[str, Any], dict[str, int], Credentials],
)
def test_each_secret_map_is_the_functions_own(annotation: object) -> None:
    values = {"user": "1", "port": "1"}
    result = read_secret(annotation, values)
    assert isinstance(result, dict)
    result["port"] = "2"
    assert values == {"user": "1", "port": "1"}


class Taking(pydantic.BaseModel, extra="allow"):
    @pydantic.model_validator(mode="before")
    @classmethod
    def take(cls, values: dict[str, str]) -> dict[str, str]:
        values["port"] = "taken"
        return values


def test_a_models_own_checks_cannot_change_a_secret_for_the_next_reader() -> None:
    values = {"port": "1"}
    result = read_secret(Taking, values)
    assert isinstance(result, Taking)
    result.__pydantic_extra__["port"] = "2"  # type: ignore[index]  # it may be None where extra is forbidden
    assert values == {"port": "1"}


@pytest.mark.parametrize(
    ("annotation", "values", "mismatch"),
    [
        (Credentials, {"user": MARK}, "at `$`: object missing required field `port`"),
        (Credentials, {"user": MARK, "port": MARK}, "at `$.port`: expected `int`, got `str`"),
        (Database, {"user": MARK, "port": "1", "tls": MARK}, "at `$.tls`: expected `bool`, got `str`"),
        (dict[str, int], {"a": MARK}, "at `$[...]`: expected `int`, got `str`"),
        (dict[str, Color], {"a": MARK}, "at `$[...]`: not one of the allowed values"),
        (Checked, {"word": MARK}, "at `$`: refused by the type's own check (ValueError)"),
        (Alias, {"port": MARK}, "at `$.db-password`: missing; at `$.port`: int_parsing"),
        (Model, {"amount": "7"}, "at `$.amount`: value_error"),
    ],
)
def test_a_secret_that_does_not_fit_names_the_field_and_never_the_value(
    annotation: object, values: dict[str, str], mismatch: str
) -> None:
    with pytest.raises(AppError) as caught:
        read_secret(annotation, values)
    text = str(caught.value)
    assert text.startswith("parameter 'x' of function 'f' takes ")
    assert text.endswith(f"; secret 'my-secret' of store 'vault' does not fit {mismatch}")
    assert MARK not in text
    assert caught.value.status is FUNCTION_FAILED
    assert caught.value.__suppress_context__


def test_a_type_that_breaks_on_a_secret_shows_no_value() -> None:
    with pytest.raises(AppError, match="raised KeyError") as caught:
        read_secret(Checked, {"word": "broken"})
    assert MARK not in str(caught.value)


class Text(str): ...


class Count(int): ...


class Ratio(float): ...


class Items(list[int]): ...


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ("", b'""'),
        ('a "b"', b'"a \\"b\\""'),
        (0, b"0"),
        (False, b"false"),
        (True, b"true"),
        (1.5, b"1.5"),
        ([], b"[]"),
        ({}, b"{}"),
        ({"b": None, "a": [1]}, b'{"b":null,"a":[1]}'),
        ({1: 2}, b'{"1":2}'),
        ((1, "a"), b'[1,"a"]'),
        ({1}, b"[1]"),
        (Line(1), b'{"amount":1,"tags":[]}'),
        (Point(1.0), b'{"x":1.0,"y":0.0}'),
        (Order(id=1), b'{"id":1}'),
        (Pair(1, "b"), b'[1,"b"]'),
        (Color.RED, b'"red"'),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc), b'"2026-01-02T03:04:05Z"'),
        (Model(amount=1), b'{"amount":1,"color":"red","extra":{}}'),
        ([{"m": Closed()}], b'[{"m":{"a":0}}]'),
        (Text("a"), b'"a"'),
        (Count(1), b"1"),
        (Ratio(1.5), b"1.5"),
        (types.MappingProxyType({"a": 1}), b'{"a":1}'),
        ({"a": 1}.keys(), b'["a"]'),
        (collections.deque([1]), b"[1]"),
        (Items([1]), b"[1]"),
        (collections.Counter("a"), b'{"a":1}'),
        ({Text("a"): 1}, b'{"a":1}'),
    ],
)
def test_results_become_json(value: object, body: bytes) -> None:
    assert encode_result(value) == (body, "application/json")


@pytest.mark.parametrize("value", [b"\xff", bytearray(b"\xff"), memoryview(b"\xff")])
def test_bytes_results_go_out_raw(value: object) -> None:
    assert encode_result(value) == (b"\xff", "application/octet-stream")
    assert encode_result(type(value)(b"")) == (b"", "application/octet-stream")  # type: ignore[call-arg]


def test_none_is_an_empty_reply() -> None:
    assert encode_result(None) == (b"", "")


def _cycle() -> list[object]:
    cycle: list[object] = []
    cycle.append(cycle)
    return cycle


class Unwritable(pydantic.BaseModel):
    a: int = 0

    @pydantic.field_serializer("a")
    def write(self, _value: int) -> int:
        raise LookupError(MARK)


@pytest.mark.parametrize(
    ("value", "kind", "obstacle"),
    [
        (Opaque(), f"{__name__}.Opaque", f"instead of {__name__}.Opaque"),
        ({MARK: [Opaque()]}, "dict", f"instead of {__name__}.Opaque"),
        (1j, "complex", "instead of complex"),
        (Exception(MARK), "Exception", "instead of Exception"),
        ({(1, MARK): 1}, "dict", "the keys of a dict must be text or numbers"),
        ({None: 1}, "dict", "the keys of a dict must be text or numbers"),
        ({True: 1}, "dict", "the keys of a dict must be text or numbers"),
        ({frozenset({MARK}): 1}, "dict", "the keys of a dict must be text or numbers"),
        ({Opaque(): 1}, "dict", f"instead of {__name__}.Opaque"),
        (_cycle(), "list", "nests too deeply or holds itself"),
        (f"{MARK}\ud800", "str", "not valid Unicode"),
        pytest.param(10**5000, "int", "writing it raised ValueError", id="huge"),
        (Unwritable(), f"{__name__}.Unwritable", "writing it raised "),
    ],
)
def test_what_has_no_json_form_is_named_by_type_only(value: object, kind: str, obstacle: str) -> None:
    with pytest.raises(AppError) as caught:
        encode_result(value)
    assert str(caught.value).startswith(f"the function returned {kind}, which has no JSON form: ")
    assert obstacle in str(caught.value)
    assert MARK not in str(caught.value)
    assert caught.value.status is FUNCTION_FAILED


class Array:
    """Has what numpy's arrays and scalars have."""

    def tolist(self) -> list[int]:
        return []


async def forgotten() -> None: ...


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (
            lambda: func.HttpResponse("x"),
            "return its body (callers are answered by Dapr, not by HTTP triggers) instead of ",
        ),
        (lambda: [Array()], "return its .tolist() instead of "),
        (forgotten, "await it in an async function and return what that gives instead of coroutine"),
    ],
)
def test_what_was_plainly_meant_is_said(value: Callable[[], object], advice: str) -> None:
    with pytest.raises(AppError) as caught:
        encode_result(value())
    assert advice in str(caught.value)


def test_pydantic_is_not_imported_for_an_app_without_it() -> None:
    script = (
        "import sys; from daprfunc.conversion import *; from daprfunc.payload import Payload\n"
        "payload_reader(dict, function='f', parameter='x')(Payload(b'{}'))\n"
        "secret_reader(dict, function='f', parameter='x')({}, 's', 'k')\n"
        "encode_result({}); sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


READERS = [
    payload_reader(annotation, function="f", parameter="x")
    for annotation in (
        EMPTY,
        bytes,
        dict,
        list,
        int,
        float,
        bool,
        Order,
        Cart,
        Point,
        Model,
        Optional[int],
        Cat | Dog,
        Color,
    )
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "lines", "amount", "x", "type"]), inner, max_size=3)
    ),
)


@given(st.sampled_from(READERS), st.binary() | JSON.map(msgspec.json.encode))
def test_any_bytes_convert_or_are_the_callers_error(read: Callable[[Payload], object], body: bytes) -> None:
    try:
        read(Payload(body))
    except CallerError as error:
        one_line = len(str(error).splitlines()) == 1
    else:
        one_line = True
    assert one_line


@given(JSON.filter(lambda value: value is not None))
def test_what_is_returned_reads_back_the_same(value: object) -> None:
    body, _ = encode_result(value)
    assert Payload(body).tree() == value
