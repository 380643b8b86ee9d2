from __future__ import annotations

from typing import Any

import pytest

from daprfunc.bindings import BindingError, Declaration
from daprfunc.bindings.service_invocation import ServiceInvocationTrigger
from daprfunc.errors import CallerError
from daprfunc.payload import Payload
from tests.functions import Store, function, trigger

SETTINGS = {"METHOD": "the-method", "SLASH": "/", "EMPTY": ""}


def Retrieve(payload):  # type: ignore[no-untyped-def]
    pass


def compile_trigger(call: Any = Retrieve, **properties: Any) -> ServiceInvocationTrigger:
    binding = trigger(**properties)
    return ServiceInvocationTrigger(Declaration(binding, function(call, binding), SETTINGS, Store()))


@pytest.mark.parametrize(
    ("method", "route"),
    [
        (None, "Retrieve"),
        ("", "Retrieve"),
        ("Orders", "Orders"),
        ("/v1/orders/", "v1/orders"),
        ("%METHOD%", "the-method"),
        ("v1/%METHOD%", "v1/the-method"),
    ],
)
def test_its_route_is_the_method_or_else_the_functions_name(method: str | None, route: str) -> None:
    assert compile_trigger(methodName=method).route == route


@pytest.mark.parametrize(
    ("method", "finding"),
    [
        (7, "'methodName' that is int; write it as text"),
        ("%MISSING%", "MISSING"),
        ("/", "methodName '/' leaves no route"),
        ("%SLASH%", "methodName '%SLASH%' leaves no route"),
        ("%EMPTY%", "methodName '%EMPTY%' leaves no route"),
    ],
)
def test_what_cannot_be_a_route_is_said_at_load(method: object, finding: str) -> None:
    with pytest.raises(BindingError) as raised:
        compile_trigger(methodName=method)
    assert finding in str(raised.value)


def test_reads_the_payload_as_the_parameters_type() -> None:
    def typed(payload: int) -> None: ...

    read = compile_trigger(typed).read
    assert read(Payload(b"7")) == 7
    with pytest.raises(CallerError, match="parameter 'payload' of function 'typed'"):
        read(Payload(b'"seven"'))


def test_a_type_that_no_payload_becomes_is_said_at_load() -> None:
    def typed(payload: type) -> None: ...

    with pytest.raises(BindingError, match="type"):
        compile_trigger(typed)
