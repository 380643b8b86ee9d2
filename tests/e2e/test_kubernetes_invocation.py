"""Functions that read Kubernetes Secrets: app, daprd and a real API server with RBAC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest

from tests.e2e.app import dapr_run
from tests.e2e.daprd import Daprd, component, resiliency, write_resources
from tests.e2e.invocation import JSON, Answer, Call, Caller, Failure, expected, over_grpc, over_http
from tests.e2e.kubernetes import Kubernetes

pytestmark = [pytest.mark.e2e, pytest.mark.kubernetes, pytest.mark.timeout(180)]

APPS = Path(__file__).parent / "apps"
CALLERS = (over_http, over_grpc)
Running = tuple[str, dict[str, Daprd]]
RETRIES = 3


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """Two namespaces with a Secret each; `reader` may read both, `stranger` none."""
    with Kubernetes(tmp_path_factory.mktemp("kubernetes"), ("reader", "stranger")) as cluster:
        cluster.create_namespace("second")
        cluster.create_secret("default", "my-secret", {"my-secret": "abcd"})
        cluster.create_secret("second", "my-secret", {"user": "u", "password": "p\n"})
        for namespace in ("default", "second"):
            cluster.allow_secrets("reader", namespace)
        yield cluster


def write_store(kubernetes: Kubernetes, user: str, directory: Path) -> Path:
    store = component("secretstores.kubernetes", "kubernetes", {"kubeconfigPath": str(kubernetes.kubeconfig(user))})
    return write_resources(directory / "store.yaml", store).parent


@pytest.fixture(scope="module", params=["http", "grpc"])
def running(
    request: pytest.FixtureRequest, kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """The app beside a daprd for each user: app protocol, user -> daprd."""
    with ExitStack() as stack:
        sidecars = {}
        for user in ("reader", "stranger"):
            resources = write_store(kubernetes, user, tmp_path_factory.mktemp(user))
            pair = dapr_run(APPS / "kubernetes-v2", request.param, resources=resources, app_id=f"app-of-{user}")
            _, sidecars[user] = stack.enter_context(pair)
        yield request.param, sidecars


def read_key(key: str, namespace: str) -> Call:
    return Call("ReadKey", json.dumps({"key": key, "namespace": namespace}).encode())


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(
    ("call", "value"),
    [
        pytest.param(Call("RetrieveSecret", b"{}"), {"my-secret": "abcd"}, id="as documented"),
        pytest.param(read_key("my-secret", "second"), {"user": "u", "password": "p\n"}, id="a second namespace"),
    ],
)
def test_value_arrives(running: Running, caller: Caller, call: Call, value: dict[str, str]) -> None:
    answer = caller(running[1]["reader"], call)
    assert answer.status in {200, grpc.StatusCode.OK}
    assert json.loads(answer.body) == value


def test_v1_app(kubernetes: Kubernetes, tmp_path: Path) -> None:
    resources = write_store(kubernetes, "reader", tmp_path)
    with dapr_run(APPS / "kubernetes-v1", "grpc", resources=resources) as (_, daprd):
        assert over_http(daprd, Call("RetrieveSecret", b"{}")) == Answer(200, b'{"my-secret":"abcd"}', JSON)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(
    ("user", "key", "namespace", "reason"),
    [
        pytest.param("reader", "nothing", "default", 'secrets "nothing" not found', id="a missing secret"),
        pytest.param(
            "stranger",
            "my-secret",
            "default",
            'secrets "my-secret" is forbidden: User "stranger" cannot get resource "secrets" in API group "" '
            'in the namespace "default"',
            id="denied by RBAC",
        ),
        pytest.param(
            "reader",
            "my-secret",
            "third",
            'secrets "my-secret" is forbidden: User "reader" cannot get resource "secrets" in API group "" '
            'in the namespace "third"',
            id="a namespace without a role",
        ),
    ],
)
def test_failures(running: Running, caller: Caller, user: str, key: str, namespace: str, reason: str) -> None:
    app_protocol, sidecars = running
    text = f"failed getting secret with key {key} from secret store kubernetes: {reason}"
    failure = Failure(500, grpc.StatusCode.INTERNAL, text)
    assert caller(sidecars[user], read_key(key, namespace)) == expected(failure, app_protocol, caller)


def test_a_changed_secret_is_read_anew(kubernetes: Kubernetes, running: Running) -> None:
    daprd, name = running[1]["reader"], f"rotated-{running[0]}"
    kubernetes.create_secret("default", name, {"version": "1"})
    assert over_http(daprd, read_key(name, "default")).body == b'{"version":"1"}'
    kubernetes.update_secret("default", name, {"version": "2"})
    assert over_http(daprd, read_key(name, "default")).body == b'{"version":"2"}'


def test_the_store_is_asked_as_often_as_the_policy_says(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """The API server counts: daprd's retries and no more."""
    resources = write_store(kubernetes, "reader", tmp_path)
    policy = {"policy": "constant", "duration": "10ms", "maxRetries": RETRIES}
    write_resources(resources / "resiliency.yaml", resiliency("kubernetes", retry=policy))
    with dapr_run(APPS / "kubernetes-v2", "grpc", resources=resources) as (_, daprd):
        before = requests_for_secrets(kubernetes.http)
        assert over_http(daprd, read_key("nothing", "default")).status == 500
        assert requests_for_secrets(kubernetes.http) - before == 1 + RETRIES
        assert over_http(daprd, read_key("my-secret", "default")).status == 200
        assert requests_for_secrets(kubernetes.http) - before == 1 + RETRIES + 1


def requests_for_secrets(apiserver: httpx.Client) -> int:
    text = apiserver.get("/metrics").raise_for_status().text
    lines = [line for line in text.splitlines() if line.startswith("apiserver_request_total{")]
    counted = [line for line in lines if 'resource="secrets"' in line and 'verb="GET"' in line]
    return sum(int(line.rpartition(" ")[2]) for line in counted)
