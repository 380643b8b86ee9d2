"""What one run has measured, and how it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from measure import Row


class Spread(NamedTuple):
    """The median of a metric's rounds, and the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        return cls(median(numbers), min(numbers), max(numbers))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Round by round. A round too short for one clock tick of CPU is left out."""
    return [one / other for one, other in zip(numerators, denominators, strict=True) if other] or [float("nan")]


@dataclass(frozen=True, slots=True)
class Results:
    """One run.

    Attributes:
        about: the machine, the versions and the settings.
        rows: what the load experiments measured.
        start: case -> ``port``, ``first`` (milliseconds since exec), ``rss`` (MiB) and, where it is told apart,
            ``import`` (milliseconds that plain Python takes to import the app), one number per round.
        memory: case -> resident MiB ``before`` and ``after`` 100,000 invocations, and ``errors``.
        profiles: script -> row -> microseconds, one number per round.
    """

    about: dict[str, Any]
    rows: list[Row]
    start: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    profiles: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def rounds(self, metric: str, case: str, concurrency: int, via: str = "direct") -> list[float]:
        """A metric's numbers, one per round.

        Raises:
            KeyError: this run did not measure it.
        """
        for row in self.rows:
            if (row.case, row.concurrency, row.via) == (case, concurrency, via):
                return row.metrics[metric]
        raise KeyError(case)

    def failures(self) -> list[str]:
        """Every row that had errors. A run with any is not a result."""
        failed = [
            f"{row.case} {row.via} c={row.concurrency}: {', '.join(sorted(set(row.notes)))}"
            for row in self.rows
            if sum(row.metrics["errors"])
        ]
        return failed + [f"memory of {case}" for case, numbers in self.memory.items() if numbers["errors"]]

    def write(self, path: Path, targets: Iterable[dict[str, object]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(self), "targets": list(targets)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        raw = json.loads(path.read_text())
        rows = [Row(**row) for row in raw["rows"]]
        return cls(raw["about"], rows, raw["start"], raw["memory"], raw.get("profiles", {}))
