"""One unary call, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import grpc

from daprfunc.deadlines import Deadlines

CLOSED = "the channel was closed"
HINT = "is the Dapr sidecar running, and is this its gRPC address (DAPR_GRPC_ENDPOINT or DAPR_GRPC_PORT)?"


class RpcError(grpc.RpcError):
    """A call failed; has what grpc's own errors have."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        """Return gRPC's status code."""
        return self._code

    def details(self) -> str:
        """Return the server's message, or ours where it never answered."""
        return self._details


def fail(code: grpc.StatusCode, details: str) -> NoReturn:
    """Raise an error of ours."""
    raise RpcError(code, details) from None


class Carrier(Protocol):
    """The connection that a call was sent on."""

    def abandon(self, stream_id: int) -> None:
        """Tell the peer that nobody waits for the answer any more."""

    def expire(self, call: Call) -> None:
        """The call has reached its deadline."""


class Call(asyncio.Future[Any]):
    """One call, on whichever connection it is sent: a future of the response, which fails with RpcError.

    Attributes:
        head: its header block.
        message: the request, serialized.
        carrier: the connection that it is on; None while it is on none.
        stream_id: its stream there.
        refusals: how often a peer refused it without having looked at it.
        obstacle: while it is on no connection, why, for the message if that lasts until the deadline.
    """

    __slots__ = ("_deadlines", "_deserialize", "carrier", "head", "message", "obstacle", "refusals", "stream_id")

    def __init__(
        self,
        head: bytes,
        message: bytes,
        deserialize: Callable[[bytes], Any],
        deadlines: Deadlines[Call],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop)
        self.head = head
        self.message = message
        self.carrier: Carrier | None = None
        self.stream_id = 0
        self.refusals = 0
        self.obstacle = "not sent"
        self._deserialize = deserialize
        self._deadlines = deadlines
        deadlines.start(self)

    def remaining(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadlines.remaining(self)

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the call up; the peer is told."""
        if not super().cancel(msg):
            return False
        self._deadlines.stop(self)
        if self.carrier is not None:
            self.carrier.abandon(self.stream_id)
        return True

    def settle(self, outcome: bytes | RpcError) -> None:
        """Give the caller the response or the error; without effect if it has left or has one."""
        if self.done():
            return
        self._deadlines.stop(self)
        if not isinstance(outcome, bytes):
            self.set_exception(outcome)
            return
        try:
            response = self._deserialize(outcome)
        except RpcError as error:
            self.set_exception(error)
        else:
            self.set_result(response)
