from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daprfunc.errors import LoadError, SettingsError
from daprfunc.testing import Reply, TestApp

ROOT = Path(__file__).parents[1]
SECRETS = {"vault": {"db": {"user": "marked-user", "password": "marked-password"}, "one": {"one": "marked-one"}}}

HEAD = """
import asyncio, logging, os
import azure.functions as func

app = func.FunctionApp()
invoked = app.dapr_service_invocation_trigger("payload", method_name="")

def secret(parameter, store, key):
    return app.dapr_secret_input(parameter, store, key, metadata="")
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a v2 app with these functions under HEAD; other files by name."""

    def write_(source: str, **files: str) -> Path:
        (tmp_path / "function_app.py").write_text(HEAD + textwrap.dedent(source))
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        return tmp_path

    return write_


ECHO = """
@invoked
def Echo(payload):
    return payload
"""
READ = """
@invoked
@secret("secret", "{payload.store}", "{payload.key}")
async def Read(payload: dict, secret: dict):
    logging.info("read %s", sorted(secret))
    return secret
"""


@pytest.mark.parametrize("model", ["v1", "v2"])
def test_the_examples_run_without_ports(model: str) -> None:
    secrets = {"localsecretstore": {"my-secret": {"my-secret": "abcd"}}}
    with TestApp(ROOT / "examples" / f"retrieve-secret-{model}", secrets=secrets) as app:
        reply = app.invoke("RetrieveSecret", {})
        assert reply == Reply(200, "OK", b'["my-secret"]', "application/json")
        assert (reply.json(), reply.text, app.problems, app.warnings) == (["my-secret"], '["my-secret"]', [], [])
    (line,) = app.logs
    assert (line.level, line.function, line.message) == ("INFO", "RetrieveSecret", "The store holds my-secret = abcd")
    assert line.invocation_id


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (None, b""),
        ({"a": [1]}, b'"{\\"a\\":[1]}"'),
        ("text", b'"text"'),
        (b"plain text", b'"plain text"'),
        (0, b'"0"'),
        (False, b'"false"'),
    ],
)
def test_payloads_arrive_as_a_caller_would_send_them(write: Write, data: object, answer: bytes) -> None:
    with TestApp(write(ECHO)) as app:
        reply = app.invoke("/echo", data)
    assert (reply.status, reply.body) == (200, answer)


@pytest.mark.parametrize(
    ("secrets", "asked", "expected"),
    [
        ({}, ("vault", "db"), (500, "FAILED_PRECONDITION", "secret store is not configured")),
        (SECRETS, ("other", "db"), (401, "INVALID_ARGUMENT", "failed finding secret store with key other")),
        (
            SECRETS,
            ("vault", "none"),
            (500, "INTERNAL", "failed getting secret with key none from secret store vault: secret none not found"),
        ),
    ],
)
def test_what_is_not_there_fails_as_in_dapr(
    write: Write, secrets: dict[str, dict[str, dict[str, str]]], asked: tuple[str, str], expected: tuple[int, str, str]
) -> None:
    with TestApp(write(READ), secrets=secrets) as app:
        reply = app.invoke("Read", {"store": asked[0], "key": asked[1]})
    assert (reply.status, reply.code, reply.text) == expected


def test_secrets_are_read_anew_for_each_invocation(write: Write) -> None:
    secrets = {"vault": {"k": {"k": "first"}}}
    with TestApp(write(READ), secrets=secrets) as app:
        request = {"store": "vault", "key": "k"}
        assert app.invoke("Read", request).json() == {"k": "first"}
        secrets["vault"]["k"] = {"k": "second"}
        assert app.invoke("Read", request).json() == {"k": "second"}


def test_two_apps_one_after_the_other_do_not_mix(write: Write, tmp_path: Path) -> None:
    modules, path, environment = set(sys.modules), list(sys.path), dict(os.environ)
    local = '{"Values": {"GREETING": "from settings"}}'
    root = write("import words\n" + ECHO.replace("return payload", "return words.TEXT + os.environ['GREETING']"))
    (root / "local.settings.json").write_text(local)
    for text in ("one ", "two "):
        (root / "words.py").write_text(f"TEXT = {text!r}\n")
        for cached in root.glob("__pycache__/*"):
            cached.unlink()
        with TestApp(root) as app:
            assert app.invoke("Echo").json() == text + "from settings"
        with TestApp(root, app_settings={"GREETING": "given"}) as app:
            assert app.invoke("Echo").json() == text + ("given" if text else "")
    left = {name for name in set(sys.modules) - modules if not name.startswith(("azure", "encodings"))}
    assert not left & {"words", "function_app", "__app__"}
    assert (sys.path, dict(os.environ)) == (path, environment)
    assert "daprfunc-test-app" not in {thread.name for thread in threading.enumerate()}


def test_given_settings_reach_the_apps_code_too(write: Write) -> None:
    with TestApp(
        write(ECHO.replace("return payload", "return os.environ['PLACE']")), app_settings={"PLACE": "here"}
    ) as app:
        assert app.invoke("Echo").json() == "here"
    assert "PLACE" not in os.environ


def test_a_setting_is_found_in_any_case(write: Write) -> None:
    source = """
    @app.dapr_service_invocation_trigger("payload", method_name="%Route%")
    @app.dapr_secret_input("secret", "%secrets:STORE%", "db", metadata="")
    def Read(payload, secret): return secret
    """
    root = write(source)
    (root / "local.settings.json").write_text('{"Values": {"ROUTE": "read", "Secrets__Store": "vault"}}')
    with TestApp(root, secrets={"vault": {"db": {"db": "abcd"}}}) as app:
        assert app.invoke("read").json() == '{"db":"abcd"}'


