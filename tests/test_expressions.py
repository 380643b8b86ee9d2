from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daprfunc.errors import CallerError
from daprfunc.expressions import (
    ExpressionError,
    Metadata,
    Template,
    compile_metadata,
    compile_template,
    resolve_settings,
)
from daprfunc.payload import Payload

SETTINGS = {
    "STORE": "vault",
    "PART": "{input.key}",
    "RATE": "100%",
    "PAIR": "a=1&b=x%20y",
    "TOKEN": "{t0ken}",
    "41": "n",
}


def template(text: str, trigger: str = "input") -> Template:
    return compile_template(text, app_settings=SETTINGS, trigger=trigger, function="Read")


def metadata(text: str) -> Metadata:
    return compile_metadata(text, app_settings=SETTINGS, trigger="input", function="Read")


def render(text: str, body: bytes = b"{}", trigger: str = "input") -> str:
    return template(text, trigger).render(Payload(body))


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("", ""),
        ("plain", "plain"),
        ("%STORE%", "vault"),
        ("a-%STORE%-%STORE%", "a-vault-vault"),
        ("%RATE%STORE%RATE%", "100%STORE100%"),
        ("%PART%", "{input.key}"),
    ],
)
def test_settings_are_put_in_once(text: str, resolved: str) -> None:
    assert resolve_settings(text, SETTINGS) == resolved


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%NOPE%", "needs the app setting 'NOPE', which is not defined"),
        ("x %STORE", "'%' that is not closed"),
        ("%STORE%%", "'%' that is not closed"),
        ("%%", "app setting ''"),
        ("{input", "'{' that is not closed"),
        ("{in{put}", "'{' that is not closed"),
        ("input}", "'}' without a '{'"),
        ("{input}}", "'}' without a '{'"),
        ("{}", "names nothing that exists; there are {input}, {input.path}, {rand-guid}, {DateTime}, {sys."),
        ("{other.key}", "expression '{other.key}' names nothing"),
        ("{ input.key}", "names nothing"),
        ("{sys.nope}", "names nothing"),
        ("{sys.methodname:N}", "names nothing"),
        ("{input.}", "empty segment"),
        ("{input..key}", "empty segment"),
        ("{input.a b}", "letters, digits, '_' and '-'"),
        ("{input.a[0]}", "letters, digits, '_' and '-'"),
        ("{input.a:N}", "letters, digits, '_' and '-'"),
        ("{rand-guid:X}", "a GUID is written as N, D, B, P"),
        ("{rand-guid:}", "a GUID is written as N, D, B, P"),
        ("{DateTime:}", "a time is written with yyyy MM dd HH mm ss"),
        ("{DateTime:yyy}", "a time is written with"),
        ("{sys.utcnow:o}", "a time is written with"),
    ],
)
def test_malformed_texts_are_load_errors(text: str, found: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(found)):
        template(text)


def test_no_load_error_shows_a_settings_value() -> None:
    with pytest.raises(ExpressionError, match="expression in '%TOKEN%' names nothing") as caught:
        template("%TOKEN%")
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("", ""),
        ("my-secret", "my-secret"),
        ("%STORE%-{sys.methodname}", "vault-Read"),
        ("{SYS.MethodName}", "Read"),
        ("{input.key}", None),
        ("%PART%", None),
        ("{rand-guid}", None),
        ("{DateTime}", None),
    ],
)
def test_constants_are_known_at_load(text: str, constant: str | None) -> None:
    compiled = template(text)
    assert compiled.text == text
    assert compiled.constant == constant
    if constant is not None:
        assert compiled.render(Payload(b"")) == constant


def test_templates_are_frozen_and_show_no_setting() -> None:
    compiled = template("%STORE%")
    with pytest.raises(FrozenInstanceError):
        compiled.text = "other"  # type: ignore[misc]
    assert "vault" not in repr(compiled)
    assert "vault" not in repr(metadata("a=%STORE%"))


