"""Time spans as Azure Functions' files write them."""

from __future__ import annotations

import re

_TIMESPAN = re.compile(r"(?:(\d{1,7})\.)?([01]?\d|2[0-3]):([0-5]?\d):([0-5]?\d(?:\.\d{1,7})?)", re.ASCII)


def parse_timespan(text: str) -> float:
    """Return the seconds that ``hh:mm:ss`` stands for.

    Days (``d.hh:mm:ss``) and fractions of a second (``hh:mm:ss.fff``) may be added. The ranges are those of .NET's
    TimeSpan, which the .NET host reads them with: hours to 23, minutes and seconds to 59.

    Raises:
        ValueError: the text is something else; its text says what to write.
    """
    found = _TIMESPAN.fullmatch(text.strip())
    if not found:
        msg = f"{text!r} is not a time span; write hh:mm:ss, such as 00:00:30"
        raise ValueError(msg)
    days, hours, minutes, seconds = found.groups(default="0")
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60.0 + float(seconds)
