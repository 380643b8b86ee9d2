"""What the README shows is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daprfunc.testing import TestApp

ROOT = Path(__file__).parents[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_app_and_its_test_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, its_test = blocks("python")
    (tmp_path / "my-app").mkdir()
    (tmp_path / "my-app" / "function_app.py").write_text(app)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(its_test, "README.md", "exec"), names)
    assert names["TestApp"] is TestApp
    (check,) = [value for name, value in names.items() if name.startswith("test_")]
    assert callable(check)
    check()


def test_the_make_targets_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(
        re.findall(
            r"(?<![\w-])make ([a-z][a-z0-9-]+)", "\n".join([*blocks("console"), *re.findall("`[^`\n]+`", readme)])
        )
    )
    assert {"demo", "test", "e2e"} <= targets
    assert targets <= set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))


def test_the_files_it_names_are_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
