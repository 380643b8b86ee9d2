"""Reads a directory of Dapr resources, as ``--resources-path`` names it.

Components that are local secret stores are opened; Configurations give their secret scopes; other kinds, and components
that are no secret stores, are passed over with a warning. The format is Dapr's (``dapr.io/v1alpha1``). Stricter than
daprd, which skips a file that it cannot read: here every fault is reported, all at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from daprfunc.errors import LoadError, Problem
from daprfunc.standalone.secretstores import (
    Component,
    SecretStore,
    StoreError,
    is_env_allowed,
    is_truthy,
    open_env_store,
    open_file_store,
)

MAX_RESOURCE_FILE = 256 * 1024
"""Bytes of the largest resource file read."""

NAMESPACE = "default"
"""The namespace that daprd takes outside Kubernetes."""

# What the types of secret store components begin with.
_STORE_TYPES = "secretstores."
_API_VERSION = "dapr.io/v1alpha1"
_METADATA_NAMES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "secretstores.local.file": frozenset({"secretsFile", "nestedSeparator", "multiValued"}),
        "secretstores.local.env": frozenset({"prefix"}),
    }
)
# "" and "v0" mean the first version too (daprd's IsInitialVersion).
_FIRST_VERSIONS = frozenset({"", "v0", "v1"})
_SUPPORTED = " and ".join(_METADATA_NAMES)


@dataclass(frozen=True, slots=True)
class SecretScope:
    """What a Configuration lets the app read from one store.

    Attributes:
        store_name: the store.
        default_allow: whether keys that no list names are allowed.
        allowed: if not empty, only these keys are.
        denied: these keys are not.
    """

    store_name: str
    default_allow: bool = True
    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def allows(self, key: str) -> bool:
        """Return whether the app may read `key`."""
        if self.allowed:
            return key in self.allowed
        return key not in self.denied and self.default_allow


@dataclass(frozen=True, slots=True)
class Resources:
    """What an embedded sidecar serves.

    Attributes:
        stores: the open secret stores by name, in the order of their files.
        scopes: store name -> what may be read of it; a store without a scope is open.
        warnings: one line each.
    """

    stores: Mapping[str, SecretStore]
    scopes: Mapping[str, SecretScope] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()


def load_resources(directory: Path, *, app_id: str, environ: Mapping[str, str]) -> Resources:
    """Read every ``*.yaml`` and ``*.yml`` of `directory` (not of its subdirectories) and open what they declare.

    Args:
        directory: the directory of resources.
        app_id: the app's id; a component whose ``scopes`` do not name it is passed over.
        environ: the variables that ``secretstores.local.env`` serves and ``envRef`` reads.

    Raises:
        LoadError: every fault found, each naming its file.
    """
    reader = _Reader(app_id, environ)
    for file in _resource_files(directory):
        reader.read(file)
    if reader.problems:
        raise LoadError(*reader.problems)
    if not reader.stores:
        others = f" (scoped to other apps: {', '.join(reader.scoped_out)})" if reader.scoped_out else ""
        found = f"no component for app id '{app_id}' in it{others}, so there is no secret store"
        reader.warnings.append(f"{directory}: {found}; the app id is APP_ID, or else the app directory's name")
    return Resources(MappingProxyType(reader.stores), MappingProxyType(reader.scopes), tuple(reader.warnings))


def _resource_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise LoadError(Problem("there is no such directory: name the one that holds the component files", directory))
    try:
        return sorted(file for file in directory.iterdir() if file.suffix.lower() in {".yaml", ".yml"})
    except OSError as error:
        raise LoadError(Problem(f"the directory cannot be read: {error.strerror}", directory)) from None


class _InvalidError(Exception):
    """A resource cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class _Document:
    """One YAML document: plain dicts, lists, texts and None; every number is the text that was written."""

    line: int
    data: Any

    def where(self, message: str) -> str:
        return f"line {self.line}: {message}"


