"""The two local secret stores, giving the data and the errors that daprd's stores of the same types give.

Behaviour is that of daprd 1.18 (components-contrib ``secretstores/local``). Like daprd, the file store reads its file
once: a changed file takes effect at the next start.
"""

from __future__ import annotations

import json
import logging
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

MAX_SECRETS_FILE = 4 * 1024 * 1024
"""Bytes of the largest secrets file read; daprd's replies (all secrets in one) have the same limit."""

_LOG = logging.getLogger(__name__)
_MULTI_VALUED = "MULTIPLE_KEY_VALUES_PER_SECRET"
_TRUTHY = frozenset({"y", "yes", "true", "t", "on", "1"})


class StoreError(Exception):
    """What a store itself says when it cannot be opened or cannot answer; never holds a secret value."""


@dataclass(frozen=True, slots=True)
class Component:
    """A secret store as a Component declares it.

    Attributes:
        name: the store name of requests.
        type: such as ``secretstores.local.file``; as declared, though Dapr ignores its case.
        version: as declared.
        metadata: the store's settings; names in lower case, since Dapr ignores their case. May hold a secret.
        file: where it is declared.
    """

    name: str
    type: str
    version: str = "v1"
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    file: Path = Path()


class SecretStore(Protocol):
    """A secret store that is open."""

    @property
    def component(self) -> Component:
        """What declares it."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What GetMetadata lists for it."""

    def get(self, key: str) -> Mapping[str, str]:
        """Return one secret's values by name.

        Raises:
            StoreError: there is no such secret.
        """

    def get_all(self) -> Mapping[str, Mapping[str, str]]:
        """Return every secret's values, by key, then by name."""


@dataclass(frozen=True, slots=True)
class FileStore:
    """Secrets of one JSON file, as it was when the store was opened.

    Attributes:
        component: what declares it.
        secrets: key -> value name -> value; a single-valued secret's value is named like its key.
        multi_valued: whether a secret may hold several values.
    """

    component: Component
    secrets: Mapping[str, Mapping[str, str]] = field(repr=False)
    multi_valued: bool = False

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What GetMetadata lists for it."""
        return (_MULTI_VALUED,) if self.multi_valued else ()

    def get(self, key: str) -> Mapping[str, str]:
        """Return one secret's values by name.

        Raises:
            StoreError: there is no such secret.
        """
        try:
            return self.secrets[key]
        except KeyError:
            raise StoreError(f"secret {key} not found") from None

    def get_all(self) -> Mapping[str, Mapping[str, str]]:
        """Return every secret's values, by key, then by name."""
        return self.secrets


@dataclass(frozen=True, slots=True)
class EnvStore:
    """Environment variables as secrets, read at each request.

    Attributes:
        component: what declares it.
        environ: the variables.
        prefix: put before every key to make the variable's name.
    """

    component: Component
    environ: Mapping[str, str] = field(repr=False)
    prefix: str = ""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What GetMetadata lists for it: nothing."""
        return ()

    def get(self, key: str) -> Mapping[str, str]:
        """Return the variable's value under the key asked for; an unset or a refused variable is empty."""
        variable = self.prefix + key
        if not is_env_allowed(variable):
            _LOG.warning("store '%s' may not read the environment variable '%s'", self.component.name, variable)
            return {key: ""}
        return {key: _as_utf8(self.environ.get(variable, ""))}

    def get_all(self) -> Mapping[str, Mapping[str, str]]:
        """Return every variable that has the prefix and is not refused, its key without the prefix."""
        values = {
            _as_utf8(variable.removeprefix(self.prefix)): _as_utf8(value)
            for variable, value in self.environ.items()
            if self._offers(variable)
        }
        return {key: {key: value} for key, value in values.items()}

    def _offers(self, variable: str) -> bool:
        if self.prefix and (variable == self.prefix or not variable.startswith(self.prefix)):
            return False
        return is_env_allowed(variable)


def is_env_allowed(variable: str) -> bool:
    """Return whether Dapr lets a component read this environment variable: its own tokens and settings it does not."""
    upper = variable.upper()
    return upper != "APP_API_TOKEN" and not upper.startswith("DAPR_")


