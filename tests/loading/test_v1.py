from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import azure.functions as func
import pytest

from daprfunc.loading import loaded_app
from daprfunc.model import BrokenFunction, Function, FunctionApp, Retry

APPS = Path(__file__).parent.parent / "apps"
SHAPES, BROKEN = APPS / "v1_shapes", APPS / "v1_broken"
TRIGGER = '{"type": "daprServiceInvocationTrigger", "direction": "in", "name": "payload"}'


@pytest.fixture
def shapes() -> Iterator[FunctionApp]:
    with loaded_app(SHAPES) as app:
        yield app


@pytest.fixture(scope="module")
def broken() -> Iterator[FunctionApp]:
    with loaded_app(BROKEN) as app:
        yield app


def named(app: FunctionApp, name: str) -> Function:
    return next(function for function in app.functions if function.name == name)


def test_finds_the_folders_with_a_function_json(shapes: FunctionApp) -> None:
    assert shapes.directory == SHAPES
    assert [function.name for function in shapes.functions] == ["Greet", "Later", "Only"]
    assert shapes.broken == ()


def test_reads_function_json_whatever_case_comments_commas_and_bom(shapes: FunctionApp) -> None:
    greet = named(shapes, "Greet")
    assert (greet.directory, greet.script) == (SHAPES / "Greet", SHAPES / "Greet" / "handler.py")
    assert greet.trigger.properties == {"methodname": "Greet"}
    assert greet.bindings[1].properties == {"secretstorename": "https://not-a-comment/*.json", "key": "my-secret"}
    assert greet.retry == Retry("fixedDelay", 2, delay=1.0)
    assert greet.annotations == {"payload": str, "secret": bytes}


def test_relative_and_app_root_imports_work_then_and_later(shapes: FunctionApp) -> None:
    assert named(shapes, "Greet").call(payload="you", secret=b"") == "Hello, you! (late)"


def test_without_script_file_main_py_will_do(shapes: FunctionApp) -> None:
    later = named(shapes, "Later")
    assert later.script == SHAPES / "Later" / "main.py"
    assert (later.is_async, later.context, later.annotations) == (True, "context", {"context": func.Context})


def test_without_main_the_only_function_is_the_entry_point(shapes: FunctionApp) -> None:
    only = named(shapes, "Only")
    assert (only.script, only.directory) == (SHAPES / "handlers.py", SHAPES / "Only")
    assert only.call(payload=None) == "Hello"


def test_a_disabled_function_is_skipped_and_never_imported(shapes: FunctionApp) -> None:
    assert shapes.warnings == (f"{SHAPES / 'Off' / 'function.json'}: function 'Off': is disabled, so it is not loaded",)


def test_one_binding_object_and_no_trigger_load_with_warnings() -> None:
    with loaded_app(APPS / "v1_odd") as app:
        (function,) = app.functions
        assert [(binding.kind, binding.name) for binding in function.bindings] == [
            ("daprserviceinvocationtrigger", "request"),
            ("daprsecret", "secret"),
        ]
        assert function.trigger.properties == {}
        assert len(app.warnings) == 2
        assert "parameter 'request'" in app.warnings[1]
        assert function.call(request=None, secret="x") == "x"


def test_broken_functions_leave_the_others_alone(broken: FunctionApp) -> None:
    assert [function.name for function in broken.functions] == ["Fine"]
    assert broken.functions[0].call(payload=1) == 1


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("Exits", "Exits/__init__.py", "line 3: sys.exit() was called during import; call it from a function"),
        ("NoMain", "NoMain/__init__.py", "no main() here, and it has one(), two(); add it or name"),
        ("NoModule", "NoModule/__init__.py", "line 1: the app has no module 'helpers': neither "),
        ("NoPackage", "NoPackage/__init__.py", "line 1: no module 'a_package_that_is_not_there': if a package"),
        ("NoScript", "NoScript/function.json", "there is no __init__.py or main.py beside it; add one or name another"),
        ("NotJson", "NotJson/function.json", "line 3, column 46: not JSON here: Expecting ',' delimiter"),
        ("Raises", "broken_helper.py", "line 2: RuntimeError: cannot connect; the module must import without errors"),
    ],
)  # fmt: skip
def test_says_why_a_function_cannot_load(broken: FunctionApp, name: str, file: str, message: str) -> None:
    function = next(function for function in broken.broken if function.name == name)
    (problem,) = function.problems
    assert (problem.file, problem.function) == (BROKEN / file, name)
    assert problem.message.startswith(message)


