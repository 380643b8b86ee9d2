"""daprd is killed under load and comes back: every caller is answered, and nobody storms it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.app import dapr_run
from tests.e2e.daprd import component, write_resources, write_secrets
from tests.e2e.fakes import RawSidecar, most_in_a_second
from tests.e2e.load import Caller, GrpcCaller, HttpCaller, Load
from tests.e2e.processes import wait_until

pytestmark = pytest.mark.e2e

APP = Path(__file__).parents[1] / "apps" / "faults"
SECRET = '{"fast":"abcd"}'
CALLERS = 8
# The channel connects at most every 50 ms; some slack for a clock that is read on another side.
MOST_CONNECTS_A_SECOND = 24


def ask(caller: Caller) -> object:
    status, body = caller.post("secret")
    assert status not in (200, "OK") or body == SECRET, body
    return status


def hang_up(connection: socket.socket, ended: threading.Event) -> None:
    """What a port does whose server has gone: end every connection."""


@pytest.mark.parametrize(
    ("protocol", "new_caller", "fine", "failed"),
    [("http", HttpCaller, "200", "503"), ("grpc", GrpcCaller, "OK", "UNAVAILABLE")],
)
def test_daprd_is_killed_and_restarted(
    tmp_path: Path,
    figure: Callable[[object], None],
    protocol: str,
    new_caller: Callable[[int], Caller],
    fine: str,
    failed: str,
) -> None:
    secrets = write_secrets(tmp_path / "secrets.json", {"fast": "abcd"})
    file = component("secretstores.local.file", "store", {"secretsFile": str(secrets)})
    write_resources(tmp_path / "resources" / "store.yaml", file)
    with dapr_run(APP, protocol, resources=tmp_path / "resources") as (app, daprd):
        with Load(lambda: new_caller(app.port), ask, CALLERS) as load:
            wait_until(lambda: load.tally.answers[fine] > 200, "answers before the kill")
            daprd.process.signal(signal.SIGKILL)
            daprd.kill()
            wait_until(lambda: load.tally.answers[failed] > CALLERS, "failures after the kill")
            with RawSidecar(hang_up, daprd.grpc_port) as stand_in:
                before = load.tally.answers[failed]
                threading.Event().wait(3)
                assert load.tally.answers[failed] > before, "nobody asked while daprd was away"
                connects = most_in_a_second(stand_in.accepted)
            daprd.start()
            with HttpCaller(app.port) as first:
                assert first.post("secret") == (200, SECRET)
            recovered = load.tally.answers[fine]
            wait_until(lambda: load.tally.answers[fine] > recovered + 200, "answers after the restart")
        daprd.wait_until_ready()
        reply = daprd.http.post(f"/v1.0/invoke/{daprd.app_id}/method/secret", json={})
        assert (reply.status_code, reply.text) == (200, SECRET)
    figure(f"{load.tally}; at most {connects} connects in a second")
    assert load.tally.lost == 0
    assert set(load.tally.answers) == {fine, failed}
    assert 1 <= connects <= MOST_CONNECTS_A_SECOND
    assert "Traceback" not in app.output, app.output
