from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func
import pytest

from daprfunc.errors import Problem
from daprfunc.loading.candidate import Candidate, Code
from daprfunc.loading.functionjson import parse
from daprfunc.loading.signature import Signature, _parameters, judge

DECLARED, SCRIPT = Path("Greet/function.json"), Path("Greet/main.py")
TRIGGER = {"type": "daprServiceInvocationTrigger", "direction": "in", "name": "payload"}
SECRET = {"type": "daprSecret", "direction": "in", "name": "secret"}
STATE = {"type": "daprState", "direction": "out", "name": "state"}
RETURN = {"type": "http", "direction": "out", "name": "$return"}


def judged(call: Callable[..., Any], *bindings: object) -> Signature:
    declaration = parse({"bindings": list(bindings)}, file=DECLARED, function="Greet")
    code = Code(call, SCRIPT)
    return judge(Candidate("Greet", DECLARED.parent, DECLARED, declaration, lambda: code), code)


def defined(source: str) -> Callable[..., Any]:
    """The function main() of `source`; future annotations are off unless `source` turns them on."""
    module = ModuleType("user_code")
    vars(module).update(typing=typing, func=func, functools=functools)
    exec(compile(source, "main.py", "exec", dont_inherit=True), vars(module))
    main: Callable[..., Any] = vars(module)["main"]
    return main


@pytest.mark.parametrize("bindings", [(TRIGGER, SECRET), (TRIGGER, SECRET, RETURN)])
@pytest.mark.parametrize(
    "source",
    [
        "def main(payload, secret): ...",
        "def main(*, secret, payload): ...",
        "def main(payload, secret, spare=5): ...",
        "def main(payload, secret, context): ...",
        "def main(payload, secret, context: func.Context): ...",
        "def main(payload, secret, context: 'func.Context' = None): ...",
        "def main(payload: typing.Any, secret: typing.Mapping[str, str]) -> 'not resolved': ...",
        "def main(payload: typing.Optional['int'], secret: 'list[str] | None'): ...",
        "def main(payload: None, secret: typing.Literal['a']): ...",
        "def main(payload: typing.NewType('Id', int), secret: typing.TypeVar('T')): ...",
        "class Main:\n    def __call__(self, payload, secret): ...\nmain = Main()",
        "class Main:\n    def run(self, payload, secret): ...\nmain = Main().run",
    ],
)
def test_what_fits(source: str, bindings: tuple[object, ...]) -> None:
    signature = judged(defined(source), *bindings)
    assert signature.problems == ()
    assert signature.warnings == ()


