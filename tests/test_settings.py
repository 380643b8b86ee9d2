from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from daprfunc.endpoint import Endpoint
from daprfunc.errors import SettingsError
from daprfunc.model import Retry
from daprfunc.settings import AppSettings, Settings, export_app_settings, process_environment, read_settings


@pytest.fixture
def app(tmp_path: Path) -> Path:
    directory = tmp_path / "orders"
    directory.mkdir()
    return directory


def read(
    app: Path,
    flags: dict[str, object] | None = None,
    environ: dict[str, str] | None = None,
    *,
    local: str | None = None,
    host: str | None = None,
) -> Settings:
    if local is not None:
        (app / "local.settings.json").write_text(local, encoding="utf-8")
    if host is not None:
        (app / "host.json").write_text(host, encoding="utf-8")
    return read_settings(app, flags or {}, environ or {})


def problems(app: Path, *args: Any, **files: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(app, *args, **files)
    return str(caught.value).splitlines()


def test_nothing_said_gives_the_defaults(app: Path) -> None:
    assert read(app) == Settings(app_dir=app, app_id="orders")
    assert read(app).dapr_grpc_endpoint == Endpoint("127.0.0.1", 50001)
    assert read(app).thread_count == min(32, (os.cpu_count() or 1) + 4)


def test_a_relative_directory_becomes_absolute_and_names_the_app(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app)
    settings = read(Path())
    assert (settings.app_dir, settings.app_id) == (app, "orders")


ORDER = [
    ({"log_level": "error"}, "warning", "debug", "trace", logging.ERROR),
    ({}, "warning", "debug", "trace", logging.WARNING),
    ({"log_level": None}, "warning", "debug", "trace", logging.WARNING),
    ({}, "", "debug", "trace", logging.DEBUG),
    ({}, "", "", "trace", 5),
]


@pytest.mark.parametrize(("flags", "environment", "local", "host", "expected"), ORDER)
def test_flag_environment_local_settings_host_file_in_this_order(
    app: Path, flags: dict[str, object], environment: str, local: str, host: str, expected: int
) -> None:
    settings = read(
        app,
        flags,
        {"DAPR_LOG_LEVEL": environment},
        local=f'{{"Values": {{"DAPR_LOG_LEVEL": "{local}"}}}}',
        host=f'{{"version": "2.0", "logging": {{"logLevel": {{"default": "{host}"}}}}}}',
    )
    assert settings.log_level == expected


SAID = [
    ("app_id", {}, {"APP_ID": "shop"}, "shop"),
    ("app_port", {"app_port": 4000}, {"DAPR_APP_PORT": "1"}, 4000),
    ("app_port", {"app_port": 0}, {}, 0),
    ("app_port", {}, {"DAPR_APP_PORT": "4001", "APP_PORT": "4002"}, 4001),
    ("app_port", {}, {"APP_PORT": "4002"}, 4002),
    ("app_address", {"app_address": "::1"}, {}, "::1"),
    ("app_address", {"app_address": "[::1]"}, {}, "::1"),
    ("app_address", {}, {"APP_CHANNEL_ADDRESS": "0.0.0.0"}, "0.0.0.0"),
    ("app_protocol", {}, {}, None),
    ("app_protocol", {"app_protocol": "H2C"}, {}, "h2c"),
    ("app_protocol", {}, {"APP_PROTOCOL": "the app's own"}, None),
    ("resources_path", {"resources_path": "components"}, {}, Path("components")),
    ("dapr_api_token", {}, {"DAPR_API_TOKEN": " t0ken\n"}, "t0ken"),
    ("app_api_token", {}, {"APP_API_TOKEN": "t0ken"}, "t0ken"),
    ("api_timeout", {}, {"DAPR_API_TIMEOUT_SECONDS": "2.5"}, 2.5),
    ("health_timeout", {}, {"DAPR_HEALTH_TIMEOUT": "0"}, 0.0),
    ("check_sidecar_metadata", {}, {"DAPR_DISABLE_SIDECAR_METADATA_CHECK": "TRUE"}, False),
    ("check_sidecar_metadata", {}, {"DAPR_DISABLE_SIDECAR_METADATA_CHECK": "false"}, True),
    ("log_format", {"log_format": "json"}, {}, "json"),
    ("log_format", {}, {"DAPR_LOG_FORMAT": "json"}, "json"),
    ("log_level", {"log_level": "Information"}, {}, logging.INFO),
    ("log_level", {"log_level": "WARN"}, {}, logging.WARNING),
    ("log_level", {"log_level": "critical"}, {}, logging.CRITICAL),
    ("log_level", {}, {"AzureFunctionsJobHost__logging__logLevel__default": "Error"}, logging.ERROR),
    ("max_body_size", {"max_body_size": "4Mi"}, {}, 4_194_304),
    ("max_body_size", {"max_body_size": "4MiB"}, {}, 4_194_304),
    ("max_body_size", {"max_body_size": "512k"}, {}, 512_000),
    ("max_body_size", {"max_body_size": "1Gi"}, {}, 2**30),
    ("max_body_size", {}, {"DAPR_MAX_BODY_SIZE": "4194305"}, 4_194_305),
    ("max_concurrency", {"max_concurrency": "7"}, {}, 7),
    ("max_concurrency", {}, {"DAPR_APP_MAX_CONCURRENCY": "8"}, 8),
    ("drain_timeout", {"drain_timeout": 0}, {}, 0.0),
    ("drain_timeout", {}, {"DAPR_GRACEFUL_SHUTDOWN_SECONDS": "5"}, 5.0),
    ("thread_count", {}, {"PYTHON_THREADPOOL_THREAD_COUNT": "128"}, 128),
    ("script_name", {}, {"PYTHON_SCRIPT_FILE_NAME": "main.py"}, "main.py"),
    ("mask_secrets", {"mask_secrets": True}, {}, True),
    ("mask_secrets", {}, {"AzureFunctionsJobHost__extensions__dapr__maskSecrets": "true"}, True),
    ("secret_ttl", {"secret_ttl": "2.5"}, {"AzureFunctionsJobHost__extensions__dapr__secretTtl": "3"}, 2.5),
    ("secret_ttl", {}, {"AzureFunctionsJobHost__extensions__dapr__secretTtl": "3"}, 3.0),
    ("secret_ttl", {"secret_ttl": "0"}, {}, 0.0),
    ("function_timeout", {}, {"AzureFunctionsJobHost__functionTimeout": "00:00:07"}, 7.0),
]


@pytest.mark.parametrize(("field", "flags", "environ", "expected"), SAID)
def test_flags_and_environment(
    app: Path, field: str, flags: dict[str, object], environ: dict[str, str], expected: object
) -> None:
    assert getattr(read(app, flags, environ), field) == expected


SIDECARS = [
    ({}, {}, {}, "127.0.0.1:50001"),
    ({}, {"DAPR_GRPC_PORT": "50007"}, {}, "127.0.0.1:50007"),
    ({}, {"DAPR_RUNTIME_HOST": "dapr", "DAPR_GRPC_PORT": "50007"}, {}, "dapr:50007"),
    ({}, {"DAPR_RUNTIME_HOST": "dapr"}, {}, "dapr:50001"),
    ({}, {"DAPR_RUNTIME_HOST": "[::1]"}, {}, "[::1]:50001"),
    ({}, {"DAPR_GRPC_ENDPOINT": "dapr:1", "DAPR_GRPC_PORT": "2"}, {}, "dapr:1"),
    ({"dapr_grpc_port": 3}, {"DAPR_GRPC_ENDPOINT": "dapr:1", "DAPR_GRPC_PORT": "2"}, {}, "127.0.0.1:3"),
    ({"dapr_grpc_port": 3}, {"DAPR_RUNTIME_HOST": "dapr"}, {}, "dapr:3"),
    ({"dapr_grpc_endpoint": "flag:1", "dapr_grpc_port": 3}, {}, {}, "flag:1"),
    ({"dapr_grpc_endpoint": "flag:1"}, {"DAPR_GRPC_PORT": "2"}, {}, "flag:1"),
    ({}, {"DAPR_GRPC_PORT": "2"}, {"DAPR_GRPC_ENDPOINT": "local:1"}, "127.0.0.1:2"),
    ({}, {"DAPR_GRPC_ENDPOINT": "dapr:1"}, {"DAPR_GRPC_PORT": "2"}, "dapr:1"),
    ({}, {}, {"DAPR_GRPC_ENDPOINT": "local:1"}, "local:1"),
    ({}, {"DAPR_GRPC_ENDPOINT": "unix:///tmp/dapr.socket"}, {}, "unix:/tmp/dapr.socket"),
]


@pytest.mark.parametrize(("flags", "environ", "local", "expected"), SIDECARS)
def test_the_sidecar_is_what_the_first_place_in_the_order_says(
    app: Path, flags: dict[str, object], environ: dict[str, str], local: dict[str, str], expected: str
) -> None:
    values = ", ".join(f'"{name}": "{text}"' for name, text in local.items())
    settings = read(app, flags, environ, local=f'{{"Values": {{{values}}}}}')
    assert str(settings.dapr_grpc_endpoint) == expected


def test_an_https_endpoint_is_tls_and_a_given_port_is_kept_for_an_embedded_sidecar(app: Path) -> None:
    assert read(app, {}, {"DAPR_GRPC_ENDPOINT": "https://dapr.example"}).dapr_grpc_endpoint.tls
    assert read(app).dapr_grpc_port is None
    assert read(app, {"dapr_grpc_port": 50009}).dapr_grpc_port == 50009


def test_app_settings_are_the_environment_over_the_values(app: Path) -> None:
    settings = read(
        app,
        environ={"REAL": "environment", "EMPTY": "", "ONLY": "environment"},
        local="""{
            // what func init writes, and more
            "IsEncrypted": false,
            "Values": {
                "REAL": "file", "EMPTY": "file", "TEXT": "file",
                "NUMBER": 7, "FRACTION": 0.5, "TRUE": true, "FALSE": false, "NULL": null,
            },
            "Host": {"CORS": "*"},
        }""",
    )
    assert settings.app_settings == {
        "REAL": "environment",
        "EMPTY": "file",
        "ONLY": "environment",
        "TEXT": "file",
        "NUMBER": "7",
        "FRACTION": "0.5",
        "TRUE": "true",
        "FALSE": "false",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Store", "exact"),
        ("STORE", "other case"),
        ("store", "exact"),  # the first of those that fit
        ("secrets__Key", "nested"),
        ("Secrets:Key", "nested"),
        ("SECRETS:KEY", "nested"),
        ("Secrets_Key", None),
        ("Stores", None),
        ("", None),
    ],
)
def test_app_settings_are_found_as_the_net_host_finds_them(name: str, text: str | None) -> None:
    settings = AppSettings({"Store": "exact", "STORE": "other case", "Secrets__Key": "nested"})
    assert settings.get(name) == text
    assert (name in settings) == (text is not None)
    assert list(settings) == ["Store", "STORE", "Secrets__Key"]
    assert len(settings) == 3


