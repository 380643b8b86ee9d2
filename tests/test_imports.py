"""Who imports whom: the layers of the design, as a table. A new arrow belongs in the design's picture as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import daprfunc

ROOT = Path(daprfunc.__file__).parent

# A module or package -> what else of daprfunc it may import. From the leaves up.
ARROWS: Mapping[str, set[str]] = {
    # What all agree on.
    "errors": set(),
    "model": {"errors"},
    "endpoint": set(),
    "payload": {"errors"},
    "invocation": {"payload"},
    "jsonc": set(),
    "timespan": set(),
    "logs": set(),
    "deadlines": set(),
    "http2": set(),
    "rpc": set(),
    # What is read and said.
    "retry": {"jsonc", "model", "timespan"},
    "settings": {"endpoint", "errors", "jsonc", "model", "retry", "timespan"},
    "loading": {"errors", "jsonc", "model", "retry"},
    "conversion": {"errors", "payload"},
    "expressions": {"errors", "payload"},
    # The sidecar, ours to call and ours to be.
    "sidecar": {"deadlines", "endpoint", "errors", "http2", "rpc"},
    "standalone": {"errors", "rpc"},
    # One invocation.
    "bindings": {"conversion", "endpoint", "errors", "expressions", "model", "payload", "sidecar"},
    "context": {"invocation", "model"},
    "threads": {"errors"},
    "executor": {"errors", "model", "threads"},
    "watchdog": {"model"},
    "plan": {
        "bindings",
        "context",
        "conversion",
        "errors",
        "executor",
        "invocation",
        "logs",
        "model",
        "payload",
    },
    "dispatch": {"deadlines", "errors", "invocation", "model", "plan"},
    "compilation": {"bindings", "dispatch", "errors", "executor", "expressions", "model", "plan"},
    "channel": {"dispatch", "errors", "http2", "invocation", "payload", "rpc"},
    "masking": {"bindings", "channel", "dispatch", "endpoint", "errors", "invocation", "logs", "sidecar"},
    # The whole.
    "assembly": {
        "bindings",
        "channel",
        "compilation",
        "dispatch",
        "errors",
        "executor",
        "loading",
        "logs",
        "masking",
        "model",
        "settings",
    },
    "report": {"assembly", "dispatch", "model", "plan"},
    "host": {
        "assembly",
        "channel",
        "endpoint",
        "errors",
        "executor",
        "logs",
        "report",
        "settings",
        "sidecar",
        "standalone",
        "watchdog",
    },
    "testing": {
        "assembly",
        "endpoint",
        "errors",
        "executor",
        "loading",
        "logs",
        "rpc",
        "settings",
        "sidecar",
    },
    "caller": {"endpoint", "errors", "rpc", "settings"},
    "reloader": set(),
    "cli": {"assembly", "caller", "errors", "host", "logs", "reloader", "report", "settings"},
    "__main__": {"cli"},
}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if path != ROOT / "__init__.py"
}


def names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported; for ``from a import b`` that is ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(path: Path) -> set[str]:
    """The modules of daprfunc that a file imports, wherever in it."""
    found = set()
    for name in names(ast.parse(path.read_text())):
        package, _, inner = name.partition(".")
        if package == "daprfunc" and inner != "__version__":
            # The longest name that is a module; what follows is something in it.
            parts = inner.split(".")
            heads = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
            found.add(next((head for head in heads if head in MODULES), inner))
    return found


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    assert {top(name) for name in imported(MODULES[module])} - {top(module)} <= ARROWS[top(module)]


def test_the_table_has_no_arrow_that_nobody_uses() -> None:
    used = {name: set[str]() for name in ARROWS}
    for module, path in MODULES.items():
        used[top(module)] |= {top(name) for name in imported(path)} - {top(module)}
    assert used == ARROWS


def test_nothing_imports_in_a_circle() -> None:
    TopologicalSorter(ARROWS).prepare()
    TopologicalSorter({module: imported(path) - {module} for module, path in MODULES.items()}).prepare()


def environment_uses(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            if node.attr in ("environ", "environb", "getenv", "putenv", "unsetenv"):
                yield f"os.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "settings"])
def test_only_settings_reads_the_environment(module: str) -> None:
    assert not list(environment_uses(ast.parse(MODULES[module].read_text())))


@pytest.mark.parametrize("text", ["import os\nos.environ['X']", "from os import environ", "import os\nos.getenv('X')"])
def test_reading_the_environment_is_noticed(text: str) -> None:
    assert list(environment_uses(ast.parse(text)))
