"""The three experiments: interleaved rounds of load, start-up, and memory. Each gives plain numbers, one per turn."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from cases import IMPORTS, MEMORY_INVOCATIONS, Case, Via
from fleet import Running, first_success, running, sidecar, start_app
from load import Amount
from prepare import Toolbox
from processes import environment, free_ports, machine_busy, wait_for_port

WARM_UP_SECONDS = 1.0
SETTLE_SECONDS = 0.1
# A start takes a fraction of a second and is noisy: more of them are taken than of what runs for seconds.
STARTS_PER_ROUND = 3
# Ends without tidying up, which a server would not do either.
_IMPORT = "import function_app, os; os._exit(0)"
_MILLI = 1e3
_MICRO = 1e6
_MEBI = 1 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """One case, called in one way, with so many calls in flight."""

    case: Case
    via: Via
    concurrency: int

    def __str__(self) -> str:
        return f"{self.case.name} {self.via} c={self.concurrency}"

    @property
    def block(self) -> tuple[str, Via, int]:
        """Tasks of one block are compared with each other, and so measured in turns."""
        return self.case.group, self.via, self.concurrency


@dataclass(frozen=True, slots=True)
class Row:
    """Everything measured for one task.

    Attributes:
        group, case, via, concurrency: which one.
        metrics: name -> one number per round. ``rps`` in 1/s; ``p50``, ``p99`` and the ``cpu`` ones (per invocation)
            in microseconds; ``rss`` in MiB; ``foreign_cpu`` is the part of the machine that others kept busy, 0 to 1.
        notes: what kinds of errors there were.
    """

    group: str
    case: str
    via: Via
    concurrency: int
    metrics: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, **numbers: float) -> None:
        for name, number in numbers.items():
            self.metrics.setdefault(name, []).append(number)


def tasks(cases: Iterable[Case], concurrencies: Sequence[int], vias: Sequence[str]) -> list[Task]:
    """The tasks that the cases have and the command line wants, block by block. No concurrencies: each case's own."""
    found = [
        Task(case, via, concurrency)
        for case in cases
        for via in case.vias
        for concurrency in concurrencies or case.concurrencies
        if via in vias
    ]
    return sorted(found, key=lambda task: task.block)


def measure_load(tools: Toolbox, wanted: Sequence[Task], rounds: int, seconds: float) -> list[Row]:
    """Block by block; inside a block, rounds of A B C A B C."""
    rows = [Row(task.case.group, task.case.name, task.via, task.concurrency) for task in wanted]
    progress = Progress(len(rows) * rounds)
    with _fleet(tools, wanted) as fleet:
        for _, members in groupby(zip(wanted, rows, strict=True), key=lambda pair: pair[0].block):
            block = list(members)
            for task, _ in block:
                _warm_up(tools, fleet[task.case.server.name], task)
            for number in range(rounds):
                for task, row in block:
                    _sample(tools, fleet[task.case.server.name], task, row, seconds)
                    progress.step(f"round {number + 1} of {task}: {row.metrics['rps'][-1]:,.0f}/s")
    return rows


