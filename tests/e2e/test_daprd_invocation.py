"""Service invocation through a real daprd: every app protocol, every kind of caller."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.e2e.app import dapr_run
from tests.e2e.daprd import Daprd, component, configuration, write_resources, write_secrets
from tests.e2e.invocation import (
    JSON,
    KEPT_CHARACTERS,
    OCTETS,
    Answer,
    Call,
    Caller,
    Failure,
    expected,
    over_grpc,
    over_grpc_proxying,
    over_http,
)
from tests.e2e.processes import wait_until

pytestmark = pytest.mark.e2e

STATUSES = Path(__file__).parents[2] / "docs" / "service-invocation.md"
APPS = Path(__file__).parent / "apps"
EXAMPLES = Path(__file__).parents[2] / "examples"
APP_PROTOCOLS = ("http", "grpc", "h2c")
CALLERS = (over_http, over_grpc)
MAX_CONCURRENCY = 8
LARGE = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Running:
    """The app of answers beside a daprd."""

    app_protocol: str
    daprd: Daprd


@pytest.fixture(scope="module", params=APP_PROTOCOLS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("invocation")
    store = {"secretsFile": str(write_secrets(directory / "secrets.json", {"my-secret": "abcd", "other": "o"}))}
    resources = write_resources(
        directory / "resources" / "stores.yaml",
        component("secretstores.local.file", "good", store),
        component("secretstores.local.file", "scoped", store),
    ).parent
    scope = {"storeName": "scoped", "defaultAccess": "deny", "allowedSecrets": ["my-secret"]}
    config = write_resources(directory / "config.yaml", configuration(secrets={"scopes": [scope]}))
    limits = ("--max-body-size", "2Mi", "--max-concurrency", str(MAX_CONCURRENCY))
    with dapr_run(APPS / "answers", request.param, arguments=limits, resources=resources, config=config) as (_, daprd):
        yield Running(request.param, daprd)


# What each call is answered with, whatever the caller and the app protocol.
ANSWERS = [
    (Call("EchoBytes", b"\x00\xff", OCTETS), b"\x00\xff", OCTETS),
    (Call("EchoBytes"), b"", OCTETS),
    (Call("EchoBytes", LARGE, OCTETS), LARGE, OCTETS),
    (Call("EchoText", b'"tea"'), b'"tea"', JSON),
    (Call("EchoText", b'{ "a" : [ 1 ] }'), rb'"{\"a\":[1]}"', JSON),
    (Call("EchoText", b"plain", "text/plain"), b'"plain"', JSON),
    (Call("EchoText", b'"%s"' % (b"t" * len(LARGE))), b'"%s"' % (b"t" * len(LARGE)), JSON),
    (Call("EchoJson", b'{"a": [1, 2.5, null]}'), rb'{"received":"{\"a\":[1,2.5,null]}"}', JSON),
    (Call("TakeOrder", b'{"id": 1}'), b'{"id":2,"item":"tea"}', JSON),
    (Call("takeorder", b'{"id": 1}'), b'{"id":2,"item":"tea"}', JSON),
    (Call("Nothing", b"{}"), b"", ""),
    (Call("orders/Nested"), b'"nested"', JSON),
    (Call("ReadSecret"), b'{"my-secret":"abcd"}', JSON),
]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("call", "body", "content_type"), ANSWERS, ids=[str(call) for call, *_ in ANSWERS])
def test_replies(running: Running, caller: Caller, call: Call, body: bytes, content_type: str) -> None:
    ok = 200 if caller is over_http else grpc.StatusCode.OK
    assert caller(running.daprd, call) == Answer(ok, body, content_type)


def read_key(store: str, key: str) -> Call:
    return Call("ReadKey", json.dumps({"store": store, "key": key}).encode())


FAILURES = [
    pytest.param(
        Call("Raises"),
        Failure(500, grpc.StatusCode.UNKNOWN, "Function invocation failed: ValueError: it broke"),
        id="the function raises",
    ),
    pytest.param(
        Call("TakeOrder", b'{"id": "one"}'),
        Failure(
            400,
            grpc.StatusCode.INVALID_ARGUMENT,
            "parameter 'payload' of function 'TakeOrder' takes function_app.Order; "
            "the payload does not fit at `$.id`: expected `int`, got `str`",
        ),
        id="the payload does not fit",
    ),
    pytest.param(
        read_key("good", "nothing"),
        Failure(
            500,
            grpc.StatusCode.INTERNAL,
            "failed getting secret with key nothing from secret store good: secret nothing not found",
        ),
        id="no such key",
    ),
    pytest.param(
        read_key("nowhere", "my-secret"),
        Failure(401, grpc.StatusCode.INVALID_ARGUMENT, "failed finding secret store with key nowhere"),
        id="no such store",
    ),
    pytest.param(
        read_key("scoped", "other"),
        Failure(403, grpc.StatusCode.PERMISSION_DENIED, 'access denied by policy to get "other" from "scoped"'),
        id="denied by a scope",
    ),
    pytest.param(
        Call("ReadElsewhere"),
        Failure(
            503,
            grpc.StatusCode.UNAVAILABLE,
            "cannot connect to 127.0.0.1:1: Connection refused; is the Dapr sidecar running, "
            "and is this its gRPC address (DAPR_GRPC_ENDPOINT or DAPR_GRPC_PORT)?",
        ),
        id="the sidecar is away",
    ),
    pytest.param(
        Call("Hangs"),
        Failure(504, grpc.StatusCode.DEADLINE_EXCEEDED, "function 'Hangs' took more than functionTimeout, 2 s"),
        id="the function hangs",
    ),
    pytest.param(
        Call("EchoBytes", bytes(3 * 2**20), OCTETS),
        Failure(
            413, grpc.StatusCode.RESOURCE_EXHAUSTED, "the body is larger than 2097152 bytes (--max-body-size)"
        ),
        id="the body is too large",
    ),
]  # fmt: skip


NO_ROUTE = Failure(404, grpc.StatusCode.NOT_FOUND, "no function has the route 'Nope'; there are: EchoBytes, ")
NOT_LOADED = Failure(500, grpc.StatusCode.INTERNAL, "function 'DoesNotLoad' did not load: ")
OTHER_VERB = Failure(405, grpc.StatusCode.UNIMPLEMENTED, "functions are invoked with POST")
OVERLOADED = Failure(
    503,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    f"{MAX_CONCURRENCY} invocations are in flight, which is the limit (--max-concurrency); try again later",
)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("call", "failure"), FAILURES)
def test_failures(running: Running, caller: Caller, call: Call, failure: Failure) -> None:
    assert caller(running.daprd, call) == expected(failure, running.app_protocol, caller)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(
    ("call", "failure"),
    [
        pytest.param(Call("Nope"), NO_ROUTE, id="no such route"),
        pytest.param(Call("DoesNotLoad"), NOT_LOADED, id="a function that did not load"),
        pytest.param(Call("Nothing", verb="PUT"), OTHER_VERB, id="another verb"),
    ],
)
def test_failures_with_longer_texts(running: Running, caller: Caller, call: Call, failure: Failure) -> None:
    answer = caller(running.daprd, call)
    assert answer.status == expected(failure, running.app_protocol, caller).status
    assert failure.message[:KEPT_CHARACTERS].encode() in answer.body


@pytest.mark.parametrize("caller", CALLERS)
def test_too_many_at_once(running: Running, caller: Caller) -> None:
    with ThreadPoolExecutor(MAX_CONCURRENCY + 4) as pool:
        answers = [f.result() for f in [pool.submit(caller, running.daprd, Call("Hangs")) for _ in range(12)]]
    assert answers.count(expected(OVERLOADED, running.app_protocol, caller)) == 4, answers


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("caller", CALLERS)
def test_trace_reaches_the_context(running: Running, caller: Caller) -> None:
    headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
    parent, state = json.loads(caller(running.daprd, Call("ShowTrace", headers=headers)).body)
    assert parent.split("-")[1] == PARENT.split("-")[1]
    # daprd takes a gRPC caller's state from grpc-trace-bin only, which has none.
    assert state == ("vendor=1" if caller is over_http else "")


def test_grpc_proxying(tmp_path: Path) -> None:
    with dapr_run(APPS / "answers", "grpc", resources=tmp_path) as (_, daprd):
        ok = Answer(grpc.StatusCode.OK, b'{"id":2,"item":"tea"}', JSON)
        assert over_grpc_proxying(daprd, Call("TakeOrder", b'{"id": 1}')) == ok
        refused = over_grpc_proxying(daprd, Call("Raises"))
        assert refused == Answer(grpc.StatusCode.UNKNOWN, b"Function invocation failed: ValueError: it broke")


@pytest.mark.parametrize("app_protocol", APP_PROTOCOLS)
@pytest.mark.parametrize("example", ["retrieve-secret-v1", "retrieve-secret-v2"])
def test_examples(example: str, app_protocol: str) -> None:
    directory = EXAMPLES / example
    with dapr_run(directory, app_protocol, resources=directory / "components", cwd=directory) as (app, daprd):
        call = Call("RetrieveSecret", b"{}")
        assert over_http(daprd, call) == Answer(200, b'["my-secret"]', JSON)
        assert over_grpc(daprd, call) == Answer(grpc.StatusCode.OK, b'["my-secret"]', JSON)
        wait_until(lambda: app.output.count("The store holds my-secret = abcd") == 2, "both calls in the log")


@pytest.mark.parametrize("app_protocol", ["http", "grpc"])
def test_one_app_calls_another(app_protocol: str, tmp_path: Path) -> None:
    with (
        dapr_run(APPS / "answers", app_protocol, resources=tmp_path, app_id="answers"),
        dapr_run(APPS / "relay", app_protocol, resources=tmp_path, app_id="relay") as (_, daprd),
    ):
        request = {"app_id": "answers", "method": "TakeOrder", "data": '{"id": 1}'}
        call = Call("Relay", json.dumps(request).encode())
        reply = {"content_type": JSON, "data": {"id": 2, "item": "tea"}}
        answer = wait_until(lambda: found_by_mdns(over_http(daprd, call)), "mDNS to find the other app")
        assert (answer.status, json.loads(answer.body)) == (200, reply)


def found_by_mdns(answer: Answer) -> Answer | None:
    return None if b"couldn't find service" in answer.body else answer


def test_statuses_are_documented() -> None:
    """The table in the docs is that of the tests above."""
    failures = [(str(case.id), each) for case in FAILURES for each in case.values if isinstance(each, Failure)]
    failures += [("too many at once", OVERLOADED), ("no such route", NO_ROUTE), ("another verb than POST", OTHER_VERB)]
    ways = [("http", over_http), ("grpc", over_grpc), ("grpc", over_http), ("http", over_grpc)]
    expected_rows = {
        name: [status_text(expected(failure, app_protocol, caller)) for app_protocol, caller in ways]
        for name, failure in failures
    }
    rows = re.findall(r"^\| ([a-z].+?) \| (\d+) \| (\w+) \| (\d+) \| (\w+) \|$", STATUSES.read_text(), re.MULTILINE)
    assert {name: statuses for name, *statuses in rows} == expected_rows


def status_text(answer: Answer) -> str:
    return answer.status.name if isinstance(answer.status, grpc.StatusCode) else str(answer.status)