@dataclass(slots=True)
class _Reader:
    """Collects what the files declare, and every fault in them."""

    app_id: str
    environ: Mapping[str, str]
    stores: dict[str, SecretStore] = field(default_factory=dict)
    scopes: dict[str, SecretScope] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scoped_out: list[str] = field(default_factory=list)

    def read(self, file: Path) -> None:
        try:
            documents = _documents(file)
        except _InvalidError as error:
            self.problems.append(Problem(str(error), file))
            return
        for document in documents:
            self._read_document(document, file)

    def _read_document(self, document: _Document, file: Path) -> None:
        try:
            self._read_resource(document, file)
        except _InvalidError as error:
            self._fail(document, file, str(error))

    def _fail(self, document: _Document, file: Path, reason: str) -> None:
        problem = Problem(document.where(reason), file)
        spec = document.data.get("spec") if isinstance(document.data, dict) else None
        if isinstance(spec, dict) and is_truthy(_loose(spec.get("ignoreErrors"))):
            self.warnings.append(f"{problem} (ignored, as ignoreErrors asks)")
        else:
            self.problems.append(problem)

    def _read_resource(self, document: _Document, file: Path) -> None:
        resource = document.data
        if resource is None:
            return
        if not isinstance(resource, dict):
            raise _InvalidError("a resource is a mapping with apiVersion, kind, metadata and spec")
        api_version = _text(resource, "apiVersion")
        kind = _text(resource, "kind", required=True)
        if kind not in {"Component", "Configuration"}:
            self._pass_over(document, file, f"kind '{kind}' is not served by the embedded sidecar")
        elif api_version != _API_VERSION:
            self._pass_over(document, file, f"apiVersion is '{api_version}', but Dapr reads only {_API_VERSION}")
        elif kind == "Configuration":
            self._read_configuration(resource)
        else:
            self._read_component(resource, document, file)

    def _pass_over(self, document: _Document, file: Path, reason: str) -> None:
        self._warn(file, document.where(f"{reason}: passed over"))

    def _warn(self, file: Path, message: str) -> None:
        self.warnings.append(str(Problem(message, file)))

    def _read_configuration(self, resource: dict[str, Any]) -> None:
        secrets = _mapping(_mapping(resource, "spec"), "secrets")
        for entry in _list(secrets, "scopes"):
            if not isinstance(entry, dict):
                raise _InvalidError("an entry of spec.secrets.scopes is a mapping with storeName")
            scope = _scope(entry)
            if scope.store_name in self.scopes:
                raise _InvalidError(f"storeName '{scope.store_name}' has secret scopes twice: keep one")
            self.scopes[scope.store_name] = scope

    def _read_component(self, resource: dict[str, Any], document: _Document, file: Path) -> None:
        name = _component_name(resource)
        # As daprd: a second one of that name is a fault even where its scopes leave this app out.
        if name in self.stores:
            raise _InvalidError(f"component '{name}' is declared twice: rename one")
        scopes = _texts(resource, "scopes")
        if scopes and self.app_id not in scopes:
            self.scoped_out.append(name)
            return
        spec = _mapping(resource, "spec")
        declared_type = _text(spec, "type", required=True, within="spec.")
        version = _text(spec, "version")
        kind = declared_type.lower()
        if not kind.startswith(_STORE_TYPES):
            self._pass_over(
                document, file, f"component '{name}' is a {declared_type}, and only secret stores are served"
            )
            return
        if kind not in _METADATA_NAMES or version.lower() not in _FIRST_VERSIONS:
            raise _InvalidError(
                f"component '{name}' has type {declared_type}{f'/{version}' if version else ''}, which the embedded "
                f"sidecar does not support; it supports {_SUPPORTED}, version v1: run under Dapr for others"
            )
        metadata = self._metadata(spec, name, kind, file)
        self.stores[name] = self._open(Component(name, declared_type, version, metadata, file))

    def _open(self, component: Component) -> SecretStore:
        if component.type.lower() == "secretstores.local.env":
            return open_env_store(component, self.environ)
        try:
            store, warnings = open_file_store(component)
        except StoreError as error:
            raise _InvalidError(f"component '{component.name}': {error}") from None
        self.warnings.extend(warnings)
        return store

    def _metadata(self, spec: dict[str, Any], component: str, kind: str, file: Path) -> dict[str, str]:
        """Return the metadata's values by name in lower case: Dapr ignores the case of these names."""
        pairs = [self._pair(entry, component, file) for entry in _list(spec, "metadata", within="spec.")]
        known = {name.lower() for name in _METADATA_NAMES[kind]}
        for name, times in Counter(name.lower() for name, _ in pairs).items():
            if times > 1:
                raise _InvalidError(f"component '{component}' has the metadata '{name}' twice: keep one")
            if name not in known:
                names = ", ".join(sorted(_METADATA_NAMES[kind]))
                self.warnings.append(
                    str(
                        Problem(f"component '{component}': metadata '{name}' has no effect; {kind} reads {names}", file)
                    )
                )
        return {name.lower(): self._expand(value) for name, value in pairs}

    def _pair(self, entry: Any, component: str, file: Path) -> tuple[str, str]:
        if not isinstance(entry, dict):
            raise _InvalidError(f"component '{component}': an entry of spec.metadata is a mapping with name and value")
        name = _text(entry, "name", required=True, within="spec.metadata: ")
        if "secretKeyRef" in entry:
            raise _InvalidError(
                f"component '{component}': metadata '{name}' uses secretKeyRef, which the embedded sidecar does not "
                "support: use value or envRef"
            )
        value = _text(entry, "value", within=f"metadata '{name}': ")
        variable = _text(entry, "envRef", within=f"metadata '{name}': ")
        if value or not variable:
            return name, value
        if not is_env_allowed(variable) or " " in variable:
            self._warn(file, f"component '{component}': metadata '{name}' may not read the variable '{variable}'")
            return name, ""
        return name, self.environ.get(variable, "")

    def _expand(self, value: str) -> str:
        return value.replace("{namespace}", f"{NAMESPACE}.{self.app_id}").replace("{appID}", self.app_id)