def measure_start(tools: Toolbox, cases: Sequence[Case], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds from exec until the port opens and until the first invocation has succeeded, a daprd being there.

    For some apps also how long Python takes from exec to having imported the app, where no runtime does anything.
    The apps take turns, STARTS_PER_ROUND times in each round.
    """
    turns = rounds * STARTS_PER_ROUND
    times: dict[str, dict[str, list[float]]] = {case.name: {"port": [], "first": [], "rss": []} for case in cases}
    progress = Progress(len(cases) * (turns + 1))
    with sidecar(tools, "start") as beside:
        for number in range(turns + 1):
            for case in cases:
                (port,) = free_ports(1)
                began = time.perf_counter()
                with start_app(tools, case.server, port, beside) as app:
                    wait_for_port(port, app)
                    opened = time.perf_counter()
                    first_success(Running(case.server, app, beside, port), case, "direct")
                    answered = time.perf_counter()
                    rss = app.usage().rss
                progress.step(f"start {number} of {case.name}: {(answered - began) * _MILLI:.0f} ms")
                imported = _import_app(tools, IMPORTS[case.name]) if case.name in IMPORTS else None
                if number:  # the first start fills the page cache and writes .pyc files
                    if imported is not None:
                        times[case.name].setdefault("import", []).append(imported * _MILLI)
                    times[case.name]["port"].append((opened - began) * _MILLI)
                    times[case.name]["first"].append((answered - began) * _MILLI)
                    times[case.name]["rss"].append(rss / _MEBI)
    return times


def measure_memory(tools: Toolbox, cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Resident MiB before and after MEMORY_INVOCATIONS at c=32, directly."""
    memory = {}
    progress = Progress(len(cases))
    for case in cases:
        with running(tools, case) as one:
            before = one.app.usage().rss
            sample = one.load(tools, case, "direct", Amount(32, requests=MEMORY_INVOCATIONS))
            after = one.app.usage().rss
        memory[case.name] = {"before": before / _MEBI, "after": after / _MEBI, "errors": float(sample.errors)}
        progress.step(f"memory of {case.name}: {after / _MEBI:.0f} MiB")
    return memory


def _import_app(tools: Toolbox, app: str) -> float:
    """Seconds."""
    began = time.perf_counter()
    subprocess.run([tools.ours, "-c", _IMPORT], cwd=tools.apps / app, env=environment(), check=True)
    return time.perf_counter() - began


class Progress:
    """One line on stderr for every step, with what is left."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        self._done += 1
        left = (time.monotonic() - self._began) / self._done * (self._total - self._done)
        print(f"[{self._done}/{self._total}, {left:.0f} s left] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _fleet(tools: Toolbox, wanted: Sequence[Task]) -> Iterator[Mapping[str, Running]]:
    """Every server that the tasks need, by name."""
    with contextlib.ExitStack() as stack:
        fleet: dict[str, Running] = {}
        for case in (task.case for task in wanted):
            if case.server.name not in fleet:
                print(f"bench: starting {case.server.name}", file=sys.stderr, flush=True)
                fleet[case.server.name] = stack.enter_context(running(tools, case))
        yield fleet


def _warm_up(tools: Toolbox, one: Running, task: Task) -> None:
    one.probe(task.case, task.via)
    one.load(tools, task.case, task.via, Amount(task.concurrency, seconds=WARM_UP_SECONDS))


def _sample(tools: Toolbox, one: Running, task: Task, row: Row, seconds: float) -> None:
    """One window of load, with what everybody spent meanwhile."""
    time.sleep(SETTLE_SECONDS)
    app, daprd, busy, began = one.app.usage(), one.sidecar.process.usage(), machine_busy(), time.monotonic()
    sample = one.load(tools, task.case, task.via, Amount(task.concurrency, seconds=seconds))
    elapsed, busy = time.monotonic() - began, machine_busy() - busy
    after = one.app.usage()
    app_cpu, daprd_cpu = after.cpu - app.cpu, one.sidecar.process.usage().cpu - daprd.cpu
    foreign = busy - app_cpu - daprd_cpu - sample.generator_cpu
    requests = max(sample.requests, 1)
    row.add(
        rps=sample.rps,
        p50=sample.p50 * _MICRO,
        p99=sample.p99 * _MICRO,
        app_cpu=app_cpu / requests * _MICRO,
        daprd_cpu=daprd_cpu / requests * _MICRO,
        generator_cpu=sample.generator_cpu / requests * _MICRO,
        rss=after.rss / _MEBI,
        errors=sample.errors,
        requests=sample.requests,
        foreign_cpu=max(foreign, 0.0) / elapsed / (os.cpu_count() or 1),
    )
    if sample.note:
        row.notes.append(sample.note)
