"""Functions whose secrets do not fit, and functions that fail with a secret in their hands but not on their lips."""

import asyncio
import enum
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, TypedDict

import azure.functions as func
import msgspec
import pydantic

app = func.FunctionApp()
# What each key of the fake store has; "value" is the one that is planted.
KEYS = ("plain", "slow", "fails", "huge")


class Level(enum.Enum):
    LOW = "low"


@dataclass
class Number:
    value: int


@dataclass
class Missing:
    value: str
    missing: str


@dataclass
class Checked:
    value: str

    def __post_init__(self):
        raise ValueError(f"refused: {self.value}")


@dataclass
class Careless:
    value: str

    def __post_init__(self):
        raise RuntimeError(f"refused: {self.value}")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    other: str = ""


class Typed(TypedDict):
    value: float


class Model(pydantic.BaseModel):
    value: int


class Validated(pydantic.BaseModel):
    value: str

    @pydantic.field_validator("value")
    @classmethod
    def refuse(cls, value):
        raise ValueError(f"refused: {value}")


@dataclass
class OneOf:
    value: Literal["low", "high"]


@dataclass
class Member:
    value: Level


@dataclass
class Instant:
    value: datetime


@dataclass
class Identity:
    value: uuid.UUID


@dataclass
class Amount:
    value: Decimal


@dataclass
class Switch:
    value: bool


@dataclass
class Pattern:
    value: Annotated[str, msgspec.Meta(pattern="^no$")]


@dataclass
class Short:
    value: Annotated[str, msgspec.Meta(max_length=3)]


def invoked(name, key="plain", type_=str):
    """Make a function of `function`, whose `secret` parameter has the type `type_`."""
    trigger = app.dapr_service_invocation_trigger(arg_name="payload", method_name=name)
    secret = app.dapr_secret_input(
        arg_name="secret", secret_store_name="store", key=key, metadata="token=%PLANTED_SETTING%"
    )

    def register(function):
        function.__annotations__["secret"] = type_
        return app.function_name(name)(trigger(secret(function)))

    return register


def unfit(type_):
    def main(payload, secret):
        return "it fits"

    invoked(f"unfit_{type_.__name__}", type_=type_)(main)


for unfit_type in (Number, Missing, Checked, Careless, Strict, Typed, Model, Validated, OneOf, Member, Instant):
    unfit(unfit_type)
for unfit_type in (Identity, Amount, Switch, Pattern, Short):
    unfit(unfit_type)
invoked("unfit_numbers", type_=dict[str, int])(lambda payload, secret: "it fits")


@invoked("slow", key="slow")
async def slow(payload, secret):
    return "late"


@invoked("fails", key="fails")
async def fails(payload, secret):
    return "?"


@invoked("huge", key="huge")
async def huge(payload, secret):
    return "?"


@invoked("raises")
async def raises(payload, secret):
    held = {"secret": secret, "payload": payload}
    raise RuntimeError(f"no luck with {len(held)} things")


@invoked("raises_in_thread")
def raises_in_thread(payload, secret):
    held = {"secret": secret, "payload": payload}
    try:
        return held["nothing"]
    except KeyError as error:
        raise RuntimeError("no luck") from error


@app.retry(strategy="fixed_delay", max_retry_count="1", delay_interval="00:00:00.010")
@invoked("retried")
async def retried(payload, secret):
    raise RuntimeError("no luck")


@invoked("exits")
async def exits(payload, secret):
    sys.exit(len(secret))


@invoked("exits_in_thread")
def exits_in_thread(payload, secret):
    sys.exit(len(secret))


@invoked("hangs")
async def hangs(payload, secret):
    await asyncio.sleep(30)


@invoked("blocks")
async def blocks(payload, secret):
    time.sleep(2.6)


@invoked("returns_no_json")
async def returns_no_json(payload, secret):
    return {"secret": secret, "payload": payload, "odd": object()}


@invoked("returns_odd_keys")
async def returns_odd_keys(payload, secret):
    return {(secret,): payload}


@app.function_name("typed")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="typed")
async def typed(payload: OneOf):
    return None


@app.function_name("numbers")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="numbers")
async def numbers(payload: dict[str, int]):
    return None


@app.function_name("model")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="model")
async def model(payload: Validated):
    return None


@app.function_name("by_path")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="by_path")
@app.dapr_secret_input(arg_name="secret", secret_store_name="store", key="{payload.a.b}", metadata="")
async def by_path(payload, secret: str):
    return None
