"""Our gRPC channel beside grpc.aio's, both under the runtime's Sidecar: GetSecret on a real daprd, nothing shared.

`run.py --experiments sidecar_channel` starts the daprd; alone: `python benchmarks/sidecar_channel.py PORT`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import grpc.aio
from inprocess import per_call, show

from apps import STORE
from daprfunc.endpoint import parse_endpoint
from daprfunc.host import run_loop
from daprfunc.sidecar.client import SecretRead, Sidecar
from daprfunc.sidecar.transport import Channel

ROUNDS = 5
SECONDS = 1.0
WARM_UP_SECONDS = 0.2
CONCURRENCIES = (1, 32)
METRICS = ("CPU", "p50")
_MICRO = 1e6


async def _measure(channel: Callable[[], Any], concurrency: int) -> tuple[float, float]:
    """CPU microseconds of this process per read, and the median microseconds until it is answered."""
    sidecar = Sidecar(channel(), timeout=10)
    reads = [SecretRead(STORE, "my-secret", (("reader", str(number)),)) for number in range(concurrency)]
    await _all(sidecar, reads, WARM_UP_SECONDS)
    began = time.process_time()
    took = await _all(sidecar, reads, SECONDS)
    cpu = time.process_time() - began
    await sidecar.close()
    return per_call(cpu, len(took)), took[len(took) // 2] * _MICRO


async def _all(sidecar: Sidecar, reads: list[SecretRead], seconds: float) -> list[float]:
    until = time.perf_counter() + seconds
    took = await asyncio.gather(*(_reader(sidecar, read, until) for read in reads))
    return sorted(chain.from_iterable(took))


async def _reader(sidecar: Sidecar, read: SecretRead, until: float) -> list[float]:
    took = []
    while (began := time.perf_counter()) < until:
        await sidecar.get_secret(read)
        took.append(time.perf_counter() - began)
    return took


def compare(port: int) -> dict[str, list[float]]:
    """CPU and latency of both channels, A B A B."""
    address = f"127.0.0.1:{port}"
    channels: dict[str, Callable[[], Any]] = {
        "grpc.aio": partial(grpc.aio.insecure_channel, address),
        "ours": partial(_ours, address),
    }
    found: dict[str, list[float]] = {
        f"{name}, c={concurrency}, {metric}": []
        for concurrency in CONCURRENCIES
        for metric in METRICS
        for name in channels
    }
    for concurrency in CONCURRENCIES:
        for _ in range(ROUNDS):
            for name, channel in channels.items():
                for metric, number in zip(METRICS, run_loop(_measure(channel, concurrency)), strict=True):
                    found[f"{name}, c={concurrency}, {metric}"].append(number)
    return found


def _ours(address: str) -> Channel:
    return Channel(parse_endpoint(address))


if __name__ == "__main__":
    show(compare(int(sys.argv[1])))
