from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest

from daprfunc.bindings import BindingError, Declaration
from daprfunc.bindings.secret import SecretInput
from daprfunc.dispatch import Dispatcher
from daprfunc.endpoint import Endpoint
from daprfunc.errors import NOT_FOUND, AppError, CallerError, InvocationError, SidecarError
from daprfunc.model import Binding
from daprfunc.payload import Payload
from daprfunc.sidecar.client import SecretRead
from tests.functions import Store, compiled, function, invocation, secret

SETTINGS = {"STORE": "the-store", "KEY": "the-key", "HOST": "10.0.0.7", "EMPTY": "", "EXPRESSION": "{payload.key}"}


def any_function(payload, secret):  # type: ignore[no-untyped-def]
    return secret


def compile_secret(binding: Binding, store: Store | None = None) -> SecretInput:
    return SecretInput(Declaration(binding, function(any_function, binding), SETTINGS, store or Store()))


@pytest.mark.parametrize(
    ("properties", "body", "read"),
    [
        ({}, b"", SecretRead("store", "key")),
        ({"secretStoreName": "%STORE%", "key": "a-%KEY%-z"}, b"", SecretRead("the-store", "a-the-key-z")),
        ({"key": "{payload}"}, b'"whole"', SecretRead("store", "whole")),
        ({"key": "{payload}"}, b"plain", SecretRead("store", "plain")),
        ({"key": "x/{payload.a.b}/{payload.n}"}, b'{"a": {"b": "c"}, "n": 1}', SecretRead("store", "x/c/1")),
        ({"key": "%EXPRESSION%"}, b'{"key": "k"}', SecretRead("store", "k")),
        ({"secretStoreName": "{payload.store}"}, b'{"store": "s"}', SecretRead("s", "key")),
        ({"key": "{sys.methodname}"}, b"", SecretRead("store", "any_function")),
        ({"metadata": "metadata.namespace=default"}, b"", SecretRead("store", "key", (("namespace", "default"),))),
        (
            {"metadata": "namespace=%STORE%&metadata.version_id={payload.version}"},
            b'{"version": "1&namespace=other"}',
            SecretRead("store", "key", (("namespace", "the-store"), ("version_id", "1&namespace=other"))),
        ),
    ],
)
async def test_asks_for_what_was_declared(properties: dict[str, str], body: bytes, read: SecretRead) -> None:
    store = Store()
    fetch = compile_secret(secret(**properties), store).start(Payload(body))
    assert store.asked == [read]
    assert store.reads[0][0] is None
    await fetch.future


@pytest.mark.parametrize(
    ("properties", "store"),
    [
        ({}, "store"),
        ({"secretStoreName": "%STORE%"}, "the-store"),
        ({"secretStoreName": "{payload.store}"}, None),
        ({"secretStoreName": "%EXPRESSION%"}, None),
        ({"daprAddress": "%HOST%:50001"}, None),
    ],
)
def test_names_the_store_that_it_cannot_do_without(properties: dict[str, str], store: str | None) -> None:
    assert compile_secret(secret(**properties)).secret_store == store


@pytest.mark.parametrize(
    ("address", "body", "endpoint"),
    [
        (None, b"", None),
        ("%EMPTY%", b"", None),
        ("localhost:50002", b"", Endpoint("localhost", 50002)),
        ("https://%HOST%:443", b"", Endpoint("10.0.0.7", 443, tls=True)),
        ("unix:/run/{payload.name}.sock", b'{"name": "dapr"}', Endpoint(path="/run/dapr.sock")),
        ("{payload}", b"10.0.0.8:1", Endpoint("10.0.0.8", 1)),
    ],
)
async def test_asks_the_sidecar_at_its_address(address: str | None, body: bytes, endpoint: Endpoint | None) -> None:
    store = Store()
    await compile_secret(secret(daprAddress=address), store).start(Payload(body)).future
    assert store.reads[0][0] == endpoint