@pytest.mark.parametrize(
    ("text", "body", "rendered"),
    [
        ("{input.key}", b'{"key": "a"}', "a"),
        ("{INPUT.key}", b'{"key": "a"}', "a"),
        ("{input.key}", b'{"key": ""}', ""),
        ("a-{input.key}-{input.n}-z", b'{"key": "b", "n": 1}', "a-b-1-z"),
        ("{input.a.b-c.d_1}", b'{"a": {"b-c": {"d_1": "x"}}}', "x"),
        ("{input.a.1}", b'{"a": ["x", "y"]}', "y"),
        ("{input.0}", b'["x"]', "x"),
        ("{input.0}", b'{"0": "x"}', "x"),
        ("{input.v}", b'{"v": true}', "true"),
        ("{input.v}", b'{"v": false}', "false"),
        ("{input.v}", b'{"v": 0}', "0"),
        ("{input.v}", b'{"v": 1.50}', "1.5"),
        ("{input.v}", b'{"v": {"b": 1, "a": [2 ]}}', '{"b":1,"a":[2]}'),
        ("{input}", b'{"b" : 1.50}', '{"b":1.50}'),
        ("{input}", b'"text"', "text"),
        ("{input}", b'"null"', "null"),
        ("{Input}", b"plain", "plain"),
        ("{input.key}", b'{"key": "{input.key}%STORE%"}', "{input.key}%STORE%"),
        ("%PART%", b'{"key": "a"}', "a"),
    ],
)
def test_paths_walk_the_payload(text: str, body: bytes, rendered: str) -> None:
    assert render(text, body) == rendered


@pytest.mark.parametrize(
    ("text", "body", "found"),
    [
        ("{input.key}", b'{"s3cret": 1}', "expression '{input.key}': the payload has no field 'key'"),
        ("{input.Key}", b'{"key": 1}', "the payload has no field 'Key'"),
        ("{input.a.b}", b'{"a": {"s3cret": 1}}', "'input.a' of the payload has no field 'b'"),
        ("{input.a.b.c}", b'{"a": "s3cret"}', "'input.a' of the payload is a string, which has no field 'b'"),
        ("{input.a}", b"[1]", "the payload is an array, which has no element 'a'"),
        ("{input.1}", b"[1]", "the payload is an array, which has no element '1'"),
        ("{input.-1}", b"[1]", "the payload is an array, which has no element '-1'"),
        ("{input.99999999999999999999}", b"[1]", "has no element '99999999999999999999'"),
        ("{input.a}", b"true", "the payload is a boolean"),
        ("{input.a}", b"1", "the payload is a number"),
        ("{input.a}", b"1.5", "the payload is a number"),
        ("{input.a}", b"null", "the payload is null, which has no field 'a'"),
        ("{input.a}", b'{"a": null}', "'input.a' of the payload is null"),
        ("{input.a}", b"", "expression '{input.a}': there is no payload"),
        (
            "{input.a}",
            b"s3cret",
            "expression '{input.a}': the payload cannot be read as JSON: invalid character (byte 0)",
        ),
        ("{input.a}", b"[" * 100_000, "nests too deeply"),
        ("{input}", b"", "expression '{input}': there is no payload"),
        ("{input}", b" null ", "expression '{input}': the payload is null"),
        ("{input}", b"\xff", "expression '{input}': the payload is neither JSON nor UTF-8"),
    ],
)
def test_what_the_payload_lacks_is_the_callers_error(text: str, body: bytes, found: str) -> None:
    with pytest.raises(CallerError, match=re.escape(found)) as caught:
        render(text, body)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("path", ["__class__", "__class__.__mro__", "keys", "items", "get", "__dict__.x", "0.__len__"])
@pytest.mark.parametrize("body", [b"{}", b"[[]]", b'"text"', b"1"])
def test_paths_reach_no_attributes(path: str, body: bytes) -> None:
    with pytest.raises(CallerError):
        render(f"{{input.{path}}}", body)


def test_dunder_names_are_keys_like_any_other() -> None:
    assert render("{input.__class__}", b'{"__class__": "x"}') == "x"


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("{rand-guid}", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("{sys.randguid}", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("{Rand-Guid:D}", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("{rand-guid:n}", r"[0-9a-f]{32}"),
        ("{rand-guid:B}", r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}"),
        ("{sys.randguid:P}", r"\([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\)"),
    ],
)
def test_guids_are_new_each_time(text: str, pattern: str) -> None:
    compiled = template(text)
    first, second = compiled.render(Payload(b"")), compiled.render(Payload(b""))
    assert re.fullmatch(pattern, first)
    assert first != second


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("{DateTime}", "%Y-%m-%dT%H:%M:%SZ"),
        ("{sys.utcnow}", "%Y-%m-%dT%H:%M:%SZ"),
        ("{datetime:yyyy/MM/dd HH.mm.ss}", "%Y/%m/%d %H.%M.%S"),
        ("{SYS.UTCNOW:ssmmHHddMMyyyy}", "%S%M%H%d%m%Y"),
    ],
)
def test_times_are_utc_now(text: str, form: str) -> None:
    rendered = datetime.strptime(render(text), form).replace(tzinfo=timezone.utc)
    assert timedelta(seconds=-1) < datetime.now(timezone.utc) - rendered < timedelta(minutes=1)