def test_a_function_keeps_all_its_problems_and_what_could_be_read(broken: FunctionApp) -> None:
    function = next(function for function in broken.broken if function.name == "Misfit")
    assert [problem.parameter for problem in function.problems] == ["both", None, "secrets", "secret"]
    assert [binding.name for binding in function.bindings] == ["payload", "secret", "both"]


def loaded_with(root: Path, fields: str, code: str, script: str = "main.py") -> Function | BrokenFunction:
    (root / "Greet").mkdir()
    (root / "Greet" / "function.json").write_text(f'{{"bindings": [{TRIGGER}], {fields}}}')
    (root / "Greet" / script).write_text(code)
    with loaded_app(root) as app:
        found: list[Function | BrokenFunction] = [*app.functions, *app.broken]
    (function,) = found
    return function


@pytest.mark.parametrize(
    ("fields", "code", "file", "message"),
    [
        ('"scriptFile": "absent.py"', "", "function.json", "scriptFile 'absent.py' is not a file inside the app"),
        ('"scriptFile": "../../outside.py"', "", "function.json", "is not a file inside the app"),
        ('"scriptFile": "."', "", "function.json", "is not a file inside the app"),
        ('"scriptFile": "function.json"', "", "function.json", "the script's name is not a Python module's"),
        ('"entryPoint": "absent"', "def main(payload): ...", "main.py", "'absent' is not a function here; it has main"),
        ('"entryPoint": "it"', "it = 5", "main.py", "entryPoint 'it' is not a function here; it has no functions"),
        ('"retry": null', "", "main.py", "no main() here, and it has no functions; add it"),
        ('"retry": null', "def main(:\n", "main.py", "line 1: SyntaxError: "),
        ('"retry": null', "def main(payload):\nreturn 1", "main.py", "line 2: IndentationError: expected"),
        ('"retry": null', "import os\n\n\nos.environ['not there']", "main.py", "line 4: KeyError: 'not there'; the"),
        ('"retry": null', "raise ValueError", "main.py", "line 1: ValueError; the module must import without errors"),
    ],
)  # fmt: skip
def test_says_what_is_wrong_with_script_or_entry_point(
    tmp_path: Path, fields: str, code: str, file: str, message: str
) -> None:
    (tmp_path / "outside.py").write_text("def main(payload): ...")
    (tmp_path / "app").mkdir()
    function = loaded_with(tmp_path / "app", fields, code)
    assert isinstance(function, BrokenFunction)
    (problem,) = function.problems
    assert problem.file == tmp_path / "app" / "Greet" / file
    assert message in problem.message
    assert [binding.name for binding in function.bindings] == ["payload"]


def test_the_script_runs_once(tmp_path: Path) -> None:
    code = "from words import RUNS\nRUNS.append(1)\ndef main(payload): return len(RUNS)"
    (tmp_path / "words.py").write_text("RUNS = []")
    function = loaded_with(tmp_path, '"scriptFile": "__init__.py"', code, "__init__.py")
    assert isinstance(function, Function)
    assert function.call(payload=None) == 1


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "Greet").mkdir()
    (tmp_path / "Greet" / "function.json").write_bytes(b"\xff\xfe{}")
    with loaded_app(tmp_path) as app:
        assert app.broken[0].problems[0].message == "not UTF-8 at byte 0; save it as UTF-8"


def test_a_function_json_that_is_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "Greet" / "function.json").mkdir(parents=True)
    with loaded_app(tmp_path) as app:
        assert app.broken[0].problems[0].message == "cannot be read: Is a directory"
