from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from daprfunc.endpoint import Endpoint
from daprfunc.errors import SidecarError
from daprfunc.rpc.dapr_pb2 import GetSecretRequest, GetSecretResponse
from daprfunc.sidecar.client import SecretRead, Sidecar
from daprfunc.sidecar.transport import Channel
from tests.fakes import FakeSidecar, fail_with

Connect = Callable[[Endpoint], Any]


def grpc_channel(endpoint: Endpoint) -> Any:
    """grpc's own channel, in whose place ours stands."""
    if endpoint.tls:
        root = Path(ssl.get_default_verify_paths().cafile or "").read_bytes()
        return grpc.aio.secure_channel(str(endpoint), grpc.ssl_channel_credentials(root))
    return grpc.aio.insecure_channel(str(endpoint))


@pytest.fixture(params=[Channel, grpc_channel], ids=["ours", "grpcio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    result: Connect = request.param
    return result


@asynccontextmanager
async def calling(
    channel: Any, *, timeout: float = 10, api_token: str | None = None, secret_ttl: float = 0.0
) -> AsyncIterator[Sidecar]:
    sidecar = Sidecar(channel, timeout=timeout, api_token=api_token, secret_ttl=secret_ttl)
    try:
        yield sidecar
    finally:
        await sidecar.close()


READ = SecretRead("store", "key")


async def test_reads_a_secret(connect: Connect) -> None:
    fake = FakeSidecar()
    async with fake.serving() as endpoint, calling(connect(endpoint), timeout=7, api_token="t0ken") as sidecar:
        read = SecretRead("store", "key", (("namespace", "default"), ("version_id", "3")))
        assert await sidecar.get_secret(read) == {"key": "value of key"}
    assert fake.requests == [
        GetSecretRequest(store_name="store", key="key", metadata={"namespace": "default", "version_id": "3"})
    ]
    assert fake.metadata[0]["dapr-api-token"] == "t0ken"
    assert 6 < fake.remaining[0] < 8.1


async def test_sends_no_token_where_there_is_none(connect: Connect) -> None:
    fake = FakeSidecar()
    async with fake.serving() as endpoint, calling(connect(endpoint)) as sidecar:
        await sidecar.get_secret(READ)
    assert "dapr-api-token" not in fake.metadata[0]


@pytest.mark.parametrize("values", [{}, {"": ""}, {"a": "1", "b": "ü\n\0"}, {"big": "x" * 1_048_576}])
async def test_hands_over_values_as_they_came(connect: Connect, values: dict[str, str]) -> None:
    async def answer(request: GetSecretRequest, context: Any) -> GetSecretResponse:
        return GetSecretResponse(data=values)

    async with FakeSidecar(answer).serving() as endpoint, calling(connect(endpoint)) as sidecar:
        assert await sidecar.get_secret(READ) == values


async def test_serves_a_unix_socket(connect: Connect, tmp_path: Path) -> None:
    async with (
        FakeSidecar().serving(f"unix:{tmp_path}/dapr.sock") as endpoint,
        calling(connect(endpoint)) as sidecar,
    ):
        assert await sidecar.get_secret(READ) == {"key": "value of key"}


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server's certificate for localhost, from an authority that this process trusts."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    key = certificate.private_key_pem.bytes()
    return grpc.ssl_server_credentials([(key, b"".join(blob.bytes() for blob in certificate.cert_chain_pems))])


async def test_speaks_tls(connect: Connect, credentials: Any) -> None:
    fake = FakeSidecar()
    async with fake.serving(credentials=credentials) as endpoint, calling(connect(endpoint)) as sidecar:
        assert await sidecar.get_secret(READ) == {"key": "value of key"}


async def test_refuses_a_certificate_that_is_not_trusted(credentials: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with FakeSidecar().serving(credentials=credentials) as endpoint, calling(Channel(endpoint)) as sidecar:
        with pytest.raises(SidecarError, match="its certificate is not trusted: unable to get") as raised:
            await sidecar.get_secret(READ)
    assert raised.value.status.http == 503


# What daprd's own HTTP API answers; see FACTS.
STATUSES = {
    grpc.StatusCode.CANCELLED: 500,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 401,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 500,
    grpc.StatusCode.ALREADY_EXISTS: 500,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 500,
    grpc.StatusCode.FAILED_PRECONDITION: 500,
    grpc.StatusCode.ABORTED: 500,
    grpc.StatusCode.OUT_OF_RANGE: 500,
    grpc.StatusCode.UNIMPLEMENTED: 500,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


def test_every_grpc_code_has_a_status() -> None:
    assert set(STATUSES) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize(("code", "http"), STATUSES.items(), ids=str)
async def test_a_failure_has_daprs_code_and_message(connect: Connect, code: grpc.StatusCode, http: int) -> None:
    message = "failed to get secret: 'kéy' 100% gone"
    async with FakeSidecar(fail_with(code, message)).serving() as endpoint, calling(connect(endpoint)) as sidecar:
        with pytest.raises(SidecarError) as raised:
            await sidecar.get_secret(SecretRead("a store", "a key"))
    error = raised.value
    assert (error.status.name, error.status.grpc, error.status.http) == (code.name, code.value[0], http)
    assert (str(error), error.store, error.key) == (message, "a store", "a key")


async def test_a_failure_without_a_message_is_called_by_its_code(connect: Connect) -> None:
    fake = FakeSidecar(fail_with(grpc.StatusCode.INTERNAL, ""))
    async with fake.serving() as endpoint, calling(connect(endpoint)) as sidecar:
        with pytest.raises(SidecarError, match=r"^INTERNAL$"):
            await sidecar.get_secret(READ)


async def test_a_deadline_fires_on_time(connect: Connect) -> None:
    released = asyncio.Event()

    async def answer(request: GetSecretRequest, context: Any) -> GetSecretResponse:
        if request.key == "slow":
            await released.wait()
        return GetSecretResponse()

    async with FakeSidecar(answer).serving() as endpoint, calling(connect(endpoint), timeout=0.3) as sidecar:
        await sidecar.get_secret(READ)
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(SidecarError) as raised:
            await sidecar.get_secret(SecretRead("store", "slow"))
        assert 0.28 <= loop.time() - started < 0.6
        assert (raised.value.status.name, raised.value.status.http) == ("DEADLINE_EXCEEDED", 504)
        assert await sidecar.get_secret(READ) == {}, "others go on"
        released.set()


async def test_a_slow_key_does_not_slow_another() -> None:
    released = asyncio.Event()

    async def answer(request: GetSecretRequest, context: Any) -> GetSecretResponse:
        if request.key == "slow":
            await released.wait()
        return GetSecretResponse(data={request.key: ""})

    async with FakeSidecar(answer).serving() as endpoint, calling(Channel(endpoint)) as sidecar:
        slow = sidecar.get_secret(SecretRead("store", "slow"))
        assert await sidecar.get_secret(READ) == {"key": ""}
        assert not slow.done()
        released.set()
        assert await slow == {"slow": ""}


async def test_asks_for_metadata(connect: Connect) -> None:
    fake = FakeSidecar()
    fake.properties.id = "the app"
    async with fake.serving() as endpoint, calling(connect(endpoint), api_token="t0ken") as sidecar:
        assert (await sidecar.get_metadata()).id == "the app"
    assert fake.metadata[0]["dapr-api-token"] == "t0ken"


async def test_says_why_metadata_cannot_be_had(unused_port: int) -> None:
    async with calling(Channel(Endpoint(port=unused_port))) as sidecar:
        with pytest.raises(SidecarError, match="is the Dapr sidecar running"):
            await sidecar.get_metadata()


async def test_close_fails_the_reads_under_way_and_later_ones(connect: Connect) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: GetSecretRequest, context: Any) -> GetSecretResponse:
        started.set()
        never: asyncio.Future[GetSecretResponse] = asyncio.get_running_loop().create_future()
        try:
            return await never
        finally:
            ended.set()

    async with FakeSidecar(answer).serving() as endpoint:
        sidecar = Sidecar(connect(endpoint), timeout=10)
        first = sidecar.get_secret(READ)
        await started.wait()
        second = sidecar.get_secret(READ)
        await sidecar.close()
        for future in (first, second, sidecar.get_secret(READ)):
            with pytest.raises(SidecarError, match="was closed") as raised:
                await future
            assert raised.value.status.http == 503
        await ended.wait()


@pytest.mark.parametrize(("secret_ttl", "reads"), [(0.0, 3), (60.0, 1)])
async def test_a_secret_is_read_once_within_its_ttl(connect: Connect, secret_ttl: float, reads: int) -> None:
    fake = FakeSidecar()
    async with fake.serving() as endpoint, calling(connect(endpoint), secret_ttl=secret_ttl) as sidecar:
        for _ in range(3):
            assert await sidecar.get_secret(SecretRead("store", "key")) == {"key": "value of key"}
        await sidecar.get_secret(SecretRead("store", "key", (("namespace", "other"),)))
    assert len(fake.requests) == reads + 1


async def test_without_a_ttl_nothing_stands_before_the_shared_reads() -> None:
    async with calling(Channel(Endpoint())) as sidecar:
        assert sidecar.get_secret == sidecar._secrets.read


async def test_a_kept_secret_needs_no_sidecar_until_close(connect: Connect) -> None:
    async with FakeSidecar().serving() as endpoint:
        sidecar = Sidecar(connect(endpoint), timeout=10, secret_ttl=60)
        await sidecar.get_secret(READ)
    assert await sidecar.get_secret(READ) == {"key": "value of key"}
    with pytest.raises(SidecarError):
        await sidecar.get_secret(SecretRead("store", "other"))
    await sidecar.close()
    with pytest.raises(SidecarError, match="was closed"):
        await sidecar.get_secret(READ)


def test_a_read_is_known_by_what_it_asks_for() -> None:
    read = SecretRead("s", "k", (("a", "b"),))
    assert read == SecretRead("s", "k", (("a", "b"),))
    assert hash(read) == hash(SecretRead("s", "k", (("a", "b"),)))
    assert len({read, SecretRead("s", "k"), SecretRead("s", "l"), SecretRead("t", "k")}) == 4
