"""The app as its callers see it: who may call, what is too much, and whether it is well."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence

from daprfunc.dispatch import Dispatcher
from daprfunc.errors import INTERNAL, TOO_LARGE, UNAUTHENTICATED, CallerError, InvocationError
from daprfunc.invocation import Invocation, Reply
from daprfunc.payload import Payload

log = logging.getLogger(__name__)

HeaderList = Sequence[tuple[bytes, bytes]]


class App:
    """What both protocols' requests end in.

    Args:
        dispatcher: runs the functions.
        api_token: what daprd sends in ``dapr-api-token`` (APP_API_TOKEN); None lets everybody call.
        max_body_size: bytes of a request's body.

    Attributes:
        healthy: what health checks are told; False while the app drains.
    """

    def __init__(self, dispatcher: Dispatcher, *, api_token: str | None, max_body_size: int) -> None:
        self.dispatcher = dispatcher
        self.max_body_size = max_body_size
        self.healthy = True
        self._token = api_token.encode() if api_token else None

    def authorize(self, headers: HeaderList) -> None:
        """Check the caller's token, in constant time.

        Raises:
            CallerError: it is missing or wrong.
        """
        if self._token is None:
            return
        given = next((value for name, value in headers if name == b"dapr-api-token"), b"")
        if not hmac.compare_digest(given, self._token):
            raise CallerError(
                "dapr-api-token is missing or is not this app's APP_API_TOKEN; give daprd the same APP_API_TOKEN",
                UNAUTHENTICATED,
            )

    async def invoke(self, method: str, body: bytes, content_type: str, headers: HeaderList) -> Reply:
        """Run the function whose route is `method`.

        Raises:
            InvocationError: what to answer instead of a reply.
        """
        self.authorize(headers)
        return await self.dispatcher.invoke(Invocation(method, Payload(body, content_type), headers))

    def too_large(self) -> CallerError:
        """Return the answer to a body over the limit."""
        return CallerError(f"the body is larger than {self.max_body_size} bytes (--max-body-size)", TOO_LARGE)

    def failed(self) -> InvocationError:
        """Log the exception that is being handled, which nobody foresaw, and return the answer to it."""
        log.exception("the runtime failed to answer a request; please report this")
        return InvocationError(INTERNAL, "the runtime failed to answer; its log says why")
