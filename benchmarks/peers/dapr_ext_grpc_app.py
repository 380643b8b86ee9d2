"""The peer for gRPC: Dapr's own server extension and its synchronous client."""

from __future__ import annotations

import json
import sys

from dapr.clients import DaprClient
from dapr.ext.grpc import App, InvokeMethodRequest, InvokeMethodResponse

app = App()
client = DaprClient()


@app.method("RetrieveSecret")
def retrieve_secret(request: InvokeMethodRequest) -> InvokeMethodResponse:
    response = client.get_secret("localsecretstore", "my-secret", {"namespace": "default"})
    return InvokeMethodResponse(json.dumps(dict(response.secret)), "application/json")


@app.method("Echo")
def echo(request: InvokeMethodRequest) -> InvokeMethodResponse:
    return InvokeMethodResponse(request.data, "application/json")


if __name__ == "__main__":
    app.run(int(sys.argv[1]), listen_address="127.0.0.1")
