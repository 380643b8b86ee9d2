"""A function for each kind of answer that a caller can get."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import azure.functions as func

app = func.FunctionApp()


@dataclass
class Order:
    id: int
    item: str = "tea"


def invocable(name: str) -> Any:
    trigger = app.dapr_service_invocation_trigger("payload", method_name=name)
    named = app.function_name(name.replace("/", "_"))
    return lambda function: named(trigger(function))


def secret(arg_name: str, store: str, key: str, **more: str) -> Any:
    return app.dapr_secret_input(arg_name, store, key, **({"metadata": ""} | more))


@invocable("EchoBytes")
def echo_bytes(payload: bytes) -> bytes:
    return payload


@invocable("EchoText")
def echo_text(payload: str) -> str:
    return payload


@invocable("EchoJson")
async def echo_json(payload: Any) -> Any:
    return {"received": payload}


@invocable("TakeOrder")
def take_order(payload: Order) -> Order:
    return Order(payload.id + 1, payload.item)


@invocable("Nothing")
def nothing(payload) -> None:
    pass


@invocable("orders/Nested")
def nested(payload) -> str:
    return "nested"


@invocable("ShowTrace")
def show_trace(payload, context: func.Context) -> list[str]:
    return [context.trace_context.trace_parent, context.trace_context.trace_state]


@invocable("ReadSecret")
@secret("value", "good", "my-secret")
async def read_secret(payload, value: dict[str, str]) -> dict[str, str]:
    return value


@invocable("ReadKey")
@secret("value", "{payload.store}", "{payload.key}")
async def read_key(payload, value: dict[str, str]) -> dict[str, str]:
    return value


@invocable("ReadElsewhere")
@secret("value", "good", "my-secret", dapr_address="127.0.0.1:1")
async def read_elsewhere(payload, value: str) -> str:
    return value


@invocable("Raises")
def raises(payload):
    raise ValueError("it broke")


@invocable("Hangs")
async def hangs(payload):
    logging.info("Hangs was called")
    await asyncio.sleep(60)


@invocable("DoesNotLoad")
def does_not_load(payload, undeclared):
    return None
