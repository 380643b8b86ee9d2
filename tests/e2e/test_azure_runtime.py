"""The same apps under Microsoft's azure-functions-runtime: what loads, what functions receive, what results become."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from daprfunc.errors import LoadError
from daprfunc.testing import TestApp
from tests.e2e.azure_cases import CASES, FAILS, REFUSED, SECRET_JSON, Case
from tests.e2e.build import CACHE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PACKAGES = ("azure-functions-runtime==1.3.0", "azure-functions==2.3.0", "protobuf==5.29.5")
VENV = CACHE / "azure-runtime"
SECRETS = {store: {"my-secret": json.loads(SECRET_JSON)} for store in ("store", "localsecretstore")}
DIFFERENCES = Path(__file__).parents[2] / "docs" / "azure-runtime.md"


def find_python() -> Path | None:
    """A Python 3.13 that runs: on the PATH, else pyenv's (whose shims are on the PATH, and may lead nowhere)."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which("python3.13"), *sorted(pyenv.glob("versions/3.13*/bin/python3.13"))]
    return next((Path(python) for python in found if python and runs(python)), None)


def runs(python: str | Path) -> bool:
    return subprocess.run([python, "-c", "pass"], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def azure_python() -> Path:
    """The Python of a venv that holds azure-functions-runtime, which needs Python 3.13."""
    base = find_python()
    if base is None:
        pytest.skip("azure-functions-runtime needs Python 3.13, and there is none on the PATH or in pyenv")
    VENV.mkdir(parents=True, exist_ok=True)
    stamp, wanted = VENV / "stamp", "\n".join([str(base), *PACKAGES])
    with (VENV / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([base, "-m", "venv", "--clear", VENV / "env"], check=True)
            subprocess.run([VENV / "env/bin/python", "-m", "pip", "install", "-q", *PACKAGES], check=True)
            stamp.write_text(wanted)
    return VENV / "env/bin/python"


def write_apps(directory: Path) -> list[Path]:
    apps = [directory / str(number) for number in range(len(CASES))]
    for app, case in zip(apps, CASES, strict=True):
        app.mkdir()
        (app / "function_app.py").write_text(case.source)
    return apps


@pytest.fixture(scope="module")
def azure_outcomes(azure_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What each case comes to under azure-functions-runtime, by name."""
    apps = write_apps(tmp_path_factory.mktemp("azure"))
    cases = [
        {"directory": str(app), "payload": case.payload, "secret": SECRET_JSON, "function": case.function}
        for app, case in zip(apps, CASES, strict=True)
    ]
    worker = Path(__file__).with_name("azure_worker.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [azure_python, worker], input=json.dumps(cases), capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    return {case.name: azure_outcome(answer) for case, answer in zip(CASES, answers, strict=True)}


def azure_outcome(answer: Mapping[str, Any]) -> str:
    """What the host makes of the worker's answer, by the rules of its Dapr extension."""
    if not answer["loads"]:
        return REFUSED
    if "ends" in answer:
        return "ends the worker"
    if "fails" in answer:
        return FAILS
    kind, value = answer["type"], answer["value"]
    if kind is None:
        return "nothing"
    return f"bytes: {value}" if kind == "bytes" else json_outcome(json.loads(value) if kind == "json" else value)


def our_outcome(directory: Path, case: Case) -> str:
    try:
        with TestApp(directory, secrets=SECRETS) as app:
            if any(problem.function == case.function for problem in app.problems):
                return REFUSED
            reply = app.invoke(case.function, case.payload.encode() if case.payload is not None else None)
    except LoadError:
        return REFUSED
    if reply.status != 200:
        return FAILS
    if not reply.content_type:
        return "nothing"
    return f"bytes: {reply.body.hex()}" if "octet" in reply.content_type else json_outcome(reply.json())


def json_outcome(value: object) -> str:
    if isinstance(value, str):
        return f"text: {value}"
    return "json: " + json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_azure_functions_runtime(azure_outcomes: Mapping[str, str], case: Case) -> None:
    assert azure_outcomes[case.name] == case.azure


@pytest.mark.parametrize("case", CASES, ids=str)
def test_daprfunc(tmp_path: Path, case: Case) -> None:
    (tmp_path / "function_app.py").write_text(case.source)
    assert our_outcome(tmp_path, case) == case.ours


def test_differences_are_documented() -> None:
    """The table in the docs lists the cases whose outcomes differ, all of them and no others, each with a reason."""
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \| (.+) \|$", DIFFERENCES.read_text(), re.MULTILINE)
    documented = [(name, azure, ours) for name, azure, ours, _ in rows]
    assert documented == [(case.name, case.azure, case.ours) for case in CASES if case.azure != case.ours]
