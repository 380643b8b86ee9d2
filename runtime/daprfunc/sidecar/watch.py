"""The first look at the sidecar: is it there, does it know where its app is, and has it what the app needs?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from daprfunc.errors import UNAUTHENTICATED, UNAVAILABLE, SidecarError
from daprfunc.sidecar.client import Sidecar

log = logging.getLogger(__name__)

FIRST_DELAY = 0.2
MAX_DELAY = 5.0
# daprd opens its API a moment after the app has opened its port, so at first a missing sidecar is no fault.
QUIET_SECONDS = 2.0
# What daprd may be told with --app-protocol for an app of ours, without and with TLS on the app's port.
_PLAIN = ("http", "grpc", "h2c")
_TLS = ("https", "grpcs")
# What the types of Dapr's secret store components begin with.
_STORE_TYPES = "secretstores."


@dataclass(frozen=True, slots=True)
class AppAddress:
    """Where the app listens.

    Attributes:
        host: the address.
        port: the port.
        tls: whether it speaks TLS.
    """

    host: str
    port: int
    tls: bool


async def watch(
    sidecar: Sidecar,
    endpoint: str,
    app: AppAddress,
    stores: Mapping[str, Sequence[str]],
    *,
    check: bool,
    patience: float,
) -> None:
    """Wait for the sidecar, and warn where it looks for the app in another place than where the app is.

    Also warn of secret stores that it lacks: the invocations that need them will fail.

    daprd waits for the app's port before it opens its own API, so this runs beside a port that is already open. Until
    the sidecar answers there is a visible message, repeated ever more slowly.

    Args:
        sidecar: the app's own.
        endpoint: its address, for messages.
        app: where we listen.
        stores: the secret stores that the app reads, each with who reads it.
        check: whether to compare (DAPR_DISABLE_SIDECAR_METADATA_CHECK).
        patience: seconds after which a missing sidecar is an error in the log and no longer a warning
            (DAPR_HEALTH_TIMEOUT); it is looked for all the same.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    said = logging.NOTSET
    for delay in _delays():
        try:
            metadata = await sidecar.get_metadata()
        except SidecarError as error:
            waited = loop.time() - started
            level, advice = _level(error, waited, patience), _advice(error)
            if level > said or level > logging.INFO:  # (what is no fault yet is said once)
                log.log(level, "waiting for the Dapr sidecar at %s since %.0f s: %s%s", endpoint, waited, error, advice)
                said = level
            await asyncio.sleep(delay)
            continue
        log.info("Dapr sidecar %s at %s (app id '%s')", metadata.runtime_version, endpoint, metadata.id)
        if check:
            properties = metadata.app_connection_properties
            for warning in mismatches(properties.port, properties.protocol, properties.channel_address, app):
                log.warning("%s", warning)
            there = [each.name for each in metadata.registered_components if each.type.startswith(_STORE_TYPES)]
            for warning in missing_stores(stores, there):
                log.warning("%s", warning)
        return


def _level(error: SidecarError, waited: float, patience: float) -> int:
    if waited > patience:
        return logging.ERROR
    return logging.INFO if error.status is UNAVAILABLE and waited < QUIET_SECONDS else logging.WARNING


def _advice(error: SidecarError) -> str:
    if error.status is UNAUTHENTICATED:
        return "; give this app the DAPR_API_TOKEN that the sidecar was started with"
    return ""


def _delays() -> Iterator[float]:
    delay = FIRST_DELAY
    while True:
        yield delay
        delay = min(MAX_DELAY, delay * 2)


def mismatches(port: int, protocol: str, address: str, app: AppAddress) -> Iterator[str]:
    """Yield what is wrong with what the sidecar was told of its app, and which flag mends it.

    Args:
        port: what the sidecar was told; 0 if nothing.
        protocol: the same, in daprd's words.
        address: the same.
        app: where the app is.
    """
    if port == 0:
        yield (
            f"the Dapr sidecar was not told of an app port, so it will not call this app; "
            f"start it with --app-port {app.port}"
        )
        return
    if port != app.port:
        yield (
            f"the Dapr sidecar calls its app on port {port}, but this app listens on {app.port}; "
            f"start the sidecar with --app-port {app.port} or this app with --app-port {port}"
        )
    known = _TLS if app.tls else _PLAIN
    if protocol and protocol not in known:
        speaks = "TLS" if app.tls else "no TLS"
        yield (
            f"the Dapr sidecar speaks '{protocol}' to its app, but this app speaks {speaks}; "
            f"start the sidecar with --app-protocol {' or '.join(known)}"
        )
    everywhere = ("0.0.0.0", "::")  # noqa: S104 (a comparison, not a bind)
    if address and not _same_host(address, app.host) and app.host not in everywhere:
        yield (
            f"the Dapr sidecar calls its app at {address}, but this app listens on {app.host}; "
            f"start the sidecar with --app-channel-address {app.host} or this app with --app-address {address}"
        )


def missing_stores(stores: Mapping[str, Sequence[str]], there: Collection[str]) -> Iterator[str]:
    """Yield a warning for each secret store that the app reads and the sidecar lacks.

    Args:
        stores: what the app reads, each with who reads it.
        there: what the sidecar has. Their names are compared as they are, as daprd does.
    """
    for store, readers in stores.items():
        if store not in there:
            first, *others = readers
            yield (
                f"the Dapr sidecar has no secret store '{store}' (it has: {', '.join(sorted(there)) or 'none'}), "
                f"which {first}{f' and {len(others)} more' if others else ''} read{'' if others else 's'}; "
                "mend secretStoreName, or give the sidecar that component (its scopes must name this app, if any)"
            )


def _same_host(one: str, other: str) -> bool:
    return one == other or any({one, other} == {"localhost", address} for address in ("127.0.0.1", "::1"))