def test_a_name_in_another_case_is_found_in_the_environment_before_the_values(app: Path) -> None:
    settings = read(app, environ={"Store": "environment"}, local='{"Values": {"STORE": "file", "KEY": "file"}}')
    found = settings.app_settings
    assert (found["Store"], found["STORE"], found["store"], found["key"]) == (
        "environment",
        "file",
        "environment",
        "file",
    )


def test_values_are_exported_to_the_users_code_and_real_variables_win(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"DAPRFUNC_TEST_REAL": "environment", "DAPRFUNC_TEST_EMPTY": ""}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("DAPRFUNC_TEST_NEW", "is removed afterwards")
    monkeypatch.delenv("DAPRFUNC_TEST_NEW")
    names = ("DAPRFUNC_TEST_REAL", "DAPRFUNC_TEST_EMPTY", "DAPRFUNC_TEST_NEW")
    (app / "local.settings.json").write_text(json.dumps({"Values": dict.fromkeys(names, "file")}))
    export_app_settings(read_settings(app, {}, process_environment()))
    assert [os.environ[name] for name in names] == ["environment", "file", "file"]


def test_host_file(app: Path) -> None:
    settings = read(
        app,
        host="""{
            "version": "2.0", // comments are fine
            "functionTimeout": "00:05:00",
            "Logging": {
                "LogLevel": {"Default": "Warning", "Function": "Debug", "Function.Pay": "None", "Host": "Error"}
            },
            "retry": {"strategy": "fixedDelay", "maxRetryCount": 2, "delayInterval": "00:00:03"},
            "extensions": {"dapr": {"maskSecrets": true, "secretTtl": 0.5}, "http": {"routePrefix": "api"}},
            "extensionBundle": {"id": "Microsoft.Azure.Functions.ExtensionBundle"},
        }""",
    )
    assert settings == Settings(
        app_dir=app,
        app_id="orders",
        function_timeout=300.0,
        log_level=logging.WARNING,
        log_levels={"Function": logging.DEBUG, "Function.Pay": 60, "Host": logging.ERROR},
        retry=Retry("fixedDelay", 2, delay=3.0),
        mask_secrets=True,
        secret_ttl=0.5,
    )


