from __app__.shared.words import COMMA as COMMA_FROM_APP
from greeting import greeting
from shared.words import COMMA as COMMA_FROM_ROOT

from ..shared.words import COMMA  # noqa: TID252
from . import mark


def main(payload):
    raise AssertionError("entryPoint names greet()")


def greet(payload: str, secret: bytes) -> str:
    from shared import late

    assert COMMA == COMMA_FROM_ROOT == COMMA_FROM_APP
    return greeting() + COMMA + payload + mark.MARK + late.LATE
