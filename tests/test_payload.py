from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daprfunc.errors import INVALID_ARGUMENT, CallerError
from daprfunc.payload import Payload

TOO_DEEP = b"[" * 100_000
MARK = "s3cret"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", None),
        (b"{}", "{}"),
        (b'{"b" : 1.50,\n "a": [1 , 1e400]}', '{"b":1.50,"a":[1,1e400]}'),
        (b' "a\\u00e9\\n\\"b" ', 'a\u00e9\n"b'),
        (b'""', ""),
        (b"null", "null"),
        (b"0", "0"),
        (b"12345678901234567890123456789", "12345678901234567890123456789"),
        ("plain, gr\u00fcn".encode(), "plain, gr\u00fcn"),
        (b'"a" and more', '"a" and more'),
        (b"  \n", "  \n"),
    ],
)
def test_text(body: bytes, text: str | None) -> None:
    assert Payload(body).text() == text


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/a+json"])
@pytest.mark.parametrize(
    ("body", "defect"),
    [
        (b"{} s3cret", "trailing characters (byte 4)"),
        (b's3cret"', "invalid character (byte 0)"),
        (b'{"a": "s3cret', "ends too early (byte 13)"),
        (b'{"a": s3cret}', "invalid character (byte 6)"),
        (b'{"s3cret":"\xff"}', "not UTF-8 (byte 11)"),
        (b'"s3cret\xff"', "not UTF-8 (byte 7)"),
        (TOO_DEEP, "nests too deeply"),
    ],
)
def test_what_claims_to_be_json_must_be(body: bytes, defect: str, content_type: str) -> None:
    payload = Payload(body, content_type)
    for read in (payload.text, payload.tree):
        with pytest.raises(CallerError) as caught:
            read()
        assert defect in str(caught.value)
        assert MARK not in str(caught.value)
        assert caught.value.status is INVALID_ARGUMENT


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/octet-stream", "application/jsonish"])
def test_text_needs_no_json_under_other_content_types(content_type: str) -> None:
    assert Payload(b"{not json", content_type).text() == "{not json"


@pytest.mark.parametrize("body", [b"s3cret \xff", b'{"s3cret":"\xff"}', b'"\xff"'])
def test_text_is_utf8(body: bytes) -> None:
    with pytest.raises(CallerError, match=r"UTF-8.*\(byte \d+\)") as caught:
        Payload(body).text()
    assert MARK not in str(caught.value)
    assert "0xff" not in str(caught.value)


@pytest.mark.parametrize("body", [TOO_DEEP, b'{"a":' * 100_000, TOO_DEEP + b"]" * 100_000])
def test_depth_is_the_callers_error(body: bytes) -> None:
    for read in (Payload(body).text, Payload(body).tree):
        with pytest.raises(CallerError, match="nests too deeply"):
            read()


@pytest.mark.parametrize("body", [b"1e400", b"[1e400]", b"1" * 5000])
def test_numbers_out_of_range_are_text_but_no_tree(body: bytes) -> None:
    assert Payload(body).text() == body.decode()
    with pytest.raises(CallerError, match="number is out of range"):
        Payload(body).tree()


def test_tree_needs_a_body() -> None:
    with pytest.raises(CallerError, match="there is no body"):
        Payload(b"").tree()


@pytest.mark.parametrize("body", [b'{"a": [1]}', b"null"])
def test_the_body_is_read_once(body: bytes) -> None:
    payload = Payload(body)
    first_text, first_tree = payload.text(), payload.tree()
    payload.body = b"[]"
    assert payload.text() is first_text
    assert payload.tree() is first_tree


def test_repr_hides_the_body() -> None:
    assert MARK not in repr(Payload(MARK.encode()))


def attempt(read: Callable[[], object]) -> object:
    try:
        return read()
    except CallerError as error:
        return error


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["", "application/json"]))
def test_any_bytes_read_or_are_the_callers_error(body: bytes, content_type: str) -> None:
    payload = Payload(body, content_type)
    text, tree = attempt(payload.text), attempt(payload.tree)
    assert isinstance(text, str | None | CallerError)
    if not isinstance(tree, CallerError):
        # What parses has a text, and its text means the same.
        assert isinstance(text, str)
        assert text == tree if isinstance(tree, str) else msgspec.json.decode(text) == tree
