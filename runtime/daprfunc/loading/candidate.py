"""A function as its programming model found it: declared, not yet imported or judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daprfunc.loading.functionjson import Declaration


@dataclass(frozen=True, slots=True)
class Code:
    """The callable behind a function, and the file that defines it."""

    call: Callable[..., Any]
    script: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """What either programming model knows of a function.

    Attributes:
        name: the function's name.
        directory: its folder (v1) or the app's (v2).
        file: where it is declared.
        declaration: what it declares.
        code: imports it if need be; raises :class:`~daprfunc.errors.LoadError`.
    """

    name: str
    directory: Path
    file: Path
    declaration: Declaration
    code: Callable[[], Code]
