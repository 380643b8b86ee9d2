"""Dapr's own Python SDK inside user code, on the embedded sidecar."""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import APP, EMBEDDED, Start

pytestmark = pytest.mark.sdk


def test_users_may_call_daprs_sdk(start: Start) -> None:
    # A sync function in its thread, and an async one that blocks the loop while it waits: neither may deadlock.
    app = start(APP, *EMBEDDED, env={"DAPR_API_METHOD_INVOCATION_PROTOCOL": "grpc", "APP_ID": "end_to_end"})
    for method in ("ReadWithSdk", "ReadWithSdkOnTheLoop"):
        assert app.http.post(f"/{method}").json() == {"key": "marked-value"}
    assert app.http.post("/InvokeWithSdk").json() == "from the SDK"
