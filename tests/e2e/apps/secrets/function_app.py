"""One secret in every type that a parameter can have; each function says what it was given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import azure.functions as func
import msgspec
import pydantic

app = func.FunctionApp()


class Typed(TypedDict):
    user: str
    port: int


@dataclass
class Plain:
    user: str
    port: int
    ratio: float
    tls: bool


class Struct(msgspec.Struct):
    user: str
    port: int
    note: str = "none"


class Model(pydantic.BaseModel):
    user: str
    port: int


def shows(name: str, key: str = "redis") -> Any:
    trigger = app.dapr_service_invocation_trigger("payload", method_name=name)
    secret = app.dapr_secret_input("value", "multi", key, metadata="")
    named = app.function_name(name)
    return lambda function: named(trigger(secret(function)))


@shows("AsNothing")
def as_nothing(payload, value):
    return [type(value).__name__, value]


@shows("AsText")
def as_text(payload, value: str) -> list[Any]:
    return [type(value).__name__, value]


@shows("AsBytes")
def as_bytes(payload, value: bytes) -> list[Any]:
    return [type(value).__name__, value.decode()]


@shows("AsDict")
async def as_dict(payload, value: dict[str, str]) -> list[Any]:
    return [type(value).__name__, value]


@shows("AsMapping")
async def as_mapping(payload, value: Mapping[str, str]) -> list[Any]:
    return [type(value).__name__, value]


@shows("AsTypedDict")
async def as_typed_dict(payload, value: Typed) -> list[Any]:
    return [type(value).__name__, value]


@shows("AsDataclass")
def as_dataclass(payload, value: Plain) -> list[Any]:
    return [type(value).__name__, value]


@shows("AsStruct")
def as_struct(payload, value: Struct) -> list[Any]:
    return [type(value).__name__, value]


@shows("AsModel")
def as_model(payload, value: Model) -> list[Any]:
    return [type(value).__name__, value]


@shows("DoesNotFit", key="my-secret")
def does_not_fit(payload, value: Plain) -> None:
    raise AssertionError("must not be called")


@shows("Awkward", key="awkward")
def awkward(payload, value: dict[str, str]) -> str:
    return value["awkward"]
