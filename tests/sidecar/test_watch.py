from __future__ import annotations

import asyncio
import logging
from itertools import islice

import pytest

from daprfunc.endpoint import Endpoint
from daprfunc.sidecar import watch as module
from daprfunc.sidecar.client import Sidecar
from daprfunc.sidecar.transport import Channel
from daprfunc.sidecar.watch import MAX_DELAY, AppAddress, mismatches, missing_stores, watch
from tests.fakes import FakeSidecar

APP = AppAddress("127.0.0.1", 3001, tls=False)
TLS_APP = AppAddress("127.0.0.1", 3001, tls=True)
READERS = ("function 'f', parameter 'secret'",)


@pytest.mark.parametrize(
    ("told", "app"),
    [
        ((3001, "http", "127.0.0.1"), APP),
        ((3001, "grpc", "localhost"), APP),
        ((3001, "h2c", ""), APP),
        ((3001, "", "127.0.0.1"), APP),
        ((3001, "https", "127.0.0.1"), TLS_APP),
        ((3001, "grpcs", "127.0.0.1"), TLS_APP),
        ((3001, "http", "localhost"), AppAddress("::1", 3001, tls=False)),
        ((3001, "http", "10.0.0.7"), AppAddress("0.0.0.0", 3001, tls=False)),
        ((3001, "http", "10.0.0.7"), AppAddress("::", 3001, tls=False)),
    ],
)
def test_is_silent_where_sidecar_and_app_agree(told: tuple[int, str, str], app: AppAddress) -> None:
    assert list(mismatches(*told, app)) == []


@pytest.mark.parametrize(
    ("told", "app", "flags"),
    [
        ((0, "", ""), APP, ["--app-port 3001"]),
        ((3000, "http", "127.0.0.1"), APP, ["--app-port 3001", "--app-port 3000"]),
        ((3001, "https", "127.0.0.1"), APP, ["'https'", "--app-protocol http or grpc or h2c"]),
        ((3001, "grpcs", "127.0.0.1"), APP, ["'grpcs'", "--app-protocol http or grpc or h2c"]),
        ((3001, "grpc", "127.0.0.1"), TLS_APP, ["'grpc'", "--app-protocol https or grpcs"]),
        ((3001, "http", "10.0.0.7"), APP, ["--app-channel-address 127.0.0.1", "--app-address 10.0.0.7"]),
        ((3001, "http", "127.0.0.1"), AppAddress("::1", 3001, tls=False), ["--app-channel-address ::1"]),
    ],
)
def test_each_mismatch_names_the_flag_that_mends_it(
    told: tuple[int, str, str], app: AppAddress, flags: list[str]
) -> None:
    (warning,) = mismatches(*told, app)
    for flag in flags:
        assert flag in warning


def test_all_mismatches_are_told() -> None:
    assert len(list(mismatches(1, "grpcs", "10.0.0.7", APP))) == 3


@pytest.mark.parametrize(
    ("readers", "who"),
    [
        (READERS, "which function 'f', parameter 'secret' reads; mend secretStoreName"),
        ((*READERS, "function 'g', parameter 's'"), "which function 'f', parameter 'secret' and 1 more read; mend"),
    ],
)
def test_a_missing_secret_store_names_who_reads_it(readers: tuple[str, ...], who: str) -> None:
    (warning,) = missing_stores({"here": READERS, "Vault": readers}, {"vault", "here"})
    assert "no secret store 'Vault' (it has: here, vault)" in warning
    assert who in warning


def test_a_sidecar_without_any_secret_store_is_said_so() -> None:
    (warning,) = missing_stores({"vault": READERS}, [])
    assert "(it has: none)" in warning


def test_looks_ever_more_seldom_but_never_gives_up() -> None:
    delays = list(islice(module._delays(), 12))
    assert delays[0] <= 0.5
    assert delays == sorted(delays)
    assert delays[-1] == MAX_DELAY
    assert sum(delays[:5]) > 5


@pytest.mark.parametrize("check", [True, False])
async def test_says_what_it_found(caplog: pytest.LogCaptureFixture, check: bool) -> None:
    fake = FakeSidecar()
    fake.properties.id = "orders"
    fake.properties.runtime_version = "1.18.0"
    fake.properties.app_connection_properties.port = 3000
    fake.properties.registered_components.add(name="local", type="secretstores.local.file")
    fake.properties.registered_components.add(name="vault", type="state.redis")
    caplog.set_level(logging.INFO)
    async with fake.serving() as endpoint:
        sidecar = Sidecar(Channel(endpoint), timeout=10)
        await watch(sidecar, str(endpoint), APP, {"vault": READERS}, check=check, patience=60)
        await sidecar.close()
    first, *warnings = (record.getMessage() for record in caplog.records)
    assert first == f"Dapr sidecar 1.18.0 at {endpoint} (app id 'orders')"
    said = "\n".join(warnings)
    for expected in ("--app-port 3001", "no secret store 'vault' (it has: local)"):
        assert (expected in said) is check


@pytest.mark.parametrize(
    ("quiet", "patience", "level"), [(60.0, 60.0, "INFO"), (0.0, 60.0, "WARNING"), (60.0, -1.0, "ERROR")]
)
async def test_a_missing_sidecar_is_said_and_found_when_it_comes(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    unused_port: int,
    quiet: float,
    patience: float,
    level: str,
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(module, "QUIET_SECONDS", quiet)
    caplog.set_level(logging.INFO)
    endpoint = Endpoint(port=unused_port)
    sidecar = Sidecar(Channel(endpoint), timeout=10)
    watching = asyncio.ensure_future(watch(sidecar, str(endpoint), APP, {}, check=False, patience=patience))
    await asyncio.sleep(0.1)  # for three attempts or more
    async with FakeSidecar().serving(str(endpoint)):
        await watching
    await sidecar.close()
    *missing, found = caplog.records
    assert {record.levelname for record in missing} == {level}
    # What is no fault yet is said once; the rest again and again.
    assert len(missing) == 1 if level == "INFO" else len(missing) > 1
    assert f"waiting for the Dapr sidecar at {endpoint} since 0 s: cannot connect" in missing[0].getMessage()
    assert "is the Dapr sidecar running" in missing[0].getMessage()
    assert found.getMessage().startswith("Dapr sidecar")
