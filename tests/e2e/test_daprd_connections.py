"""How app and daprd reach each other: unix sockets, API tokens both ways, TLS, and what is said when they cannot."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme

from tests.e2e.app import FunctionApp, dapr_run
from tests.e2e.daprd import Daprd, component, write_resources, write_secrets
from tests.e2e.invocation import JSON, Answer, Call, over_grpc, over_http
from tests.e2e.processes import free_port

pytestmark = pytest.mark.e2e

ANSWERS = Path(__file__).parent / "apps" / "answers"
READ = Call("ReadSecret")
VALUE = b'{"my-secret":"abcd"}'
HEALTH_CHECK = ("--enable-app-health-check", "--app-health-probe-interval=1")
MISSING_TOKEN = "dapr-api-token is missing or is not this app's APP_API_TOKEN; give daprd the same APP_API_TOKEN"


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("connections")
    file = {"secretsFile": str(write_secrets(directory / "secrets.json", {"my-secret": "abcd"}))}
    return write_resources(
        directory / "resources" / "good.yaml", component("secretstores.local.file", "good", file)
    ).parent


def reads(daprd: Daprd, app: FunctionApp) -> None:
    """Read a secret each way in."""
    assert over_http(daprd, READ) == Answer(200, VALUE, JSON), app.output
    assert over_grpc(daprd, READ) == Answer(grpc.StatusCode.OK, VALUE, JSON), app.output


@pytest.fixture
def sockets() -> Iterator[Path]:
    # Not pytest's own directory: a socket's path has 107 characters at most.
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.mark.parametrize("app_protocol", ["http", "grpc"])
def test_unix_socket(resources: Path, sockets: Path, app_protocol: str) -> None:
    with dapr_run(ANSWERS, app_protocol, resources=resources, sockets=sockets) as (app, daprd):
        reads(daprd, app)
        app.process.wait_for_output(rf"Dapr sidecar 1\.\S+ at unix:{sockets}/dapr-functionapp-grpc.socket")


@pytest.mark.parametrize("scopes", [(), ("somebody-else",)])
def test_a_secret_store_that_daprd_lacks_is_named(resources: Path, tmp_path: Path, scopes: tuple[str, ...]) -> None:
    with dapr_run(ANSWERS, "http", resources=resources) as (app, daprd):
        reads(daprd, app)
        assert "no secret store" not in app.output
    file = {"secretsFile": str(write_secrets(tmp_path / "secrets.json", {"my-secret": "abcd"}))}
    other = component("secretstores.local.file", "good" if scopes else "other", file, scopes=scopes)
    with dapr_run(ANSWERS, "http", resources=write_resources(tmp_path / "r" / "other.yaml", other).parent) as (app, _):
        has = "none" if scopes else "other"
        app.process.wait_for_output(rf"WARN .* no secret store 'good' \(it has: {has}\), which function 'ReadSecret'")


@pytest.mark.parametrize("app_protocol", ["http", "grpc"])
def test_tokens_of_both(resources: Path, app_protocol: str) -> None:
    tokens = {"DAPR_API_TOKEN": "for daprd", "APP_API_TOKEN": "for the app"}
    with dapr_run(
        ANSWERS, app_protocol, resources=resources, env=tokens, daprd_env=tokens, extra_args=HEALTH_CHECK
    ) as (
        app,
        daprd,
    ):
        call = Call("ReadSecret", headers={"dapr-api-token": "for daprd"})
        assert over_http(daprd, call) == Answer(200, VALUE, JSON)
        assert over_grpc(daprd, call) == Answer(grpc.StatusCode.OK, VALUE, JSON)
        # Nobody who goes around daprd is served; what daprd asks without a token is.
        for headers in ({}, {"dapr-api-token": "for daprd"}):
            refused = app.http.post("/ReadSecret", headers=headers)
            assert (refused.status_code, refused.text) == (401, MISSING_TOKEN)
        assert app.http.get("/healthz").status_code == 200
        assert app.http.get("/dapr/subscribe").json() == []
        for output in (app.output, daprd.output):
            assert "for daprd" not in output
            assert "for the app" not in output


@pytest.mark.parametrize("app_protocol", ["http", "grpc"])
@pytest.mark.parametrize("sent", [{"APP_API_TOKEN": "wrong"}, {}], ids=["wrong", "missing"])
def test_daprd_without_the_token_of_the_app(resources: Path, app_protocol: str, sent: dict[str, str]) -> None:
    with dapr_run(ANSWERS, app_protocol, resources=resources, env={"APP_API_TOKEN": "right"}, daprd_env=sent) as (
        _,
        daprd,
    ):
        answer = over_http(daprd, READ)
        assert answer.status == 401
        assert MISSING_TOKEN.encode() in answer.body
        assert over_grpc(daprd, READ).status is grpc.StatusCode.UNAUTHENTICATED


WITHOUT_TOKEN = pytest.mark.parametrize("sent", [{"DAPR_API_TOKEN": "wrong"}, {}], ids=["wrong", "missing"])


@pytest.mark.parametrize("app_protocol", ["http", "grpc"])
@WITHOUT_TOKEN
def test_app_without_the_token_of_daprd(resources: Path, app_protocol: str, sent: dict[str, str]) -> None:
    with dapr_run(ANSWERS, app_protocol, resources=resources, env=sent, daprd_env={"DAPR_API_TOKEN": "right"}) as (
        _,
        daprd,
    ):
        assert daprd.http.get("/v1.0/secrets/good/my-secret").status_code == 401
        right = {"dapr-api-token": "right"}
        answer = over_http(daprd, Call("ReadSecret", headers=right))
        assert answer.status == 401
        assert b"Unauthorized" in answer.body
        assert over_grpc(daprd, Call("ReadSecret", headers=right)).status is grpc.StatusCode.UNAUTHENTICATED


@WITHOUT_TOKEN
def test_app_without_the_token_of_daprd_is_told_which(resources: Path, sent: dict[str, str]) -> None:
    daprd = Daprd(resources=resources, env={"DAPR_API_TOKEN": "right"})
    with daprd, FunctionApp(ANSWERS, env=daprd.app_environment | sent) as app:
        app.process.wait_for_output("WARN.*DAPR_API_TOKEN", seconds=5)


@dataclass(frozen=True)
class Tls:
    """A certificate for loopback.

    Attributes:
        flags: what makes the app speak TLS with it.
        trust: what a client needs to believe it.
    """

    flags: tuple[str, ...]
    trust: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    directory = tmp_path_factory.mktemp("certificate")
    certificate, key = directory / "app.crt", directory / "app.key"
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return Tls(("--app-tls-cert-file", str(certificate), "--app-tls-key-file", str(key)), trust)


@pytest.mark.parametrize("app_protocol", ["https", "grpcs"])
def test_tls(resources: Path, tls: Tls, app_protocol: str) -> None:
    with dapr_run(
        ANSWERS, app_protocol, arguments=tls.flags, trust=tls.trust, resources=resources, extra_args=HEALTH_CHECK
    ) as (
        app,
        daprd,
    ):
        reads(daprd, app)
        large = bytes(2**20)
        assert over_http(daprd, Call("EchoBytes", large, "application/octet-stream")).body == large
        app.process.wait_for_output("Dapr sidecar 1")
        assert "start the sidecar with" not in app.output


# What daprd is told wrongly, and the flag that the app then names. FREE stands for a port that nobody listens on.
MISTAKES = [
    pytest.param("http", ["--app-port=FREE"], r"--app-port PORT", id="another port"),
    pytest.param("http", ["--app-channel-address=127.0.0.2"], r"--app-channel-address 127.0.0.1", id="another address"),
    pytest.param("https", [], r"--app-protocol http or grpc", id="TLS"),
    pytest.param("grpcs", [], r"--app-protocol http or grpc", id="TLS with gRPC"),
]


@pytest.mark.parametrize(("app_protocol", "extra", "advice"), MISTAKES)
def test_a_misled_daprd(resources: Path, app_protocol: str, extra: list[str], advice: str) -> None:
    extra = [argument.replace("FREE", str(free_port())) for argument in extra]
    sidecar = Daprd(free_port(), app_protocol, resources=resources, extra_args=extra)
    with FunctionApp(ANSWERS, env=sidecar.app_environment, port=sidecar.app_port) as app, sidecar:
        app.process.wait_for_output("WARN.*" + advice.replace("PORT", str(app.port)))


def test_a_daprd_that_was_told_of_no_app(resources: Path) -> None:
    with Daprd(resources=resources) as daprd, FunctionApp(ANSWERS, env=daprd.app_environment) as app:
        app.process.wait_for_output(rf"WARN.*--app-port {app.port}")


def test_an_app_that_speaks_tls_to_a_daprd_that_does_not(resources: Path, tls: Tls) -> None:
    sidecar = Daprd(free_port(), "grpc", resources=resources)
    with (
        FunctionApp(ANSWERS, *tls.flags, env=sidecar.app_environment, port=sidecar.app_port, trust=tls.trust) as app,
        sidecar,
    ):
        app.process.wait_for_output("WARN.*--app-protocol https or grpcs")


def test_the_comparison_can_be_switched_off(resources: Path) -> None:
    with Daprd(resources=resources) as daprd:
        environment = daprd.app_environment | {"DAPR_DISABLE_SIDECAR_METADATA_CHECK": "true"}
        with FunctionApp(ANSWERS, env=environment) as app:
            app.process.wait_for_output("Dapr sidecar 1")
            app.stop()
            assert "WARN" not in app.output