def _component_name(resource: dict[str, Any]) -> str:
    name = _text(_mapping(resource, "metadata"), "name", required=True, within="metadata.")
    # Kubernetes' rule for a path segment, which daprd applies.
    if name in {".", ".."} or "/" in name or "%" in name:
        raise _InvalidError(f"'{name}' cannot be a component's name: it may not hold '/' or '%', nor be '.' or '..'")
    return name


def _scope(entry: dict[str, Any]) -> SecretScope:
    store = _text(entry, "storeName", required=True, within="spec.secrets.scopes: ")
    access = _text(entry, "defaultAccess").lower()
    if access not in {"", "allow", "deny"}:
        raise _InvalidError(f"defaultAccess of store '{store}' can be allow or deny, not '{access}'")
    allowed, denied = _texts(entry, "allowedSecrets"), _texts(entry, "deniedSecrets")
    return SecretScope(store, access != "deny", frozenset(allowed), frozenset(denied))


def _text(mapping: dict[str, Any], key: str, *, required: bool = False, within: str = "") -> str:
    value = mapping.get(key)
    if value is not None and not isinstance(value, str):
        raise _InvalidError(f"{within}{key} must be a text")
    if required and not value:
        raise _InvalidError(f"{within}{key} is missing")
    return value or ""


def _loose(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mapping(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    value = mapping.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _InvalidError(f"{key} must be a mapping")
    return value


def _list(mapping: dict[str, Any], key: str, *, within: str = "") -> list[Any]:
    value = mapping.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _InvalidError(f"{within}{key} must be a list")
    return value


def _texts(mapping: dict[str, Any], key: str) -> list[str]:
    values = _list(mapping, key)
    if not all(isinstance(value, str) for value in values):
        raise _InvalidError(f"{key} must be a list of texts")
    return values


def _documents(file: Path) -> list[_Document]:
    """Read a file's YAML documents.

    Raises:
        _InvalidError: it cannot be read; says where it went wrong, never what stood there, as that may be a secret.
    """
    content = _content(file)
    try:
        return list(_compose(content))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _InvalidError(f"{place}not valid YAML: check the indentation and the quotes there") from None
    except yaml.YAMLError:
        raise _InvalidError("not valid YAML: it holds characters that YAML does not allow") from None
    except RecursionError:
        raise _InvalidError("nested too deeply") from None
    except (ValueError, OverflowError):
        raise _InvalidError(r"not valid YAML: a \U escape names no character") from None


def _content(file: Path) -> bytes:
    if not file.is_file():
        raise _InvalidError("not a regular file")
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_RESOURCE_FILE + 1)
    except OSError as error:
        raise _InvalidError(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_RESOURCE_FILE:
        raise _InvalidError(f"larger than {MAX_RESOURCE_FILE} bytes: split it")
    return content


class _Loader(yaml.SafeLoader):
    """Composes nodes only: nothing is constructed from tags."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # An alias repeats what its anchor holds: a few lines of them can stand for gigabytes.
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _InvalidError(f"line {mark.line + 1}: YAML aliases (*name) are not supported: write the value out")
        return super().compose_node(parent, index)


def _compose(content: bytes) -> Iterator[_Document]:
    for node in yaml.compose_all(content, Loader=_Loader):
        yield _Document(node.start_mark.line + 1, _plain(node))


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {_key(key): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return _scalar(node)


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _InvalidError(f"line {node.start_mark.line + 1}: the key of a mapping must be a text")
    return _scalar(node) or ""


def _scalar(node: yaml.Node) -> str | None:
    if node.tag == "tag:yaml.org,2002:null":
        return None
    if node.tag == "tag:yaml.org,2002:bool":
        return "true" if is_truthy(node.value) else "false"
    # A \u escape can name half a surrogate pair, which UTF-8 cannot hold.
    return str(node.value).encode("utf-8", "replace").decode()
