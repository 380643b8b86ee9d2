"""Files and texts of an app, generated: ``check`` says in one line what is wrong, or nothing is."""

from __future__ import annotations

import json
import re
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import strategies as st

from daprfunc.cli import main
from daprfunc.errors import CallerError, DaprFuncError
from daprfunc.expressions import ExpressionError, compile_metadata, compile_template
from daprfunc.payload import Payload
from daprfunc.standalone.components import load_resources
from tests.fuzz.depth import depths, fuzz

SECONDS = 5.0

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def mostly(*good: Any) -> st.SearchStrategy[Any]:
    """One of `good`, or sometimes anything."""
    return st.sampled_from(good) | st.sampled_from(good) | trees


def some_of(**properties: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of `properties`."""
    return st.fixed_dictionaries({}, optional=properties)


def damaged(documents: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSON, whole or cut or with a byte too many, or anything at all."""
    whole = documents.map(lambda document: json.dumps(document).encode())
    cut = st.builds(lambda data, at: data[: at % (len(data) + 1)], whole, st.integers(0, 500))
    inserted = st.builds(
        lambda data, at, junk: data[: at % (len(data) + 1)] + junk + data[at % (len(data) + 1) :],
        whole,
        st.integers(0, 500),
        st.binary(max_size=6),
    )
    deep = st.builds(lambda opening, times: opening * times, st.sampled_from([b"[", b'{"a":']), st.integers(1, 20_000))
    return whole | cut | inserted | deep | st.binary(max_size=60)


expressions = st.lists(
    st.sampled_from(
        [
            "{payload",
            "{payload.key}",
            "{payload.__class__}",
            "{",
            "}",
            "%",
            "%NAME%",
            ".",
            "{rand-guid}",
            "x",
            "=",
            "&",
            "{DateTime:",
            "yyyy",
            "{sys.utcnow}",
            "metadata.",
            "[0]",
            "\0",
            "ü",
            "{{",
            "}}",
            "{payload..}",
            "%%",
        ]
    )
    | texts,
    max_size=6,
).map("".join)

binding = some_of(
    type=mostly("daprServiceInvocationTrigger", "daprSecret", "httpTrigger", "daprSecret"),
    name=mostly("payload", "secret", "$return", "context"),
    direction=mostly("in", "out", "inout"),
    key=mostly("k") | expressions,
    secretStoreName=mostly("store") | expressions,
    metadata=mostly("") | expressions,
    methodName=mostly("m") | expressions,
    daprAddress=mostly("127.0.0.1:50001") | texts,
)
function_json = some_of(
    scriptFile=mostly("__init__.py", "../other.py", "missing.py"),
    entryPoint=mostly("main", "missing"),
    bindings=st.lists(binding, max_size=4) | trees,
    disabled=mostly(True, False),
    retry=some_of(
        strategy=mostly("fixedDelay", "exponentialBackoff"), maxRetryCount=mostly(1, -1), delayInterval=trees
    ),
)
host_json = some_of(
    version=mostly("2.0"),
    functionTimeout=mostly("00:05:00", "-1", "99999999:00:00", "1.00:00:00"),
    logging=some_of(logLevel=st.dictionaries(texts | st.just("default"), mostly("Information", "none"), max_size=3)),
    extensions=some_of(dapr=some_of(maskSecrets=mostly(True))),
    retry=some_of(strategy=mostly("fixedDelay"), maxRetryCount=mostly(3), delayInterval=mostly("00:00:10")),
)
local_settings = some_of(
    IsEncrypted=mostly(False),
    Values=st.dictionaries(
        st.sampled_from(
            ["DAPR_GRPC_PORT", "APP_PORT", "DAPR_LOG_LEVEL", "PYTHON_SCRIPT_FILE_NAME", "DAPR_GRPC_ENDPOINT"]
        )
        | texts,
        mostly("50001", "debug"),
        max_size=4,
    ),
)
component = some_of(
    apiVersion=mostly("dapr.io/v1alpha1"),
    kind=mostly("Component", "Configuration"),
    metadata=some_of(name=mostly("store", "a/b")),
    spec=some_of(
        type=mostly("secretstores.local.env", "secretstores.local.file"),
        version=mostly("v1"),
        metadata=st.lists(some_of(name=mostly("prefix", "secretsFile"), value=mostly("x"), envRef=texts), max_size=3),
        secrets=some_of(scopes=st.lists(some_of(storeName=texts, defaultAccess=mostly("deny")), max_size=2)),
    ),
    scopes=st.lists(texts, max_size=2) | trees,
)

SCRIPT = "def main(payload, secret=None):\n    return payload\n"
GOOD = {
    "bindings": [{"type": "daprServiceInvocationTrigger", "name": "payload", "direction": "in"}],
    "scriptFile": "__init__.py",
}
# What `check` may say: a finding, or the summary.
LINE = re.compile(r"(error|warning): .+|\d+ function\(s\) load, \d+ do not, \d+ warning\(s\)")


@pytest.fixture
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading an app changes the process: its settings enter the environment."""
    import os

    monkeypatch.setattr(os, "environ", os.environ.copy())


def write_app(directory: Path, files: dict[str, bytes]) -> None:
    (directory / "Function").mkdir()
    good = {"Function/__init__.py": SCRIPT.encode(), "Function/function.json": json.dumps(GOOD).encode()}
    for name, content in (good | files).items():
        (directory / name).write_bytes(content)


def check_app(files: dict[str, bytes]) -> None:
    """``daprfunc check`` ends with a status that it promises and says what it found in lines that it promises."""
    with tempfile.TemporaryDirectory() as name:
        write_app(Path(name), files)
        result = CliRunner().invoke(main, ["check", name])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (0, 1, 2), result.output
    lines = result.output.splitlines()
    assert lines
    for line in lines:
        assert LINE.fullmatch(line), result.output
    assert result.exit_code == 0 or any(line.startswith("error: ") for line in lines), result.output


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(
    ("name", "documents"),
    [("Function/function.json", function_json), ("host.json", host_json), ("local.settings.json", local_settings)],
    ids=["function.json", "host.json", "local.settings.json"],
)
@depths(800)
def test_json_files(name: str, documents: st.SearchStrategy[Any], examples: int) -> None:
    fuzz(examples, damaged(documents | trees), lambda content: check_app({name: content}))


def check_resources(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "component.yaml").write_bytes(content)
        try:
            resources = load_resources(Path(name), app_id="app", environ={})
            said: list[str] = list(resources.warnings)
        except DaprFuncError as error:
            said = str(error).splitlines()
    assert all(line.startswith(name) and "\n" not in line for line in said), said


def as_yaml(*documents: Any) -> bytes:
    return yaml.safe_dump_all(documents, allow_unicode=True).encode("utf-8", "surrogatepass")


@depths(600)
def test_components(examples: int) -> None:
    whole = st.lists(component | trees, max_size=3).map(lambda documents: as_yaml(*documents))
    tags = [
        "!!python/object/apply:os.system [x]\n",
        "&a [*a]\n",
        "? [x]\n: y\n",
        "- " * 3_000,
        "{" * 3_000,
        "!!binary x",
    ]
    cut = st.builds(lambda data, at: data[: at % (len(data) + 1)], whole, st.integers(0, 500))
    tagged = st.builds(lambda data, tag: data + tag.encode(), whole, st.sampled_from(tags))
    fuzz(examples, whole | cut | tagged | st.binary(max_size=60), check_resources)


payloads = (trees.map(lambda tree: json.dumps(tree).encode()) | st.binary(max_size=30)).map(Payload)
names = st.text(string.ascii_letters, min_size=1, max_size=8) | st.just("payload")


def check_expression(compiling: Callable[..., Any], case: tuple[str, Payload]) -> None:
    """An expression is refused at load, or fails as the caller's fault, or renders."""
    text, payload = case
    said = "rendered"
    try:
        template = compiling(text, app_settings={"NAME": "{payload.key}"}, trigger="payload", function="f")
        template.render(payload)
    except (ExpressionError, CallerError) as error:
        said = str(error)
    assert said
    assert "\n" not in said or "\n" in text


@pytest.mark.parametrize("compiling", [compile_template, compile_metadata], ids=["template", "metadata"])
@depths(1_300)
def test_expressions(compiling: Callable[..., Any], examples: int) -> None:
    fuzz(examples, st.tuples(expressions, payloads), lambda case: check_expression(compiling, case))
