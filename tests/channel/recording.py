"""A transport that goes nowhere: for what no socket can be made to do at will."""

from __future__ import annotations

import asyncio


class RecordingTransport(asyncio.Transport):
    """Remembers what was written and whether it was closed, and never objects.

    Attributes:
        sent: all that was written.
        ended: ``eof``, ``closed`` or ``aborted``; "" while it is open.
        reading: whether reading is not paused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.ended = ""
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closing()
        assert self.ended != "eof"
        self.sent += data

    def is_closing(self) -> bool:
        return self.ended in ("closed", "aborted")

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = "eof"

    def pause_reading(self) -> None:
        assert not self.is_closing()
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.is_closing()
        self.reading = True
