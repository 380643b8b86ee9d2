"""How many inputs a property is tried on: few and always the same in ``make test``, many and new in ``make e2e``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

SHALLOW = 60


def depths(many: int) -> pytest.MarkDecorator:
    """Run a test with ``examples`` few, and with `many` where the e2e tests run."""
    deep = pytest.param(many, id="at-length", marks=[pytest.mark.e2e, pytest.mark.timeout(180)])
    return pytest.mark.parametrize("examples", [pytest.param(SHALLOW, id="short"), deep])


def fuzz(examples: int, inputs: SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Call `check` with that many `inputs`; what it raises is shown with the smallest input that raises it."""
    short = examples == SHALLOW
    run = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=short,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )(given(inputs)(check))
    run()
