"""Measures daprfunc beside its peers and beside Go, on a real daprd.

run.py                              everything (make bench)
run.py --quick                      a subset in under three minutes (make bench-quick)
run.py --list                       the names of the cases
run.py --only grpc-get,go-grpc-get --concurrency 32 --rounds 5
run.py --only grpc-get --via direct --variant old source=../old --variant debug PYTHONASYNCIODEBUG=1
run.py --only 'grpc-*' --experiments start,memory
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn

import plot
import publish
import report
import targets
from about import about
from cases import CASES, MEMORY_CASES, START_CASES, Case
from load import LoadError
from measure import measure_load, measure_memory, measure_start, tasks
from prepare import CACHE, HERE, ROOT, PrepareError, Toolbox, prepare
from processes import ProcessError
from profiles import PROFILES, measure_profiles
from results import Results
from variants import VariantError, variants_of
from wire import WrongReplyError

LOAD = tuple(dict.fromkeys(case.group for case in CASES.values()))
EXPERIMENTS = (*LOAD, "start", "memory", *PROFILES)
QUICK_TASKS = (
    *("*-get direct c=1", "*-get direct c=32", "*-get-async direct c=32", "*-get daprd c=32", "*-get-async daprd c=32"),
    *("grpc-get direct c=256", "http-get direct c=256", "*grpc-secrets-1 direct c=1", "*grpc-secrets-20 direct c=1"),
)
QUICK_STARTS = ("grpc-get", "http-get", "fastapi-get", "grpc-functions-1", "grpc-functions-1000")


class UsageError(Exception):
    """What was asked for cannot be measured; the text says why."""


def main() -> int:
    signal.signal(signal.SIGTERM, _stop)
    options = arguments()
    if options.list:
        for case in CASES.values():
            flight = ",".join(map(str, case.concurrencies))
            print(f"{case.group:10} {case.name:28} c={flight:10} {', '.join(case.vias)}")
        return 0
    try:
        results = Results.read(options.read) if options.read else run(options, prepare())
    except (PrepareError, ProcessError, LoadError, WrongReplyError, VariantError, UsageError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    keep(results, options)
    return 1 if results.failures() else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=split, default=(), metavar="CASES", help="names or patterns, joined by commas")
    parser.add_argument(
        "--experiments",
        type=split,
        default=(),
        help=f"of {','.join(EXPERIMENTS)}; default: all, but with --only none that are not load",
    )
    parser.add_argument("--concurrency", type=split, default=(), help="calls in flight; default: each case's own")
    parser.add_argument("--via", type=split, default=("direct", "daprd"), help="direct, daprd, or both (default)")
    parser.add_argument("--rounds", type=int, help="default: 5; 2 with --quick")
    parser.add_argument("--seconds", type=float, help="of load, for a row in a round; default: 2; 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="a subset in under three minutes")
    parser.add_argument(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar=("LABEL", "KEY=VALUE"),
        help="also run our cases as CASE@LABEL, with source=CHECKOUT, python=PATH, flags='...' or NAME=ENVIRONMENT",
    )
    parser.add_argument("--output", type=Path, help="where the JSON goes; default: under .cache/bench")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="also write benchmarks/results, docs/images and the documents' tables",
    )
    parser.add_argument("--read", type=Path, metavar="JSON", help="measure nothing: show an earlier run")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 2.0)
    if options.seconds < 1:
        parser.error("--seconds: bombardier fails with less than 1")
    return options


def run(options: argparse.Namespace, tools: Toolbox) -> Results:
    """Measures what the options ask for."""
    experiments = options.experiments or (LOAD if options.only else EXPERIMENTS)
    chosen = [case for case in CASES.values() if matches(case.name, options.only or ("*",))]
    if not chosen:
        raise UsageError(f"no case is called {','.join(options.only)}: --list names them all")
    cases = variants_of(chosen, options.variant)
    load = tasks(
        [case for case in cases if case.group in experiments], list(map(int, options.concurrency)), options.via
    )
    starts, memories = among(cases, START_CASES), among(cases, MEMORY_CASES)
    profiles = [name for name in PROFILES if name in experiments]
    if options.quick:
        load = [task for task in load if matches(str(task), QUICK_TASKS)]
        starts, memories, profiles = among(cases, QUICK_STARTS), [], []
    # First what takes a moment and runs code of its own: if that fails, nothing that took long is lost with it.
    profiled = measure_profiles(tools, profiles)
    return Results(
        about=about(tools, rounds=options.rounds, seconds=options.seconds, experiments=",".join(experiments)),
        rows=measure_load(tools, load, options.rounds, options.seconds),
        start=measure_start(tools, starts, options.rounds) if "start" in experiments else {},
        memory=measure_memory(tools, memories) if "memory" in experiments else {},
        profiles=profiled,
    )


def keep(results: Results, options: argparse.Namespace) -> None:
    """Shows a run, and writes its JSON and its pictures."""
    verdicts = list(targets.verdicts(results))
    print(report.text(results, verdicts))
    kind = "quick" if options.quick else "only" if options.only or options.experiments else "full"
    places = [(options.output or CACHE / f"{kind}.json", CACHE / "plots")]
    good = options.publish and not results.failures()
    if good:
        places.append((HERE / "results" / f"{kind}.json", ROOT / "docs" / "images"))
    for path, pictures in places:
        if not options.read or good:
            results.write(path, map(asdict, verdicts))
            plot.draw(results, pictures)
            print(f"\nwritten: {path}, pictures in {pictures}")
    if good:
        publish.publish(results, verdicts, ROOT)


def _stop(*_signal: object) -> NoReturn:
    """Ends like any other error does, so that every child is stopped on the way out."""
    raise SystemExit("bench: terminated")


def split(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def among(cases: Iterable[Case], names: Iterable[str]) -> list[Case]:
    """The cases that `names` name, and their variants."""
    return [case for case in cases if case.name.partition("@")[0] in names]


if __name__ == "__main__":
    sys.exit(main())
