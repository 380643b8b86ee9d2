from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daprfunc.standalone.secretstores import (
    MAX_SECRETS_FILE,
    Component,
    EnvStore,
    FileStore,
    StoreError,
    open_env_store,
    open_file_store,
)

from .conftest import Write

SECRET = "s3cr3t-marker-value"
OWN, OTHERS = os.getuid(), os.getuid() + 1


def open_file(path: Path, **metadata: str) -> tuple[FileStore, list[str]]:
    lowered = {name.lower(): value for name, value in metadata.items()}
    component = Component("store", "secretstores.local.file", "v1", {"secretsfile": str(path), **lowered})
    return open_file_store(component)


# What daprd 1.18's store gives for the same file and the same metadata.
FILES: list[tuple[str, dict[str, str], dict[str, dict[str, str]]]] = [
    ('{"a": "1", "b": ""}', {}, {"a": {"a": "1"}, "b": {"b": ""}}),
    ('{"redis": {"password": "p"}}', {}, {"redis:password": {"redis:password": "p"}}),
    ('{"a": {"b": {"c": "d"}}}', {"nestedSeparator": "."}, {"a.b.c": {"a.b.c": "d"}}),
    ('{"a": {"b": "c"}}', {"nestedSeparator": ""}, {"a:b": {"a:b": "c"}}),
    ('{"a": ["x", {"b": "y"}]}', {}, {"a:0": {"a:0": "x"}, "a:1:b": {"a:1:b": "y"}}),
    ('{"a": {}, "b": []}', {}, {}),
    ("{}", {}, {}),
    (" null ", {}, {}),
    ('{"a": "1", "a": "2"}', {}, {"a": {"a": "2"}}),
    ('{"a": "\\ud800\\ud83d\\ude00"}', {}, {"a": {"a": "\ufffd\U0001f600"}}),
    ('{"a": true, "b": false}', {}, {"a": {"a": "%!s(bool=true)"}, "b": {"b": "%!s(bool=false)"}}),
    ('{"a": null}', {}, {"a": {"a": "%!s(<nil>)"}}),
    ('{"a": "1", "b": {"c": "d"}}', {"multiValued": "true"}, {"a": {"a": "1"}, "b": {"c": "d"}}),
    ('{"b": {"c": {"d": ["e"]}}}', {"multiValued": "true"}, {"b": {"c:d:0": "e"}}),
    ('{"b": {"c": {"d": "e"}}}', {"multiValued": "YES", "nestedSeparator": "/"}, {"b": {"c/d": "e"}}),
    ('{"b": {"c": 1}}', {"multiValued": " 1 "}, {"b": {"c": "%!s(float64=1)"}}),
    ('{"a": 1, "b": [1], "c": null, "d": {}}', {"multiValued": "on"}, {"d": {}}),
    ('{"b": {"c": "d"}}', {"multiValued": "enabled"}, {"b:c": {"b:c": "d"}}),
]


@pytest.mark.parametrize(("text", "metadata", "secrets"), FILES)
def test_file_store(write: Write, text: str, metadata: dict[str, str], secrets: dict[str, dict[str, str]]) -> None:
    store, _ = open_file(write("secrets.json", text), **metadata)

    assert store.get_all() == secrets
    assert {key: store.get(key) for key in secrets} == secrets


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        ("5", "5"),
        ("5.50", "5.5"),
        ("-0", "-0"),
        ("999999", "999999"),
        ("1000000", "1e+06"),
        ("1234567.5", "1.2345675e+06"),
        ("123456789", "1.23456789e+08"),
        ("12345678901234567890", "1.2345678901234567e+19"),
        ("-2.5e10", "-2.5e+10"),
        ("0.0001", "0.0001"),
        ("0.00001234", "1.234e-05"),
        ("5e-324", "5e-324"),
        ("1e300", "1e+300"),
    ],
)
def test_numbers_read_as_go_prints_them(write: Write, number: str, printed: str) -> None:
    store, _ = open_file(write("secrets.json", f'{{"n": {number}}}'))

    assert store.get("n") == {"n": f"%!s(float64={printed})"}


