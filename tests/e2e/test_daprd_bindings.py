"""Secret bindings through a real daprd: types, many at once, and errors in daprd's own words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import grpc
import pytest

from daprfunc.rpc.dapr_pb2 import GetSecretRequest
from tests.e2e import invocation
from tests.e2e.app import FunctionApp, dapr_run
from tests.e2e.daprd import Daprd, component, configuration, write_resources, write_secrets
from tests.e2e.invocation import JSON, Answer, Call
from tests.e2e.secret_requests import AWKWARD, Outcome, Request, over_http

pytestmark = pytest.mark.e2e

APPS = Path(__file__).parent / "apps"
REDIS = {"user": "u", "port": "6379", "ratio": "0.5", "tls": "true"}
REDIS_JSON = '{"port":"6379","ratio":"0.5","tls":"true","user":"u"}'
MANY = 20


class Started(TypedDict):
    """What Daprd is started with."""

    resources: Path
    config: Path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Started:
    directory = tmp_path_factory.mktemp("bindings")
    values = {f"key-{number}": f"value {number}" for number in range(MANY)}
    secrets = {"my-secret": "abcd", "awkward": AWKWARD, "redis": REDIS, **values}
    file = {"secretsFile": str(write_secrets(directory / "secrets.json", secrets)), "multiValued": "true"}
    resources = write_resources(
        directory / "resources" / "stores.yaml",
        component("secretstores.local.file", "multi", file),
        component("secretstores.local.file", "scoped", file),
    ).parent
    scope = {"storeName": "scoped", "defaultAccess": "allow", "deniedSecrets": ["my-secret"]}
    config = write_resources(directory / "config.yaml", configuration(secrets={"scopes": [scope]}))
    return {"resources": resources, "config": config}


@pytest.fixture(scope="module", params=["http", "grpc"])
def typed(request: pytest.FixtureRequest, stores: Started) -> Iterator[Daprd]:
    with dapr_run(APPS / "secrets", request.param, **stores) as (_, daprd):
        yield daprd


TYPES = [
    ("AsNothing", ["str", REDIS_JSON]),
    ("AsText", ["str", REDIS_JSON]),
    ("AsBytes", ["bytes", REDIS_JSON]),
    ("AsDict", ["dict", REDIS]),
    ("AsMapping", ["dict", REDIS]),
    ("AsTypedDict", ["dict", {"user": "u", "port": 6379}]),
    ("AsDataclass", ["Plain", {"user": "u", "port": 6379, "ratio": 0.5, "tls": True}]),
    ("AsStruct", ["Struct", {"user": "u", "port": 6379, "note": "none"}]),
    ("AsModel", ["Model", {"user": "u", "port": 6379}]),
    ("Awkward", AWKWARD),
]


@pytest.mark.parametrize(("method", "shown"), TYPES, ids=[method for method, _ in TYPES])
def test_types(typed: Daprd, method: str, shown: Any) -> None:
    answer = invocation.over_http(typed, Call(method))
    assert (answer.status, json.loads(answer.body)) == (200, shown)


def test_a_secret_that_does_not_fit_is_the_fault_of_the_app(typed: Daprd) -> None:
    answer = invocation.over_http(typed, Call("DoesNotFit"))
    assert answer.status == 500
    assert b"secret 'my-secret' of store 'multi' does not fit at `$`: " in answer.body
    assert b"abcd" not in answer.body


def write_v1_app(directory: Path, keys: dict[str, str]) -> Path:
    """A function that returns the secrets it is bound to, as a v1 app; `keys` is parameter -> key."""
    folder = directory / "Collect"
    folder.mkdir()
    trigger = {"type": "daprServiceInvocationTrigger", "name": "payload", "direction": "in"}
    secret = {"type": "daprSecret", "direction": "in", "secretStoreName": "multi"}
    bindings = [trigger, *(secret | {"name": name, "key": key} for name, key in keys.items())]
    (folder / "function.json").write_text(json.dumps({"scriptFile": "__init__.py", "bindings": bindings}))
    parameters = ", ".join(f"{name}: dict" for name in keys)
    merged = " | ".join(keys)
    (folder / "__init__.py").write_text(f"def main(payload, {parameters}):\n    return {merged}\n")
    return directory


@pytest.mark.parametrize("app_protocol", ["http", "grpc"])
def test_many_bindings_of_one_function(stores: Started, tmp_path: Path, app_protocol: str) -> None:
    keys = {f"secret_{number}": f"key-{number}" for number in range(MANY)}
    with dapr_run(write_v1_app(tmp_path, keys), app_protocol, **stores) as (_, daprd):
        answer = invocation.over_http(daprd, Call("Collect"))
        assert json.loads(answer.body) == {f"key-{number}": f"value {number}" for number in range(MANY)}
        assert daprd.metric("dapr_component_secret_count", operation="get", success="true") == MANY


@pytest.mark.parametrize(("arguments", "reads", "without"), [((), 2, 503), (("--secret-ttl", "600"), 1, 200)])
def test_a_ttl_outlasts_a_daprd(stores: Started, arguments: tuple[str, ...], reads: int, without: int) -> None:
    def ask(key: str) -> int:
        return app.http.post("/ReadKey", json={"store": "multi", "key": key}).status_code

    with dapr_run(APPS / "answers", "http", arguments=arguments, **stores) as (app, daprd):
        assert (ask("my-secret"), ask("my-secret")) == (200, 200)
        assert daprd.metric("dapr_component_secret_count", operation="get", success="true") == reads
        daprd.stop()
        assert (ask("my-secret"), ask("key-1")) == (without, 503)


@pytest.fixture(scope="module", params=["http", "grpc"])
def keyed(request: pytest.FixtureRequest, stores: Started) -> Iterator[tuple[str, FunctionApp, Daprd]]:
    with dapr_run(APPS / "answers", request.param, **stores) as (app, daprd):
        yield request.param, app, daprd


@pytest.mark.parametrize(
    ("store", "key"),
    [
        pytest.param("multi", "nothing", id="missing key"),
        pytest.param("nowhere", "my-secret", id="unknown store"),
        pytest.param("scoped", "my-secret", id="denied by a scope"),
    ],
)
def test_errors_are_those_of_daprd(keyed: tuple[str, FunctionApp, Daprd], store: str, key: str) -> None:
    app_protocol, app, daprd = keyed
    own = over_http(daprd.http)(Request(store, key, Outcome(0)))
    with pytest.raises(grpc.RpcError) as error:
        daprd.stub.GetSecret(GetSecretRequest(store_name=store, key=key), timeout=10)
    own_code, own_details = error.value.code(), error.value.details()
    assert own_details is not None
    assert own.message == own_details
    call = Call("ReadKey", json.dumps({"store": store, "key": key}).encode())

    direct = app.http.post("/ReadKey", content=call.body, headers={"content-type": JSON})
    assert (direct.status_code, direct.text) == (own.status, own.message)
    if app_protocol == "grpc":
        assert invocation.over_grpc(daprd, call) == Answer(own_code, own_details.encode())
    else:
        assert invocation.over_http(daprd, call) == Answer(own.status, own.message.encode())