@pytest.mark.parametrize("timeout", ['"-1"', "-1"])
def test_no_function_timeout(app: Path, timeout: str) -> None:
    assert read(app, host=f'{{"version": "2.0", "functionTimeout": {timeout}}}').function_timeout is None


@pytest.mark.parametrize("text", ["{}", "\ufeff{}", '{"version": "2.0", "logging": null}'])
def test_a_host_file_that_says_nothing(app: Path, text: str) -> None:
    assert read(app, host=text) == Settings(app_dir=app, app_id="orders")


HOST_FAULTS = [
    ("[]", ": found a list, expected an object"),
    ("{", ": line 1, column 2: not JSON here"),
    ('{"version": "1.0"}', ": version: found '1.0', expected \"2.0\""),
    ('{"version": 2.0}', ': version: found 2.0, expected "2.0"'),
    ('{"functionTimeout": 300}', ": functionTimeout: found 300, expected text"),
    ('{"functionTimeout": "5m"}', ": functionTimeout: '5m' is not a time span; write hh:mm:ss"),
    ('{"functionTimeout": "00:00:00"}', ": functionTimeout: found '00:00:00', expected a time above 0"),
    ('{"logging": []}', ": logging: found a list, expected an object"),
    ('{"logging": {"logLevel": "Debug"}}', ": logging.logLevel: found 'Debug', expected an object"),
    ('{"logging": {"logLevel": {"default": "loud"}}}', ": logging.logLevel.default: found 'loud', expected trace,"),
    ('{"logging": {"logLevel": {"Host": true}}}', ": logging.logLevel: category 'Host': found true, expected trace,"),
    ('{"extensions": {"dapr": 1}}', ": extensions.dapr: found 1, expected an object"),
    ('{"extensions": {"dapr": {"maskSecrets": "on"}}}', ": extensions.dapr.maskSecrets: found 'on', expected true or"),
    ('{"extensions": {"dapr": {"secretTtl": "00:05:00"}}}', ": extensions.dapr.secretTtl: found '00:05:00', expected"),
    ('{"extensions": {"dapr": {"secretTtl": true}}}', ": extensions.dapr.secretTtl: found true, expected a number of"),
    ('{"retry": {"strategy": "never", "maxRetryCount": 1}}', ": retry: strategy"),
]


