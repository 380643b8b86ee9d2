"""Python's v2 programming model: one script with a FunctionApp and decorated functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func
import msgspec

from daprfunc.errors import LoadError, Problem
from daprfunc.loading import functionjson, importer
from daprfunc.loading.candidate import Candidate, Code
from daprfunc.loading.functionjson import Declaration


def find(root: Path, script: Path) -> tuple[list[Candidate], list[str]]:
    """Import `script` and return the functions of its one FunctionApp, in the order of their definition; and warnings.

    Raises:
        LoadError: the import failed, or there is not exactly one FunctionApp.
    """
    module = importer.import_script(script.stem, script, root)
    app = _app(module, script)
    # One by one and not through get_functions(): that one gives all or, when it refuses one of them, none. (It also
    # warns about HTTP keys, which mean nothing here.)
    # Nearly all functions are from one file.
    inside = cache(lambda name: _inside(root, name))
    candidates = [_candidate(builder, app, root, script, inside) for builder in app._function_builders]
    return candidates, [str(Problem(warning, script)) for warning in _unregistered(module, app)]


def _unregistered(module: ModuleType, app: Any) -> Iterator[str]:
    """What to say of Blueprints that are there and have functions, none of which is the app's."""
    known = set(map(id, app._function_builders))
    for name, blueprint in _instances(module, func.Blueprint).values():
        builders = blueprint._function_builders
        if builders and known.isdisjoint(map(id, builders)):
            found = f"the Blueprint {name} is not registered, so its functions are left out"
            yield f"{found}; add app.register_functions({name})"


def _app(module: ModuleType, script: Path) -> Any:
    apps = _instances(module, func.FunctionRegister)
    if len(apps) == 1:
        return next(iter(apps.values()))[1]
    if apps:
        names = ", ".join(name for name, _ in apps.values())
        found = f"defines {len(apps)} FunctionApps ({names}); keep one and register the others' functions as Blueprints"
    elif blueprints := _instances(module, func.Blueprint):
        name = next(iter(blueprints.values()))[0]
        found = (
            f"defines a Blueprint ({name}) but no FunctionApp; add app = func.FunctionApp() and"
            f" app.register_functions({name})"
        )
    else:
        found = "defines no FunctionApp; add app = func.FunctionApp() and decorate the functions with it"
    raise LoadError(Problem(found, script))


def _instances(module: ModuleType, kind: type) -> dict[int, tuple[str, Any]]:
    """The module's members of a kind, by identity: one app under two names is still one."""
    # isinstance() would ask a proxy, such as a web framework's, what it stands for outside of any request.
    return {id(member): (name, member) for name, member in vars(module).items() if issubclass(type(member), kind)}


def _candidate(builder: Any, app: Any, root: Path, script: Path, inside: Callable[[str], Path | None]) -> Candidate:
    function = builder._function
    name, call = str(function.get_function_name()), function.get_user_function()
    # A blueprint may have it elsewhere than in the script.
    code = getattr(inspect.unwrap(call), "__code__", None)
    file = inside(code.co_filename if code else "") or script
    declaration = _declaration(function, file, name)
    refusal = _refusal(builder, app)
    if refusal:
        problem = Problem(f"azure-functions refuses it: {refusal}", file, name)
        declaration = replace(declaration, problems=(*declaration.problems, problem))
    return Candidate(name, root, file, declaration, partial(Code, call, file))


def _declaration(function: Any, file: Path, name: str) -> Declaration:
    try:
        shape = msgspec.json.decode(function.get_function_json())
        # function.json's shape lacks what @app.retry declared.
        shape["retry"] = function.get_settings_dict("retry_policy")
    except (TypeError, ValueError) as error:
        problem = Problem(f"its decorators hold what JSON cannot: {error}; give texts, numbers, lists", file, name)
        return Declaration(complete=False, problems=(problem,))
    return functionjson.parse(shape, file=file, function=name)


def _refusal(builder: Any, app: Any) -> str:
    """Why azure-functions would not build the function; a missing trigger is judged with the signature."""
    if builder._function.get_trigger() is None:
        return ""
    try:
        builder.build(app.auth_level)
    except Exception as error:
        return " ".join(str(error).split())
    return ""


def _inside(root: Path, name: str) -> Path | None:
    """The file of that name, if it is one of the app's."""
    file = Path(name)
    return file if name and file.is_relative_to(root) else None
