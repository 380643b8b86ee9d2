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
    """

    def __init__(self, endpoint: Endpoint, *, timeout: float, api_token: str | None) -> None:
        self._timeout = timeout
        self._others: OrderedDict[Endpoint, Sidecar] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self.own = Sidecar(Channel(endpoint), timeout=timeout, api_token=api_token)

    def secrets(self, endpoint: Endpoint | None) -> Secrets:
        """Return the sidecar at `endpoint`; None is the app's own."""
        if endpoint is None:
            return self.own
        sidecar = self._others.pop(endpoint, None) or Sidecar(Channel(endpoint), timeout=self._timeout)
        self._others[endpoint] = sidecar
        if len(self._others) > MAX_OTHERS:
            _, oldest = self._others.popitem(last=False)
            task = asyncio.get_running_loop().create_task(oldest.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return sidecar

    async def close(self) -> None:
        """End every connection."""
        for sidecar in (self.own, *self._others.values()):
            await sidecar.close()
        await asyncio.gather(*self._closing)
