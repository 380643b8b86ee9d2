"""Python's v1 programming model: a folder per function, with a function.json."""

from __future__ import annotations

import inspect
import os.path
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from daprfunc import jsonc
from daprfunc.errors import LoadError, Problem
from daprfunc.loading import functionjson, importer
from daprfunc.loading.candidate import Candidate, Code
from daprfunc.loading.functionjson import Declaration

PATTERN = "*/function.json"
_DEFAULT_SCRIPTS = ("__init__.py", "main.py")
_DEFAULT_ENTRY_POINT = "main"


def find(root: Path) -> list[Candidate]:
    """Return the functions declared in the folders of `root`, by name."""
    return [_candidate(root, file) for file in sorted(root.glob(PATTERN))]


def _candidate(root: Path, file: Path) -> Candidate:
    folder = file.parent
    declaration = _read(file)
    return Candidate(folder.name, folder, file, declaration, partial(_code, root, file, declaration))


def _read(file: Path) -> Declaration:
    function = file.parent.name
    try:
        value = jsonc.loads(file.read_bytes().decode("utf-8-sig"), file)
    except jsonc.JsonError as error:
        found = error.detail
    except UnicodeDecodeError as error:
        found = f"not UTF-8 at byte {error.start}; save it as UTF-8"
    except OSError as error:
        found = f"cannot be read: {error.strerror}"
    else:
        return functionjson.parse(value, file=file, function=function)
    return Declaration(complete=False, problems=(Problem(found, file, function),))


def _code(root: Path, file: Path, declaration: Declaration) -> Code:
    function = file.parent.name
    script = _script(root, file, declaration.script_file)
    if script.suffix != ".py" or "." in script.stem:
        raise LoadError(Problem("the script's name is not a Python module's; name it like main.py", script, function))
    parts = script.relative_to(root).with_suffix("").parts
    # The package itself, not its __init__ as a submodule: that would run the file twice.
    name = ".".join([importer.PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)])
    module = importer.import_script(name, script, root, function=function)
    try:
        return Code(_entry_point(module, declaration.entry_point), script)
    except LookupError as error:
        raise LoadError(Problem(str(error.args[0]), script, function)) from None


def _script(root: Path, file: Path, script_file: str | None) -> Path:
    folder, function = file.parent, file.parent.name
    wanted = [script_file] if script_file else _DEFAULT_SCRIPTS
    # Not resolved: a folder that is a link elsewhere is still the app's.
    scripts = [Path(os.path.normpath(folder / name)) for name in wanted]
    for script in scripts:
        if _is_file(script) and script.is_relative_to(root):
            return script
    if script_file:
        found = f"scriptFile {script_file!r} is not a file inside the app; mend the name or add the file"
    else:
        found = f"there is no {' or '.join(_DEFAULT_SCRIPTS)} beside it; add one or name another in scriptFile"
    raise LoadError(Problem(found, file, function))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with characters that no file can have
        return False


def _entry_point(module: ModuleType, wanted: str | None) -> Callable[..., Any]:
    members = vars(module)
    entry = members.get(wanted or _DEFAULT_ENTRY_POINT)
    if callable(entry):
        return entry  # type: ignore[no-any-return]
    own = {
        name: member
        for name, member in members.items()
        if inspect.isfunction(member) and member.__module__ == module.__name__ and not name.startswith("_")
    }
    if wanted is None and len(own) == 1:
        return own.popitem()[1]
    found = f"it has {', '.join(f'{name}()' for name in own)}" if own else "it has no functions"
    if wanted is not None:
        msg = f"entryPoint {wanted!r} is not a function here; {found}: mend the name"
    else:
        msg = f"no {_DEFAULT_ENTRY_POINT}() here, and {found}; add it or name the function in entryPoint"
    raise LookupError(msg)