@pytest.mark.parametrize(
    ("metadata", "keys"),
    [
        ({}, "'a', 'd:e', 'f:0', 'g' are"),
        ({"multiValued": "true"}, "'a', 'd:e', 'f', 'g' are"),
    ],
)
def test_what_is_not_text_draws_a_warning(write: Write, metadata: dict[str, str], keys: str) -> None:
    path = write("secrets.json", '{"a": 1, "b": "%!s(bool=true)", "d": {"e": true}, "f": [2], "g": null}')

    _, warnings = open_file(path, **metadata)

    reason = "so Dapr's file store gives a placeholder for it or leaves it out: put the value in quotes"
    assert warnings == [f"{path}: {keys} not text, {reason}"]


def test_a_long_list_of_such_keys_is_cut(write: Write) -> None:
    path = write("secrets.json", json.dumps({f"k{index}": index for index in range(7)}))

    _, (warning,) = open_file(path)

    assert "'k0', 'k1', 'k2', 'k3', 'k4' and 2 more are not text" in warning


def test_a_missing_key(write: Write) -> None:
    store, _ = open_file(write("secrets.json", "{}"))

    with pytest.raises(StoreError, match=r"^secret nope not found$"):
        store.get("nope")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{\n"a": "b"; "c"}', "line 2, column 9 is not valid JSON"),
        (b"", "line 1, column 1 is not valid JSON"),
        (b'{"a": NaN}', "it holds a number that JSON cannot express or a double cannot hold"),
        (b'{"a": 1e400}', "it holds a number that JSON cannot express or a double cannot hold"),
        (b'{"a": ' + b"1" * 5000 + b"}", "it holds a number that JSON cannot express or a double cannot hold"),
        (b'["a"]', "its top level must be an object of keys and secrets"),
        (b'"a"', "its top level must be an object of keys and secrets"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_bytes(content)

    with pytest.raises(StoreError) as caught:
        open_file(path)

    assert str(caught.value) == f"secretsFile {path} cannot be used: {reason}"


def test_a_file_of_deep_nesting(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_bytes(b'{"a":' * 200_000)

    with pytest.raises(StoreError, match="nested too deeply"):
        open_file(path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_bytes(b" " * (MAX_SECRETS_FILE + 1))

    with pytest.raises(StoreError, match=f"is larger than {MAX_SECRETS_FILE} bytes"):
        open_file(path)


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ('{"a:b": "1", "a": {"b": "2"}}', {}),
        ('{"a": {"b:c": "1", "b": {"c": "2"}}}', {"multiValued": "true"}),
    ],
)
def test_keys_that_collide_once_flattened(write: Write, text: str, metadata: dict[str, str]) -> None:
    path = write("secrets.json", text)
    key = "b:c" if metadata else "a:b"

    with pytest.raises(StoreError) as caught:
        open_file(path, **metadata)

    assert str(caught.value) == (
        f"secretsFile {path} has the key '{key}' twice once it is flattened: rename one or set another nestedSeparator"
    )


def test_a_relative_file_is_taken_from_the_working_directory_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {name: tmp_path / path for name, path in (("work", "work"), ("beside", "app/components"), ("app", "app"))}
    for name, place in places.items():
        place.mkdir(parents=True, exist_ok=True)
        (place / "secrets.json").write_text(json.dumps({"from": name}))
    component = Component(
        "store", "secretstores.local.file", "v1", {"secretsfile": "secrets.json"}, places["beside"] / "c.yaml"
    )
    monkeypatch.chdir(places["work"])
    for name, place in places.items():
        assert open_file_store(component)[0].get("from") == {"from": name}
        (place / "secrets.json").unlink()

    with pytest.raises(StoreError) as caught:
        open_file_store(component)
    where = " or ".join(map(str, places.values()))
    assert str(caught.value) == f"there is no secretsFile 'secrets.json' in {where}: create it or mend its path"


def test_the_file_is_read_once(write: Write) -> None:
    store, _ = open_file(write("secrets.json", '{"a": "old"}'))
    write("secrets.json", '{"a": "new"}')

    assert store.get("a") == {"a": "old"}


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that all users can enter, which those of pytest are not."""
    with TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("mode", "group", "directory", "warned"),
    [
        (0o600, OTHERS, 0o755, False),
        (0o700, OTHERS, 0o755, False),
        (0o604, OTHERS, 0o755, True),
        (0o604, OTHERS, 0o711, True),
        (0o604, OTHERS, 0o750, False),
        (0o644, OTHERS, 0o700, False),
        (0o640, OTHERS, 0o755, True),
        (0o640, OTHERS, 0o710, True),
        (0o640, OTHERS, 0o701, True),
        (0o640, OTHERS, 0o700, False),
        (0o640, OWN, 0o755, False),
        (0o644, OWN, 0o755, True),
        (0o644, OWN, 0o750, False),
    ],
)
def test_a_file_that_others_can_read_draws_a_warning(
    open_place: Path, mode: int, group: int, directory: int, warned: bool
) -> None:
    path = open_place / "inner" / "secrets.json"
    path.parent.mkdir()
    path.write_text("{}")
    try:
        os.chown(path, -1, group)
    except PermissionError:
        pytest.skip(f"this user cannot give a file to group {group}")
    path.chmod(mode)
    path.parent.chmod(directory)

    _, warnings = open_file(path)

    expected = [f"{path}: other users of this machine can read these secrets: chmod 600 {path}"]
    assert warnings == (expected if warned else [])


def open_env(environ: dict[str, str], prefix: str | None = None) -> EnvStore:
    metadata = {} if prefix is None else {"prefix": prefix}
    return open_env_store(Component("store", "secretstores.local.env", "v1", metadata), environ)


@pytest.mark.parametrize(
    ("prefix", "key", "value"),
    [
        (None, "A", "1"),
        (None, "UNSET", ""),
        (None, "", ""),
        (None, "DAPR_API_TOKEN", ""),
        (None, "dapr_x", ""),
        (None, "APP_API_TOKEN", ""),
        (None, "app_api_token", ""),
        (None, "MY_DAPR_X", "fine"),
        ("MY_", "A", "2"),
        ("MY_", "a", ""),
        ("DAPR_", "API_TOKEN", ""),
        ("MY_", "APP_API_TOKEN", "ours"),
        (None, "BYTES", "\ufffd"),
    ],
)
def test_env_store_get(prefix: str | None, key: str, value: str) -> None:
    environ = {
        "A": "1",
        "MY_A": "2",
        "DAPR_API_TOKEN": SECRET,
        "dapr_x": SECRET,
        "APP_API_TOKEN": SECRET,
        "app_api_token": SECRET,
        "MY_DAPR_X": "fine",
        "MY_APP_API_TOKEN": "ours",
        "BYTES": "\udcff",
    }

    assert open_env(environ, prefix).get(key) == {key: value}


def test_a_refused_variable_is_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        open_env({"DAPR_API_TOKEN": SECRET}).get("DAPR_API_TOKEN")

    assert caplog.messages == ["store 'store' may not read the environment variable 'DAPR_API_TOKEN'"]


@pytest.mark.parametrize(
    ("prefix", "secrets"),
    [
        (None, {"A": "1", "P_": "2", "P_B": "3"}),
        ("P_", {"B": "3"}),
        ("X", {}),
    ],
)
def test_env_store_get_all(prefix: str | None, secrets: dict[str, str]) -> None:
    environ = {"A": "1", "P_": "2", "P_B": "3", "DAPR_TOKEN": SECRET, "APP_API_TOKEN": SECRET}

    assert open_env(environ, prefix).get_all() == {key: {key: value} for key, value in secrets.items()}


def test_env_store_reads_at_each_request() -> None:
    environ = {"A": "1"}
    store = open_env(environ)
    environ["A"] = "2"

    assert store.get("A") == {"A": "2"}


def test_no_secret_in_a_repr(write: Write) -> None:
    file, _ = open_file(write("secrets.json", json.dumps({"a": SECRET})))

    assert SECRET not in f"{file!r} {file} {open_env({'A': SECRET})!r}"
    assert SECRET not in repr(Component("s", "t", "v1", {"prefix": SECRET}))


@pytest.mark.parametrize(
    "text",
    [f'{{"a": "{SECRET}"', f'{{"a": "\\{SECRET}"}}', f'["{SECRET}"]', f'{{"{SECRET[:5]}": 1e999}}', f'"{SECRET}"'],
)
def test_no_secret_in_an_error(write: Write, text: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_file(write("secrets.json", text))

    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab:", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(_JSON.map(json.dumps).map(str.encode) | st.binary(max_size=100), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_secrets_file_opens_or_is_a_store_error(content: bytes, multi_valued: bool) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "secrets.json"
        path.write_bytes(content)
        with suppress(StoreError):
            store, warnings = open_file(path, multiValued=str(multi_valued))
            _assert_sendable(store)
            "".join(warnings).encode()


def _assert_sendable(store: FileStore) -> None:
    values: dict[str, Any] = {**store.get_all()}
    for key, named in values.items():
        key.encode()
        assert all(name.encode() is not None and text.encode() is not None for name, text in named.items())