def is_truthy(text: str) -> bool:
    """Return whether Dapr's component metadata takes `text` for true."""
    return text.strip().lower() in _TRUTHY


def open_env_store(component: Component, environ: Mapping[str, str]) -> EnvStore:
    """Open a ``secretstores.local.env``; its metadata: ``prefix``.

    Args:
        component: what declares it.
        environ: the variables to serve; read at each request.
    """
    return EnvStore(component, environ, component.metadata.get("prefix", ""))


def open_file_store(component: Component) -> tuple[FileStore, list[str]]:
    """Open a ``secretstores.local.file``; its metadata: ``secretsFile``, ``nestedSeparator``, ``multiValued``.

    Dapr takes a relative ``secretsFile`` from the working directory. Where there is no such file, it is looked for
    beside the component's own, and in the directory above: the app's, where components have one of their own in it.

    Args:
        component: what declares it.

    Returns:
        The store, and warnings about its file, one line each.

    Raises:
        StoreError: the file cannot be used; says which file and why.
    """
    metadata = component.metadata
    path = _secrets_path(metadata.get("secretsfile", ""), component.file)
    content, warnings = _read(path)
    document = _parse(content, path)
    separator = metadata.get("nestedseparator") or ":"
    multi_valued = is_truthy(metadata.get("multivalued", ""))
    try:
        entries = _multi_valued(document, separator) if multi_valued else _single_valued(document, separator)
        secrets = _collect(entries, path)
        odd = sorted(_odd_keys(document, separator, multi_valued))
    except RecursionError:
        raise StoreError(f"secretsFile {path} is nested too deeply") from None
    if odd:
        warnings.append(
            f"{path}: {_listed(odd)} not text, so Dapr's file store gives a placeholder for it or leaves it out: "
            "put the value in quotes"
        )
    return FileStore(component, secrets, multi_valued), warnings


def _secrets_path(declared: str, component_file: Path) -> Path:
    if not declared:
        raise StoreError("metadata 'secretsFile' is missing: name the JSON file that holds the secrets")
    if "\0" in declared:
        raise StoreError("metadata 'secretsFile' is not a path: it holds a NUL character")
    beside = component_file.absolute().parent
    candidates = [Path(declared), beside / declared, beside.parent / declared]
    for path in candidates:
        # os.path.isfile, for pathlib's twin raises for a name that is too long.
        if os.path.isfile(path):  # noqa: PTH113
            return path
    where = dict.fromkeys(str(path.absolute().parent) for path in candidates)
    raise StoreError(f"there is no secretsFile '{declared}' in {' or '.join(where)}: create it or mend its path")


