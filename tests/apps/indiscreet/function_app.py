"""Functions that say their secrets aloud, for ``--mask-secrets``."""

import json
import logging

import azure.functions as func

app = func.FunctionApp()


def invoked(name):
    trigger = app.dapr_service_invocation_trigger(arg_name="payload", method_name=name)
    secret = app.dapr_secret_input(arg_name="secret", secret_store_name="store", key="plain", metadata="")
    return lambda function: app.function_name(name)(trigger(secret(function)))


@invoked("logs")
async def logs(payload, secret: dict[str, str]) -> str:
    value = secret["value"]
    logging.info("a secret: %s", value)
    logging.warning(json.dumps(secret))
    logging.getLogger("mine").error("%r", secret)
    try:
        int(value)
    except ValueError:
        logging.exception("not a number")
    return "logged"


@invoked("raises")
async def raises(payload, secret: dict[str, str]) -> None:
    raise ValueError(f"cannot use {secret['value']}")


@invoked("raises_in_thread")
def raises_in_thread(payload, secret: dict[str, str]) -> None:
    int(secret["value"])
