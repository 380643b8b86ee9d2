"""Reads a secret from a Dapr secret store, in Python's v2 programming model."""

import json
import logging

import azure.functions as func

app = func.FunctionApp()


@app.function_name("RetrieveSecret")
@app.dapr_service_invocation_trigger("payload", method_name="RetrieveSecret")
@app.dapr_secret_input(
    arg_name="secret",
    secret_store_name="localsecretstore",
    key="my-secret",
    metadata="metadata.namespace=default",
)
def retrieve_secret(payload, secret: str) -> list[str]:
    values = json.loads(secret)
    for key, value in values.items():
        # For the sake of the demonstration: no real app should log its secrets.
        logging.info("The store holds %s = %s", key, value)
    return list(values)
