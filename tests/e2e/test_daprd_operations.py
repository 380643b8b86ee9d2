"""What daprd does on its own: health checks of the app, and resiliency policies on the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGTERM

import grpc
import pytest

from tests.e2e.app import FunctionApp
from tests.e2e.daprd import Daprd, component, resiliency, write_resources, write_secrets
from tests.e2e.invocation import JSON, Answer, Call, over_grpc, over_http
from tests.e2e.processes import free_port, wait_until

pytestmark = pytest.mark.e2e

ANSWERS = Path(__file__).parent / "apps" / "answers"
HEALTH_CHECK = (
    "--enable-app-health-check",
    "--app-health-check-path=/healthz",
    "--app-health-probe-interval=1",
    "--app-health-probe-timeout=500",
    "--app-health-threshold=1",
)


@pytest.mark.parametrize("app_protocol", ["http", "h2c", "grpc"])
def test_health_check(tmp_path: Path, app_protocol: str) -> None:
    daprd = Daprd(free_port(), app_protocol, resources=tmp_path, extra_args=HEALTH_CHECK)
    call = Call("EchoBytes", b"1")
    with FunctionApp(ANSWERS, env=daprd.app_environment, port=daprd.app_port) as app, daprd:
        daprd.wait_until_ready()
        daprd.process.wait_for_output("App entered healthy status")
        assert over_http(daprd, call).body == b"1"
        with ThreadPoolExecutor(1) as pool:
            in_flight = pool.submit(over_http, daprd, Call("Hangs"))
            app.process.wait_for_output("Hangs was called")
            app.process.signal(SIGTERM)
            daprd.process.wait_for_output("App entered un-healthy status")
            assert in_flight.result().status == 504, "a call in flight is answered, drain or not"
        assert app.process.wait() == 0
        assert b"not in a healthy state" in over_http(daprd, call).body
        app.start()
        wait_until(lambda: daprd.output.count("App entered healthy status") == 2, "daprd to find it healthy again")
        assert over_http(daprd, call).body == b"1"


def test_daprd_retries_and_nobody_else(tmp_path: Path) -> None:
    """daprd's policy is applied to each read once: a client that retries would multiply it."""
    retries, milliseconds = 3, 50
    file = {"secretsFile": str(write_secrets(tmp_path / "secrets.json", {"my-secret": "abcd"}))}
    resources = tmp_path / "resources"
    write_resources(resources / "store.yaml", component("secretstores.local.file", "good", file))
    policy = {"policy": "constant", "duration": f"{milliseconds}ms", "maxRetries": retries}
    write_resources(resources / "resiliency.yaml", resiliency("good", retry=policy))
    daprd = Daprd(free_port(), "grpc", resources=resources)
    with FunctionApp(ANSWERS, env=daprd.app_environment, port=daprd.app_port), daprd:
        daprd.wait_until_ready()
        assert over_grpc(daprd, Call("ReadSecret")) == Answer(grpc.StatusCode.OK, b'{"my-secret":"abcd"}', JSON)
        assert (
            over_grpc(daprd, Call("ReadKey", b'{"store": "good", "key": "nothing"}')).status is grpc.StatusCode.INTERNAL
        )
        reads = {
            success: daprd.metric("dapr_component_secret_count", operation="get", success=success)
            for success in ("true", "false")
        }
        assert reads == {"true": 1, "false": 1}
        assert daprd.metric("dapr_resiliency_count", policy="retry", target="Secretstore_good") == 2
        took = daprd.metric("dapr_component_secret_latencies_sum", operation="get", success="false")
        assert retries * milliseconds <= took < 2 * retries * milliseconds + 500
