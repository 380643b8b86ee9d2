"""Our own examples, and the samples of Microsoft's page for the secret binding as they stand there."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from daprfunc.loading import loaded_app
from daprfunc.model import Function, FunctionApp

ROOT = Path(__file__).parents[2]
SEED = ROOT.parent / "shared" / "seed"
SECRET = {"secretstorename": "localsecretstore", "key": "my-secret", "metadata": "metadata.namespace=default"}


def logged(function: Function, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages that the function logs when it is given the secret."""
    with caplog.at_level(logging.INFO):
        function.call(payload=None, secret=json.dumps({"my-secret": "abcd"}))
    return [record.getMessage() for record in caplog.records]


def check(function: Function, caplog: pytest.LogCaptureFixture) -> None:
    assert function.name == "RetrieveSecret"
    assert (function.trigger.kind, function.trigger.name) == ("daprserviceinvocationtrigger", "payload")
    (secret,) = (binding for binding in function.bindings if not binding.is_trigger)
    assert (secret.kind, secret.name, dict(secret.properties)) == ("daprsecret", "secret", SECRET)
    assert any("my-secret" in message and "abcd" in message for message in logged(function, caplog))


@pytest.mark.parametrize("model", ["v1", "v2"])
def test_our_examples_load_and_log_the_secret(model: str, caplog: pytest.LogCaptureFixture) -> None:
    directory = ROOT / "examples" / f"retrieve-secret-{model}"
    with loaded_app(directory) as app:
        assert (app.broken, app.warnings) == ((), ())
        (function,) = app.functions
        check(function, caplog)
        assert function.trigger.properties == {"methodname": "RetrieveSecret"}
        assert function.call(payload=None, secret='{"my-secret": "abcd"}') == ["my-secret"]
    for name in ("host.json", "local.settings.json", "requirements.txt", "components/localsecretstore.yaml"):
        assert (directory / name).is_file(), name
    assert json.loads((directory / "secrets.json").read_text()) == {"my-secret": "abcd"}


def sample(tab: str) -> dict[str, str]:
    """The code blocks under `tab` of the page's Example section, by language."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(SEED.glob("*.txt"))]
    text = next((page for page in pages if "daprSecret" in page and "## Example" in page), None)
    assert text is not None, f"no page of {SEED} has an Example section for daprSecret"
    example = text.split("\n## Example", 1)[1].split("\n## ", 1)[0]
    section = re.search(
        rf"^# \[{re.escape(tab)}\].*?(?=^# \[|^---$|^::: zone-end|\Z)", example, re.MULTILINE | re.DOTALL
    )
    assert section is not None, f"the Example section has no tab {tab}"
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", section[0], re.MULTILINE | re.DOTALL)
    return {language.lower(): code for language, code in blocks}


def write_v1(root: Path) -> None:
    blocks = sample("Python v1")
    folder = root / "RetrieveSecret"
    folder.mkdir()
    (folder / "function.json").write_text(blocks["json"], encoding="utf-8")
    (folder / "__init__.py").write_text(blocks["python"], encoding="utf-8")


def write_v2(root: Path) -> None:
    (root / "function_app.py").write_text(sample("Python v2")["python"], encoding="utf-8")


@pytest.fixture(params=["v1", "v2"])
def page_app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, FunctionApp]]:
    if not SEED.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"{SEED} is not here (in CI it must be)")
    {"v1": write_v1, "v2": write_v2}[request.param](tmp_path)
    with loaded_app(tmp_path) as app:
        yield request.param, app


def test_the_samples_of_the_page_load_as_they_are(
    page_app: tuple[str, FunctionApp], caplog: pytest.LogCaptureFixture
) -> None:
    model, app = page_app
    assert app.broken == ()
    (function,) = app.functions
    check(function, caplog)
    # The page's function.json has one object for a list, and no trigger.
    assert len(app.warnings) == (2 if model == "v1" else 0)