@pytest.mark.parametrize(("text", "message"), HOST_FAULTS)
def test_faults_in_the_host_file_name_file_and_property(app: Path, text: str, message: str) -> None:
    (line,) = problems(app, host=text)
    assert f"{app / 'host.json'}{message}" in line


LOCAL_FAULTS = [
    ('"x"', ": found 'x', expected an object"),
    ('{"IsEncrypted": true, "Values": {"A": "b"}}', "`func settings decrypt`"),
    ('{"Values": ["A"]}', ": Values: found a list, expected an object"),
    ('{"Values": {"A": {"B": "s3cret"}}}', ": Values: 'A': found an object, expected text"),
    ('{"Values": {"A=B": "s3cret"}}', ": Values: 'A=B': a name must not be empty nor hold '='"),
    ('{"Values": {"": "s3cret"}}', ": Values: '': a name must not be empty nor hold '='"),
    ('{"Values": {"A": "s3cret\\u0000"}}', ": Values: 'A': holds a character that an environment variable cannot"),
    ('{"Values": {"A": "s3cret\\ud800"}}', ": Values: 'A': holds a character that an environment variable cannot"),
    ('{"Values": {"A\\nB": []}}', ": Values: text with control characters: found a list"),
    ('{"Values": {"APP_PORT": 99999}}', ": Values.APP_PORT: found '99999', expected a whole number from 0 to 65535"),
]


