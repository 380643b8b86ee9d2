from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.app import FunctionApp

APP = Path(__file__).parents[1] / "apps" / "faults"


@pytest.fixture(scope="module")
def app() -> Iterator[FunctionApp]:
    """A real process; no sidecar, since nothing that is fuzzed asks one."""
    env = {"DAPR_GRPC_PORT": "1", "DAPR_HEALTH_TIMEOUT": "3600", "AzureFunctionsJobHost__functionTimeout": "00:00:05"}
    # jh2's decoder panics over some header blocks, which the runtime takes for bad ones. With this variable set, Rust
    # reads 60 MiB of symbols for a backtrace, once.
    env["RUST_BACKTRACE"] = "0"
    with FunctionApp(APP, env=env) as running:
        yield running
