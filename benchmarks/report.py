"""Text tables of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from measure import Row
from results import Results, Spread, ratios
from targets import Verdict

# metric, heading, how a number is written
_COLUMNS = (
    ("rps", "requests/s", "{:,.0f}"),
    ("p50", "p50 us", "{:,.0f}"),
    ("p99", "p99 us", "{:,.0f}"),
    ("app_cpu", "app us", "{:,.1f}"),
    ("daprd_cpu", "daprd us", "{:,.1f}"),
    ("generator_cpu", "load us", "{:,.1f}"),
    ("rss", "RSS MiB", "{:,.0f}"),
)
_START_COLUMNS = {"port": "port open", "first": "first invocation", "import": "import alone", "rss": "RSS MiB"}
_COMPARED = ("rps", "p50", "p99", "app_cpu")
FOREIGN_CPU_LIMIT = 0.05
_MET = {True: "met", False: "MISSED", None: ""}


def text(results: Results, verdicts: Sequence[Verdict]) -> str:
    """Everything, as a reader of a terminal wants it."""
    parts = [
        *_about(results),
        *_load(results.rows),
        *_start(results),
        *_memory(results),
        *_profiles(results),
        *_targets(verdicts),
    ]
    return "\n".join([*parts, *_warnings(results)])


def _about(results: Results) -> Iterator[str]:
    for name, value in results.about.items():
        text = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        yield f"{name}: {text}"


def _load(rows: Sequence[Row]) -> Iterator[str]:
    for (group, via, concurrency), members in groupby(rows, key=lambda row: (row.group, row.via, row.concurrency)):
        block = list(members)
        yield f"\n{group}, {via}, c={concurrency} (us: microseconds; CPU is per invocation; median, then min-max)"
        yield from _table(
            ["case", *(heading for _, heading, _ in _COLUMNS), "min-max rps", "errors", "calls"],
            [_cells(row) for row in block],
        )
        yield from _variants(block)


def _cells(row: Row) -> list[str]:
    spread = Spread.of(row.metrics["rps"])
    return [
        row.case,
        *(form.format(Spread.of(row.metrics[metric]).median) for metric, _, form in _COLUMNS),
        f"{spread.least:,.0f}-{spread.most:,.0f}",
        f"{sum(row.metrics['errors']):.0f}",
        f"{sum(row.metrics['requests']):,.0f}",
    ]


def _variants(block: Sequence[Row]) -> Iterator[str]:
    """Each variant beside what it varies, as the median of the rounds' ratios."""
    bases = {row.case: row for row in block}
    rows = [
        [row.case, *(_form(Spread.of(ratios(row.metrics[metric], base.metrics[metric]))) for metric in _COMPARED)]
        for row in block
        if (base := bases.get(row.case.partition("@")[0])) and base is not row
    ]
    if rows:
        yield ""
        yield from _table(["variant / base", *_COMPARED], rows)


def _start(results: Results) -> Iterator[str]:
    if results.start:
        yield "\nfrom exec, a daprd being there (ms; median, then min-max)"
        rows = [
            [name, *(_spread(times[kind], "{:,.0f}") if kind in times else "" for kind in _START_COLUMNS)]
            for name, times in results.start.items()
        ]
        yield from _table(["case", *_START_COLUMNS.values()], rows)


def _memory(results: Results) -> Iterator[str]:
    if results.memory:
        yield "\nRSS, MiB"
        rows = [[name, f"{one['before']:.0f}", f"{one['after']:.0f}"] for name, one in results.memory.items()]
        yield from _table(["case", "at start", "after 100,000"], rows)


def _profiles(results: Results) -> Iterator[str]:
    for name, rows in results.profiles.items():
        yield f"\n{name} (us; median, then min-max)"
        yield from _table(["", "us"], [[row, _spread(numbers, "{:,.1f}")] for row, numbers in rows.items()])


def _targets(verdicts: Sequence[Verdict]) -> Iterator[str]:
    rows = [[one.text, one.wanted, _form(one.reached), _MET[one.met]] for one in verdicts if one.reached]
    if rows:
        yield "\ntargets (ratios in this run; median of the rounds' ratios, then min-max)"
        yield from _table(["target", "wanted", "reached", ""], rows)
    if len(rows) < len(verdicts):
        yield f"\n{len(verdicts) - len(rows)} of {len(verdicts)} targets need rows that this run did not measure"


def _warnings(results: Results) -> Iterator[str]:
    for failure in results.failures():
        yield f"ERRORS: {failure}"
    foreign = [number for row in results.rows for number in row.metrics["foreign_cpu"]]
    if foreign and Spread.of(foreign).median > FOREIGN_CPU_LIMIT:
        median, _, most = Spread.of(foreign)
        yield f"\nOther processes kept {median:.0%} of this machine busy (at most {most:.0%}): mind the spread."


def _spread(numbers: Sequence[float], form: str) -> str:
    median, least, most = (form.format(number) for number in Spread.of(numbers))
    return f"{median} ({least}-{most})"


def _form(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.least:.2f}-{spread.most:.2f})"


def _table(heads: list[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their cells; the first one to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, ["-" * width for width in widths], *rows):
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([first.strip().ljust(widths[0]), *others])