def _read(path: Path) -> tuple[bytes, list[str]]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_SECRETS_FILE + 1)
    except OSError as error:
        raise StoreError(f"secretsFile {path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_SECRETS_FILE:
        raise StoreError(f"secretsFile {path} is larger than {MAX_SECRETS_FILE} bytes")
    if _is_exposed(path, status):
        return content, [f"{path}: other users of this machine can read these secrets: chmod 600 {path}"]
    return content, []


def _is_exposed(path: Path, file: os.stat_result) -> bool:
    """Return whether other users get at a file: its mode lets them, and so does each directory on the way to it.

    Most systems give users a closed home and files that anybody may read; to warn there would teach to overlook it.
    """
    classes = [(stat.S_IROTH, stat.S_IXOTH)]
    # Linux distributions give each user a group of the same number: nobody else is in that one.
    if file.st_gid != file.st_uid:
        classes.append((stat.S_IRGRP, stat.S_IXGRP | stat.S_IXOTH))
    ways = [directory.stat().st_mode for directory in path.resolve().parents]
    return any(file.st_mode & read and all(way & enter for way in ways) for read, enter in classes)


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    """Read JSON by the rules of Go's decoder, which daprd uses: no NaN, no number beyond a double, null is empty."""
    try:
        document = json.loads(
            content.decode("utf-8", "replace"), parse_int=_number, parse_float=_number, parse_constant=_refused
        )
    except json.JSONDecodeError as error:
        # The decoder's own text may quote a character of a secret; the place says enough.
        reason = f"line {error.lineno}, column {error.colno} is not valid JSON"
    except _UnusableNumberError:
        reason = "it holds a number that JSON cannot express or a double cannot hold"
    except RecursionError:
        reason = "it is nested too deeply"
    else:
        if document is None:
            return {}
        if isinstance(document, dict):
            return document
        reason = "its top level must be an object of keys and secrets"
    raise StoreError(f"secretsFile {path} cannot be used: {reason}")


class _UnusableNumberError(Exception):
    """A number that Go's JSON decoder refuses."""


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _UnusableNumberError
    return number


def _refused(_constant: str) -> float:
    raise _UnusableNumberError


_Entry = tuple[str, Mapping[str, str]]


def _single_valued(document: Mapping[str, Any], separator: str) -> Iterator[_Entry]:
    for key, leaf in _flatten(document, separator):
        yield key, {key: _text(leaf)}


def _multi_valued(document: Mapping[str, Any], separator: str) -> Iterator[_Entry]:
    for key, value in document.items():
        if isinstance(value, str):
            yield _as_utf8(key), {_as_utf8(key): _as_utf8(value)}
        elif isinstance(value, dict):
            yield _as_utf8(key), _values(_flatten(value, separator))


def _flatten(value: Any, separator: str, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every value that is neither object nor array, with its place in `value` as its key."""
    if isinstance(value, dict):
        children: Iterator[tuple[str, Any]] = iter(value.items())
    elif isinstance(value, list):
        children = ((str(index), item) for index, item in enumerate(value))
    else:
        yield _as_utf8(separator.join(path)), value
        return
    for key, child in children:
        yield from _flatten(child, separator, (*path, key))


def _text(value: Any) -> str:
    """Return a leaf as daprd's store does: what is not text comes out as Go's ``%s`` prints it."""
    if isinstance(value, str):
        return _as_utf8(value)
    if value is None:
        return "%!s(<nil>)"
    if isinstance(value, bool):
        return f"%!s(bool={str(value).lower()})"
    return f"%!s(float64={_go_float(value)})"


def _go_float(value: float) -> str:
    """Print a number as Go's ``%v`` does: shortest digits, an exponent from 1e+06 up and below 0.0001."""
    number = Decimal(repr(value)).normalize()
    mantissa, _, exponent = f"{number:e}".partition("e")
    if -4 <= int(exponent) < 6:
        return f"{number:f}"
    return f"{mantissa}e{int(exponent):+03d}"


def _values(leaves: Iterator[tuple[str, Any]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, leaf in leaves:
        if key in values:
            raise _SameKeyError(key)
        values[key] = _text(leaf)
    return values


class _SameKeyError(Exception):
    """Two places of a secrets file have the same key once it is flattened."""


def _collect(entries: Iterator[_Entry], path: Path) -> dict[str, Mapping[str, str]]:
    # daprd silently drops a random part of such a file: an error now is kinder.
    secrets: dict[str, Mapping[str, str]] = {}
    try:
        for key, values in entries:
            if key in secrets:
                raise _SameKeyError(key)
            secrets[key] = values
    except _SameKeyError as error:
        raise StoreError(
            f"secretsFile {path} has the key '{error}' twice once it is flattened: rename one or set another "
            "nestedSeparator"
        ) from None
    return secrets


def _odd_keys(document: Mapping[str, Any], separator: str, multi_valued: bool) -> Iterator[str]:
    """Yield the flattened keys whose values are not text."""
    for key, value in document.items():
        if multi_valued and isinstance(value, list):
            yield _as_utf8(key)
        else:
            yield from (place for place, leaf in _flatten(value, separator, (key,)) if not isinstance(leaf, str))


def _listed(keys: list[str], most: int = 5) -> str:
    named = ", ".join(f"'{key}'" for key in keys[:most])
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{named}{more} {'is' if len(keys) == 1 else 'are'}"


def _as_utf8(text: str) -> str:
    """Return `text` with what UTF-8 cannot hold (lone surrogates) replaced, as Go's decoder does."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
