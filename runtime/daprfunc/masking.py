"""Keeps secret values out of what the user's own code logs and answers (``maskSecrets``).

Wraps both ends of the runtime when it is switched on, and is not there at all when it is off: what comes in from secret
stores is remembered, what goes out in errors is masked. Log lines are masked by :mod:`daprfunc.logs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from daprfunc.bindings.base import Services
from daprfunc.channel.app import App, HeaderList
from daprfunc.dispatch import Dispatcher
from daprfunc.endpoint import Endpoint
from daprfunc.errors import InvocationError
from daprfunc.invocation import Reply
from daprfunc.logs import SecretMask
from daprfunc.sidecar.client import SecretRead, Secrets


class RememberingServices:
    """Hands out what `services` do, and tells `mask` every secret value before a function gets to see it."""

    def __init__(self, services: Services, mask: SecretMask) -> None:
        self._services = services
        self._mask = mask

    def secrets(self, endpoint: Endpoint | None) -> Secrets:
        """Return the sidecar at `endpoint`; None is the app's own."""
        return _RememberingSecrets(self._services.secrets(endpoint), self._mask)


class _RememberingSecrets:
    def __init__(self, secrets: Secrets, mask: SecretMask) -> None:
        self._secrets = secrets
        self._mask = mask

    def get_secret(self, read: SecretRead) -> asyncio.Future[Mapping[str, str]]:
        return asyncio.ensure_future(self._get_secret(read))

    async def _get_secret(self, read: SecretRead) -> Mapping[str, str]:
        values = await self._secrets.get_secret(read)
        self._mask.remember(values.values())
        return values


class MaskingApp(App):
    """An app whose errors hold no remembered value; replies are the function's own business."""

    def __init__(self, dispatcher: Dispatcher, *, api_token: str | None, max_body_size: int, mask: SecretMask) -> None:
        super().__init__(dispatcher, api_token=api_token, max_body_size=max_body_size)
        self._mask = mask

    async def invoke(self, method: str, body: bytes, content_type: str, headers: HeaderList) -> Reply:
        """Run the function whose route is `method`.

        Raises:
            InvocationError: what to answer instead of a reply, masked.
        """
        try:
            return await super().invoke(method, body, content_type, headers)
        except InvocationError as error:
            error.args = (self._mask.mask(str(error)),)
            raise
