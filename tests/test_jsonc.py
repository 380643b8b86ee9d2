from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daprfunc.jsonc import JsonError, loads

FILE = Path("some.json")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\ufeff{}", {}),
        ('// first\n{"a": 1} // last', {"a": 1}),
        ('{"a": /* in\nbetween */ 1}', {"a": 1}),
        ('{"a": [1, 2,], }', {"a": [1, 2]}),
        ('{"a": [1, // why\n ]}', {"a": [1]}),
        ("[1, /* , */ ]", [1]),
        ('{"a": "// no, /* not */ [1,] NaN"}', {"a": "// no, /* not */ [1,] NaN"}),
        (r'{"a": "\"// no", "b": "\\"} // yes', {"a": '"// no', "b": "\\"}),
    ],
)
def test_reads_what_functions_files_hold(text: str, value: object) -> None:
    assert loads(text, FILE) == value


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "line 1, column 1: not JSON here: Expecting value"),
        ('{\n  "a": 1\n  "b": 2\n}', "line 3, column 3: not JSON here: Expecting ',' delimiter"),
        ('{\n  /* one\n  two */ "a" 1}', "line 3, column 14: not JSON here: Expecting ':' delimiter"),
        ('{"a": 1}\n /* open', "line 2, column 2: this comment is never closed; add */"),
        ("[,]", "line 1, column 2: not JSON here: Expecting value"),
        ('["open // text', "line 1, column 2: not JSON here: Unterminated string starting at"),
        ('{"a":\n -Infinity}', "line 2, column 2: -Infinity is not a JSON value"),
        ("[NaN]", "line 1, column 2: NaN is not a JSON value"),
        ("[" * 100_000, "the JSON is nested too deeply"),
        ("9" * 10_000, "a number in the JSON has too many digits"),
    ],
)
def test_says_where_the_text_is_not_json(text: str, detail: str) -> None:
    with pytest.raises(JsonError) as raised:
        loads(text, FILE)
    assert raised.value.detail == detail
    assert str(raised.value) == f"some.json: {detail}"


@given(JSON)
def test_plain_json_stays_as_it_is(value: object) -> None:
    assert loads(json.dumps(value), FILE) == value


@given(st.text(alphabet='{}[],:"\\/* \n1aN\ufeff'))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        loads(text, FILE)
    except JsonError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are fine, an unclear one is not
