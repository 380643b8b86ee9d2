"""Loads an app directory, of either Python programming model, into the model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from daprfunc.errors import LoadError, Problem
from daprfunc.loading import importer, signature, v1, v2
from daprfunc.loading.candidate import Candidate
from daprfunc.model import BrokenFunction, Function, FunctionApp

__all__ = ["load_app", "loaded_app", "unload_app"]

_NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})
# The .NET host's rule for function names.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
# Both spellings: some systems allow no dot in an environment variable's name.
_SWITCH = re.compile(r"azurewebjobs([._])(?P<function>.*)\1disabled", re.DOTALL)


def load_app(
    directory: Path, *, script_name: str = "function_app.py", app_settings: Mapping[str, str] = _NO_SETTINGS
) -> FunctionApp:
    """Load the app in `directory`.

    A process has one app: its root is put on ``sys.path`` and its modules are imported for good. Loading another one
    unloads the first (see :func:`unload_app`).

    Args:
        directory: the app's root: with `script_name` in it (v2), else with function.json folders (v1).
        script_name: the v2 script's file name (``PYTHON_SCRIPT_FILE_NAME``).
        app_settings: only ``AzureWebJobs.<function>.Disabled`` is looked at.

    Returns:
        The app: functions that can be called, broken ones with their problems, and what was assumed.

    Raises:
        LoadError: there is no app, or it cannot load as a whole.
    """
    root = directory.resolve()
    importer.enter(root)
    try:
        candidates, ignored = _find(root, script_name)
    except BaseException:
        importer.leave()
        raise
    switched_off = _switched_off(app_settings)
    enabled: list[Candidate] = []
    skipped: list[str] = []
    for candidate in candidates:
        if candidate.declaration.disabled or candidate.name.lower() in switched_off:
            skipped.append(_note(candidate, "is disabled, so it is not loaded"))
        else:
            enabled.append(candidate)
    loaded = [_load(candidate) for candidate in _with_name_problems(enabled)]
    return FunctionApp(
        directory=root,
        functions=tuple(each.result for each in loaded if isinstance(each.result, Function)),
        broken=tuple(each.result for each in loaded if isinstance(each.result, BrokenFunction)),
        warnings=(*ignored, *skipped, *(warning for each in loaded for warning in each.warnings)),
    )


def unload_app() -> None:
    """Take the loaded app off ``sys.path`` and its modules out of ``sys.modules``; no app, no effect."""
    importer.leave()


@contextmanager
def loaded_app(
    directory: Path, *, script_name: str = "function_app.py", app_settings: Mapping[str, str] = _NO_SETTINGS
) -> Iterator[FunctionApp]:
    """Load an app for the length of a ``with`` block, for tests; arguments and errors are :func:`load_app`'s."""
    try:
        yield load_app(directory, script_name=script_name, app_settings=app_settings)
    finally:
        unload_app()


@dataclass(frozen=True, slots=True)
class _Loaded:
    result: Function | BrokenFunction
    warnings: tuple[str, ...]


def _find(root: Path, script_name: str) -> tuple[list[Candidate], list[str]]:
    script = root / script_name
    folders = sorted(root.glob(v1.PATTERN))
    if script.is_file():
        _check_script_name(script, script_name)
        ignored = [
            f"{file}: ignored, because {script_name} is there, which declares its own functions" for file in folders
        ]
        candidates, warnings = v2.find(root, script)
        return candidates, [*ignored, *warnings]
    if not folders:
        found = "is no app" if root.is_dir() else "is no directory"
        raise LoadError(Problem(f"{found}: looked for {script_name} (v2) and for {v1.PATTERN} (v1) in it", root))
    return v1.find(root), []


def _check_script_name(script: Path, script_name: str) -> None:
    if script.suffix != ".py" or not script.stem.isidentifier() or Path(script_name).name != script_name:
        found = "the script's name is not a Python module's in the app's root; name it like function_app.py"
        raise LoadError(Problem(found, script))


def _switched_off(app_settings: Mapping[str, str]) -> set[str]:
    """The functions that the settings disable, in lower case."""
    settings = {name.lower(): value.lower() for name, value in app_settings.items()}
    switches = ((_SWITCH.fullmatch(name), value) for name, value in settings.items())
    return {switch["function"] for switch, value in switches if switch and value in ("true", "1")}


def _note(candidate: Candidate, message: str) -> str:
    return str(Problem(message, candidate.file, candidate.name))


def _with_name_problems(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    names = Counter(candidate.name.lower() for candidate in candidates)
    for candidate in candidates:
        found = []
        if names[candidate.name.lower()] > 1:
            found.append("another function of the app has this name (case does not count); rename one of them")
        if not _NAME.fullmatch(candidate.name):
            found.append(
                "a function's name holds letters, digits, '_' and '-' only and begins with a letter; rename it"
            )
        yield _with_problems(candidate, found) if found else candidate


def _with_problems(candidate: Candidate, messages: Sequence[str]) -> Candidate:
    declaration = candidate.declaration
    problems = tuple(Problem(message, candidate.file, candidate.name) for message in messages)
    return replace(candidate, declaration=replace(declaration, problems=(*problems, *declaration.problems)))


def _load(candidate: Candidate) -> _Loaded:
    declaration = candidate.declaration
    try:
        code = candidate.code()
    except LoadError as error:
        problems = (*declaration.problems, *error.problems)
        return _Loaded(BrokenFunction(candidate.name, problems, declaration.bindings), declaration.warnings)
    judged = signature.judge(candidate, code)
    warnings = (*declaration.warnings, *judged.warnings)
    if problems := (*declaration.problems, *judged.problems):
        return _Loaded(BrokenFunction(candidate.name, problems, judged.bindings), warnings)
    function = Function(
        name=candidate.name,
        directory=candidate.directory,
        script=code.script,
        file=candidate.file,
        call=code.call,
        is_async=judged.is_async,
        bindings=judged.bindings,
        annotations=judged.annotations,
        context=judged.context,
        retry=declaration.retry,
    )
    return _Loaded(function, warnings)
