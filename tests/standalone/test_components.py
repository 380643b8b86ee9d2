from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from daprfunc.errors import LoadError
from daprfunc.standalone.components import MAX_RESOURCE_FILE, Resources, SecretScope, load_resources

from .conftest import Load, Write, component, configuration

ENV = "secretstores.local.env"
VAULT = "secretstores.azure.keyvault"
SECRET = "s3cr3t-marker-value"
UNSUPPORTED = (
    "component '{}' has type {}, which the embedded sidecar does not support; it supports secretstores.local.file and "
    "secretstores.local.env, version v1: run under Dapr for others"
)
NO_FILE = "component 'store': metadata 'secretsFile' is missing: name the JSON file that holds the secrets"
NO_KEY_REF = (
    "component 'store': metadata 'prefix' uses secretKeyRef, which the embedded sidecar does not support: use value or "
    "envRef"
)


def test_opens_the_components_of_every_yaml_file(tmp_path: Path, write: Write) -> None:
    write("secrets.json", '{"k": "v"}')
    write("a.yaml", component("first", ENV) + "---\n" + component("second", secretsFile="secrets.json"))
    write("b.yml", component("third", ENV))
    write("c.YAML", component("fourth", ENV))
    write("notes.txt", "not: [yaml")
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "d.yaml").write_text(component("not read", ENV))

    resources = load_resources(tmp_path, app_id="app", environ={})

    assert list(resources.stores) == ["first", "second", "third", "fourth"]
    assert resources.stores["second"].get("k") == {"k": "v"}
    assert resources.stores["second"].component.type == "secretstores.local.file"
    assert resources.stores["second"].component.version == "v1"
    assert resources.warnings == ()


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [("", ["store"]), ("scopes: []\n", ["store"]), ("scopes: [other, app]\n", ["store"]), ("scopes: [other]\n", [])],
)
def test_scopes_choose_the_apps_of_a_component(load: Load, scopes: str, expected: list[str]) -> None:
    assert list(load(component(type=ENV, extra=scopes)).stores) == expected


def test_says_when_there_is_no_store_for_the_app(load: Load, tmp_path: Path) -> None:
    resources = load(component(type=ENV, extra="scopes: [other]\n"))

    (warning,) = resources.warnings
    assert warning.startswith(f"{tmp_path}: no component for app id 'app' in it (scoped to other apps: store), so")


def test_type_version_and_metadata_names_ignore_case(load: Load) -> None:
    resources = load(component(type="secretstores.Local.ENV", PREFIX="P_"), environ={"P_x": "1"})

    assert resources.stores["store"].get("x") == {"x": "1"}


@pytest.mark.parametrize(
    ("value", "environ", "key"),
    [
        ("value: P_", {}, "P_x"),
        ("value: '{appID}_'", {}, "app_x"),
        ("value: '{namespace}_'", {}, "default.app_x"),
        ("value: true", {}, "truex"),
        ("value: 007", {}, "007x"),
        ("value: ~", {}, "x"),
        ("envRef: PREFIX", {"PREFIX": "E_"}, "E_x"),
        ("envRef: UNSET", {}, "x"),
        ("value: V_, envRef: PREFIX", {"PREFIX": "E_"}, "V_x"),
        ("envRef: DAPR_API_TOKEN", {"DAPR_API_TOKEN": "token"}, "x"),
    ],
)
def test_metadata_values(load: Load, value: str, environ: dict[str, str], key: str) -> None:
    text = component(type=ENV).replace("metadata: []", f"metadata: [{{name: prefix, {value}}}]")

    resources = load(text, environ={**environ, key: "found"})

    assert resources.stores["store"].get("x") == {"x": "found"}


