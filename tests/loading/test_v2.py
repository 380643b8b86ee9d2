from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import azure.functions as func
import pytest

from daprfunc.errors import LoadError
from daprfunc.loading import load_app, loaded_app
from daprfunc.model import FunctionApp, Retry

APPS = Path(__file__).parent.parent / "apps"
SHAPES = APPS / "v2_shapes"


@pytest.fixture(scope="module")
def broken() -> Iterator[FunctionApp]:
    with loaded_app(APPS / "v2_broken") as app:
        yield app


def test_an_app_with_a_subclass_a_second_name_and_a_blueprint() -> None:
    with loaded_app(SHAPES) as app:
        assert (app.directory, app.broken, app.warnings) == (SHAPES, (), ())
        place_order, greet = app.functions
    assert (greet.name, greet.directory, greet.script) == ("Greet", SHAPES, SHAPES / "function_app.py")
    assert greet.trigger.name == "payload"
    assert greet.trigger.properties == {"methodname": "greet"}
    secret = next(binding for binding in greet.bindings if binding.kind == "daprsecret")
    assert (secret.name, secret.direction) == ("secret", "in")
    assert secret.properties == {"secretstorename": "store", "key": "key", "metadata": ""}
    assert greet.retry == Retry("exponentialBackoff", -1, minimum_interval=1.0, maximum_interval=60.0)
    assert greet.annotations == {"payload": str, "secret": str, "context": func.Context}
    assert (greet.context, greet.is_async) == ("context", False)
    assert greet.call(payload="you", secret="", context=None) == "Hello, you"
    assert (place_order.script, place_order.is_async, place_order.retry) == (SHAPES / "orders.py", True, None)
    assert place_order.annotations == {"order": dict}


def test_a_refused_function_leaves_the_others_alone(broken: FunctionApp) -> None:
    assert [function.name for function in broken.functions] == ["fine"]


@pytest.mark.parametrize(
    ("name", "parameter", "message"),
    [
        ("no_trigger", None, "no trigger is declared (only daprSecret); declare one"),
        ("Twice", None, "another function of the app has this name (case does not count); rename one of them"),
        ("twice", None, "another function of the app has this name (case does not count); rename one of them"),
        ("undeclared", "secret", "is a parameter of undeclared() but no binding names it"),
        ("not_json", None, "its decorators hold what JSON cannot: Object of type object is not JSON serializable"),
        ("bad_retry", None, "retry: strategy is 'sometimes'; write fixedDelay or exponentialBackoff"),
    ],
)
def test_says_why_a_function_cannot_load(broken: FunctionApp, name: str, parameter: str | None, message: str) -> None:
    function = next(function for function in broken.broken if function.name == name)
    (problem,) = function.problems
    assert (problem.file, problem.function) == (APPS / "v2_broken" / "function_app.py", name)
    assert problem.parameter == parameter
    assert problem.message.startswith(message)


@pytest.mark.parametrize(
    ("app", "file", "message"),
    [
        ("v2_blueprint_only", "function_app.py", "defines a Blueprint (orders) but no FunctionApp; add app = "),
        ("v2_no_app", "function_app.py", "defines no FunctionApp; add app = func.FunctionApp()"),
        ("v2_two_apps", "function_app.py", "defines 2 FunctionApps (first, second); keep one"),
        ("v2_import_error", "settings_of_app.py", "line 2: KeyError: 'CONNECTION'; the module must import without"),
        ("v2_missing_package", "function_app.py", "line 1: no module 'a_package_that_is_not_there': if a package"),
    ],
)
def test_says_why_the_app_cannot_load(app: str, file: str, message: str) -> None:
    with pytest.raises(LoadError) as raised:
        load_app(APPS / app)
    (problem,) = raised.value.problems
    assert (problem.file, problem.function) == (APPS / app / file, None)
    assert problem.message.startswith(message)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def broken(:\n", "line 1: SyntaxError: "),
        ("import helpers.absent\n", "line 1: the app has no module 'helpers.absent': neither "),
        ("import os.absent\n", "line 1: no module 'os.absent': if a package provides it"),
        ("raise SystemExit(0)\n", "line 1: sys.exit() was called during import"),
        ("from helpers import absent\n", "line 1: ImportError: cannot import name 'absent' from 'helpers'"),
        ("\neval('1 +')\n", "line 2: SyntaxError: "),
    ],
)
def test_says_where_the_import_failed(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("")
    (tmp_path / "function_app.py").write_text(code)
    with pytest.raises(LoadError) as raised:
        load_app(tmp_path)
    (problem,) = raised.value.problems
    assert problem.file == tmp_path / "function_app.py"
    assert problem.message.startswith(message)
    assert "\n" not in str(raised.value)


def test_what_azure_functions_itself_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(
        (APPS / "v2_shapes" / "orders.py").read_text().replace("Blueprint", "FunctionApp")
        + "blueprint._function_builders[0]._function._bindings.clear()\n"
    )
    with loaded_app(tmp_path) as app:
        (problem,) = app.broken[0].problems
    assert problem.function == "place_order"
    assert problem.message.startswith("azure-functions refuses it: Function place_order trigger ")


BLUEPRINT = """
import azure.functions as func
orders = func.Blueprint()
@orders.dapr_service_invocation_trigger("payload", method_name="Order")
def order(payload): ...
"""
APP = BLUEPRINT + "app = func.FunctionApp()\n"


def test_a_blueprint_that_nobody_registered_is_told(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(APP)
    with loaded_app(tmp_path) as app:
        assert app.functions == ()
        (warning,) = app.warnings
    found = "the Blueprint orders is not registered, so its functions are left out; add app.register_functions(orders)"
    assert warning == f"{tmp_path / 'function_app.py'}: {found}"


def test_blueprints_that_are_registered_or_empty_are_fine(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(APP + "empty = func.Blueprint()\napp.register_functions(orders)\n")
    with loaded_app(tmp_path) as app:
        assert [function.name for function in app.functions] == ["order"]
        assert app.warnings == ()


def test_a_missing_part_of_a_package_that_is_there_is_not_taken_for_the_apps_own(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text("from azure.nothing_of_this_name import Client")
    with pytest.raises(LoadError, match=r"no module 'azure\.nothing_of_this_name'") as raised:
        load_app(tmp_path)
    assert str(raised.value).endswith("pip install -r requirements.txt")


def test_a_module_name_that_is_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("")
    with pytest.raises(LoadError, match=r"the module name 'json' is taken by .*; rename this file"):
        load_app(tmp_path, script_name="json.py")
