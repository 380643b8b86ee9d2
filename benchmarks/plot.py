"""The README's pictures, as SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from results import Results, Spread

_COLOURS = {"ours": "#1f6feb", "go": "#8c959f", "peer": "#d29922"}
# case, label, whose
BARS = (
    ("grpc-get", "daprfunc, gRPC", "ours"),
    ("http-get", "daprfunc, HTTP", "ours"),
    ("http-get-async", "daprfunc, HTTP, async", "ours"),
    ("dapr-ext-grpc-get", "dapr-ext-grpc, gRPC", "peer"),
    ("fastapi-get", "FastAPI + dapr, HTTP", "peer"),
    ("fastapi-async-get", "FastAPI + dapr.aio, HTTP, async", "peer"),
    ("go-grpc-get", "Go, grpc-go", "go"),
    ("go-http-get", "Go, net/http", "go"),
)
# file name, metric, calls in flight, directly or through daprd, title, unit of the axis
_PICTURES = (
    ("throughput-direct", "rps", 32, "direct", "Requests per second, 32 in flight", "requests/s (more is better)"),
    ("throughput-daprd", "rps", 32, "daprd", "The same, called through daprd", "requests/s (more is better)"),
    ("cpu", "app_cpu", 32, "direct", "The app's CPU time per invocation", "microseconds (less is better)"),
    ("latency", "p50", 1, "direct", "Median latency, one call at a time", "microseconds (less is better)"),
)


def draw(results: Results, directory: Path) -> None:
    """Writes one SVG for every picture that the run has numbers for."""
    directory.mkdir(parents=True, exist_ok=True)
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "daprfunc", "svg.fonttype": "none", "font.family": "sans-serif"})
    for name, metric, concurrency, via, title, unit in _PICTURES:
        bars = [
            (label, Spread.of(numbers), _COLOURS[whose])
            for case, label, whose in BARS
            if (numbers := _rounds(results, metric, case, concurrency, via))
        ]
        if bars:
            _draw_bars(bars, title, unit, directory / f"{name}.svg")


def _draw_bars(bars: list[tuple[str, Spread, str]], title: str, unit: str, path: Path) -> None:
    """Medians as bars, the rounds' least and most as whiskers."""
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.42 * len(bars)), layout="constrained")
    medians = [spread.median for _, spread, _ in bars]
    whiskers = [
        [spread.median - spread.least for _, spread, _ in bars],
        [spread.most - spread.median for _, spread, _ in bars],
    ]
    labels = [label for label, _, _ in bars]
    drawn = axes.barh(
        labels, medians, xerr=whiskers, color=[colour for _, _, colour in bars], ecolor="#57606a", capsize=2
    )
    axes.bar_label(drawn, labels=[f" {number:,.0f}" for number in medians], padding=4)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(unit)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _rounds(results: Results, metric: str, case: str, concurrency: int, via: str) -> list[float]:
    try:
        return results.rounds(metric, case, concurrency, via)
    except KeyError:
        return []