def test_a_callers_headers_are_seen(write: Write) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    source = """
    @invoked
    def Trace(payload, context: func.Context):
        logging.info("seen")
        return context.trace_context.trace_parent
    """
    with TestApp(write(source)) as app:
        assert app.invoke("Trace", headers={"TraceParent": trace}).json() == trace
    assert app.logs[-1].trace_id == trace.split("-")[1]


def test_one_broken_function_does_not_take_the_others_down(write: Write) -> None:
    broken = "\n@invoked\ndef Broken(payload, undeclared): ...\n"
    with TestApp(write(ECHO + broken)) as app:
        assert app.invoke("Echo", "x").status == 200
        reply = app.invoke("Broken")
        assert (reply.status, "undeclared" in reply.text) == (500, True)
        assert [problem.function for problem in app.problems] == ["Broken"]


def test_what_cannot_start_says_so_and_leaves_nothing_behind(write: Write, tmp_path: Path) -> None:
    root = write("@invoked\ndef Broken(payload, undeclared): ...\n")
    with pytest.raises(LoadError, match="undeclared"), TestApp(root):
        pass
    with pytest.raises(SettingsError, match="--log-level"), TestApp(root, flags={"log_level": "loud"}):
        pass
    assert "daprfunc-test-app" not in {thread.name for thread in threading.enumerate()}
    assert str(root) not in sys.path


def test_a_token_for_the_real_port_is_not_asked_for(write: Write) -> None:
    with TestApp(write(ECHO), app_settings={"APP_API_TOKEN": "t"}) as app:
        assert app.invoke("Echo", "x").status == 200


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_reply_that_does_not_come_is_given_up(write: Write, kind: str) -> None:
    wait = "await asyncio.sleep(600)" if kind == "async def" else "release.wait(20)"
    source = f"""
    import threading
    release = threading.Event()

    @invoked
    {kind} Hangs(payload):
        {wait}

    @invoked
    def Release(payload):
        release.set()
    """
    with TestApp(write(source)) as app:
        with pytest.raises(TimeoutError, match=r"no reply within 0\.2 s"):
            app.invoke("Hangs", timeout=0.2)
        assert app.invoke("Release").status == 200


def test_it_is_used_inside_its_block_only(write: Write) -> None:
    app = TestApp(write(ECHO))
    with pytest.raises(RuntimeError, match="with block"):
        app.invoke("Echo")
    with app, pytest.raises(RuntimeError, match="in use"), app:
        pass


LEAKS = """
@invoked
@secret("a", "vault", "one")
@secret("b", "vault", "db")
{kind} Leaks(payload, a: dict, b: dict):
    logging.info("a is %s, b is %s", a["one"], [b["password"]])
    raise ValueError(f"{{a['one']}} does not fit {{b['password']}}")
"""


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_masked_secrets_are_in_no_line_and_no_error(write: Write, kind: str) -> None:
    with TestApp(write(LEAKS.format(kind=kind)), secrets=SECRETS, flags={"mask_secrets": True}) as app:
        for _ in range(5):
            reply = app.invoke("Leaks")
            assert (reply.status, reply.text) == (500, "Function invocation failed: ValueError: *** does not fit ***")
        lines = app.logs
    assert "a is ***, b is ['***']" in {line.message for line in lines}
    assert "marked" not in app._log.getvalue()
    # The same app without the switch does show them: the test above can fail.
    with TestApp(write(LEAKS.format(kind=kind)), secrets=SECRETS) as app:
        assert "marked-one does not fit marked-password" in app.invoke("Leaks").text


def test_a_test_may_change_a_secret_whatever_ttl_the_app_has(write: Write) -> None:
    app_dir = write(READ, host__json='{"version": "2.0", "extensions": {"dapr": {"secretTtl": 3600}}}')
    secrets = {"vault": {"one": {"one": "before"}}}
    with TestApp(app_dir, secrets=secrets) as app:
        assert app.invoke("Read", {"store": "vault", "key": "one"}).json() == {"one": "before"}
        secrets["vault"]["one"] = {"one": "after"}
        assert app.invoke("Read", {"store": "vault", "key": "one"}).json() == {"one": "after"}


def test_masking_is_switched_on_in_host_json_too(write: Write) -> None:
    root = write(
        LEAKS.format(kind="def"), host__json='{"version": "2.0", "extensions": {"dapr": {"maskSecrets": true}}}'
    )
    with TestApp(root, secrets=SECRETS) as app:
        assert "marked" not in app.invoke("Leaks").text


def test_a_v1_binding_that_cannot_be_compiled_is_mended_where_it_is_declared(tmp_path: Path) -> None:
    (tmp_path / "Broken").mkdir()
    (tmp_path / "Broken" / "__init__.py").write_text("def main(payload, secret): ...")
    trigger = '{"type": "daprServiceInvocationTrigger", "direction": "in", "name": "payload"}'
    secret = '{"type": "daprSecret", "direction": "in", "name": "secret", "key": "k"}'
    (tmp_path / "Broken" / "function.json").write_text(f'{{"bindings": [{trigger}, {secret}]}}')
    with pytest.raises(LoadError) as raised, TestApp(tmp_path):
        pass
    (problem,) = raised.value.problems
    assert problem.file == tmp_path / "Broken" / "function.json"
    assert problem.message == "daprSecret has no 'secretStoreName'; set it in the binding"
