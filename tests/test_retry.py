from __future__ import annotations

import pytest

from daprfunc.model import Retry
from daprfunc.retry import parse_retry

EXPONENTIAL = {"strategy": "exponentialBackoff", "maxRetryCount": 5, "minimumInterval": "00:00:01"}


@pytest.mark.parametrize(
    ("value", "retry"),
    [
        (
            {"strategy": "fixedDelay", "maxRetryCount": 3, "delayInterval": "00:00:10"},
            Retry("fixedDelay", 3, delay=10),
        ),
        (
            {"Strategy": "FIXEDDELAY", "MAXRETRYCOUNT": -1, "delayinterval": "00:00:00", "minimumInterval": None},
            Retry("fixedDelay", -1),
        ),
        (
            {**EXPONENTIAL, "maximumInterval": "00:01:00"},
            Retry("exponentialBackoff", 5, minimum_interval=1, maximum_interval=60),
        ),
        (  # as @app.retry of azure-functions has it
            {
                "setting_name": "retry_policy",
                "strategy": "fixed_delay",
                "max_retry_count": "3",
                "delay_interval": "00:00:10",
            },
            Retry("fixedDelay", 3, delay=10),
        ),
    ],
)
def test_reads_policies(value: object, retry: Retry) -> None:
    assert parse_retry(value) == retry


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fixedDelay", "must be an object"),
        ([], "must be an object"),
        ({"maxRetryCount": 1}, "strategy is missing; write fixedDelay or exponentialBackoff"),
        ({"strategy": 5, "maxRetryCount": 1}, "strategy is 5"),
        ({"strategy": "fixedDelay"}, "maxRetryCount is missing; write a whole number"),
        ({"strategy": "fixedDelay", "maxRetryCount": True}, "maxRetryCount is true"),
        ({"strategy": "fixedDelay", "maxRetryCount": 1.5}, "maxRetryCount is 1.5"),
        ({"strategy": "fixedDelay", "maxRetryCount": "many"}, "maxRetryCount is 'many'"),
        ({"strategy": "fixedDelay", "maxRetryCount": -2}, "maxRetryCount is -2"),
        ({"strategy": "fixedDelay", "maxRetryCount": 1}, "delayInterval is missing; write hh:mm:ss"),
        ({"strategy": "fixedDelay", "maxRetryCount": 1, "delayInterval": 10}, "delayInterval is 10; write hh:mm:ss"),
        (
            {"strategy": "fixedDelay", "maxRetryCount": 1, "delayInterval": "10"},
            "delayInterval: '10' is not a time span",
        ),
        ({"strategy": ["raw"], "maxRetryCount": 1}, "strategy is a list; write"),
        ({"strategy": "x" * 81, "maxRetryCount": 1}, "strategy is a long text; write"),
        (EXPONENTIAL, "maximumInterval is missing"),
        ({**EXPONENTIAL, "maximumInterval": "00:00:00"}, "minimumInterval is longer than maximumInterval"),
    ],
)
def test_names_what_is_wrong(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_retry(value)