@pytest.mark.parametrize(("text", "message"), LOCAL_FAULTS)
def test_faults_in_the_local_settings_name_file_and_value_but_no_secret(app: Path, text: str, message: str) -> None:
    (line,) = problems(app, local=text)
    assert line.startswith(str(app / "local.settings.json"))
    assert message in line
    assert "s3cret" not in line


def test_a_file_that_is_no_text_or_no_file(app: Path) -> None:
    (app / "host.json").mkdir()
    (app / "local.settings.json").write_bytes(b"\xff\xfe")
    assert problems(app) == [
        f"{app / 'local.settings.json'}: is not UTF-8 text",
        f"{app / 'host.json'}: cannot be read: Is a directory",
    ]


TLS: dict[str, object] = {"app_tls_cert_file": __file__, "app_tls_key_file": __file__}
FAULTS = [
    ({"app_port": "x"}, {}, "--app-port: found 'x', expected a whole number from 0 to 65535"),
    ({"app_port": True}, {}, "--app-port: found true"),
    ({}, {"APP_PORT": "65536"}, "environment variable APP_PORT: found '65536'"),
    ({}, {"APP_PORT": "٣"}, "environment variable APP_PORT: found '٣'"),
    ({"app_address": "127.0.0.1:3001"}, {}, "--app-address: found '127.0.0.1:3001', expected a host name or an IP"),
    ({"app_protocol": "soap"}, {}, "--app-protocol: found 'soap', expected one of http, grpc, https, grpcs, h2c"),
    ({"app_protocol": "https"}, {}, "--app-protocol https needs --app-tls-cert-file and --app-tls-key-file"),
    ({"app_protocol": "grpcs"}, {}, "--app-protocol grpcs needs --app-tls-cert-file and --app-tls-key-file"),
    ({"app_protocol": "grpc", **TLS}, {}, "--app-protocol grpc is without TLS: write grpcs or https, or leave"),
    ({"dapr_grpc_port": 0}, {}, "--dapr-grpc-port: found 0, expected a whole number from 1 to 65535"),
    ({"dapr_grpc_endpoint": "ftp://x"}, {}, "--dapr-grpc-endpoint: "),
    ({}, {"DAPR_GRPC_ENDPOINT": "x:port"}, "environment variable DAPR_GRPC_ENDPOINT: "),
    ({}, {"DAPR_RUNTIME_HOST": "a b"}, "environment variable DAPR_RUNTIME_HOST: found 'a b'"),
    ({}, {"DAPR_API_TIMEOUT_SECONDS": "0"}, "found '0', expected a number of seconds above 0"),
    ({}, {"DAPR_API_TIMEOUT_SECONDS": "nan"}, "found 'nan', expected a number of seconds above 0"),
    ({"drain_timeout": "-1"}, {}, "--drain-timeout: found '-1', expected a number of seconds"),
    ({"secret_ttl": "-1"}, {}, "--secret-ttl: found '-1', expected a number of seconds"),
    ({"secret_ttl": "inf"}, {}, "--secret-ttl: found 'inf', expected a number of seconds"),
    ({}, {"DAPR_DISABLE_SIDECAR_METADATA_CHECK": "maybe"}, "found 'maybe', expected true or false"),
    ({"log_level": "loud"}, {}, "--log-level: found 'loud', expected trace, debug, information, warning, error"),
    ({"log_format": "xml"}, {}, "--log-format: found 'xml', expected one of text, json"),
    ({"max_body_size": "0"}, {}, "--max-body-size: found '0', expected a number of bytes above 0"),
    ({"max_body_size": "4m"}, {}, "--max-body-size: found '4m', expected a number of bytes above 0"),
    ({"max_concurrency": 0}, {}, "--max-concurrency: found 0, expected a whole number from 1"),
    ({}, {"PYTHON_THREADPOOL_THREAD_COUNT": "129"}, "found '129', expected a whole number from 1 to 128"),
    ({}, {"PYTHON_SCRIPT_FILE_NAME": "../app.py"}, "found '../app.py', expected the name of a .py file"),
    ({}, {"APP_ID": "x", "DAPR_LOG_LEVEL": "a\nb"}, "DAPR_LOG_LEVEL: found text with control characters"),
    ({"resources_path": "c", "dapr_grpc_endpoint": "h:1"}, {}, "--resources-path starts a sidecar here"),
    ({"app_tls_cert_file": __file__}, {}, "--app-tls-cert-file and --app-tls-key-file go together"),
    ({"app_tls_cert_file": "no.pem", "app_tls_key_file": __file__}, {}, "--app-tls-cert-file: there is no file no.pem"),
]


