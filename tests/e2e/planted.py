"""Values that must not be seen anywhere, and the search for them, in the forms in which values leak."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from urllib.parse import quote

WINDOW = 9
"""Any stretch of a planted value of this many characters counts: a cut value is a leak too."""

# No stretch of these occurs by chance. They hold what JSON, URLs, repr and HTML write differently.
PLANTED: Mapping[str, str] = MappingProxyType(
    {
        "secret": "kT9vQ2xLrW7p\"Z4mN'8bYc<F3hJ6dGs&Xw5",
        "payload": "pB8nMz4KqV1s\"R7tHj'2gDf<L9cX3wEy&Au6",
        "header": "hC5rXy2NwJ8kQ4bVmT7zLs9GdP3fKe6RuA1o",
        "app token": "aG7fRt3WpZ9mC1xKqN5vHb8JdL4sYe2TuB6o",
        "dapr token": "dV2jPk8XsM4wT6nQyC9rGz1HbF5lKa7EuR3o",
        "setting": "sN6yLq1ZkP9vB3tWfX7mJr5CgH2dTe8KuM4o",
    }
)


def forms(value: str) -> set[str]:
    """What may give a value away: its stretches, and the beginnings of its usual encodings."""
    stretches = {value[at : at + WINDOW] for at in range(len(value) - WINDOW + 1)}
    encoded = {
        base64.b64encode(value.encode())[:16].decode(),
        value.encode().hex()[:20],
        quote(value)[:16],
        value[::-1][:16],
    }
    return stretches | encoded


def found_in(outputs: Mapping[str, str], planted: Iterable[str] = tuple(PLANTED)) -> list[str]:
    """Where a planted value was seen: a line for each, without the value."""
    seen: list[str] = []
    for name in planted:
        wanted = forms(PLANTED[name])
        for where, output in outputs.items():
            lines = [line for line in output.splitlines() if any(form in line for form in wanted)]
            seen += [f"the planted {name} in {where}: {_without(line, wanted)}" for line in lines]
    return seen


def _without(line: str, wanted: set[str]) -> str:
    at = min(line.find(form) for form in wanted if form in line)
    return f"...{line[max(0, at - 100) : at]}<HERE>"