@pytest.mark.parametrize(("trigger", "text"), [("datetime", "{DateTime}"), ("sys", "{sys.utcnow}")])
def test_the_triggers_name_wins_over_built_ins(trigger: str, text: str) -> None:
    body = b'"mine"' if trigger == "datetime" else b'{"utcnow": "mine"}'
    assert render(text, body, trigger) == "mine"


def test_payload_fields_may_have_the_names_of_built_ins() -> None:
    assert render("{input.DateTime}{input.sys.utcnow}", b'{"DateTime": "a", "sys": {"utcnow": "b"}}') == "ab"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("namespace=default", {"namespace": "default"}),
        ("metadata.namespace=default", {"namespace": "default"}),
        ("a=1&metadata.b=2", {"a": "1", "b": "2"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=x+y%20z", {"a": "x y z"}),
        ("a%3Db=x%26y", {"a=b": "x&y"}),
        ("a=caf%C3%A9s%20x", {"a": "caf\u00e9s x"}),
        ("a=%41", {"a": "A"}),
        ("a=%41%", {"a": "n"}),
        ("a=%STORE%", {"a": "vault"}),
        ("%STORE%=1", {"vault": "1"}),
        ("a=%RATE%", {"a": "100%"}),
        ("%PAIR%", {"a": "1", "b": "x y"}),
        ("f={sys.methodname}", {"f": "Read"}),
    ],
)
def test_metadata_that_is_constant(text: str, expected: Mapping[str, str]) -> None:
    compiled = metadata(text)
    assert compiled.text == text
    assert compiled.constant == expected
    assert compiled.render(Payload(b"")) == expected


def test_a_callers_data_adds_no_keys() -> None:
    compiled = metadata("version=v{input.v}&namespace=default")
    assert compiled.constant is None
    sent = b'{"v": "1&namespace=other%26x=%STORE%"}'
    assert compiled.render(Payload(sent)) == {"version": "v1&namespace=other%26x=%STORE%", "namespace": "default"}


def test_each_rendered_map_is_its_own() -> None:
    compiled = metadata("a=1")
    compiled.render(Payload(b""))["a"] = "2"
    assert compiled.render(Payload(b"")) == compiled.constant == {"a": "1"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("default", "entry 1 of 'default' has no '='"),
        ("a=1&", "entry 2 of 'a=1&' has no '='"),
        ("=1", "empty key"),
        ("metadata.=1", "empty key"),
        ("a=1&a=2", "entry 2 of 'a=1&a=2' repeats"),
        ("metadata.a=1&a=1", "repeats"),
        ("a=1&%61=2", "repeats"),
        ("{input.key}=1", "expression in its key"),
        ("a=%FF", "not UTF-8"),
        ("a=%NOPE%", "needs the app setting 'NOPE'"),
        ("a=%ADDRESS%&b=1", "needs the app setting 'ADDRESS'"),
        ("a=%zz", "'%' that is not closed"),
        ("a={input.key", "'{' that is not closed"),
        ("a={nope}", "names nothing"),
    ],
)
def test_malformed_metadata_is_a_load_error(text: str, found: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(found)):
        metadata(text)


def test_no_metadata_error_shows_a_settings_value() -> None:
    for text in ("%STORE%", "a=1&%STORE%=1&vault=2", "a=%TOKEN%"):
        with pytest.raises(ExpressionError) as caught:
            metadata(text)
        assert not re.search("t0ken|vault.*vault|'vault'", str(caught.value))


TEXTS = st.text() | st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "%",
            "=",
            "&",
            ".",
            ":",
            "+",
            "input",
            "STORE",
            "PART",
            "RATE",
            "sys.utcnow",
            "rand-guid",
            "DateTime",
        ]
    )
    | st.text(string.printable, max_size=3)
).map("".join)


def attempt(call: Callable[[], object], expected: type[Exception]) -> object:
    try:
        return call()
    except expected as error:
        return error


@given(TEXTS)
def test_any_text_compiles_or_is_a_load_error(text: str) -> None:
    for compile_text in (template, metadata):
        outcome = attempt(partial(compile_text, text), ExpressionError)
        if isinstance(outcome, ExpressionError):
            assert len(str(outcome).splitlines()) == 1
        else:
            assert isinstance(outcome, Template | Metadata)
            assert outcome.text == text


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=3),
)


@given(JSON.map(msgspec.json.encode) | st.binary(), st.lists(st.sampled_from(["a", "b", "0", "__class__"]), max_size=3))
def test_any_payload_renders_or_is_the_callers_error(body: bytes, path: list[str]) -> None:
    compiled = template("{" + ".".join(["input", *path]) + "}")
    outcome = attempt(lambda: compiled.render(Payload(body)), CallerError)
    assert isinstance(outcome, str) or str(outcome).startswith("expression '{input")
