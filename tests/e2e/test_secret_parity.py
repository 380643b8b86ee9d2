"""The table of secret requests three ways: the embedded sidecar, daprd over our gRPC, and daprd's HTTP secrets API.

Known differences are listed in docs/secret-stores.md; those that a request can show are tested here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from daprfunc.errors import LoadError
from daprfunc.rpc.dapr_pb2 import GetBulkSecretRequest
from daprfunc.rpc.dapr_pb2_grpc import DaprStub
from daprfunc.standalone.components import load_resources
from daprfunc.standalone.service import EmbeddedSidecar
from tests.e2e.daprd import Daprd, component, write_resources, write_secrets
from tests.e2e.processes import free_port
from tests.e2e.secret_requests import (
    APP_ID,
    ENVIRONMENT,
    REQUESTS,
    SCOPES,
    Outcome,
    Request,
    Stores,
    over_http,
    over_our_grpc,
)

pytestmark = pytest.mark.e2e


@contextmanager
def embedded_sidecar(resources: Path, api_token: str | None = None) -> Iterator[EmbeddedSidecar]:
    """An embedded sidecar on `resources`, without an app."""
    loaded = load_resources(resources, app_id=APP_ID, environ=ENVIRONMENT)
    sidecar = EmbeddedSidecar(loaded, app_id=APP_ID, app_port=free_port(), api_token=api_token)
    sidecar.start()
    try:
        yield sidecar
    finally:
        sidecar.stop(grace=1)


@pytest.fixture(scope="module")
def embedded(stores: Stores) -> Iterator[EmbeddedSidecar]:
    with embedded_sidecar(stores.resources) as sidecar:
        yield sidecar


def three_ways(embedded: EmbeddedSidecar, daprd: Daprd, request: Request) -> dict[str, Outcome]:
    ways = {
        "embedded sidecar": over_our_grpc(embedded.port),
        "daprd over our gRPC": over_our_grpc(daprd.grpc_port),
        "daprd's HTTP API": over_http(daprd.http),
    }
    return {name: ask(request) for name, ask in ways.items()}


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_same_data_status_and_message(embedded: EmbeddedSidecar, daprd: Daprd, request_: Request) -> None:
    outcomes = three_ways(embedded, daprd, request_)
    assert outcomes == dict.fromkeys(outcomes, request_.outcome)


def test_no_store_at_all(tmp_path: Path) -> None:
    request = Request("kubernetes", "my-secret", Outcome(500, message="secret store is not configured"))
    with embedded_sidecar(tmp_path) as embedded, Daprd(resources=tmp_path) as daprd:
        outcomes = three_ways(embedded, daprd, request)
    assert outcomes == dict.fromkeys(outcomes, request.outcome)


def test_api_token(stores: Stores) -> None:
    request = Request("flat", "my-secret", Outcome(200, {"my-secret": "abcd"}))
    environment = ENVIRONMENT | {"DAPR_API_TOKEN": "right"}
    with (
        embedded_sidecar(stores.resources, api_token="right") as embedded,
        Daprd(resources=stores.resources, config=stores.config, app_id=APP_ID, env=environment) as daprd,
    ):
        for token in ("wrong", None):
            outcome = over_our_grpc(embedded.port, token)(request)
            assert outcome == over_our_grpc(daprd.grpc_port, token)(request)
            sent = {"dapr-api-token": token} if token else {}
            assert outcome.status == daprd.http.get("/v1.0/secrets/flat/my-secret", headers=sent).status_code == 401
        assert over_our_grpc(embedded.port, "right")(request) == request.outcome
        assert over_our_grpc(daprd.grpc_port, "right")(request) == request.outcome


BULK_STORES = ["flat", "dotted", "multi", "prefixed", "nowhere", *(str(scope["storeName"]) for scope in SCOPES)]


def bulk_over_grpc(stub: Any, store: str) -> object:
    try:
        secrets = stub.GetBulkSecret(GetBulkSecretRequest(store_name=store), timeout=10).data
    except grpc.RpcError as error:
        return error.details()
    return {key: dict(secret.secrets) for key, secret in secrets.items()}


def bulk_over_http(client: httpx.Client, store: str) -> object:
    reply = client.get(f"/v1.0/secrets/{store}/bulk")
    return reply.json() if reply.is_success else reply.json()["message"]


@pytest.mark.parametrize("store", BULK_STORES)
def test_bulk(embedded: EmbeddedSidecar, daprd: Daprd, store: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{embedded.port}") as channel:
        ours = bulk_over_grpc(DaprStub(channel), store)
    assert ours == bulk_over_grpc(daprd.stub, store) == bulk_over_http(daprd.http, store)


@pytest.mark.parametrize(
    ("store", "key", "http_status"),
    [
        pytest.param("flat", "", 404, id="an empty key has no path in HTTP"),
        pytest.param("", "my-secret", 404, id="an empty store has no path in HTTP"),
        pytest.param("flat", "bulk", 200, id="the key 'bulk' means all secrets in HTTP"),
    ],
)
def test_known_differences_of_http(
    embedded: EmbeddedSidecar, daprd: Daprd, store: str, key: str, http_status: int
) -> None:
    request = Request(store, key, Outcome(0))
    outcome = over_our_grpc(daprd.grpc_port)(request)
    assert outcome == over_our_grpc(embedded.port)(request)
    assert outcome.status in {401, 500}
    assert daprd.http.get(f"/v1.0/secrets/{store}/{key}").status_code == http_status


def file_store(name: str, secrets_file: object) -> dict[str, Any]:
    return component("secretstores.local.file", name, {"secretsFile": str(secrets_file)})


def with_secret_reference(name: str) -> dict[str, Any]:
    resource = component("secretstores.local.env", name)
    reference = {"name": "prefix", "secretKeyRef": {"name": "my-secret", "key": "my-secret"}}
    resource["spec"]["metadata"].append(reference)
    return resource | {"auth": {"secretStore": "good"}}


# What a resource directory holds beside a good store, and whether daprd and the embedded sidecar start on it.
RESOURCES = [
    pytest.param({"store": file_store("x", "/nowhere/secrets.json")}, False, False, id="no secrets file"),
    pytest.param({"store": file_store("x", "{}/broken.json"), "broken.json": "{"}, False, False, id="broken JSON"),
    pytest.param({"store": file_store("x", "{}/list.json"), "list.json": "[]"}, False, False, id="JSON list"),
    pytest.param({"store": component("secretstores.none", "x")}, False, False, id="unknown type"),
    pytest.param({"store": component("secretstores.local.env", "good")}, False, False, id="name declared twice"),
    pytest.param({"other.yaml": "kind: ["}, True, False, id="known difference: broken YAML"),
    pytest.param({"store": component("state.in-memory", "x")}, True, True, id="no secret store"),
    pytest.param(
        {"store": component("secretstores.hashicorp.vault", "x", {"vaultToken": "t"})},
        True,
        False,
        id="known difference: a secret store that is not local",
    ),
    pytest.param({"store": with_secret_reference("x")}, True, False, id="known difference: secretKeyRef"),
    pytest.param(
        {"store": file_store("x", "{}/clash.json"), "clash.json": '{"a": {"b": "1"}, "a:b": "2"}'},
        True,
        False,
        id="known difference: keys that clash",
    ),
    pytest.param(
        {"store": file_store("x", "beside.json"), "beside.json": "{}"},
        False,
        True,
        id="known difference: file beside the component",
    ),
]


@pytest.mark.parametrize(("files", "daprd_starts", "embedded_starts"), RESOURCES)
def test_which_resources_start(
    tmp_path: Path, files: dict[str, Any], daprd_starts: bool, embedded_starts: bool
) -> None:
    good = file_store("good", write_secrets(tmp_path / "secrets.json", {"my-secret": "abcd"}))
    resources = tmp_path / "resources"
    write_resources(resources / "good.yaml", good)
    for name, content in files.items():
        if isinstance(content, str):
            (resources / name).write_text(content)
        else:
            store = write_resources(resources / "store.yaml", content)
            store.write_text(store.read_text().replace("{}", str(resources)))
    if daprd_starts:
        with Daprd(resources=resources) as daprd:
            daprd.wait_until_ready()
    else:
        # Its APIs may serve for a moment before the failure ends it.
        with closing(Daprd(resources=resources)) as daprd:
            daprd.launch().wait_for_output("level=fatal")
            assert daprd.process.wait() == 1
    with nullcontext() if embedded_starts else pytest.raises(LoadError, match=str(resources)):
        load_resources(resources, app_id=APP_ID, environ=ENVIRONMENT)
