from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from daprfunc.endpoint import Endpoint
from daprfunc.errors import SidecarError
from daprfunc.rpc.dapr_pb2 import GetSecretRequest, GetSecretResponse
from daprfunc.sidecar.client import SecretRead
from daprfunc.sidecar.pool import MAX_OTHERS, Sidecars
from tests.fakes import FakeSidecar

READ = SecretRead("store", "key")


def others(count: int) -> list[Endpoint]:
    return [Endpoint("127.0.0.1", port) for port in range(1, count + 1)]


async def test_only_our_own_sidecar_is_sent_our_token() -> None:
    own, other = FakeSidecar(), FakeSidecar()
    async with own.serving() as own_endpoint, other.serving() as other_endpoint:
        sidecars = Sidecars(own_endpoint, timeout=10, api_token="t0ken")
        for endpoint in (None, own_endpoint, other_endpoint):
            assert await sidecars.secrets(endpoint).get_secret(READ) == {"key": "value of key"}
        await sidecars.close()
    assert [metadata.get("dapr-api-token") for metadata in own.metadata] == ["t0ken", "t0ken"]
    assert [metadata.get("dapr-api-token") for metadata in other.metadata] == [None]


@pytest.mark.parametrize(("secret_ttl", "reads"), [(0.0, 2), (60.0, 1)])
async def test_a_ttl_is_for_secrets_of_all_sidecars(secret_ttl: float, reads: int) -> None:
    own, other = FakeSidecar(), FakeSidecar()
    async with own.serving() as own_endpoint, other.serving() as other_endpoint:
        sidecars = Sidecars(own_endpoint, timeout=10, api_token=None, secret_ttl=secret_ttl)
        for endpoint in (None, other_endpoint) * 2:
            await sidecars.secrets(endpoint).get_secret(READ)
        await sidecars.close()
    assert (len(own.requests), len(other.requests)) == (reads, reads)


async def test_an_endpoint_keeps_its_connection() -> None:
    sidecars = Sidecars(Endpoint(), timeout=1, api_token=None)
    one, two = others(2)
    assert sidecars.secrets(None) is sidecars.secrets(Endpoint()) is sidecars.own
    assert sidecars.secrets(one) is sidecars.secrets(one)
    assert sidecars.secrets(one) is not sidecars.secrets(two)
    await sidecars.close()


async def test_keeps_those_that_were_used_last() -> None:
    sidecars = Sidecars(Endpoint(), timeout=1, api_token=None)
    first, second, *rest = others(MAX_OTHERS + 1)
    kept, dropped = sidecars.secrets(first), sidecars.secrets(second)
    for endpoint in rest[:-1]:
        sidecars.secrets(endpoint)
    assert sidecars.secrets(first) is kept
    sidecars.secrets(rest[-1])
    assert sidecars.secrets(first) is kept
    assert sidecars.secrets(second) is not dropped
    await sidecars.close()


async def test_a_sidecar_that_must_go_first_answers_whom_it_owes() -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def answer(request: GetSecretRequest, context: Any) -> GetSecretResponse:
        asked.set()
        await released.wait()
        return GetSecretResponse(data={"key": "late"})

    async with FakeSidecar(answer).serving() as endpoint:
        sidecars = Sidecars(Endpoint(), timeout=10, api_token=None)
        secrets = sidecars.secrets(endpoint)
        future = secrets.get_secret(READ)
        await asked.wait()
        for other in others(MAX_OTHERS):
            sidecars.secrets(other)
        (retiring,) = sidecars._retiring.values()
        assert sidecars.secrets(endpoint) is not secrets
        released.set()
        assert await future == {"key": "late"}
        await retiring
        with pytest.raises(SidecarError, match="was closed"):
            await secrets.get_secret(READ)
        await sidecars.close()


async def test_close_ends_all_of_them() -> None:
    async def answer(request: GetSecretRequest, context: Any) -> GetSecretResponse:
        asked.release()
        never: asyncio.Future[GetSecretResponse] = asyncio.get_running_loop().create_future()
        try:
            return await never
        finally:
            ended.release()

    asked, ended = asyncio.Semaphore(0), asyncio.Semaphore(0)
    count = MAX_OTHERS + 2
    async with AsyncExitStack() as stack:
        own, *rest = [await stack.enter_async_context(FakeSidecar(answer).serving()) for _ in range(count)]
        sidecars = Sidecars(own, timeout=10, api_token=None)
        futures = [sidecars.secrets(endpoint).get_secret(READ) for endpoint in (None, *rest)]
        for _ in range(count):
            await asked.acquire()
        await sidecars.close()
        for future in futures:
            with pytest.raises(SidecarError, match="was closed"):
                await future
        for _ in range(count):
            await ended.acquire()