def test_refused_env_ref_is_a_warning(load: Load, tmp_path: Path) -> None:
    text = component(type=ENV).replace("metadata: []", "metadata: [{name: prefix, envRef: app_api_token}]")

    (warning,) = load(text).warnings
    assert warning == (
        f"{tmp_path / 'resources.yaml'}: component 'store': metadata 'prefix' may not read the variable 'app_api_token'"
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (component("vault", VAULT), UNSUPPORTED.format("vault", f"{VAULT}/v1")),
        (component(type=ENV).replace("version: v1", "version: v2"), UNSUPPORTED.format("store", f"{ENV}/v2")),
        (
            component(),
            "component 'store': metadata 'secretsFile' is missing: name the JSON file that holds the secrets",
        ),
        (component().replace("  type: secretstores.local.file\n", ""), "spec.type is missing"),
        (component().replace("  name: store\n", ""), "metadata.name is missing"),
        (
            component("a/b", ENV),
            "'a/b' cannot be a component's name: it may not hold '/' or '%', nor be '.' or '..'",
        ),
        (component(type=ENV).replace("metadata: []", "metadata: prefix"), "spec.metadata must be a list"),
        (
            component(type=ENV).replace("metadata: []", "metadata: [prefix]"),
            "component 'store': an entry of spec.metadata is a mapping with name and value",
        ),
        (component(type=ENV, prefix="[a]"), "metadata 'prefix': value must be a text"),
        (
            component(type=ENV, prefix="a", Prefix="b"),
            "component 'store' has the metadata 'prefix' twice: keep one",
        ),
        (
            component(type=ENV).replace("metadata: []", "metadata: [{name: prefix, secretKeyRef: {name: x}}]"),
            NO_KEY_REF,
        ),
        (component(type=ENV, extra="scopes: app\n"), "scopes must be a list"),
        (component(type=ENV, extra="scopes: [[app]]\n"), "scopes must be a list of texts"),
        ("- a\n- b\n", "a resource is a mapping with apiVersion, kind, metadata and spec"),
        ("apiVersion: dapr.io/v1alpha1\n", "kind is missing"),
        (
            configuration("{storeName: a, defaultAccess: no way}"),
            "defaultAccess of store 'a' can be allow or deny, not 'no way'",
        ),
        (
            configuration("{storeName: a}", "{storeName: a}"),
            "storeName 'a' has secret scopes twice: keep one",
        ),
        (configuration("a"), "an entry of spec.secrets.scopes is a mapping with storeName"),
    ],
)
def test_a_document_that_cannot_be_used(load: Load, tmp_path: Path, document: str, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(document)

    assert str(caught.value) == f"{tmp_path / 'resources.yaml'}: line 1: {message}"
    assert caught.value.problems[0].file == tmp_path / "resources.yaml"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: b\nc: [d\n", "line 3, column 1: not valid YAML: check the indentation and the quotes there"),
        (b"a: b\n  c: d\n", "line 2, column 4: not valid YAML: check the indentation and the quotes there"),
        (b"a: \xff\xfe", "not valid YAML: it holds characters that YAML does not allow"),
        (b'a: "\\UFFFFFFFF"', r"not valid YAML: a \U escape names no character"),
        (b"[" * 20_000, "nested too deeply"),
        (b"? [a]\n: b\n", "line 1: the key of a mapping must be a text"),
        (b"a: &x [1]\nb: *x\n", "line 2: YAML aliases (*name) are not supported: write the value out"),
        (b"#" * (MAX_RESOURCE_FILE + 1), f"larger than {MAX_RESOURCE_FILE} bytes: split it"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)

    with pytest.raises(LoadError) as caught:
        load_resources(tmp_path, app_id="app", environ={})

    assert str(caught.value) == f"{tmp_path / 'bad.yaml'}: {message}"


def test_a_bomb_of_aliases_is_refused_at_its_first_alias(tmp_path: Path, write: Write) -> None:
    levels = "".join(f"l{i + 1}: &l{i + 1} [{','.join([f'*l{i}'] * 9)}]\n" for i in range(30))
    write("bomb.yaml", f"l0: &l0 lol\n{levels}")

    with pytest.raises(LoadError, match="line 2: YAML aliases"):
        load_resources(tmp_path, app_id="app", environ={})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hold_the_start_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")

    with pytest.raises(LoadError, match=r"pipe\.yaml: not a regular file"):
        load_resources(tmp_path, app_id="app", environ={})


def test_all_problems_are_told_at_once(tmp_path: Path, write: Write) -> None:
    write("a.yaml", component("a", VAULT) + "---\n" + component("b"))
    write("b.yaml", "x: [")
    write("c.yaml", component("c", ENV) + "---\n" + component("c", ENV))

    with pytest.raises(LoadError) as caught:
        load_resources(tmp_path, app_id="app", environ={})

    problems = caught.value.problems
    assert [(problem.file and problem.file.name, problem.message.split(":")[0]) for problem in problems] == [
        ("a.yaml", "line 1"),
        ("a.yaml", "line 10"),
        ("b.yaml", "line 1, column 5"),
        ("c.yaml", "line 10"),
    ]
    assert problems[-1].message == "line 10: component 'c' is declared twice: rename one"


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_no_such_directory(tmp_path: Path, write: Write, name: str) -> None:
    write("file.txt", "")

    with pytest.raises(LoadError) as caught:
        load_resources(tmp_path / name, app_id="app", environ={})

    expected = "there is no such directory: name the one that holds the component files"
    assert str(caught.value) == f"{tmp_path / name}: {expected}"


def test_components_that_are_no_secret_stores_are_passed_over(load: Load, tmp_path: Path) -> None:
    resources = load(component("state", "state.redis"), component(type=ENV))

    assert list(resources.stores) == ["store"]
    (warning,) = resources.warnings
    found = "component 'state' is a state.redis, and only secret stores are served: passed over"
    assert warning == f"{tmp_path / 'resources.yaml'}: line 1: {found}"


def test_ignore_errors_makes_a_fault_a_warning(load: Load, tmp_path: Path) -> None:
    text = component("vault", VAULT).replace("  version: v1\n", "  version: v1\n  ignoreErrors: yes\n")

    resources = load(text, component(type=ENV))

    assert list(resources.stores) == ["store"]
    (warning,) = resources.warnings
    assert warning.startswith(f"{tmp_path / 'resources.yaml'}: line 1: component 'vault' has type {VAULT}/v1")
    assert warning.endswith("(ignored, as ignoreErrors asks)")


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        ("kind: Component", "kind: Resiliency", "kind 'Resiliency' is not served by the embedded sidecar: passed over"),
        (
            "kind: Component",
            "kind: Subscription",
            "kind 'Subscription' is not served by the embedded sidecar: passed over",
        ),
        (
            "dapr.io/v1alpha1",
            "dapr.io/v2",
            "apiVersion is 'dapr.io/v2', but Dapr reads only dapr.io/v1alpha1: passed over",
        ),
    ],
)
def test_other_resources_are_passed_over(load: Load, tmp_path: Path, old: str, new: str, warning: str) -> None:
    resources = load(component("other", ENV).replace(old, new), component(type=ENV))

    assert list(resources.stores) == ["store"]
    assert resources.warnings == (f"{tmp_path / 'resources.yaml'}: line 1: {warning}",)


