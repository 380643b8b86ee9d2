"""What a run must reach: ratios inside that one run. A ratio is taken in each round; its median is what counts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from results import Results, Spread, ratios

OURS_SYNC = ("grpc-get", "http-get")
OURS = (*OURS_SYNC, "grpc-get-async", "http-get-async")
PEERS_SYNC = ("dapr-ext-grpc-get", "fastapi-get")
PEERS = (*PEERS_SYNC, "fastapi-async-get")
_COMPARISONS = {">=": operator.ge, "<=": operator.le}
HTTP_PEERS = ("fastapi-get", "fastapi-async-get")


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table.

    Attributes:
        text: what is compared.
        compare: ``>=`` or ``<=``; empty where the number only explains the one above it.
        bound: with what.
        ratios: the run's numbers, one per round; raises KeyError where the run did not measure them.
    """

    text: str
    compare: str
    bound: float
    ratios: Callable[[Results], list[float]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what a run reached; `reached` is None where the run did not measure it."""

    text: str
    wanted: str
    reached: Spread | None
    met: bool | None


def verdicts(results: Results) -> Iterator[Verdict]:
    """Every target, in the table's order."""
    for target in TARGETS:
        wanted = f"{target.compare} {target.bound:g}" if target.compare else ""
        try:
            reached = Spread.of(target.ratios(results))
        except KeyError:
            yield Verdict(target.text, wanted, None, None)
        else:
            compare = _COMPARISONS.get(target.compare)
            yield Verdict(target.text, wanted, reached, compare(reached.median, target.bound) if compare else None)


def _ratio(metric: str, case: str, other: str, concurrency: int) -> Callable[[Results], list[float]]:
    return lambda run: ratios(run.rounds(metric, case, concurrency), run.rounds(metric, other, concurrency))


def _best(run: Results, pick: Callable[..., float], metric: str, cases: Sequence[str], c: int, via: str) -> list[float]:
    """In each round, the best number of several cases."""
    return [pick(numbers) for numbers in zip(*(run.rounds(metric, case, c, via) for case in cases), strict=True)]


def _best_through_daprd(ours: Sequence[str], peers: Sequence[str]) -> Callable[[Results], list[float]]:
    return lambda run: ratios(_best(run, max, "rps", ours, 32, "daprd"), _best(run, max, "rps", peers, 32, "daprd"))


def _http_latency(run: Results) -> list[float]:
    return ratios(run.rounds("p50", "http-get", 1), _best(run, min, "p50", HTTP_PEERS, 1, "direct"))


def _tail(case: str) -> Callable[[Results], list[float]]:
    return lambda run: ratios(run.rounds("p99", case, 256), run.rounds("p50", case, 256))


def _bindings(cases: str, via: str = "direct") -> Callable[[Results], list[float]]:
    return lambda run: ratios(run.rounds("p50", cases.format(20), 1, via), run.rounds("p50", cases.format(1), 1, via))


def _start(case: str) -> Callable[[Results], list[float]]:
    return lambda run: ratios(run.start[case]["first"], run.start["fastapi-get"]["first"])


def _memory(case: str) -> Callable[[Results], list[float]]:
    return lambda run: [run.memory[case]["after"] / run.memory["dapr-ext-grpc-get"]["after"]]


def _start_per_100_functions(run: Results) -> list[float]:
    """The imports that all apps have are in both starts, so the difference is what the functions cost."""
    return _per_100_functions(run, "first")


def _runtime_per_100_functions(run: Results) -> list[float]:
    """Without the import of function_app.py itself, as plain Python does it."""
    starts, imports = _start_per_100_functions(run), _per_100_functions(run, "import")
    return [start - imported for start, imported in zip(starts, imports, strict=True)]


def _per_100_functions(run: Results, kind: str) -> list[float]:
    many, one = run.start["grpc-functions-1000"][kind], run.start["grpc-functions-1"][kind]
    return [(slow - fast) / 9.99 for slow, fast in zip(many, one, strict=True)]


TARGETS = (
    Target("gRPC, c=32: ours / dapr-ext-grpc, requests/s", ">=", 5, _ratio("rps", "grpc-get", "dapr-ext-grpc-get", 32)),
    Target("HTTP, c=32: ours / FastAPI sync, requests/s", ">=", 6, _ratio("rps", "http-get", "fastapi-get", 32)),
    Target(
        "HTTP async, c=32: ours / FastAPI async, requests/s",
        *(">=", 3),
        _ratio("rps", "http-get-async", "fastapi-async-get", 32),
    ),
    Target("gRPC, c=32: ours / Go, requests/s", ">=", 0.8, _ratio("rps", "grpc-get", "go-grpc-get", 32)),
    Target("HTTP, c=32: ours / Go, requests/s", ">=", 0.8, _ratio("rps", "http-get", "go-http-get", 32)),
    Target(
        "through daprd, c=32: best sync of ours / of the peers, requests/s",
        *(">=", 3.5),
        _best_through_daprd(OURS_SYNC, PEERS_SYNC),
    ),
    Target(
        "the same with async functions as well",
        *("", 0),
        _best_through_daprd(OURS, PEERS),
    ),
    Target(
        "gRPC, c=32: app CPU, dapr-ext-grpc / ours", ">=", 6, _ratio("app_cpu", "dapr-ext-grpc-get", "grpc-get", 32)
    ),
    Target("HTTP, c=32: app CPU, FastAPI sync / ours", ">=", 6, _ratio("app_cpu", "fastapi-get", "http-get", 32)),
    Target("gRPC, c=1: p50, ours / Go", "<=", 1.4, _ratio("p50", "grpc-get", "go-grpc-get", 1)),
    Target("HTTP, c=1: p50, ours / Go", "<=", 1.4, _ratio("p50", "http-get", "go-http-get", 1)),
    Target("gRPC, c=1: p50, ours / dapr-ext-grpc", "<=", 0.75, _ratio("p50", "grpc-get", "dapr-ext-grpc-get", 1)),
    Target("HTTP, c=1: p50, ours / best FastAPI", "<=", 0.75, _http_latency),
    Target("gRPC, c=256: p99 / p50", "<=", 4, _tail("grpc-get")),
    Target("HTTP, c=256: p99 / p50", "<=", 4, _tail("http-get")),
    Target("c=1: p50, 20 secret bindings / 1", "<=", 2, _bindings("grpc-secrets-{}")),
    Target("the same in Go", "", 0, _bindings("go-grpc-secrets-{}")),
    Target("the same through daprd", "", 0, _bindings("grpc-secrets-{}", "daprd")),
    Target("the same with --secret-ttl 60, which is off by default", "", 0, _bindings("grpc-secrets-{}-ttl")),
    Target(
        "c=1: p50 of 20 secret bindings, ours / Go", "", 0, _ratio("p50", "grpc-secrets-20", "go-grpc-secrets-20", 1)
    ),
    Target("exec to first invocation, ours (gRPC) / FastAPI", "<=", 0.8, _start("grpc-get")),
    Target("exec to first invocation, ours (HTTP) / FastAPI", "<=", 0.8, _start("http-get")),
    Target("RSS after 100,000 invocations, ours / dapr-ext-grpc", "<=", 1, _memory("grpc-get")),
    Target("start-up per 100 functions more, minus the app's import, ms", "<=", 10, _runtime_per_100_functions),
    Target("start-up per 100 functions more, with it, ms", "", 0, _start_per_100_functions),
)
