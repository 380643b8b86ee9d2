"""What the benchmark calls: a function that reads a secret and one that does not, each sync and async."""

from __future__ import annotations

import json

import azure.functions as func

app = func.FunctionApp()


@app.function_name("RetrieveSecret")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="RetrieveSecret")
@app.dapr_secret_input(
    arg_name="secret",
    secret_store_name="localsecretstore",
    key="my-secret",
    metadata="metadata.namespace=default",
)
def retrieve_secret(payload: str, secret: str) -> dict[str, str]:
    return json.loads(secret)


@app.function_name("RetrieveSecretAsync")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="RetrieveSecretAsync")
@app.dapr_secret_input(
    arg_name="secret",
    secret_store_name="localsecretstore",
    key="my-secret",
    metadata="metadata.namespace=default",
)
async def retrieve_secret_async(payload: str, secret: str) -> dict[str, str]:
    return json.loads(secret)


@app.function_name("Echo")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="Echo")
def echo(payload: bytes) -> bytes:
    return payload


@app.function_name("EchoAsync")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="EchoAsync")
async def echo_async(payload: bytes) -> bytes:
    return payload
