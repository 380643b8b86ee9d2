"""What a channel hands to dispatch and gets back: neither knows a protocol."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from daprfunc.payload import Payload


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a function by its route.

    Attributes:
        method: the route asked for, in any case, without a leading slash.
        payload: what the caller sent.
        headers: the caller's HTTP headers or gRPC metadata, names in lower case.
    """

    method: str
    payload: Payload
    headers: Iterable[tuple[bytes, bytes]] = field(default=(), repr=False)

    def header(self, name: bytes) -> str:
        """Return the value of a header, "" where there is none."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


class Reply(NamedTuple):
    """A function's answer.

    Attributes:
        body: its bytes.
        content_type: "" where there is no body.
    """

    body: bytes
    content_type: str

    def __repr__(self) -> str:
        # Not the body: it may hold secrets.
        return f"Reply({len(self.body)} bytes, {self.content_type!r})"
