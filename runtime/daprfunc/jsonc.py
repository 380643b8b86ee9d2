"""JSON as Azure Functions' files are written: with comments, trailing commas and perhaps a byte order mark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

# A string that is never closed runs to the end of the text here; the JSON parser then says where it began.
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"?'
_COMMENT = re.compile(rf"{_STRING}|//[^\r\n]*|/\*(?:.*?\*/)?", re.DOTALL)
# A comma after an opening bracket is matched so that it is kept: only one that follows a value may be left out.
_COMMA = re.compile(rf"{_STRING}|[\[{{]\s*,|,(?=\s*[\]}}])|NaN|-?Infinity", re.DOTALL)

_LONGEST_SHOWN = 80


class JsonError(ValueError):
    """A file is not the JSON it should be; the text names the file and, where there is one, line and column.

    Attributes:
        detail: the same without the file, for messages that name it themselves.
    """

    def __init__(self, source: Path, detail: str) -> None:
        super().__init__(f"{source}: {detail}")
        self.detail = detail


def loads(text: str, source: Path) -> object:
    """Parse JSON in which comments (``//`` and ``/* */``), trailing commas and a byte order mark are allowed.

    Args:
        text: the file's content.
        source: the file, for the error's text only.

    Raises:
        JsonError: the text is not JSON, or holds what JSON cannot (``NaN``, nesting without bounds).
    """
    text = text.removeprefix("\ufeff")

    def strict(found: re.Match[str]) -> str:
        part = found[0]
        if part == "/*":
            raise JsonError(source, f"{_position(text, found.start())}: this comment is never closed; add */")
        if part.endswith(("NaN", "Infinity")) and not part.startswith('"'):
            raise JsonError(source, f"{_position(text, found.start())}: {part} is not a JSON value")
        # Blanks instead of nothing: the parser's line and column stay those of the file.
        return re.sub(r"[^\r\n]", " ", part) if part[0] in "/," else part

    try:
        value: object = json.loads(_COMMA.sub(strict, _COMMENT.sub(strict, text)))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise JsonError(source, f"{place}: not JSON here: {error.msg}") from None
    except RecursionError:
        raise JsonError(source, "the JSON is nested too deeply") from None
    except JsonError:
        raise
    except ValueError:
        raise JsonError(source, "a number in the JSON has too many digits") from None
    return value


def describe(value: object) -> str:
    """Say what was found instead of the expected: ``is missing``, ``is 5``, ``is a list``; never raw JSON."""
    if value is None:
        return "is missing"
    if isinstance(value, (bool, int, float)):
        return f"is {str(value).lower()}"
    if isinstance(value, str):
        return f"is {value!r}" if len(value) <= _LONGEST_SHOWN else "is a long text"
    return f"is {'an object' if isinstance(value, Mapping) else 'a list'}"


def _position(text: str, offset: int) -> str:
    line_start = text.rfind("\n", 0, offset) + 1
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - line_start + 1}"
