from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daprfunc.errors import LoadError
from daprfunc.loading import load_app, loaded_app, unload_app

APPS = Path(__file__).parent.parent / "apps"
TRIGGER = '{"bindings": [{"type": "daprServiceInvocationTrigger", "direction": "in", "name": "payload"}]}'


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    unload_app()
    assert sys.path == path
    own = {
        name for name in sys.modules.keys() - modules if str(APPS) in str(getattr(sys.modules[name], "__file__", ""))
    }
    assert own == set()
    assert "__app__" not in sys.modules


def write(folder: Path, code: str = "def main(payload): ...\n", function_json: str = TRIGGER) -> None:
    folder.mkdir(parents=True)
    (folder / "function.json").write_text(function_json)
    (folder / "__init__.py").write_text(code)


@pytest.mark.parametrize(
    ("app", "files"),
    [("absent", {}), ("empty", {"README.md": ""}), ("main_only", {"main.py": "", "a/b/function.json": TRIGGER})],
)
def test_where_no_app_is_it_says_what_was_looked_for(tmp_path: Path, app: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / app / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / app / name).write_text(text)
    with pytest.raises(LoadError) as raised:
        load_app(tmp_path / app, script_name="my_app.py")
    found = "is no app" if files else "is no directory"
    assert str(raised.value) == (
        f"{tmp_path / app}: {found}: looked for my_app.py (v2) and for */function.json (v1) in it"
    )


def test_the_script_may_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_bytes(
        (APPS / "v2_shapes" / "orders.py").read_bytes().replace(b"Blueprint", b"FunctionApp")
    )
    with loaded_app(tmp_path, script_name="my_app.py") as app:
        assert [function.name for function in app.functions] == ["place_order"]


@pytest.mark.parametrize("script_name", ["my-app.py", "app.txt", "inner/app.py"])
def test_a_script_that_is_no_module_of_the_root_is_refused(tmp_path: Path, script_name: str) -> None:
    (tmp_path / script_name).parent.mkdir(exist_ok=True)
    (tmp_path / script_name).write_text("")
    with pytest.raises(LoadError, match="is not a Python module's in the app's root; name it like"):
        load_app(tmp_path, script_name=script_name)


def test_a_script_hides_function_folders_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text("import azure.functions as func\napp = func.FunctionApp()\n")
    write(tmp_path / "Greet", "raise AssertionError\n")
    with loaded_app(tmp_path) as app:
        assert (app.functions, app.broken) == ((), ())
        reason = "ignored, because function_app.py is there, which declares its own functions"
        assert app.warnings == (f"{tmp_path / 'Greet' / 'function.json'}: {reason}",)


@pytest.mark.parametrize(
    "setting", ["AzureWebJobs.Greet.Disabled", "AzureWebJobs_Greet_Disabled", "azurewebjobs.GREET.disabled"]
)
@pytest.mark.parametrize(
    ("value", "disabled"), [("true", True), ("1", True), ("True", True), ("false", False), ("", False)]
)
def test_app_settings_switch_functions_off(tmp_path: Path, setting: str, value: str, disabled: bool) -> None:
    write(tmp_path / "Greet", "raise AssertionError\n" if disabled else "def main(payload): ...\n")
    write(tmp_path / "Other")
    with loaded_app(tmp_path, app_settings={setting: value, "AzureWebJobs.Ot.Disabled": "true"}) as app:
        assert [function.name for function in app.functions] == (["Other"] if disabled else ["Greet", "Other"])
        assert app.broken == ()
        note = f"{tmp_path / 'Greet' / 'function.json'}: function 'Greet': is disabled, so it is not loaded"
        assert app.warnings == ((note,) if disabled else ())


def test_a_name_counts_whatever_its_case(tmp_path: Path) -> None:
    write(tmp_path / "Greet")
    write(tmp_path / "greet")
    write(tmp_path / "Other")
    with loaded_app(tmp_path) as app:
        assert [function.name for function in app.functions] == ["Other"]
        assert [broken.name for broken in app.broken] == ["Greet", "greet"]
        for broken in app.broken:
            (problem,) = broken.problems
            assert problem.file == tmp_path / broken.name / "function.json"
            assert (
                problem.message == "another function of the app has this name (case does not count); rename one of them"
            )


@pytest.mark.parametrize("name", ["1st", "with space", "with.dot", "x" * 129, "größe"])
def test_a_name_is_one_that_the_host_allows(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    with loaded_app(tmp_path) as app:
        (broken,) = app.broken
        assert "holds letters, digits, '_' and '-' only and begins with a letter" in broken.problems[0].message


def test_a_hyphen_in_a_name_is_fine(tmp_path: Path) -> None:
    write(tmp_path / "my-function")
    with loaded_app(tmp_path) as app:
        assert [function.name for function in app.functions] == ["my-function"]


def test_two_apps_with_modules_of_the_same_names_do_not_mix(tmp_path: Path) -> None:
    for greeting in ("one", "two"):
        root = tmp_path / greeting
        write(
            root / "Greet",
            "from words import A\nfrom ..words import A as B\ndef main(payload): return A, B\n",
        )
        (root / "words.py").write_text(f"A = {greeting!r}\n")
    first = load_app(tmp_path / "one").functions[0]
    second = load_app(tmp_path / "two").functions[0]
    assert first.call(payload=None) == ("one", "one")
    assert second.call(payload=None) == ("two", "two")


def test_imports_made_while_a_function_runs_find_the_app(tmp_path: Path) -> None:
    write(
        tmp_path / "Greet",
        "def main(payload):\n    from words import A\n    from ..words import A as B\n    return A, B\n",
    )
    (tmp_path / "words.py").write_text("A = 1\n")
    with loaded_app(tmp_path) as app:
        assert app.functions[0].call(payload=None) == (1, 1)


def test_unloading_leaves_packages_that_are_installed_inside_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / ".venv" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "installed_for_this_test.py").write_text("")
    monkeypatch.syspath_prepend(packages)
    write(tmp_path / "Greet", "import installed_for_this_test, words\ndef main(payload): ...\n")
    (tmp_path / "words.py").write_text("")
    with loaded_app(tmp_path):
        assert {"words", "installed_for_this_test"} <= sys.modules.keys()
    assert "words" not in sys.modules
    assert sys.modules.pop("installed_for_this_test") is not None


def test_an_app_that_fails_to_load_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text("import words\nraise ValueError\n")
    (tmp_path / "words.py").write_text("")
    with pytest.raises(LoadError):
        load_app(tmp_path)
    assert not {"words", "function_app", "__app__"} & sys.modules.keys()
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_script_that_a_test_has_imported_before_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through_a_link: bool
) -> None:
    root, seen = tmp_path / "app", tmp_path / ("link" if through_a_link else "app")
    root.mkdir()
    if through_a_link:
        seen.symlink_to(root)
    name = f"imported_before_{through_a_link}".lower()
    (root / f"{name}.py").write_text("import azure.functions as func\napp = func.FunctionApp()\n")
    monkeypatch.syspath_prepend(seen)
    module = importlib.import_module(name)
    with loaded_app(root, script_name=f"{name}.py") as app:
        assert app.broken == ()
        assert sys.modules[name] is module
    assert sys.modules.pop(name) is module


def test_loading_warns_of_nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), loaded_app(APPS / "v2_shapes"):
        assert caplog.records == []
