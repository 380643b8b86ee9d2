"""What may be installed beside us."""

from __future__ import annotations

from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement


@pytest.mark.parametrize(
    ("version", "fits"),
    # 1.18.0b3 is what the page asks for that introduced the Dapr extension for Python.
    [("1.17.0", False), ("1.18.0b3", True), ("1.18.0", True), ("2.3.0", True), ("3.0.0", False)],
)
def test_the_azure_functions_that_apps_pin(version: str, fits: bool) -> None:
    (found,) = [each for each in map(Requirement, requires("daprfunc") or []) if each.name == "azure-functions"]
    assert found.specifier.contains(version, prereleases=True) is fits
    # A pre-release is taken only where the app asks for it.
    assert not found.specifier.prereleases
