"""Imports an app's own modules, and takes them out again.

As in the Azure Functions Python worker, the app's root is on ``sys.path`` and is also the package ``__app__``: function
folders are its subpackages, so that ``from ..shared import x`` and ``from shared import x`` both work. That package
in ``sys.modules`` is all there is to know about which app is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from daprfunc.errors import LoadError, Problem

PACKAGE = "__app__"


def enter(root: Path) -> None:
    """Make the modules of the app in `root` (absolute) importable, those of an app that was loaded before no more."""
    leave()
    importlib.invalidate_caches()
    spec = ModuleSpec(PACKAGE, None, loader_state=frozenset(sys.modules), is_package=True)
    spec.submodule_search_locations = [str(root)]
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(root))


def leave() -> None:
    """Take the loaded app's modules and path out again, if an app is loaded.

    Its functions can still be called, but imports that they have yet to make will fail.
    """
    package = sys.modules.get(PACKAGE)
    if package is None or package.__spec__ is None:
        return
    root, before = Path(package.__path__[0]), package.__spec__.loader_state
    added = sys.modules.keys() - before
    # Listed before any is taken out: a namespace package asks its parent where it is.
    own = [name for name in added if name == PACKAGE or _is_of_app(_origin(sys.modules[name]), root)]
    for name in own:
        del sys.modules[name]
    if str(root) in sys.path:
        sys.path.remove(str(root))


def import_script(name: str, script: Path, root: Path, *, function: str | None = None) -> ModuleType:
    """Import one of the app's modules.

    Args:
        name: the module's full name.
        script: its file.
        root: the app's.
        function: the function that it is imported for, for the problem.

    Raises:
        LoadError: the import failed, in the app's own code or further down, or `name` is another module's.
    """
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise LoadError(_problem(error, script, root, function)) from error
    origin = _origin(module)
    # The same file under another path is fine: the user's own test may have imported it before, through a link.
    if origin is None or origin.resolve() != script.resolve():
        taken = f"the module name '{name}' is taken by {origin or 'a built-in module'}; rename this file"
        raise LoadError(Problem(taken, script, function))
    return module


def _origin(module: ModuleType) -> Path | None:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return next((Path(place) for place in places if isinstance(place, str)), None)


def _is_of_app(file: Path | None, root: Path) -> bool:
    """Whether `file` is the app's own: a virtual environment inside the app's folder is on the path by itself."""
    if file is None:
        return False
    holders = [Path(entry) for entry in sys.path if entry and file.is_relative_to(entry)]
    return max(holders, key=lambda holder: len(holder.parts), default=None) == root


def _problem(error: BaseException, script: Path, root: Path, function: str | None) -> Problem:
    file, line = _place(error, root) or (script, None)
    at = f"line {line}: " if line else ""
    return Problem(at + _reason(error, root), file, function)


def _place(error: BaseException, root: Path) -> tuple[Path, int | None] | None:
    """The innermost line of the app's own code that the error came through."""
    if isinstance(error, SyntaxError) and error.filename and _is_of_app(Path(error.filename), root):
        return Path(error.filename), error.lineno
    frames = ((Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__))
    own = [place for place in frames if _is_of_app(place[0], root)]
    return own[-1] if own else None


def _reason(error: BaseException, root: Path) -> str:
    if isinstance(error, SystemExit):
        return "sys.exit() was called during import; call it from a function or under if __name__ == '__main__'"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing(error.name, root)
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    what = ": ".join(filter(None, [type(error).__name__, " ".join(str(text).split())]))
    return f"{what}; the module must import without errors"


def _missing(name: str, root: Path) -> str:
    inside = name.removeprefix(f"{PACKAGE}.")
    top, *rest = inside.split(".")
    if inside != name or (rest and (root / top).is_dir()):
        file = root.joinpath(top, *rest)
        return f"the app has no module '{inside}': neither {file}.py nor {file}/ exists; add it or mend the import"
    install = (
        f"no module '{name}': if a package provides it, add that to requirements.txt and install it with"
        " pip install -r requirements.txt"
    )
    # A part of what another package provides, such as azure, cannot be the app's own.
    return install if top in sys.modules else f"{install}; if it is the app's own, add {root / top}.py"