def test_metadata_without_effect_is_a_warning(load: Load, tmp_path: Path) -> None:
    resources = load(component(type=ENV, prefx="P_"))

    assert resources.warnings == (
        f"{tmp_path / 'resources.yaml'}: component 'store': metadata 'prefx' has no effect; {ENV} reads prefix",
    )


@pytest.mark.parametrize(
    ("scope", "allowed", "refused"),
    [
        ("{storeName: s}", ["a", "b"], []),
        ("{storeName: s, defaultAccess: DENY}", [], ["a", "b"]),
        ("{storeName: s, defaultAccess: Allow, deniedSecrets: [b]}", ["a"], ["b"]),
        ("{storeName: s, defaultAccess: deny, allowedSecrets: [a]}", ["a"], ["b"]),
        ("{storeName: s, defaultAccess: allow, allowedSecrets: [a]}", ["a"], ["b"]),
        ("{storeName: s, allowedSecrets: [a], deniedSecrets: [a]}", ["a"], ["b"]),
    ],
)
def test_secret_scopes(load: Load, scope: str, allowed: list[str], refused: list[str]) -> None:
    found = load(component("s", ENV), configuration(scope)).scopes["s"]

    assert [key for key in ("a", "b") if found.allows(key)] == allowed
    assert [key for key in ("a", "b") if not found.allows(key)] == refused


def test_no_secret_in_a_repr_or_an_error(load: Load, tmp_path: Path) -> None:
    resources = load(
        component("file", secretsFile=str(tmp_path / "secrets.json")),
        component("env", ENV, prefix=SECRET),
        secrets=f'{{"k": "{SECRET}"}}',
        environ={f"{SECRET}_x": SECRET},
    )
    assert SECRET not in repr([store.component for store in resources.stores.values()])
    assert SECRET not in repr(resources.stores["file"])
    for text in (f"value: {SECRET}: [", f"value: *{SECRET}", f"value: &{SECRET} &b c", f'value: "{SECRET}\\q"'):
        with pytest.raises(LoadError) as caught:
            load(component(type=ENV).replace("metadata: []", f"metadata:\n  - name: prefix\n    {text}"))
        assert SECRET not in str(caught.value)


def _load_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "secrets.json").write_text("{}")
        (Path(directory) / "a.yaml").write_bytes(content)
        with suppress(LoadError):
            resources = load_resources(Path(directory), app_id="app", environ={})
            assert isinstance(resources, Resources)


_NAMES = st.sampled_from(["name", "type", "version", "metadata", "value", "envRef", "scopes", "secrets", "storeName"])
_NAMES |= st.sampled_from(["ignoreErrors", "allowedSecrets", "deniedSecrets", "defaultAccess"])
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_SCALARS |= st.sampled_from(["Component", "Configuration", "dapr.io/v1alpha1", ENV, "secretsFile", "secrets.json"])
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5), max_leaves=20
)


@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"\\#?%@`, \n\t~0x", max_size=60).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_load_or_are_a_load_error(content: bytes) -> None:
    _load_bytes(content)


@given(_TREES, _TREES, _TREES)
@settings(max_examples=300, deadline=None)
def test_any_resource_loads_or_is_a_load_error(spec: object, metadata: object, scopes: object) -> None:
    for kind in ("Component", "Configuration"):
        resource = {
            "apiVersion": "dapr.io/v1alpha1",
            "kind": kind,
            "spec": spec,
            "metadata": metadata,
            "scopes": scopes,
        }
        _load_bytes(yaml.safe_dump(resource).encode("utf-8", "surrogatepass"))


@given(st.text(), st.frozensets(st.text()), st.frozensets(st.text(), min_size=1))
def test_a_scope_with_allowed_keys_allows_only_those(key: str, denied: frozenset[str], allowed: frozenset[str]) -> None:
    assert SecretScope("s", True, allowed, denied).allows(key) is (key in allowed)
