"""What can be said of the host from inside; tests/end_to_end has what it does as a process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daprfunc import host
from daprfunc.assembly import Assembly
from daprfunc.errors import LoadError
from daprfunc.loading import unload_app
from daprfunc.settings import Settings

Inspect = Callable[[str], Assembly]

APPS = Path(__file__).parent / "apps"


@pytest.fixture
def inspect() -> Iterator[Inspect]:
    yield lambda app: host.inspect(Settings(app_dir=APPS / app))
    unload_app()


def test_a_start_with_a_real_sidecar_imports_no_embedded_one() -> None:
    code = "import sys, daprfunc.host; print(sorted(m for m in sys.modules if m == 'yaml' or '.standalone' in m))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_inspect_gives_functions_problems_and_warnings(inspect: Inspect) -> None:
    assembly = inspect("v1_broken")
    assert set(assembly.dispatcher.plans) == {"fine"}
    assert "Misfit" in {problem.function for problem in assembly.problems()}
    assembly.require_functions()
    assert len(inspect("v1_odd").functions.warnings) == 2


def test_an_app_without_one_function_is_refused(inspect: Inspect) -> None:
    with pytest.raises(LoadError, match="FunctionApp"):
        inspect("v2_no_app")


def test_a_loop_is_run_whether_or_not_uvloop_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def module() -> str:
        return type(asyncio.get_running_loop()).__module__.split(".")[0]

    fast = "asyncio" if sys.platform == "win32" else "uvloop"
    assert host.run_loop(module()) == fast
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert host.run_loop(module()) == "asyncio"
