"""Writes a run's figures into the documents, so that none is ever copied by hand.

A document holds blocks ``<!-- figures: NAME -->`` ... ``<!-- end -->``. Every block is replaced, so that all
figures of a document come from one run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hops import BATCHES, DEPTHS, row
from plot import BARS
from results import Results, Spread, ratios
from targets import Verdict

from apps import SECRET_COUNTS

DOCUMENTS = ("README.md", "docs/performance.md")
NOT_MEASURED = "(The last published run did not measure this.)"
_BLOCK = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MET = {True: "met", False: "**missed**", None: ""}
_LABELS = {case: label for case, label, _ in BARS}
_SECRET_CASES = tuple(
    name.format(count)
    for name in ("grpc-secrets-{}", "grpc-secrets-{}-ttl", "go-grpc-secrets-{}")
    for count in SECRET_COUNTS
)

Lines = Iterator[str]


def publish(results: Results, verdicts: Sequence[Verdict], root: Path) -> None:
    """Rewrites the blocks of every document below `root`.

    Raises:
        KeyError: a document has a block of another name.
    """
    for name in DOCUMENTS:
        path = root / name
        text = path.read_text()
        path.write_text(_BLOCK.sub(lambda found: f"{found[1]}{_block(found[2], results, verdicts)}\n{found[3]}", text))


def _block(name: str, results: Results, verdicts: Sequence[Verdict]) -> str:
    if name == "targets":
        return "\n".join(_targets(verdicts)) or NOT_MEASURED
    write = _BLOCKS[name]
    try:
        return "\n".join(write(results))
    except KeyError:
        return NOT_MEASURED


def _targets(verdicts: Sequence[Verdict]) -> Lines:
    """What the run measured, and what it did not."""
    rows = [
        [one.text, one.wanted, _form(one.reached, "{:.2f}") if one.reached else "not measured", _MET[one.met]]
        for one in verdicts
    ]
    yield from _table(["", "wanted", "reached", ""], rows)


def _about(results: Results) -> Lines:
    for name, value in results.about.items():
        text = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        yield f"- {name}: {text}"
    options = " ".join(f"--{name} {value}" for name, value in results.about["settings"].items())
    yield f"- the same again: `python benchmarks/run.py {options}`"


def _pictures(results: Results) -> Lines:
    for name, text in (("throughput-direct", "Requests per second"), ("cpu", "CPU time per invocation")):
        yield f"![{text}](docs/images/{name}.svg)\n"
    yield from _get(results)
    about = results.about
    yield f"\nOne run at commit {about['commit']} on {about['machine']}, Python {about['python']}."


def _get(results: Results) -> Lines:
    columns = (
        ("rps", 32, "direct"),
        ("rps", 32, "daprd"),
        ("app_cpu", 32, "direct"),
        ("p50", 1, "direct"),
        ("p99", 256, "direct"),
    )
    rows = [
        [label, *(f"{_median(results, metric, case, flight, via):,.0f}" for metric, flight, via in columns)]
        for case, label in _LABELS.items()
    ]
    heads = ("requests/s", "through daprd", "app CPU us", "p50 us, one at a time", "p99 us, 256 in flight")
    yield from _table(["32 in flight where not said otherwise", *heads], rows)


def _echo(results: Results) -> Lines:
    rows = []
    for case, label in _LABELS.items():
        echo = case.replace("-get", "-echo")
        numbers = [_median(results, metric, echo, 32) for metric in ("rps", "app_cpu")]
        rows.append([label, *(f"{number:,.0f}" for number in (*numbers, _median(results, "p50", echo, 1)))])
    yield from _table(["no secret, 32 in flight", "requests/s", "app CPU us", "p50 us, one at a time"], rows)


def _payloads(results: Results) -> Lines:
    sizes = ("1B", "64KiB", "1MiB")
    rows = [
        [label, *(f"{_median(results, 'rps', case.replace('-get', f'-payload-{size}'), 8):,.0f}" for size in sizes)]
        for case, label in _LABELS.items()
        if not case.endswith("-async") and "async" not in case
    ]
    yield from _table(["echo, 8 in flight, requests/s", *sizes], rows)


def _bindings(results: Results) -> Lines:
    rows = [
        [
            case,
            *(f"{_median(results, metric, case, 1):,.0f}" for metric in ("p50", "app_cpu", "daprd_cpu")),
            *(f"{_median(results, metric, case, 32):,.0f}" for metric in ("rps", "app_cpu", "daprd_cpu")),
        ]
        for case in _SECRET_CASES
    ]
    heads = [
        "p50 us, one at a time",
        "app CPU us",
        "daprd CPU us",
        "requests/s, 32 in flight",
        "app CPU us",
        "daprd CPU us",
    ]
    yield from _table(["distinct secrets in one invocation", *heads], rows)


def _start(results: Results) -> Lines:
    if not results.start:
        raise KeyError("start")
    kinds = ("port", "first", "import", "rss")
    rows = [
        [case, *(f"{Spread.of(times[kind]).median:,.0f}" if kind in times else "" for kind in kinds)]
        for case, times in results.start.items()
    ]
    yield from _table(["", "port open, ms", "first invocation, ms", "the app's import alone, ms", "RSS, MiB"], rows)


def _memory(results: Results) -> Lines:
    if not results.memory:
        raise KeyError("memory")
    rows = [[case, f"{one['before']:.0f}", f"{one['after']:.0f}"] for case, one in results.memory.items()]
    yield from _table(["RSS, MiB", "at start", "after 100,000 invocations"], rows)


def _hops(results: Results) -> Lines:
    """CPU at each depth, and what the depth has added."""
    found = results.profiles["hops"]
    columns = [(protocol, batch) for protocol in ("HTTP/2", "HTTP/1.1") for batch in BATCHES]
    rows = []
    before = [0.0] * len(columns)
    for depth, *_ in DEPTHS:
        now = [Spread.of(found[row(protocol, batch, depth)]).median for protocol, batch in columns]
        rows.append([depth, *(f"{one:.1f} (+{one - last:.1f})" for one, last in zip(now, before, strict=True))])
        before = now
    heads = [f"{protocol}, {'one' if batch == 1 else batch} at a time" for protocol, batch in columns]
    yield from _table(["CPU us per invocation (added by this hop)", *heads], rows)


def _http2(results: Results) -> Lines:
    yield from _compared(results.profiles["http2_library"], [(f"x{batch}", "jh2", "ours") for batch in (1, 9)])


def _channel(results: Results) -> Lines:
    whats = [(f"c={flight}, {metric}", "grpc.aio", "ours") for flight in (1, 32) for metric in ("CPU", "p50")]
    yield from _compared(results.profiles["sidecar_channel"], whats)


def _alone(results: Results) -> Lines:
    whats = [(f"{count} at once", "ours", "bytes") for count in (1, 20)]
    yield from _compared(results.profiles["sidecar_alone"], whats)


def _compared(found: dict[str, list[float]], whats: Sequence[tuple[str, str, str]]) -> Lines:
    rows = []
    for what, other, ours in whats:
        one, two = found[f"{other}, {what}"], found[f"{ours}, {what}"]
        times = _form(Spread.of(ratios(one, two)), "{:.2f}")
        rows.append([what, f"{Spread.of(one).median:.1f}", f"{Spread.of(two).median:.1f}", times])
    _, other, ours = whats[0]
    yield from _table(["us", other, ours, f"{other} / {ours}"], rows)


_BLOCKS: dict[str, Callable[[Results], Lines]] = {
    "about": _about,
    "pictures": _pictures,
    "get": _get,
    "echo": _echo,
    "payloads": _payloads,
    "bindings": _bindings,
    "start": _start,
    "memory": _memory,
    "hops": _hops,
    "http2": _http2,
    "channel": _channel,
    "alone": _alone,
}


def _median(results: Results, metric: str, case: str, concurrency: int, via: str = "direct") -> float:
    return Spread.of(results.rounds(metric, case, concurrency, via)).median


def _form(spread: Spread, form: str) -> str:
    return f"{form.format(spread.median)} ({form.format(spread.least)}-{form.format(spread.most)})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Lines:
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'---:|' * (len(heads) - 1)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"
