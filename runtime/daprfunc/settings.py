"""Everything that the runtime can be told, and where it was said.

One order holds for every setting: command line, environment, ``Values`` of local.settings.json, host.json, default.
This module alone reads ``os.environ`` and knows the names in it. Where Dapr has a name for a thing, that is the name.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Literal, TypeVar

from daprfunc import jsonc
from daprfunc.endpoint import Endpoint, parse_endpoint
from daprfunc.errors import SettingsError
from daprfunc.model import Retry
from daprfunc.retry import parse_retry
from daprfunc.timespan import parse_timespan

PROTOCOLS = ("http", "grpc", "https", "grpcs", "h2c")
"""What daprd's --app-protocol can be."""

_TLS_PROTOCOLS = frozenset({"https", "grpcs"})

HOST_FILE = "host.json"
LOCAL_SETTINGS_FILE = "local.settings.json"

_LEVELS = {
    "trace": 5,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "information": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,  # Dapr's word
    "none": logging.CRITICAL + 10,
}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}
# Kubernetes' quantities, which Dapr's --max-body-size takes; a B after them changes nothing.
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_DIGITS = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_QUANTITY = re.compile(rf"([0-9]{{1,15}})({'|'.join(filter(None, _UNITS))})?B?")
_HOST_NAME = re.compile(r"[\w.-]+", re.ASCII)
_HOST = "AzureFunctionsJobHost__"  # how the .NET host names properties of host.json in the environment
_ABSENT = object()
_Document = TypeVar("_Document", bound=Mapping[str, object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the runtime was told. Times are in seconds, sizes in bytes, levels are :mod:`logging`'s numbers.

    A field's flag is its name with dashes; not every field has one. log_level, mask_secrets, secret_ttl and
    function_timeout can also be set by the environment name that the .NET host gives their property in host.json, such
    as AzureFunctionsJobHost__logging__logLevel__default.

    Attributes:
        app_dir: the app's root directory.
        app_id: the app's name in Dapr. APP_ID; else the directory's name.
        app_port: the port to listen on; 0 takes a free one. Flag, DAPR_APP_PORT, APP_PORT.
        app_address: the address to listen on. Flag, APP_CHANNEL_ADDRESS.
        app_protocol: how daprd was told to call the app; None if nobody said. All ways work on one port, so it is but
            compared with the certificate. Flag; not APP_PROTOCOL, which the app may use for something else.
        app_tls_cert_file: certificate chain (PEM) for the app's port; given together with the key. Flag.
        app_tls_key_file: private key (PEM) for the app's port. Flag.
        app_api_token: what daprd must send us. APP_API_TOKEN.
        resources_path: components for an embedded sidecar; None is for a real one. Flag.
        dapr_grpc_endpoint: the sidecar. Flag, DAPR_GRPC_ENDPOINT, or DAPR_RUNTIME_HOST and DAPR_GRPC_PORT. Of two
            places that name it, the earlier in the order wins, whichever way it does so.
        dapr_grpc_port: the sidecar's port where one was given: where an embedded one listens. Flag, DAPR_GRPC_PORT.
        dapr_api_token: what we must send daprd. DAPR_API_TOKEN.
        api_timeout: the deadline of one sidecar call. DAPR_API_TIMEOUT_SECONDS.
        health_timeout: how long to wait for the sidecar at start. DAPR_HEALTH_TIMEOUT.
        check_sidecar_metadata: whether to compare the sidecar's metadata with ours. DAPR_DISABLE_SIDECAR_METADATA_CHECK
            switches it off.
        log_level: the level where no category applies. Flag, DAPR_LOG_LEVEL, host.json logging.logLevel.default.
        log_levels: category -> level, ``default`` left out. host.json logging.logLevel.
        log_format: Flag, DAPR_LOG_FORMAT.
        mask_secrets: whether secret values are masked in the user's own log lines and error texts. Flag, host.json
            extensions.dapr.maskSecrets.
        secret_ttl: for how long a secret that was read may be given again; 0 reads it for each invocation. Flag,
            host.json extensions.dapr.secretTtl.
        max_body_size: the largest body taken. Flag, DAPR_MAX_BODY_SIZE.
        max_concurrency: how many invocations may run at once. Flag, DAPR_APP_MAX_CONCURRENCY.
        drain_timeout: how long running invocations may finish once asked to stop. Flag, DAPR_GRACEFUL_SHUTDOWN_SECONDS.
        thread_count: threads for functions that are not async, 1 to 128. PYTHON_THREADPOOL_THREAD_COUNT.
        script_name: the v2 app's main file. PYTHON_SCRIPT_FILE_NAME.
        function_timeout: how long one invocation may take; None is for ever. host.json functionTimeout; the default
            is that of a self-hosted Azure Functions host.
        retry: the policy of functions without their own. host.json retry.
        app_settings: what ``%NAME%`` stands for: the environment, and Values where it says nothing. From
            :func:`read_settings` it is :class:`AppSettings`.
    """

    app_dir: Path
    app_id: str = "app"
    app_port: int = 3001
    app_address: str = "127.0.0.1"
    app_protocol: str | None = None
    app_tls_cert_file: Path | None = None
    app_tls_key_file: Path | None = None
    app_api_token: str | None = field(default=None, repr=False)
    resources_path: Path | None = None
    dapr_grpc_endpoint: Endpoint = field(default_factory=Endpoint)
    dapr_grpc_port: int | None = None
    dapr_api_token: str | None = field(default=None, repr=False)
    api_timeout: float = 60.0
    health_timeout: float = 60.0
    check_sidecar_metadata: bool = True
    log_level: int = logging.INFO
    log_levels: Mapping[str, int] = field(default_factory=dict)
    log_format: Literal["text", "json"] = "text"
    mask_secrets: bool = False
    secret_ttl: float = 0.0
    max_body_size: int = 4 * 2**20
    max_concurrency: int = 1000
    drain_timeout: float = 30.0
    thread_count: int = field(default_factory=lambda: min(32, (os.cpu_count() or 1) + 4))
    script_name: str = "function_app.py"
    function_timeout: float | None = 1800.0
    retry: Retry | None = None
    app_settings: Mapping[str, str] = field(default_factory=dict, repr=False)


class AppSettings(Mapping[str, str]):
    """Text by name. A name that is not there as it is written is looked up as .NET's configuration does.

    That is in any case (where the host runs on Windows) and with ``:`` for the ``__`` of an environment variable's name
    (everywhere; azure-webjobs-sdk, issue 1550). Names that differ in case only stay apart; of several that would do,
    the first is taken.

    Args:
        texts: the settings, in the order in which they are to be found.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = dict(texts)
        self._names: dict[str, str] = {}
        for name in self._texts:
            self._names.setdefault(_folded(name), name)

    def __getitem__(self, name: str) -> str:
        return self._texts[name if name in self._texts else self._names[_folded(name)]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def _folded(name: str) -> str:
    return name.lower().replace("__", ":")


def process_environment() -> Mapping[str, str]:
    """Return this process's environment, for :func:`read_settings`."""
    return os.environ


def export_app_settings(settings: Settings) -> None:
    """Put ``Values`` of local.settings.json into this process's environment, where the user's code looks for them.

    Real environment variables win, as under the Azure Functions Core Tools.
    """
    for name, text in settings.app_settings.items():
        if not os.environ.get(name):
            os.environ[name] = text


def export_sidecar_ports(grpc_port: int, http_port: int) -> None:
    """Tell the user's code where the embedded sidecar is, by the names that Dapr's SDKs look for."""
    os.environ["DAPR_GRPC_PORT"] = str(grpc_port)
    os.environ["DAPR_HTTP_PORT"] = str(http_port)


@contextmanager
def restored_environment() -> Iterator[None]:
    """Undo, when the block ends, whatever was put into this process's environment meanwhile."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def read_settings(app_dir: Path, flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Gather the settings of one app.

    Args:
        app_dir: the app's root directory; host.json and local.settings.json are looked for there, neither is needed.
        flags: field name -> value, for what the command line gave; None is as good as absent.
        environ: the environment, see :func:`process_environment`. An empty variable is as good as absent.

    Raises:
        SettingsError: with one line for each thing that is wrong.
    """
    app_dir = app_dir.resolve()
    problems: list[str] = []
    local = _read_file(app_dir / LOCAL_SETTINGS_FILE, _local_values, problems)
    host = _read_file(app_dir / HOST_FILE, _host_document, problems)
    sources = _Sources(flags, environ, local, host, app_dir)
    given = {option.name: option.read(sources, problems) for option in _OPTIONS}
    given["dapr_grpc_endpoint"] = _read_sidecar(sources, problems)
    fields = {name: value for name, value in given.items() if value is not _ABSENT}
    problems += _contradictions(flags, fields.get("app_protocol"))
    if problems:
        raise SettingsError("\n".join(dict.fromkeys(problems)))
    unset = {name: text for name, text in local.items() if not environ.get(name)}
    app_settings = AppSettings({**environ, **unset})
    return Settings(app_dir=app_dir, **{"app_id": app_dir.name or "app", **fields}, app_settings=app_settings)


@dataclass(frozen=True, slots=True)
class _Found:
    """A setting as it was found: the lower its rank, the earlier its place in the order."""

    rank: int
    place: str
    value: object


class _Sources:
    """The places in which settings are looked for, in their order."""

    def __init__(
        self,
        flags: Mapping[str, object],
        environ: Mapping[str, str],
        local: Mapping[str, str],
        host: Mapping[str, object],
        app_dir: Path,
    ) -> None:
        self._flags = flags
        self._named = (("environment variable ", environ), (f"{app_dir / LOCAL_SETTINGS_FILE}: Values.", local))
        self._host = host
        self._host_file = app_dir / HOST_FILE

    def find(self, option: _Option) -> _Found | None:
        """Return the first of all places that says something.

        Raises:
            ValueError: host.json has another type of value on the way to the option's path.
        """
        flag = self._flags.get(option.name)
        if flag is not None:
            return _Found(0, "--" + option.name.replace("_", "-"), flag)
        for rank, (label, texts) in enumerate(self._named, 1):
            for name in option.environment:
                if texts.get(name):
                    return _Found(rank, label + name, texts[name])
        value = self._in_host_file(option.host_path)
        return None if value is None else _Found(3, f"{self._host_file}: {'.'.join(option.host_path)}", value)

    def _in_host_file(self, path: tuple[str, ...]) -> object:
        value: object = self._host if path else None
        for depth, name in enumerate(path):
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"{self._host_file}: {'.'.join(path[:depth])}: found {_shown(value)}, expected an object"
                )
            value = _property(value, name)
            if value is None:
                break
        return value


@dataclass(frozen=True, slots=True)
class _Option:
    """One setting: how to read it, and its names.

    Attributes:
        name: the field in Settings; also the flag.
        parse: takes what was found; ValueError says what was expected, and what was found unless that is a secret.
        environment: names of environment variables, the first one set wins.
        host_path: the property's path in host.json.
    """

    name: str
    parse: Callable[[object], object]
    environment: tuple[str, ...] = ()
    host_path: tuple[str, ...] = ()

    def read(self, sources: _Sources, problems: list[str]) -> Any:
        """Return the parsed value; _ABSENT if nobody said anything, or if that is no use and now one of `problems`."""
        try:
            found = sources.find(self)
        except ValueError as error:
            problems.append(str(error))
            return _ABSENT
        return _ABSENT if found is None else _parse(found, self.parse, problems)


def _parse(found: _Found, parse: Callable[[object], object], problems: list[str]) -> Any:
    try:
        return parse(found.value)
    except ValueError as error:
        problems.append(f"{found.place}: {error}")
        return _ABSENT


def _read_sidecar(sources: _Sources, problems: list[str]) -> Any:
    endpoint, host, port = (sources.find(option) for option in (_ENDPOINT, _RUNTIME_HOST, _RUNTIME_PORT))
    if endpoint and all(endpoint.rank <= other.rank for other in (host, port) if other):
        return _parse(endpoint, lambda text: parse_endpoint(str(text)), problems)
    parts = {"host": _RUNTIME_HOST.read(sources, problems), "port": _RUNTIME_PORT.read(sources, problems)}
    return Endpoint(**{name: part for name, part in parts.items() if part is not _ABSENT})


def _contradictions(flags: Mapping[str, object], app_protocol: str | None) -> list[str]:
    problems = []
    certificate = flags.get("app_tls_cert_file") is not None
    if app_protocol in _TLS_PROTOCOLS and not certificate:
        problems.append(f"--app-protocol {app_protocol} needs --app-tls-cert-file and --app-tls-key-file")
    if app_protocol and app_protocol not in _TLS_PROTOCOLS and certificate:
        tls = " or ".join(sorted(_TLS_PROTOCOLS))
        problems.append(f"--app-protocol {app_protocol} is without TLS: write {tls}, or leave --app-tls-cert-file out")
    if certificate != (flags.get("app_tls_key_file") is not None):
        problems.append("--app-tls-cert-file and --app-tls-key-file go together: give both or neither")
    if flags.get("resources_path") is not None and flags.get("dapr_grpc_endpoint") is not None:
        problems.append("--resources-path starts a sidecar here, --dapr-grpc-endpoint names another: give one of them")
    return problems


def _read_file(file: Path, check: Callable[[Path, Mapping[str, object]], _Document], problems: list[str]) -> _Document:
    try:
        return check(file, _json_object(file))
    except ValueError as error:
        problems.append(str(error))
        return check(file, {})


def _json_object(file: Path) -> Mapping[str, object]:
    try:
        document = jsonc.loads(file.read_bytes().decode(), file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not UTF-8 text") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file}: found {_shown(document)}, expected an object")
    return document


def _local_values(file: Path, document: Mapping[str, object]) -> dict[str, str]:
    if _property(document, "IsEncrypted") is True:
        raise ValueError(f"{file}: its values are encrypted; run `func settings decrypt` in its directory")
    values = _property(document, "Values")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{file}: Values: found {_shown(values)}, expected an object")
    reasons = {name: _unfit(name, value) for name, value in values.items()}
    unfit = [f"{file}: Values: {_shown(name)}: {reason}" for name, reason in reasons.items() if reason]
    if unfit:
        raise ValueError("\n".join(unfit))
    return {name: _environment_text(value) for name, value in values.items() if value is not None}


def _unfit(name: str, value: object) -> str | None:
    """Say why this cannot be an environment variable, which is what Values are for the user's code."""
    if isinstance(value, dict | list):
        return f"found {_shown(value)}, expected text; name inner settings outer__inner"
    if not name or "=" in name:
        return "a name must not be empty nor hold '='"
    if not _is_encodable(name + _environment_text(value)):
        return "holds a character that an environment variable cannot"
    return None


def _environment_text(value: object) -> str:
    # As the Azure Functions Core Tools turn numbers and booleans into text.
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_encodable(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _host_document(file: Path, document: Mapping[str, object]) -> Mapping[str, object]:
    version = _property(document, "version")
    if version not in (None, "2.0"):
        raise ValueError(f'{file}: version: found {_shown(version)}, expected "2.0"')
    return document


def _property(document: Mapping[str, object], name: str) -> object:
    # .NET's configuration ignores the case of property names.
    lowered = name.lower()
    return next((value for key, value in document.items() if key.lower() == lowered), None)


def _shown(value: object) -> str:
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return f"'{value[:80]}'" if value.isprintable() else "text with control characters"
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case _:
            return str(value)[:80]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"found {_shown(value)}, expected text")
    return value


def _token(value: object) -> str:
    token = str(value).strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError("holds a character that a header cannot; tokens are printable ASCII")
    return token


def _path(value: object) -> Path:
    return Path(str(value))


def _file(value: object) -> Path:
    path = Path(str(value))
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


def _address(value: object) -> str:
    address = str(value).removeprefix("[").removesuffix("]")
    if not _HOST_NAME.fullmatch(address) and not _is_ipv6(address):
        raise ValueError(f"found {_shown(value)}, expected a host name or an IP address, without a port")
    return address


def _is_ipv6(address: str) -> bool:
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return True


def _script(value: object) -> str:
    script = _text(value)
    if Path(script).name != script or not script.endswith(".py"):
        raise ValueError(f"found {_shown(value)}, expected the name of a .py file in the app's root directory")
    return script


def _boolean(value: object) -> bool:
    truth = _TRUTHS.get(str(value).lower())
    if truth is None:
        raise ValueError(f"found {_shown(value)}, expected true or false")
    return truth


def _negation(value: object) -> bool:
    return not _boolean(value)


def _choice(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        choice = str(value).lower()
        if choice not in choices:
            raise ValueError(f"found {_shown(value)}, expected one of {', '.join(choices)}")
        return choice

    return parse


def _whole(lowest: int, highest: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        text = str(value).strip()
        if not _DIGITS.fullmatch(text) or not lowest <= int(text) <= highest:
            raise ValueError(f"found {_shown(value)}, expected a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def _seconds(*, zero: bool) -> Callable[[object], float]:
    def parse(value: object) -> float:
        text = str(value).strip()
        if not _DECIMAL.fullmatch(text) or not (zero or float(text)):
            raise ValueError(f"found {_shown(value)}, expected a number of seconds{'' if zero else ' above 0'}")
        return float(text)

    return parse


def _size(value: object) -> int:
    match = _QUANTITY.fullmatch(str(value).strip())
    size = int(match[1]) * _UNITS[match[2] or ""] if match else 0
    if not size:
        raise ValueError(f"found {_shown(value)}, expected a number of bytes above 0, such as 4194304, 4Mi or 512k")
    return size


def _level(value: object) -> int:
    level = _LEVELS.get(str(value).lower())
    if level is None:
        names = "trace, debug, information, warning, error, critical or none"
        raise ValueError(f"found {_shown(value)}, expected {names}")
    return level


def _levels(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError(f"found {_shown(value)}, expected an object")
    # The default has an option of its own, which also says what is wrong with it.
    categories = {category: level for category, level in value.items() if category.lower() != "default"}
    return {category: _category_level(category, level) for category, level in categories.items()}


def _category_level(category: str, value: object) -> int:
    try:
        return _level(value)
    except ValueError as error:
        raise ValueError(f"category {_shown(category)}: {error}") from None


def _timeout(value: object) -> float | None:
    if str(value) == "-1":  # Azure's word for no limit
        return None
    seconds = parse_timespan(_text(value))
    if not seconds:
        raise ValueError(f"found {_shown(value)}, expected a time above 0, or -1 for no limit")
    return seconds


_PORT = _whole(1, 65535)
_ENDPOINT = _Option("dapr_grpc_endpoint", _text, ("DAPR_GRPC_ENDPOINT",))
_RUNTIME_HOST = _Option("dapr_runtime_host", _address, ("DAPR_RUNTIME_HOST",))
_RUNTIME_PORT = _Option("dapr_grpc_port", _PORT, ("DAPR_GRPC_PORT",))

_OPTIONS = (
    _Option("app_id", _text, ("APP_ID",)),
    _Option("app_port", _whole(0, 65535), ("DAPR_APP_PORT", "APP_PORT")),
    _Option("app_address", _address, ("APP_CHANNEL_ADDRESS",)),
    _Option("app_protocol", _choice(*PROTOCOLS)),
    _Option("app_tls_cert_file", _file),
    _Option("app_tls_key_file", _file),
    _Option("app_api_token", _token, ("APP_API_TOKEN",)),
    _Option("resources_path", _path),
    _RUNTIME_PORT,
    _Option("dapr_api_token", _token, ("DAPR_API_TOKEN",)),
    _Option("api_timeout", _seconds(zero=False), ("DAPR_API_TIMEOUT_SECONDS",)),
    _Option("health_timeout", _seconds(zero=True), ("DAPR_HEALTH_TIMEOUT",)),
    _Option("check_sidecar_metadata", _negation, ("DAPR_DISABLE_SIDECAR_METADATA_CHECK",)),
    _Option(
        "log_level",
        _level,
        ("DAPR_LOG_LEVEL", _HOST + "logging__logLevel__default"),
        ("logging", "logLevel", "default"),
    ),
    _Option("log_levels", _levels, host_path=("logging", "logLevel")),
    _Option("log_format", _choice("text", "json"), ("DAPR_LOG_FORMAT",)),
    _Option(
        "mask_secrets", _boolean, (_HOST + "extensions__dapr__maskSecrets",), ("extensions", "dapr", "maskSecrets")
    ),
    _Option(
        "secret_ttl",
        _seconds(zero=True),
        (_HOST + "extensions__dapr__secretTtl",),
        ("extensions", "dapr", "secretTtl"),
    ),
    _Option("max_body_size", _size, ("DAPR_MAX_BODY_SIZE",)),
    _Option("max_concurrency", _whole(1, 10**6), ("DAPR_APP_MAX_CONCURRENCY",)),
    _Option("drain_timeout", _seconds(zero=True), ("DAPR_GRACEFUL_SHUTDOWN_SECONDS",)),
    _Option("thread_count", _whole(1, 128), ("PYTHON_THREADPOOL_THREAD_COUNT",)),
    _Option("script_name", _script, ("PYTHON_SCRIPT_FILE_NAME",)),
    _Option("function_timeout", _timeout, (_HOST + "functionTimeout",), ("functionTimeout",)),
    _Option("retry", parse_retry, host_path=("retry",)),
)
