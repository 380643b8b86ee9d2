"""Load from ghz (gRPC) and bombardier (HTTP): one short run each, read from their JSON reports."""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import Case
from prepare import ROOT, Toolbox
from processes import LOOPBACK
from wire import JSON_TYPE, ON_INVOKE, invoke_request

PROTOS = ROOT / "protos"
_NANOSECONDS = 1e-9
_MICROSECONDS = 1e-6


class LoadError(Exception):
    """A load generator failed; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much load: at `concurrency` calls in flight, for `seconds`, or until `requests` were answered."""

    concurrency: int
    seconds: float | None = None
    requests: int | None = None

    def flags(self, duration: str, count: str) -> list[str]:
        return [duration, f"{self.seconds}s"] if self.requests is None else [count, str(self.requests)]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a load generator saw.

    Attributes:
        requests: answered, errors included.
        errors: answered with an error, or not at all.
        rps: requests per second.
        p50: seconds that half of the calls stayed below.
        p99: seconds that 99 of 100 calls stayed below.
        generator_cpu: user + system seconds of the generator itself.
        note: the kinds of errors, for a reader.
    """

    requests: int
    errors: int
    rps: float
    p50: float
    p99: float
    generator_cpu: float
    note: str = ""


def load_grpc(tools: Toolbox, case: Case, port: int, amount: Amount) -> Sample:
    """OnInvoke over one connection, since daprd keeps one to each app."""
    with tempfile.NamedTemporaryFile() as request:
        request.write(invoke_request(case))
        request.flush()
        report, cpu = _run(
            [
                *(str(tools.ghz), "--insecure", "--format", "json", "--call", ON_INVOKE),
                *(
                    "--proto",
                    str(ROOT / "protos/daprfunc/rpc/appcallback.proto"),
                    "--import-paths",
                    str(ROOT / "protos"),
                ),
                *("--binary-file", request.name, "--disable-template-functions", "--disable-template-data"),
                *("--concurrency", str(amount.concurrency), "--connections", "1"),
                *(*amount.flags("--duration", "--total"), "--duration-stop", "wait"),
                f"{LOOPBACK}:{port}",
            ]
        )
    percentiles = {one["percentage"]: one["latency"] * _NANOSECONDS for one in report["latencyDistribution"] or ()}
    codes = report["statusCodeDistribution"]
    return Sample(
        requests=report["count"],
        errors=report["count"] - codes.get("OK", 0),
        rps=report["rps"],
        p50=percentiles.get(50, 0.0),
        p99=percentiles.get(99, 0.0),
        generator_cpu=cpu,
        note="; ".join(report.get("errorDistribution") or ()),
    )


def load_http(tools: Toolbox, case: Case, port: int, amount: Amount, path: str = "") -> Sample:
    """POST over `concurrency` connections that are kept open."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(case.body)
        body.flush()
        report, cpu = _run(
            [
                *(str(tools.bombardier), "--format", "json", "--print", "result", "--latencies", "--timeout", "20s"),
                *("--method", "POST", "--header", f"Content-Type: {JSON_TYPE}", "--body-file", body.name),
                *("--connections", str(amount.concurrency), *amount.flags("--duration", "--requests")),
                f"http://{LOOPBACK}:{port}{path}/{case.method}",
            ]
        )
    result = report["result"]
    counts = {kind: result[kind] for kind in ("req1xx", "req2xx", "req3xx", "req4xx", "req5xx", "others")}
    requests = sum(counts.values())
    percentiles = result["latency"]["percentiles"]
    return Sample(
        requests=requests,
        errors=requests - counts["req2xx"],
        rps=requests / result["timeTakenSeconds"],
        p50=percentiles["50"] * _MICROSECONDS,
        p99=percentiles["99"] * _MICROSECONDS,
        generator_cpu=cpu,
        note="; ".join(f"{count} {kind}" for kind, count in counts.items() if count and kind != "req2xx"),
    )


def _run(command: Sequence[str]) -> tuple[dict[str, Any], float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if finished.returncode:
        raise LoadError(f"{Path(command[0]).name}: {finished.stderr.decode(errors='replace').strip()[-300:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(finished.stdout), cpu
