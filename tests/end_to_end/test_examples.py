"""The examples, and the samples of the page that daprfunc has to satisfy, as a user runs them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Start
from tests.loading.test_samples import SEED, write_v1, write_v2

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("model", ["v1", "v2"])
def test_an_example_answers_over_http_and_grpc(
    model: str, start: Start, on_invoke: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES / f"retrieve-secret-{model}")
    app = start(Path(), "--resources-path", "components")
    assert app.http.post("/RetrieveSecret", content=b"{}").json() == ["my-secret"]
    assert app.http.post("/retrievesecret").json() == ["my-secret"]
    assert on_invoke(app, "RetrieveSecret", b"{}") == b'["my-secret"]'
    assert app.stop() == 0
    assert app.output.count("The store holds my-secret = abcd") == 3


@pytest.mark.parametrize("model", ["v1", "v2"])
def test_a_sample_of_the_page_runs_as_it_is(
    model: str, tmp_path: Path, start: Start, on_invoke: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SEED.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"{SEED} is not here (in CI it must be)")
    {"v1": write_v1, "v2": write_v2}[model](tmp_path)
    example = EXAMPLES / f"retrieve-secret-{model}"
    shutil.copytree(example / "components", tmp_path / "components")
    shutil.copy(example / "secrets.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    app = start(Path(), "--resources-path", "components")
    reply = app.http.post("/RetrieveSecret", content=b"{}")
    assert (reply.status_code, reply.content) == (200, b"")
    assert on_invoke(app, "RetrieveSecret") == b""
    assert app.stop() == 0
    said = [line for line in app.output.splitlines() if "my-secret" in line and "abcd" in line]
    assert len(said) == 2
