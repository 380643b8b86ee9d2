"""One unary call, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import grpc

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


class Call:
    """One call, on whichever connection it is sent.

    Attributes:
        head: its header block.
        message: the request, serialized.
        future: gives the response, or fails with RpcError.
        deadline: the loop's time at which it is given up.
        refusals: how often a peer refused it without having looked at it.
    """

    __slots__ = ("_deserialize", "deadline", "future", "head", "message", "refusals")

    def __init__(
        self,
        head: bytes,
        message: bytes,
        deserialize: Callable[[bytes], Any],
        loop: asyncio.AbstractEventLoop,
        timeout: float,
    ) -> None:
        self.head = head
        self.message = message
        self.future: asyncio.Future[Any] = loop.create_future()
        self.deadline = loop.time() + timeout
        self.refusals = 0
        self._deserialize = deserialize

    def settle(self, outcome: bytes | RpcError) -> None:
        """Give the caller the response or the error; without effect if it has left or has one."""
        if self.future.done():
            return
        if not isinstance(outcome, bytes):
            self.future.set_exception(outcome)
            return
        try:
            response = self._deserialize(outcome)
        except RpcError as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(response)
