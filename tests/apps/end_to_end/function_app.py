import asyncio
import gc
import logging
import time

import azure.functions as func

app = func.FunctionApp()


def invoked(function):
    return app.dapr_service_invocation_trigger(arg_name="payload", method_name="")(function)


def reads(function):
    return app.dapr_secret_input("secret", "vault", "key", metadata="")(function)


@invoked
def Echo(payload: bytes) -> bytes:
    logging.info("echo of %d bytes", len(payload))
    return payload


@invoked
@reads
def Read(payload, secret: dict[str, str]) -> dict[str, str]:
    return secret


@invoked
@reads
def Leak(payload, secret: dict[str, str]):
    logging.info("leaked %s", secret["key"])
    raise ValueError(f"cannot use {secret['key']}")


@invoked
def WaitInThread(payload: float) -> str:
    logging.info("began")
    time.sleep(payload)
    return "done"


@invoked
async def Wait(payload: float) -> str:
    logging.info("began")
    await asyncio.sleep(payload)
    return "done"


@invoked
async def Block(payload: float) -> str:
    logging.info("began")
    time.sleep(payload)
    return "done"


def read_with_sdk():
    from dapr.clients import DaprClient

    with DaprClient() as client:
        return client.get_secret("vault", "key").secret


def invoke_with_sdk():
    from dapr.clients import DaprClient

    with DaprClient() as client:
        response = client.invoke_method("end_to_end", "Echo", b"from the SDK", content_type="text/plain")
        return response.data.decode()


@invoked
def ReadWithSdk(payload) -> dict[str, str]:
    return read_with_sdk()


@invoked
async def ReadWithSdkOnTheLoop(payload) -> dict[str, str]:
    return read_with_sdk()


@invoked
def InvokeWithSdk(payload) -> str:
    return invoke_with_sdk()


@invoked
def Print(payload) -> None:
    print("printed")


@invoked
def Frozen(payload) -> int:
    return gc.get_freeze_count()
