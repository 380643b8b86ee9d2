"""An app that calls another one through its own sidecar, with Dapr's SDK."""

import json

import azure.functions as func
from dapr.clients import DaprClient

app = func.FunctionApp()


@app.function_name("Relay")
@app.dapr_service_invocation_trigger("payload", method_name="Relay")
def relay(payload: dict[str, str]) -> dict[str, object]:
    with DaprClient() as client:
        answer = client.invoke_method(payload["app_id"], payload["method"], payload["data"], http_verb="POST")
    return {"content_type": answer.content_type, "data": json.loads(answer.data)}
