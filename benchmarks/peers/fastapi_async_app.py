"""A peer for HTTP: asynchronous FastAPI handlers and Dapr's asynchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dapr.aio.clients import DaprClient
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, DaprClient]]:
    async with DaprClient() as client:
        yield {"client": client}


app = FastAPI(lifespan=lifespan)


@app.post("/RetrieveSecret")
async def retrieve_secret(request: Request) -> JSONResponse:
    response = await request.state.client.get_secret("localsecretstore", "my-secret", {"namespace": "default"})
    return JSONResponse(dict(response.secret))


@app.post("/Echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/json")
