"""A real daprd that is killed under load, or whose store is slow: every caller is answered, and nobody storms it."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.app import dapr_run
from tests.e2e.daprd import component, write_resources, write_secrets
from tests.e2e.fakes import RawSidecar, most_in_a_second
from tests.e2e.load import Caller, GrpcCaller, HttpCaller, Load, Tally
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


class Vault(ThreadingHTTPServer):
    """As much of HashiCorp Vault as daprd's secretstores.hashicorp.vault asks for, as slow as `delays` say."""

    daemon_threads = True

    def __init__(self, delays: dict[str, float]) -> None:
        super().__init__(("127.0.0.1", 0), _VaultHandler)
        self.delays = delays
        self.reads: Counter[str] = Counter()
        self.ended = threading.Event()


class _VaultHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Vault)
        key = self.path.partition("?")[0].rpartition("/")[2]
        self.server.reads[key] += 1
        self.server.ended.wait(self.server.delays.get(key, 0))
        body = json.dumps({"data": {"data": {key: "abcd"}}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # whoever asked may have given up
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet: the test's output is its figures."""


@contextmanager
def vault(**delays: float) -> Iterator[Vault]:
    with Vault(delays) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join(5)


def resources_on(server: Vault, directory: Path) -> Path:
    address = f"http://127.0.0.1:{server.server_address[1]}"
    settings = {"vaultAddr": address, "vaultToken": "none", "skipVerify": "true"}
    write_resources(directory / "store.yaml", component("secretstores.hashicorp.vault", "store", settings))
    return directory


def test_a_slow_key_slows_no_other(tmp_path: Path, figure: Callable[[object], None]) -> None:
    """The delay is in the store; what is measured goes through the app, a real daprd and back."""
    fast, took = Tally(), []
    with vault(slow=5.0) as server, dapr_run(APP, "grpc", resources=resources_on(server, tmp_path)) as (app, _):

        def ask_slowly(_: int) -> tuple[int, str, float]:
            with HttpCaller(app.port) as caller:
                started = time.monotonic()
                status, text = caller.post("secret_named", {"key": "slow"})
                return status, text, time.monotonic() - started

        with ThreadPoolExecutor(10) as threads, HttpCaller(app.port) as caller:
            slow = [threads.submit(ask_slowly, number) for number in range(10)]
            wait_until(lambda: server.reads["slow"], "the slow read to begin")
            for number in range(200):
                started = time.monotonic()
                fast.take(lambda: caller.post("secret_named", {"key": f"fast-{number}"})[0])  # noqa: B023
                took.append(time.monotonic() - started)
            assert not any(call.done() for call in slow), "the slow reads ended before the fast ones"
            answers = [call.result(30) for call in slow]
    took.sort()
    figure(
        f"slow key: sent 10, answered {len(answers)}, lost 0, {max(answer[2] for answer in answers):.2f} s at most; "
        f"other keys meanwhile: {fast}, median {took[100] * 1000:.1f} ms, at most {took[-1] * 1000:.0f} ms"
    )
    assert {answer[:2] for answer in answers} == {(200, '{"slow":"abcd"}')}
    assert max(answer[2] for answer in answers) < 6
    assert fast.answers == {"200": 200}
    assert took[-1] < 1
    assert server.reads["slow"] <= 3


@pytest.mark.parametrize("keys", [1, 40], ids=["shared reads", "a key each"])
def test_deadlines_of_a_store_that_hangs(keys: int, tmp_path: Path, figure: Callable[[object], None]) -> None:
    """Callers come one after the other, and each waits for its own deadline, also those who share a read.

    daprd, as every grpc-go server, hangs up on a client that sends it PINGs often: were that how we found out whether
    it lives, those who wait for other keys would lose their reads.
    """
    tally, took, texts = Tally(), [], set()
    stuck = {f"stuck-{number}": 30.0 for number in range(keys)}
    with vault(**stuck) as server:
        resources = resources_on(server, tmp_path)
        env = {"DAPR_API_TIMEOUT_SECONDS": "1"}
        with dapr_run(APP, "grpc", resources=resources, env=env) as (app, _), ThreadPoolExecutor(40) as threads:

            def call(number: int) -> None:
                time.sleep(number / 20)
                with HttpCaller(app.port) as caller:
                    started = time.monotonic()
                    status, text = caller.post("secret_named", {"key": f"stuck-{number % keys}"})
                    took.append(time.monotonic() - started)
                    tally.take(lambda: status)
                    texts.add(text)

            list(threads.map(call, range(40)))
            server.ended.set()
            with HttpCaller(app.port) as caller:
                assert caller.post("secret_named", {"key": "fast"}) == (200, '{"fast":"abcd"}')
    figure(f"{tally}; between {min(took):.2f} and {max(took):.2f} s after they asked; {texts}")
    assert tally.answers == {"504": 40}, texts
    assert min(took) > 0.95
    assert max(took) < 2
