"""Functions that go wrong in every way that a test asks for, and a few that do not."""

import asyncio
import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass

import azure.functions as func

app = func.FunctionApp()
log = logging.getLogger("faults")
running = Counter()


class NotAnExceptionError(BaseException):
    pass


@dataclass
class Order:
    id: int
    tags: list[str]
    price: float = 0.0


def invoked(name):
    trigger = app.dapr_service_invocation_trigger(arg_name="payload", method_name=name)
    return lambda function: app.function_name(name)(trigger(function))


def reads(key):
    return app.dapr_secret_input(arg_name="secret", secret_store_name="store", key=key, metadata="")


@invoked("echo")
async def echo(payload: str) -> str:
    return payload


@invoked("echo_in_thread")
def echo_in_thread(payload: str) -> str:
    return payload


@invoked("typed")
async def typed(payload: Order) -> Order:
    return payload


@invoked("tree")
async def tree(payload: dict) -> dict:
    return payload


@invoked("secret")
@reads("fast")
async def secret(payload, secret: dict[str, str]) -> dict:
    return secret


@invoked("secret_in_thread")
@reads("fast")
def secret_in_thread(payload, secret: dict[str, str]) -> dict:
    return secret


@invoked("secret_named")
@reads("{payload.key}")
async def secret_named(payload, secret: dict[str, str]) -> dict:
    return secret


@invoked("sleeps")
async def sleeps(payload: dict) -> str:
    name = payload.get("name", "")
    running[name] += 1
    try:
        await asyncio.sleep(payload["seconds"])
    except asyncio.CancelledError:
        log.info("cancelled <%s>", name)
        raise
    finally:
        running[name] -= 1
    return name


@invoked("sleeps_in_thread")
def sleeps_in_thread(payload: dict) -> str:
    time.sleep(payload["seconds"])
    return payload.get("name", "")


@invoked("running")
async def count_running(payload: str) -> int:
    return running[payload]


def fail(payload):
    raise {"Exception": ValueError, "StopIteration": StopIteration, "BaseException": NotAnExceptionError}[payload](
        "no such luck"
    )


@invoked("raises")
async def raises(payload: str) -> None:
    fail(payload)


@invoked("raises_in_thread")
def raises_in_thread(payload: str) -> None:
    fail(payload)


@invoked("exits")
async def exits(payload: int) -> None:
    sys.exit(payload)


@invoked("exits_in_thread")
def exits_in_thread(payload: int) -> None:
    sys.exit(payload)


@invoked("floods")
async def floods(payload: int) -> int:
    for number in range(payload):
        log.warning("line %d of a flood %s", number, "." * 80)
        if number % 100 == 0:
            await asyncio.sleep(0)
    return payload


@invoked("blocks")
async def blocks(payload: float) -> str:
    time.sleep(payload)
    return "unblocked"