@pytest.mark.parametrize(("flags", "environ", "message"), FAULTS)
def test_faults_name_the_flag_or_variable(
    app: Path, flags: dict[str, object], environ: dict[str, str], message: str
) -> None:
    (line,) = problems(app, flags, environ)
    assert message in line


def test_both_tls_files(app: Path) -> None:
    settings = read(app, {"app_tls_cert_file": __file__, "app_tls_key_file": __file__})
    assert settings.app_tls_cert_file == settings.app_tls_key_file == Path(__file__)


def test_all_faults_are_reported_at_once(app: Path) -> None:
    lines = problems(
        app,
        {"app_port": "x"},
        {"DAPR_GRPC_PORT": "y"},
        local='{"Values": {"A": [], "B": {}}}',
        host='{"version": "2.0", "logging": 1}',
    )
    assert [line.removeprefix(f"{app}{os.sep}").split(": found")[0] for line in lines] == [
        "local.settings.json: Values: 'A'",
        "local.settings.json: Values: 'B'",
        "--app-port",
        "environment variable DAPR_GRPC_PORT",
        "host.json: logging",
    ]


def test_secrets_stay_out_of_repr_and_errors(app: Path) -> None:
    tokens = {"DAPR_API_TOKEN": "s3cret", "APP_API_TOKEN": "s3cret"}
    assert "s3cret" not in repr(read(app, environ=tokens, local='{"Values": {"KEY": "s3cret"}}'))
    line, other = problems(app, {}, {name: token + "\u00e9" for name, token in tokens.items()})
    assert "s3cret" not in line + other
    assert "APP_API_TOKEN: holds a character that a header cannot" in line