@pytest.mark.parametrize(
    ("source", "bindings", "file", "parameter", "message"),
    [
        (
            "def main(payload, secret): ...",
            (TRIGGER,),
            DECLARED,
            "secret",
            "is a parameter of main() but no binding names it; declare a binding or remove it",
        ),
        (
            "def main(payload): ...",
            (TRIGGER, SECRET),
            DECLARED,
            "secret",
            "declared as a binding but main() has no such parameter; add it to the function or remove the binding",
        ),
        (
            "def main(payload, state): ...",
            (TRIGGER, STATE),
            SCRIPT,
            "state",
            "its binding is 'out' but it has no annotation; annotate it func.Out[...]",
        ),
        (
            "def main(payload, state: str): ...",
            (TRIGGER, STATE),
            SCRIPT,
            "state",
            "its binding is 'out' but it is annotated str; annotate it func.Out[...]",
        ),
        (
            "def main(payload: func.Out[str]): ...",
            (TRIGGER,),
            SCRIPT,
            "payload",
            "is annotated func.Out but its binding is 'in'; mend the direction or the annotation",
        ),
        (
            "def main(payload: 'func.Context'): ...",
            (TRIGGER,),
            SCRIPT,
            "payload",
            "is annotated func.Context but a binding fills it; remove the binding or the annotation",
        ),
        (
            "def main(payload: 5): ...",
            (TRIGGER,),
            SCRIPT,
            "payload",
            "is annotated with a value (int) instead of a type; write a type",
        ),
        (
            "def main(payload: 'Missing'): ...",
            (TRIGGER,),
            SCRIPT,
            "payload",
            "its annotation 'Missing' cannot be resolved: NameError: name 'Missing' is not defined; import the type",
        ),
        (
            "def main(payload: typing.List['Missing']): ...",
            (TRIGGER,),
            SCRIPT,
            "payload",
            "cannot be resolved: NameError: name 'Missing' is not defined",
        ),
        (
            "def main(payload: 'not a type'): ...",
            (TRIGGER,),
            SCRIPT,
            "payload",
            "its annotation 'not a type' cannot be resolved: SyntaxError",
        ),
        (
            "def main(payload, context: str): ...",
            (TRIGGER,),
            SCRIPT,
            "context",
            "receives the invocation's context, so annotate it func.Context, not str",
        ),
        (
            "from __future__ import annotations\ndef main(payload, context: str): ...",
            (TRIGGER,),
            SCRIPT,
            "context",
            "so annotate it func.Context, not str",
        ),
        (
            "def main(payload, ctx: func.Context, context): ...",
            (TRIGGER,),
            SCRIPT,
            "context",
            "would receive the context like 'ctx'; keep one of them",
        ),
        (
            "def main(): ...",
            (),
            DECLARED,
            None,
            "no trigger is declared; declare one, such as daprServiceInvocationTrigger, with a parameter for it",
        ),
        (
            "def main(payload, secret, other): ...",
            (SECRET,),
            DECLARED,
            None,
            "such as daprServiceInvocationTrigger, for one of its parameters 'payload', 'other'",
        ),
        (
            "def main(payload, *args): ...",
            (TRIGGER,),
            SCRIPT,
            "args",
            "main() takes *args, but parameters are passed by",
        ),
        ("def main(**everything): ...", (TRIGGER,), SCRIPT, "everything", "takes **everything, but parameters are"),
        (
            "def main(payload, /): ...",
            (TRIGGER,),
            SCRIPT,
            "payload",
            "is positional-only, but parameters are passed by",
        ),
        ("def main(payload): yield", (TRIGGER,), SCRIPT, None, "main() is a generator; return one value"),
        ("async def main(payload): yield", (TRIGGER,), SCRIPT, None, "main() is a generator; return one value"),
        ("main = iter", (TRIGGER,), SCRIPT, None, "the parameters of iter cannot be read"),
    ],
)
def test_what_does_not_fit(
    source: str, bindings: tuple[object, ...], file: Path, parameter: str | None, message: str
) -> None:
    (problem,) = judged(defined(source), *bindings).problems
    assert (problem.file, problem.function, problem.parameter) == (file, "Greet", parameter)
    assert message in problem.message


def test_all_misfits_are_told_at_once() -> None:
    source = "def main(payload: 5, context: str, state, extra, other: 'Missing'): yield"
    problems = judged(defined(source), TRIGGER, SECRET, STATE).problems
    assert [problem.parameter for problem in problems] == [
        "extra", "other", "secret", None, "other", "payload", "context", "state",
    ]  # fmt: skip


def test_a_problem_reads_as_one_line_with_its_place() -> None:
    (problem,) = judged(defined("def main(payload): ..."), TRIGGER, SECRET).problems
    assert str(problem) == (
        f"{DECLARED}: function 'Greet', parameter 'secret': declared as a binding but main() has no such parameter;"
        " add it to the function or remove the binding"
    )


def test_a_binding_that_cannot_be_read_causes_no_second_problem() -> None:
    signature = judged(defined("def main(payload, secret): ..."), {"name": "payload"}, SECRET)
    assert signature.problems == ()
    assert [binding.name for binding in signature.bindings] == ["secret"]


@pytest.mark.parametrize(
    "source", ["def main(payload, secret): ...", "def main(secret, payload, context, spare=1): ..."]
)
def test_the_one_parameter_that_nothing_names_is_the_trigger_with_a_warning(source: str) -> None:
    signature = judged(defined(source), SECRET)
    assert signature.problems == ()
    trigger, secret = signature.bindings
    assert (trigger.type, trigger.name, trigger.direction, trigger.properties) == (
        "daprServiceInvocationTrigger", "payload", "in", {},
    )  # fmt: skip
    assert secret.name == "secret"
    assert signature.warnings == (
        str(
            Problem(
                "no trigger is declared, so this parameter, which no binding names, is taken for a"
                " daprServiceInvocationTrigger's",
                DECLARED,
                "Greet",
                "payload",
            )
        ),
    )


@pytest.mark.parametrize(
    ("source", "context"),
    [
        ("def main(payload): ...", None),
        ("def main(payload, context): ...", "context"),
        ("def main(payload, ctx: func.Context): ...", "ctx"),
        ("def main(payload, ctx: 'func.Context'): ...", "ctx"),
        ("def main(payload, ctx: typing.Annotated[func.Context, 'ours']): ...", "ctx"),
    ],
)
def test_the_context_goes_to_its_name_or_its_type(source: str, context: str | None) -> None:
    signature = judged(defined(source), TRIGGER)
    assert (signature.context, signature.problems) == (context, ())


