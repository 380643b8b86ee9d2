"""The kubernetes secret store: daprd reads real Secrets from a real API server under real RBAC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.daprd import Daprd, component, write_resources
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.secret_requests import (
    Outcome,
    Request,
    found,
    over_grpc,
    over_http,
    over_our_grpc,
    store_failure,
)

pytestmark = [pytest.mark.e2e, pytest.mark.kubernetes, pytest.mark.timeout(180)]

STORE = "kubernetes"
# Who daprd is to the API server: `reader` may get Secrets in two namespaces, `stranger` may do nothing.
USERS = ("reader", "stranger")


def failed(key: str, reason: str, **metadata: str) -> Request:
    return Request(STORE, key, store_failure(STORE, key, reason), metadata)


def forbidden(user: str, key: str, namespace: str) -> Request:
    reason = (
        f'secrets "{key}" is forbidden: User "{user}" cannot get resource "secrets" in API group "" in the namespace'
    )
    return failed(key, f'{reason} "{namespace}"', namespace=namespace)


REQUESTS = (
    ("reader", found(STORE, "my-secret", "abcd", namespace="default")),
    ("reader", found(STORE, "my-secret", {"user": "u", "password": "p\n"}, namespace="second")),
    ("reader", failed("nothing", 'secrets "nothing" not found', namespace="default")),
    ("reader", failed("only-here", 'secrets "only-here" not found', namespace="second")),
    ("reader", forbidden("reader", "my-secret", "third")),
    ("reader", forbidden("reader", "my-secret", "nowhere")),
    (
        "reader",
        failed(
            "my-secret",
            "namespace is missing on metadata and NAMESPACE env variable, and no default namespace is set",
        ),
    ),
    ("stranger", forbidden("stranger", "my-secret", "default")),
)


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    with Kubernetes(tmp_path_factory.mktemp("kubernetes"), USERS) as cluster:
        for namespace in ("second", "third"):
            cluster.create_namespace(namespace)
        cluster.create_secret("default", "my-secret", {"my-secret": "abcd"})
        cluster.create_secret("default", "only-here", {"value": "1"})
        cluster.create_secret("second", "my-secret", {"user": "u", "password": "p\n"})
        cluster.create_secret("third", "my-secret", {"hidden": "h"})
        for namespace in ("default", "second"):
            cluster.allow_secrets("reader", namespace)
        yield cluster


@pytest.fixture(scope="module")
def sidecars(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daprd]]:
    """A daprd for each user."""
    with ExitStack() as running:
        directory = tmp_path_factory.mktemp("resources")
        yield {user: running.enter_context(Daprd(resources=store_of(kubernetes, user, directory))) for user in USERS}


def store_of(kubernetes: Kubernetes, user: str, directory: Path) -> Path:
    store = component("secretstores.kubernetes", STORE, {"kubeconfigPath": str(kubernetes.kubeconfig(user))})
    return write_resources(directory / user / "store.yaml", store).parent


@pytest.mark.parametrize(("user", "request_"), REQUESTS, ids=str)
def test_all_ways(sidecars: dict[str, Daprd], user: str, request_: Request) -> None:
    daprd = sidecars[user]
    outcomes = {
        "grpcio": over_grpc(daprd.stub)(request_),
        "our gRPC": over_our_grpc(daprd.grpc_port)(request_),
        "HTTP": over_http(daprd.http)(request_),
    }
    assert outcomes == dict.fromkeys(outcomes, request_.outcome)


def test_only_http_puts_a_prefix_before_metadata(sidecars: dict[str, Daprd]) -> None:
    """Why bindings strip ``metadata.`` before they call over gRPC."""
    daprd = sidecars["reader"]
    path = f"/v1.0/secrets/{STORE}/my-secret"
    assert daprd.http.get(path, params={"metadata.namespace": "default"}).status_code == 200
    assert daprd.http.get(path, params={"namespace": "default"}).status_code == 500
    with_prefix = Request(STORE, "my-secret", Outcome(0), {"metadata.namespace": "default"})
    assert over_grpc(daprd.stub)(with_prefix).status == 500


def test_a_changed_secret_is_read_anew(kubernetes: Kubernetes, sidecars: dict[str, Daprd]) -> None:
    request = Request(STORE, "rotated", Outcome(0), {"namespace": "default"})
    kubernetes.create_secret("default", "rotated", {"version": "1"})
    ask = over_our_grpc(sidecars["reader"].grpc_port)
    assert ask(request).data == {"version": "1"}
    kubernetes.update_secret("default", "rotated", {"version": "2"})
    assert ask(request).data == {"version": "2"}
