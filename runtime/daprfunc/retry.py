"""Retry policies as function.json, host.json and ``@app.retry`` declare them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from daprfunc.jsonc import describe
from daprfunc.model import Retry
from daprfunc.timespan import parse_timespan


def parse_retry(value: object) -> Retry:
    """Read a retry policy.

    Args:
        value: an object with ``strategy``, ``maxRetryCount`` (-1: without end) and, by strategy, ``delayInterval`` or
            ``minimumInterval`` and ``maximumInterval`` (``hh:mm:ss``). Names in any case, with or without underscores:
            ``@app.retry`` writes ``max_retry_count`` and ``fixed_delay``. The intervals are required, as the .NET host
            requires them.

    Raises:
        ValueError: the text names the property, what was found and what to write.
    """
    if not isinstance(value, Mapping):
        msg = "must be an object with a strategy and a maxRetryCount"
        raise ValueError(msg)
    fields = {_plain(name): item for name, item in value.items() if item is not None}
    count = _count(fields.get("maxretrycount"))
    strategy = _plain(fields.get("strategy", ""))
    if strategy == "fixeddelay":
        return Retry("fixedDelay", count, delay=_interval(fields, "delayInterval"))
    if strategy != "exponentialbackoff":
        names = "fixedDelay or exponentialBackoff (in Python fixed_delay or exponential_backoff)"
        msg = f"strategy {describe(fields.get('strategy'))}; write {names}"
        raise ValueError(msg)
    minimum, maximum = _interval(fields, "minimumInterval"), _interval(fields, "maximumInterval")
    if minimum > maximum:
        msg = "minimumInterval is longer than maximumInterval; swap or change them"
        raise ValueError(msg)
    return Retry("exponentialBackoff", count, minimum_interval=minimum, maximum_interval=maximum)


def _plain(name: object) -> str:
    return str(name).replace("_", "").lower()


def _count(value: object) -> int:
    # The decorator hands its count on as text.
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        msg = f"maxRetryCount {describe(value)}; write a whole number, -1 for without end"
        raise ValueError(msg)
    return value


def _interval(fields: Mapping[str, object], name: str) -> float:
    value = fields.get(name.lower())
    if not isinstance(value, str):
        msg = f"{name} {describe(value)}; write hh:mm:ss, such as 00:00:30"
        raise ValueError(msg)
    try:
        return parse_timespan(value)
    except ValueError as error:
        msg = f"{name}: {error}"
        raise ValueError(msg) from None
