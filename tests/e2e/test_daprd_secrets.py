"""What daprd itself answers to requests for secrets, over both its APIs: the ground the other tests stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from daprfunc.rpc.dapr_pb2 import GetBulkSecretRequest
from tests.e2e.daprd import Daprd
from tests.e2e.secret_requests import REQUESTS, Outcome, Request, over_grpc, over_http

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_grpc_api(daprd: Daprd, request_: Request) -> None:
    assert over_grpc(daprd.stub)(request_) == request_.outcome


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_http_api(daprd: Daprd, request_: Request) -> None:
    assert over_http(daprd.http)(request_) == request_.outcome


def test_no_store_at_all(tmp_path: Path) -> None:
    request = Request("kubernetes", "my-secret", Outcome(500, message="secret store is not configured"))
    with Daprd(resources=tmp_path) as daprd:
        assert over_grpc(daprd.stub)(request) == request.outcome
        assert over_http(daprd.http)(request) == request.outcome


def test_bulk_leaves_out_what_a_scope_denies(daprd: Daprd) -> None:
    bulk = daprd.stub.GetBulkSecret(GetBulkSecretRequest(store_name="some denied"), timeout=10).data
    assert "my-secret" not in bulk
    assert dict(bulk["redis:password"].secrets) == {"redis:password": "p"}
