"""One table of function signatures and results, and what each comes to under azure-functions-runtime and here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "retrieve-secret-v2" / "function_app.py"
HEAD = """
import asyncio
import datetime
import decimal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import azure.functions as func

app = func.FunctionApp()


@dataclass
class Order:
    id: int


def show(value):
    return f"{type(value).__name__} {value}"


"""
TRIGGER = """@app.function_name("F")
@app.dapr_service_invocation_trigger("payload", method_name="F")
"""
SECRET = '@app.dapr_secret_input("secret", "store", "my-secret", metadata="")\n'
SECRET_JSON = '{"my-secret":"abcd"}'
REFUSED = "does not load"
FAILS = "fails"


@dataclass(frozen=True)
class Case:
    """A v2 app, and what an invocation of it comes to.

    Attributes:
        name: how the table calls it; unique.
        source: the app's ``function_app.py``.
        azure: the outcome under azure-functions-runtime: ``does not load``, ``fails``, ``ends the worker``,
            ``nothing``, ``text: ...``, ``json: ...`` or ``bytes: ...`` (in hex), as the caller sees it.
        ours: the same under daprfunc.
        payload: what the caller sends; None is no body.
        function: the function that is invoked.
    """

    name: str
    source: str
    azure: str
    ours: str
    payload: str | None
    function: str = "F"

    def __str__(self) -> str:
        return self.name


def takes(parameters: str, azure: str, ours: str | None = None, *, payload: str | None = '{"id":1}') -> Case:
    """A function of these parameters that shows its first one; `ours` is as `azure` unless given."""
    first = parameters.lstrip("*, ").partition(":")[0].partition(",")[0].partition("=")[0]
    name = f"f({parameters})" + ("" if payload == '{"id":1}' else f" given {payload or 'no body'}")
    return Case(name, f"{HEAD}{TRIGGER}def f({parameters}):\n    return show({first})\n", azure, ours or azure, payload)


def takes_secret(annotation: str, azure: str, ours: str | None = None) -> Case:
    parameter = f"secret: {annotation}" if annotation else "secret"
    source = f"{HEAD}{TRIGGER}{SECRET}def f(payload, {parameter}):\n    return show(secret)\n"
    return Case(f"daprSecret as {parameter}", source, azure, ours or azure, None)


def returns(result: str, azure: str, ours: str | None = None, *, annotation: str = "", keyword: str = "def") -> Case:
    arrow = f" -> {annotation}" if annotation else ""
    source = f"{HEAD}{TRIGGER}{keyword} f(payload){arrow}:\n    return {result}\n"
    name = f"{keyword} f(payload){arrow}: return {result}".replace("def f(payload): ", "")
    return Case(name, source, azure, ours or azure, None)


def written(name: str, body: str, azure: str, ours: str | None = None) -> Case:
    return Case(name, HEAD + body, azure, ours or azure, None)


GOOD = f"{TRIGGER}def f(payload):\n    return 'good'\n"

CASES = (
    # What a trigger's parameter can be.
    takes("payload", 'text: str {"id":1}'),
    takes("payload", "text: NoneType None", payload=None),
    takes("payload", "text: str tea", payload="tea"),
    takes("payload: str", 'text: str {"id":1}'),
    takes("payload: bytes", 'text: str {"id":1}', """text: bytes b'{"id":1}'"""),
    takes("payload: dict", REFUSED, "text: dict {'id': 1}"),
    takes("payload: dict[str, int]", REFUSED, "text: dict {'id': 1}"),
    takes("payload: Dict[str, int]", REFUSED, "text: dict {'id': 1}"),
    takes("payload: list", REFUSED, "text: list [1]", payload="[1]"),
    takes("payload: int", REFUSED, "text: int 1", payload="1"),
    takes("payload: Any", REFUSED, 'text: str {"id":1}'),
    takes("payload: object", REFUSED, 'text: str {"id":1}'),
    takes("payload: Optional[str]", REFUSED, 'text: str {"id":1}'),
    takes("payload: Order", REFUSED, "text: Order Order(id=1)"),
    takes("payload: datetime.date", REFUSED, "text: date 2026-01-02", payload='"2026-01-02"'),
    takes("payload: func.HttpRequest", REFUSED),
    takes("payload: func.Out[str]", REFUSED),
    takes("payload: 1", REFUSED),
    takes("payload: NotDefined", REFUSED),
    takes("*, payload", 'text: str {"id":1}'),
    takes("payload, /", FAILS, REFUSED),
    takes("payload=None", 'text: str {"id":1}'),
    takes("payload, *more", REFUSED),
    takes("payload, **more", REFUSED),
    takes("payload, more", REFUSED),
    takes("payload, more=1", REFUSED, 'text: str {"id":1}'),
    takes("", REFUSED),
    takes("payload, context", 'text: str {"id":1}'),
    takes("payload, context: func.Context", 'text: str {"id":1}'),
    takes("payload, context: str", REFUSED),
    takes("payload, other: func.Context", REFUSED, 'text: str {"id":1}'),
    # What a secret's parameter can be.
    takes_secret("", f"text: str {SECRET_JSON}"),
    takes_secret("str", f"text: str {SECRET_JSON}"),
    takes_secret("bytes", f"text: str {SECRET_JSON}", f"text: bytes b'{SECRET_JSON}'"),
    takes_secret("dict", REFUSED, "text: dict {'my-secret': 'abcd'}"),
    takes_secret("dict[str, str]", REFUSED, "text: dict {'my-secret': 'abcd'}"),
    takes_secret("Mapping[str, str]", REFUSED, "text: dict {'my-secret': 'abcd'}"),
    takes_secret("Any", REFUSED, f"text: str {SECRET_JSON}"),
    takes_secret("list", REFUSED),
    takes_secret("int", REFUSED),
    # What a result becomes.
    returns("None", "nothing"),
    returns("'tea'", "text: tea"),
    returns("''", "text: "),
    returns("b'\\x00\\xff'", "bytes: 00ff"),
    returns("bytearray(b'\\x01')", "bytes: 01"),
    returns("memoryview(b'\\x01')", FAILS, "bytes: 01"),
    returns("b''", "bytes: "),
    returns("{'a': [1, None]}", 'json: {"a":[1,null]}'),
    returns("{1: 2}", 'json: {"1":2}'),
    returns("{}", "json: {}"),
    returns("[1, 'é']", 'json: [1,"é"]'),
    returns("1", "json: 1"),
    returns("0", "json: 0"),
    returns("2**63", FAILS, "json: 9223372036854775808"),
    returns("1.5", "json: 1.5"),
    returns("True", "json: 1", "json: true"),
    returns("(1, 2)", FAILS, "json: [1,2]"),
    returns("{1}", FAILS, "json: [1]"),
    returns("Order(1)", FAILS, 'json: {"id":1}'),
    returns("[Order(1)]", FAILS, 'json: [{"id":1}]'),
    returns("datetime.date(2026, 1, 2)", FAILS, "text: 2026-01-02"),
    returns("[decimal.Decimal('1.5')]", FAILS, 'json: ["1.5"]'),
    returns("object()", FAILS),
    returns("func.HttpResponse('tea')", FAILS),
    returns("{'a': object()}", FAILS),
    returns("1", "json: 1", annotation="str"),
    returns("{}", "json: {}", annotation="dict[str, int]"),
    returns("1", REFUSED, annotation="NotDefined"),
    returns("'tea'", "text: tea", keyword="async def"),
    returns("1 / 0", FAILS),
    returns("asyncio.run(asyncio.sleep(0, 'tea'))", "text: tea"),
    returns("sys.exit('enough')", "ends the worker", FAILS),
    # What an app can be.
    Case("the v2 example", EXAMPLE.read_text(), 'json: ["my-secret"]', 'json: ["my-secret"]', "{}", "RetrieveSecret"),
    written("one FunctionApp", GOOD, "text: good"),
    written("no FunctionApp", "del app\n", REFUSED),
    written("no functions", "", REFUSED),
    written("two FunctionApps", f"{GOOD}other = func.FunctionApp()\n", REFUSED),
    written("one FunctionApp under two names", f"{GOOD}same = app\n", REFUSED, "text: good"),
    written(
        "a Blueprint beside the FunctionApp",
        f"blueprint = func.Blueprint()\n{GOOD.replace('@app', '@blueprint')}app.register_functions(blueprint)\n",
        "text: good",
    ),
    written(
        "another function that does not load",
        f'{GOOD}\n\n@app.function_name("G")\n@app.dapr_service_invocation_trigger("payload", method_name="G")\n'
        "def g(payload, more):\n    pass\n",
        REFUSED,
        "text: good",
    ),
    written("a trigger for a parameter that is not there", TRIGGER + "def f(data):\n    return 1\n", REFUSED),
    written("two triggers", TRIGGER.replace("payload", "other").partition("\n")[2] + GOOD, REFUSED),
    written("two functions of one name", f"{GOOD}{GOOD}", REFUSED),
    written("a module that is not there", "import not_there\n" + GOOD, REFUSED),
    written("an import that raises", "1 / 0\n", REFUSED),
    written("a return binding", f'@app.generic_output_binding("$return", type="x")\n{GOOD}', "text: good", REFUSED),
)
