from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daprfunc.errors import AppError, Problem
from daprfunc.model import Binding, BrokenFunction
from tests.functions import compiled, function, invocation, secret, trigger

SUPPORTED = "it supports the trigger daprServiceInvocationTrigger, and with direction in daprSecret"


def works(payload: str) -> str:
    return "works"


def takes_secret(payload: str, secret: str) -> str:
    return secret


async def refusal(dispatcher: Any, method: str) -> str:
    with pytest.raises(AppError) as raised:
        await dispatcher.invoke(invocation(method))
    assert (raised.value.status.name, raised.value.status.http) == ("INTERNAL", 500)
    return str(raised.value)


@pytest.mark.parametrize(
    ("binding", "finding"),
    [
        (Binding("daprState", "state", "in", {}), "'daprState' is a binding with direction in"),
        (Binding("daprPublish", "message", "out", {}), "'daprPublish' is a binding with direction out"),
        (Binding("http", "$return", "out", {}), "'http' is a binding with direction out"),
        (Binding("daprSecret", "secret", "out", {}), "'daprSecret' is a binding with direction out"),
        (Binding("daprSecret", "secret", "inout", {}), "'daprSecret' is a binding with direction inout"),
        (trigger(type="httpTrigger"), "'httpTrigger' is a trigger"),
        (trigger(type="daprTopicTrigger"), "'daprTopicTrigger' is a trigger"),
        (trigger(type="daprSecretTrigger"), "'daprSecretTrigger' is a trigger"),
    ],
)
async def test_an_unsupported_type_names_what_is_supported(binding: Binding, finding: str) -> None:
    with compiled(function(works, binding, name="broken"), works) as dispatcher:
        assert set(dispatcher.plans) == {"works"}
        (broken,) = dispatcher.broken
        (problem,) = broken.problems
        assert problem.message.startswith(finding)
        assert problem.message.endswith(SUPPORTED)
        assert (problem.function, problem.parameter, problem.file) == ("broken", binding.name, Path(__file__))
        assert finding in await refusal(dispatcher, "broken")
        assert (await dispatcher.invoke(invocation("works"))).body == b'"works"'


async def test_binding_types_ignore_case() -> None:
    bindings = (
        trigger(type="DAPRSERVICEINVOCATIONTRIGGER"),
        Binding("DaprSecret", "secret", "in", secret().properties),
    )
    with compiled(function(takes_secret, *bindings)) as dispatcher:
        assert b"value of key" in (await dispatcher.invoke(invocation("takes_secret"))).body


async def test_all_of_a_functions_problems_are_told() -> None:
    bindings = (secret("secret", key=None), Binding("nonsense", "other", "in", {}), trigger(methodName="%MISSING%"))
    with compiled(function(takes_secret, *bindings)) as dispatcher:
        (broken,) = dispatcher.broken
        assert [problem.parameter for problem in broken.problems] == ["secret", "other", "payload"]
        text = await refusal(dispatcher, "takes_secret")
    for part in ("function 'takes_secret' did not load: ", "has no 'key'", "'nonsense'", "MISSING"):
        assert part in text


async def test_functions_that_share_a_route_break_each_other() -> None:
    routes = {"A": "orders", "B": "Orders"}
    same = [function(works, trigger(methodName=route), name=name) for name, route in routes.items()]
    with compiled(*same, function(works, name="ORDERS"), works) as dispatcher:
        assert set(dispatcher.plans) == {"works"}
        assert [broken.name for broken in dispatcher.broken] == ["A", "B", "ORDERS"]
        text = await refusal(dispatcher, "Orders")
    assert "its route 'orders' is also that of 'B', 'ORDERS' (case is ignored); give each its own methodName" in text
    assert "its route 'Orders' is also that of 'A', 'ORDERS'" in text
    assert "its route 'ORDERS' is also that of 'A', 'B'" in text


async def test_routes_may_be_settings() -> None:
    with compiled(
        function(works, trigger(methodName="v1/%METHOD%"), name="f"), app_settings={"METHOD": "Orders"}
    ) as dispatcher:
        assert (await dispatcher.invoke(invocation("v1/orders"))).body == b'"works"'


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        (None, "Broken"),
        ("/v1/Orders/", "V1/orders"),
        ("%METHOD%", "the-method"),
        ("%MISSING%", "broken"),
        ("%SLASH%", "broken"),
        (7, "broken"),
    ],
)
@pytest.mark.parametrize("when", ["loading", "compiling"])
async def test_a_broken_functions_route_answers_with_the_reason(method: object, asked: str, when: str) -> None:
    bindings = (trigger(methodName=method), Binding("nonsense", "other", "in", {}))
    broken: Any = function(works, *bindings, name="Broken")
    if when == "loading":
        broken = BrokenFunction("Broken", (Problem("no such parameter 'nonsense'", Path("f.py"), "Broken"),), bindings)
    with compiled(broken, works, app_settings={"METHOD": "The-Method", "SLASH": "/"}) as dispatcher:
        text = await refusal(dispatcher, asked)
        assert text.startswith("function 'Broken' did not load: ")
        assert "nonsense" in text
        assert (await dispatcher.invoke(invocation("works"))).body == b'"works"'


async def test_a_function_without_bindings_is_found_by_its_name() -> None:
    with compiled(BrokenFunction("Lost", (Problem("it is lost", None, "Lost"),)), works) as dispatcher:
        assert await refusal(dispatcher, "lost") == "function 'Lost' did not load: function 'Lost': it is lost"


async def test_an_app_of_broken_functions_compiles() -> None:
    with compiled(BrokenFunction("Lost", (Problem("it is lost"),))) as dispatcher:
        assert not dispatcher.plans
        assert len(dispatcher.broken) == 1


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("metdata", "did you mean metadata?"),
        ("storeName", "did you mean secretStoreName?"),
        ("colour", "it has secretStoreName, key, metadata, daprAddress"),
    ],
)
async def test_a_property_that_means_nothing_is_told(name: str, advice: str) -> None:
    def reads(payload: str, secret: str) -> None: ...

    with compiled(function(reads, trigger(), secret("secret", **{name: "x"}))) as dispatcher:
        (warning,) = dispatcher.warnings
    place = f"{__file__}: function 'reads', parameter 'secret'"
    assert warning == f"{place}: '{name.lower()}' is no property of daprSecret and has no effect; {advice}"


async def test_a_misspelt_method_name_is_told() -> None:
    def reads(payload: str) -> None: ...

    with compiled(function(reads, trigger(method="Get", dataType="string"))) as dispatcher:
        (warning,) = dispatcher.warnings
    assert "'method' is no property of daprServiceInvocationTrigger" in warning
    assert warning.endswith("did you mean methodName?")
