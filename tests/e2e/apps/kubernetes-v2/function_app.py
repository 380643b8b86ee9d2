"""The documentation's declaration of a secret in Kubernetes, and one that takes key and namespace from the payload."""

import json

import azure.functions as func

app = func.FunctionApp()


@app.function_name("RetrieveSecret")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="RetrieveSecret")
@app.dapr_secret_input(
    arg_name="secret", secret_store_name="kubernetes", key="my-secret", metadata="metadata.namespace=default"
)
def retrieve_secret(payload, secret: str) -> dict[str, str]:
    return json.loads(secret)


@app.function_name("ReadKey")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="ReadKey")
@app.dapr_secret_input(
    arg_name="secret",
    secret_store_name="kubernetes",
    key="{payload.key}",
    metadata="metadata.namespace={payload.namespace}",
)
async def read_key(payload, secret: dict[str, str]) -> dict[str, str]:
    return secret