def test_a_binding_may_be_called_context() -> None:
    signature = judged(defined("def main(payload, context: str): ..."), TRIGGER, {**SECRET, "name": "context"})
    assert (signature.context, signature.problems) == (None, ())


@pytest.mark.parametrize(
    ("annotation", "resolved"),
    [
        ("str", str),
        ("'str'", str),
        ("typing.Mapping[str, 'int']", typing.Mapping[str, int]),
        ("typing.Annotated[int, 'positive']", typing.Annotated[int, "positive"]),
        ("func.Out", func.Out),
    ],
)
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_annotations_are_resolved(annotation: str, resolved: object, future: str) -> None:
    binding = STATE if resolved is func.Out else {**SECRET, "name": "state"}
    signature = judged(defined(f"{future}def main(payload, state: {annotation}) -> None: ..."), TRIGGER, binding)
    assert signature.problems == ()
    assert signature.annotations == {"state": resolved}


def test_annotations_are_resolved_where_a_wrapped_function_was_written() -> None:
    inner = defined("class Order: ...\ndef main(payload: 'Order'): ...")

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    signature = judged(outer, TRIGGER)
    assert signature.problems == ()
    assert signature.annotations == {"payload": inner.__globals__["Order"]}


@pytest.mark.parametrize(
    "source",
    [
        "class Main:\n    def __call__(self, payload: 'Order'): ...\nmain = Main()",
        "class Main:\n    def run(self, payload: 'Order'): ...\nmain = Main().run",
        "def inner(payload: 'Order', extra): ...\nmain = functools.partial(inner, extra=1)",
    ],
)
def test_annotations_of_any_callable_are_resolved(source: str) -> None:
    signature = judged(defined("class Order: ...\n" + source), TRIGGER)
    assert signature.problems == ()
    assert signature.annotations["payload"].__name__ == "Order"


ASYNC = "async def inner(payload, extra=None): ...\n"


@pytest.mark.parametrize(
    ("source", "is_async"),
    [
        ("def main(payload): ...", False),
        ("async def main(payload): ...", True),
        (ASYNC + "main = functools.partial(inner, extra=1)", True),
        (ASYNC + "@functools.wraps(inner)\nasync def main(*args, **kwargs): ...", True),
        # A wrapper decides for itself how its function is run.
        (ASYNC + "@functools.wraps(inner)\ndef main(*args, **kwargs): ...", False),
        ("class Main:\n    async def __call__(self, payload): ...\nmain = Main()", True),
        ("class Main:\n    def __call__(self, payload): ...\nmain = Main()", False),
        (
            "class Main:\n    async def __call__(self, payload): ...\nmain = functools.partial(Main())",
            True,
        ),
    ],
)
def test_async_is_known_at_load(source: str, is_async: bool) -> None:
    signature = judged(defined(source), TRIGGER)
    assert (signature.is_async, signature.problems) == (is_async, ())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="marks came with Python 3.12")
def test_a_callable_marked_as_a_coroutine_function_is_async() -> None:
    mark = getattr(inspect, "markcoroutinefunction")  # noqa: B009 - absent from the stubs of older versions
    assert judged(mark(defined("def main(payload): ...")), TRIGGER).is_async


def _spoken_for(a, b=1):  # type: ignore[no-untyped-def]  # as users write it
    return a


_spoken_for.__signature__ = inspect.Signature()  # type: ignore[attr-defined]


@functools.wraps(_spoken_for)
def _wrapping(*arguments, **more):  # type: ignore[no-untyped-def]
    return arguments


@pytest.mark.parametrize(
    "call",
    [
        lambda: None,
        lambda a, b=1, *, c, d=2: None,
        lambda a=None, b=1: None,
        lambda *, c=1, d: None,
        lambda a, /, b: None,
        lambda a, *b, **c: None,
        judge,
        _spoken_for,
        _wrapping,
        functools.partial(judged, lambda: None),
    ],
)
def test_reads_parameters_as_inspect_does(call: Callable[..., object]) -> None:
    parameters, unreadable = _parameters(call)
    expected = inspect.signature(call).parameters
    assert (list(parameters.items()), unreadable) == (list(expected.items()), "")
