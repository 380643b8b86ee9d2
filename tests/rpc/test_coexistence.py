"""A user's app may import the `dapr` package beside us, whichever comes first."""

from __future__ import annotations

import subprocess
import sys

import pytest

OURS = "from daprfunc.rpc import appcallback_pb2_grpc, common_pb2, dapr_pb2, dapr_pb2_grpc"
THEIRS = "import dapr.clients; from dapr.proto import api_v1, common_v1"
ROUND_TRIP = """
pairs = [
    (dapr_pb2.GetSecretRequest, api_v1.GetSecretRequest, {"store_name": "s", "key": "k", "metadata": {"a": "b"}}),
    (dapr_pb2.GetSecretResponse, api_v1.GetSecretResponse, {"data": {"a": "b", "c": ""}}),
    (common_pb2.InvokeRequest, common_v1.InvokeRequest,
     {"method": "m", "content_type": "t", "http_extension": {"verb": 3, "querystring": "q=1"}}),
    (dapr_pb2.GetMetadataResponse, api_v1.GetMetadataResponse,
     {"id": "i", "registered_components": [{"name": "n", "type": "t", "version": "v1", "capabilities": ["C"]}],
      "app_connection_properties": {"port": 3001, "protocol": "grpc"}, "runtime_version": "r"}),
]
for ours, theirs, fields in pairs:
    assert ours is not theirs
    there = theirs.FromString(ours(**fields).SerializeToString())
    assert there == theirs(**fields), there
    back = ours.FromString(there.SerializeToString())
    assert back == ours(**fields), back

request = common_pb2.InvokeRequest(method="m")
request.data.Pack(common_pb2.InvokeResponse(content_type="inner"))
there = common_v1.InvokeRequest.FromString(request.SerializeToString())
inner = common_v1.InvokeResponse()
assert there.data.Unpack(inner) and inner.content_type == "inner"

bulk = dapr_pb2.GetBulkSecretResponse(data={"a": dapr_pb2.SecretResponse(secrets={"b": "c"})})
there = api_v1.GetBulkSecretResponse.FromString(bulk.SerializeToString())
assert there.data["a"].secrets["b"] == "c"
print("both work")
"""


@pytest.mark.parametrize(("first", "second"), [(OURS, THEIRS), (THEIRS, OURS)], ids=["ours first", "dapr first"])
def test_both_packages_in_one_process(first: str, second: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{second}\n{ROUND_TRIP}"],
        env={},  # whatever protobuf implementation is the default: its pure Python one knows a single pool only
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "both work\n", "")