@pytest.mark.parametrize(
    ("properties", "finding"),
    [
        ({"secretStoreName": None}, "daprSecret has no 'secretStoreName'; set it"),
        ({"key": None}, "daprSecret has no 'key'; set it"),
        ({"key": ""}, "daprSecret has no 'key'; set it"),
        ({"key": "%EMPTY%"}, "daprSecret has an empty 'key'; set it"),
        ({"secretStoreName": "%EMPTY%"}, "daprSecret has an empty 'secretStoreName'; set it"),
        ({"key": 7}, "daprSecret has a 'key' that is int; write it as text"),
        ({"metadata": ["a=b"]}, "daprSecret has a 'metadata' that is list; write it as text"),
        ({"key": "%MISSING%"}, "MISSING"),
        ({"key": "{other.path}"}, "other"),
        ({"key": "{payload.x"}, "{"),
        ({"metadata": "nonsense"}, "nonsense"),
        ({"daprAddress": "http://localhost:3500"}, "'http://localhost:3500' is an HTTP address; secrets are read"),
        ({"daprAddress": "HTTP://localhost"}, "is an HTTP address"),
        ({"daprAddress": "ftp://localhost"}, "the scheme 'ftp', which is not supported"),
        ({"daprAddress": "localhost:port"}, "has a port that is no number"),
        ({"daprAddress": "%MISSING%"}, "MISSING"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_said_at_load(properties: dict[str, Any], finding: str) -> None:
    with pytest.raises(BindingError) as raised:
        compile_secret(secret(**properties))
    assert finding in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("address", ["http://user:passw0rd@host", "https://user:passw0rd@host"])
def test_no_finding_shows_an_addresss_password(address: str) -> None:
    with pytest.raises(BindingError) as raised:
        compile_secret(secret(daprAddress=address))
    assert "passw0rd" not in str(raised.value)


WHERE = "function 'any_function', parameter 'secret': "


@pytest.mark.parametrize(
    ("properties", "body", "finding"),
    [
        ({"key": "{payload}"}, b'""', "its key is empty for this payload"),
        ({"secretStoreName": "{payload.s}"}, b'{"s": ""}', "its secretStoreName is empty for this payload"),
        ({"key": "{payload.missing}"}, b"{}", "missing"),
        ({"metadata": "a={payload.missing}"}, b"{}", "missing"),
        ({"key": "{payload.x}"}, b"[", "JSON"),
        ({"daprAddress": "{payload}"}, b"http://localhost:3500", "is an HTTP address"),
        ({"daprAddress": "{payload}"}, b"host:port", "has a port that is no number"),
        ({"daprAddress": "{payload}"}, b"a b", "has white space"),
    ],
)
def test_a_payload_that_will_not_do_is_the_callers_fault(properties: dict[str, str], body: bytes, finding: str) -> None:
    store = Store()
    with pytest.raises(CallerError) as raised:
        compile_secret(secret(**properties), store).start(Payload(body))
    assert str(raised.value).startswith(WHERE)
    assert finding in str(raised.value)
    assert raised.value.status.http == 400
    assert not store.reads


def test_describes_itself_as_it_was_declared() -> None:
    binding = secret(secretStoreName="%STORE%", key="{payload.key}-%KEY%")
    assert compile_secret(binding).describe() == "%STORE%/{payload.key}-%KEY%"


async def test_a_constant_request_is_made_once() -> None:
    store = Store()
    source = compile_secret(secret(key="%KEY%"), store)
    for body in (b"1", b"2"):
        await source.start(Payload(body)).future
    assert store.asked[0] is store.asked[1]


# From the declaration to the function's parameter.


@dataclass
class Database:
    user: str
    port: int


class Record(TypedDict):
    user: str


class Struct(msgspec.Struct):
    user: str


VALUES = {"user": "admin", "port": "5432"}


async def invoke(dispatcher: Dispatcher, method: str, body: bytes = b"") -> Any:
    return msgspec.json.decode((await dispatcher.invoke(invocation(method, body))).body)


def untyped(payload, secret):  # type: ignore[no-untyped-def]
    return [type(secret).__name__, secret]


def text(payload: str, secret: str) -> object:
    return [type(secret).__name__, secret]


def octets(payload: str, secret: bytes) -> object:
    return [type(secret).__name__, secret.decode()]


def plain_map(payload: str, secret: dict[str, str]) -> object:
    return [type(secret).__name__, secret]


def mapping(payload: str, secret: Mapping[str, str]) -> object:
    return [type(secret).__name__, dict(secret)]


def record(payload: str, secret: Record) -> object:
    return [type(secret).__name__, secret["user"]]


def dataclass_(payload: str, secret: Database) -> object:
    return [type(secret).__name__, secret.user, secret.port]


def struct(payload: str, secret: Struct) -> object:
    return [type(secret).__name__, secret.user]


JSON_TEXT = '{"port":"5432","user":"admin"}'


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (untyped, ["str", JSON_TEXT]),
        (text, ["str", JSON_TEXT]),
        (octets, ["bytes", JSON_TEXT]),
        (plain_map, ["dict", VALUES]),
        (mapping, ["dict", VALUES]),
        (record, ["dict", "admin"]),
        (dataclass_, ["Database", "admin", 5432]),
        (struct, ["Struct", "admin"]),
    ],
)
async def test_a_parameter_gets_its_type(call: Any, result: object) -> None:
    with compiled(function(call, secret()), store=Store({"key": VALUES})) as dispatcher:
        assert await invoke(dispatcher, call.__name__) == result


def changes_its_secret(payload: str, secret: dict[str, str]) -> object:
    secret["user"] += "!"
    return secret["user"]


async def test_a_function_that_changes_its_secret_changes_nobody_elses() -> None:
    shared = dict(VALUES)
    with compiled(function(changes_its_secret, secret()), store=Store({"key": shared})) as dispatcher:
        for _ in range(2):
            assert await invoke(dispatcher, "changes_its_secret") == "admin!"


async def test_a_secret_that_does_not_fit_names_the_key_and_no_value() -> None:
    store = Store({"key": {"user": "s3cr3t-value"}})
    with compiled(function(dataclass_, secret()), store=store) as dispatcher, pytest.raises(AppError) as raised:
        await dispatcher.invoke(invocation("dataclass_"))
    assert raised.value.status.http == 500
    for part in ("'dataclass_'", "'secret'", "'key'", "port"):
        assert part in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_a_type_that_no_secret_becomes_is_said_at_load() -> None:
    def wrong(payload: str, secret: int) -> None: ...

    binding = secret()
    with pytest.raises(BindingError, match="int"):
        SecretInput(Declaration(binding, function(wrong, binding), {}, Store()))


# Several at once.


def three(payload: str, one: str, two: str, three: str) -> str:
    return one + two + three


THREE = tuple(secret(name, key=name) for name in ("one", "two", "three"))


async def test_all_inputs_are_begun_before_the_first_has_come() -> None:
    store = Store(held=True)
    with compiled(function(three, *THREE), store=store) as dispatcher:
        running = asyncio.ensure_future(invoke(dispatcher, "three"))
        while len(store.reads) < 3:
            await asyncio.sleep(0)
        assert [read.key for read in store.asked] == ["one", "two", "three"]
        for _, read, future in reversed(store.reads):
            assert not running.done()
            future.set_result({read.key: ""})
        assert await running == '{"one":""}{"two":""}{"three":""}'


FAILURE = SidecarError(NOT_FOUND, "no such secret")


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("also", [False, True])
async def test_the_first_failure_gives_up_the_others(index: int, also: bool) -> None:
    store = Store(held=True)
    with compiled(function(three, *THREE), store=store) as dispatcher:
        running = asyncio.ensure_future(dispatcher.invoke(invocation("three")))
        while len(store.reads) < 3:
            await asyncio.sleep(0)
        futures = [future for _, _, future in store.reads]
        for before in futures[:index]:
            before.set_result({})
        futures[index].set_exception(FAILURE)
        if also:
            for after in futures[index + 1 :]:
                after.set_exception(SidecarError(NOT_FOUND, "nor this one"))
        with pytest.raises(SidecarError, match="no such secret"):
            await running
        assert all(future.done() for future in futures)


async def test_an_input_that_cannot_begin_gives_up_those_that_have() -> None:
    store = Store(held=True)
    bindings = (secret("one", key="one"), secret("two", key="{payload.missing}"), secret("three"))
    with compiled(function(three, *bindings), store=store) as dispatcher, pytest.raises(CallerError, match="'two'"):
        await dispatcher.invoke(invocation("three", b"{}"))
    ((_, _, future),) = store.reads
    assert future.cancelled()


async def test_a_cancelled_invocation_gives_up_its_inputs() -> None:
    store = Store(held=True)
    with compiled(function(three, *THREE), store=store) as dispatcher:
        running = asyncio.ensure_future(dispatcher.invoke(invocation("three")))
        while len(store.reads) < 3:
            await asyncio.sleep(0)
        store.reads[1][2].set_exception(FAILURE)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert all(future.done() for _, _, future in store.reads)


async def test_the_function_is_not_called_without_its_secret() -> None:
    called = False

    def observed(payload: str, secret: str) -> None:
        nonlocal called
        called = True

    store = Store({"key": FAILURE})
    with compiled(function(observed, secret()), store=store) as dispatcher, pytest.raises(InvocationError):
        await dispatcher.invoke(invocation("observed"))
    assert not called
