from __future__ import annotations

import pytest

from daprfunc.timespan import parse_timespan


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:00", 0),
        ("00:00:30", 30),
        ("0:5:0", 300),
        ("23:59:59", 86_399),
        ("1.02:00:00", 93_600),
        ("00:00:00.25", 0.25),
        (" 00:00:01 ", 1),
    ],
)
def test_reads_seconds(text: str, seconds: float) -> None:
    assert parse_timespan(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "00:30", "24:00:00", "00:60:00", "00:00:60", "-00:00:01", "1:2:3:4", "٠٠:٠٠:٠١"]
)
def test_says_what_to_write_instead(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time span; write hh:mm:ss"):
        parse_timespan(text)
