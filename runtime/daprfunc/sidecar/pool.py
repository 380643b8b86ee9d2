"""The sidecars that an app's bindings read from: its own, and those that ``daprAddress`` names."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from daprfunc.endpoint import Endpoint
from daprfunc.sidecar.client import Secrets, Sidecar
from daprfunc.sidecar.transport import Channel

# A daprAddress may be taken from callers' data: only so many connections are kept.
MAX_OTHERS = 16


class Sidecars:
    """Hands out one :class:`Sidecar` per endpoint.

    Args:
        endpoint: the app's own sidecar.
        timeout: seconds until a call is given up.
        api_token: what our own sidecar wants to be sent; no other is ever sent it.
        secret_ttl: for how many seconds a secret may be given again; 0 is not at all.
    """

    def __init__(self, endpoint: Endpoint, *, timeout: float, api_token: str | None, secret_ttl: float = 0.0) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._secret_ttl = secret_ttl
        self._others: OrderedDict[Endpoint, Sidecar] = OrderedDict()
        self._retiring: dict[Sidecar, asyncio.Task[None]] = {}
        self.own = Sidecar(Channel(endpoint), timeout=timeout, api_token=api_token, secret_ttl=secret_ttl)

    def secrets(self, endpoint: Endpoint | None) -> Secrets:
        """Return the sidecar at `endpoint`; None is the app's own. Use it at once: it may be closed when idle."""
        if endpoint is None or endpoint == self._endpoint:
            return self.own
        sidecar = self._others.pop(endpoint, None) or Sidecar(
            Channel(endpoint), timeout=self._timeout, secret_ttl=self._secret_ttl
        )
        self._others[endpoint] = sidecar
        if len(self._others) > MAX_OTHERS:
            _, oldest = self._others.popitem(last=False)
            self._retiring[oldest] = asyncio.get_running_loop().create_task(self._retire(oldest))
        return sidecar

    async def _retire(self, sidecar: Sidecar) -> None:
        """Close a sidecar when nobody waits for it any more."""
        await sidecar.idle()
        await sidecar.close()
        del self._retiring[sidecar]

    async def close(self) -> None:
        """End every connection."""
        for task in self._retiring.values():
            task.cancel()
        await asyncio.gather(*self._retiring.values(), return_exceptions=True)
        for sidecar in (self.own, *self._others.values(), *self._retiring):
            await sidecar.close()
