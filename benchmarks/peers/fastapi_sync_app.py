"""A peer for HTTP: synchronous FastAPI handlers and Dapr's synchronous client."""

from __future__ import annotations

from typing import Annotated

from dapr.clients import DaprClient
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

app = FastAPI()
client = DaprClient()


async def raw_body(request: Request) -> bytes:
    return await request.body()


@app.post("/RetrieveSecret")
def retrieve_secret() -> JSONResponse:
    response = client.get_secret("localsecretstore", "my-secret", {"namespace": "default"})
    return JSONResponse(dict(response.secret))


@app.post("/Echo")
def echo(body: Annotated[bytes, Depends(raw_body)]) -> Response:
    return Response(body, media_type="application/json")
