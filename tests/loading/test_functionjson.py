from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daprfunc.loading import loaded_app
from daprfunc.loading.functionjson import Declaration, parse
from daprfunc.model import Binding

FILE = Path("Greet/function.json")
TRIGGER = {"type": "daprServiceInvocationTrigger", "direction": "in", "name": "payload"}
SECRET = {"type": "daprSecret", "direction": "in", "name": "secret"}


def read(value: object) -> Declaration:
    return parse(value, file=FILE, function="Greet")


def test_names_are_read_in_any_case_and_properties_keep_their_values() -> None:
    declaration = read({"BINDINGS": [{**SECRET, "secretStoreName": "Store", "Key": "K", "metadata": None}]})
    assert declaration.bindings == (Binding("daprSecret", "secret", "in", {"secretstorename": "Store", "key": "K"}),)
    assert (declaration.problems, declaration.warnings, declaration.complete) == ((), (), True)


def test_one_object_is_a_list_of_one_with_a_warning() -> None:
    declaration = read({"bindings": TRIGGER})
    assert [binding.name for binding in declaration.bindings] == ["payload"]
    assert declaration.problems == ()
    (warning,) = declaration.warnings
    assert warning == f"{FILE}: function 'Greet': 'bindings' is one object; it is taken as a list of one"


@pytest.mark.parametrize(
    ("value", "parameter", "message"),
    [
        ([], None, "must hold a JSON object with 'bindings'"),
        ({}, None, "'bindings' is missing; make it a list"),
        ({"bindings": 5}, None, "'bindings' is 5; make it a list"),
        ({"bindings": [TRIGGER, "x"]}, None, "an entry of 'bindings' is 'x'; make it an object"),
        ({"bindings": [{**TRIGGER, "name": None}]}, None, "a binding's 'name' is missing"),
        ({"bindings": [{**TRIGGER, "name": "a b"}]}, None, "a binding's 'name' is 'a b'"),
        ({"bindings": [{**TRIGGER, "type": None}]}, "payload", "the binding's 'type' is missing; write one"),
        ({"bindings": [{**TRIGGER, "type": []}]}, "payload", "the binding's 'type' is a list"),
        (
            {"bindings": [{**TRIGGER, "direction": "up"}]},
            "payload",
            "the binding's 'direction' is 'up'; write in or out",
        ),
        ({"bindings": [{**TRIGGER, "direction": "out"}]}, "payload", "a trigger's direction must be 'in', not 'out'"),
        ({"bindings": [TRIGGER, {**SECRET, "direction": "InOut"}]}, "secret", "direction 'inout' is not supported"),
        ({"bindings": [TRIGGER, {**SECRET, "name": "$return"}]}, "$return", "its direction must be 'out'"),
        ({"bindings": [TRIGGER, SECRET, SECRET]}, "secret", "declared by 2 bindings; keep one"),
        ({"bindings": [TRIGGER, {**TRIGGER, "name": "other"}]}, None, "has 2 triggers, for 'payload', 'other'"),
        ({"bindings": [TRIGGER], "scriptFile": 5}, None, "'scriptFile' is 5; write a text"),
        ({"bindings": [TRIGGER], "entryPoint": {}}, None, "'entryPoint' is an object; write a text"),
        (
            {"bindings": [TRIGGER], "disabled": "IS_OFF"},
            None,
            "write true or false, or set AzureWebJobs.Greet.Disabled",
        ),
        ({"bindings": [TRIGGER], "retry": {}}, None, "retry: maxRetryCount is missing"),
    ],
)
def test_says_what_is_wrong_and_where(value: object, parameter: str | None, message: str) -> None:
    (problem,) = read(value).problems
    assert (problem.file, problem.function, problem.parameter) == (FILE, "Greet", parameter)
    assert message in problem.message


def test_all_problems_are_told_at_once() -> None:
    declaration = read({"bindings": [{"name": "a"}, {"type": "b"}, TRIGGER], "entryPoint": 1, "retry": 2})
    assert len(declaration.problems) == 4
    assert [binding.name for binding in declaration.bindings] == ["payload"]
    assert not declaration.complete


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.sampled_from(
    ["payload", "secret", "$return", "in", "OUT", "inout", "daprSecret", "xTrigger", "main", "main.py"]
)
ENTRY = JSON | st.fixed_dictionaries({}, optional={"type": TEXT | JSON, "name": TEXT | JSON, "direction": TEXT | JSON})
FUNCTION_JSON = JSON | st.fixed_dictionaries(
    {"bindings": st.lists(ENTRY, max_size=4) | JSON},
    optional={
        "scriptFile": TEXT | JSON | st.sampled_from(["\0", "x" * 5000 + ".py", "../..", "/", "\ud800.py"]),
        "entryPoint": TEXT | JSON,
        "retry": JSON,
        "disabled": JSON,
    },
)


@given(FUNCTION_JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_whatever_it_holds_the_app_loads_or_says_why_not(tmp_path: Path, value: Any) -> None:
    folder = tmp_path / "Greet"
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text("def main(payload, secret=None): ...\n")
    (folder / "function.json").write_text(json.dumps(value))
    with loaded_app(tmp_path) as app:
        told = [*app.functions, *app.broken, *app.warnings]
        assert told
        assert all(broken.problems for broken in app.broken)
        assert all("\n" not in str(problem) for broken in app.broken for problem in broken.problems)


@given(st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_bytes_the_file_has_the_function_is_told_broken(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "Greet"
    folder.mkdir(exist_ok=True)
    (folder / "function.json").write_bytes(content)
    with loaded_app(tmp_path) as app:
        assert [broken.name for broken in app.broken] == ["Greet"]
