"""Our cases once more, from another checkout, on another Python or with other settings: A and B in the same rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cases import Case, Server


class VariantError(Exception):
    """A --variant cannot be read; the text says why."""


def variants_of(cases: Sequence[Case], wanted: Iterable[Sequence[str]]) -> list[Case]:
    """Every case, each of ours followed by its variants.

    Args:
        cases: what was chosen.
        wanted: for each variant a label and ``KEY=VALUE`` words, see :func:`_change`.
    """
    changes = [(label, dict(map(_pair, words))) for label, *words in wanted]
    return [one for case in cases for one in (case, *_variants(case, changes))]


def _variants(case: Case, changes: Iterable[tuple[str, dict[str, str]]]) -> Iterator[Case]:
    if case.server.name.startswith("ours"):
        for label, words in changes:
            yield replace(case, name=f"{case.name}@{label}", server=_change(case.server, label, words))


def _change(server: Server, label: str, words: dict[str, str]) -> Server:
    """``source``: another checkout; ``python``: another interpreter; ``flags``: appended; else: the environment."""
    environment = {key: value for key, value in words.items() if key not in ("source", "python", "flags")}
    command = server.command
    if "source" in words:
        environment["PYTHONPATH"] = str(Path(words["source"]).resolve() / "runtime")
    if "python" in words:
        command = command.replace("{ours}", str(Path(words["python"]).absolute()))
    if "flags" in words:
        command = f"{command} {words['flags']}"
    return replace(server, name=f"{server.name}-{label}", command=command, environment=environment)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise VariantError(f"--variant LABEL KEY=VALUE ...: {word!r} has no '='")
    return key, value
