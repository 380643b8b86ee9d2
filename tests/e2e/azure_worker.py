"""Drives Microsoft's azure-functions-runtime as its host does; run by a Python 3.13 that has the package.

Standard input is a JSON list of ``{"directory", "payload", "secret", "function"}``. Standard output is, for each,
``{"loads", "problem", "fails", "type", "value"}``: whether the app was accepted and else why, what its function
raised, or the field of TypedData that its result became. Every app runs in a fork, since modules keep the state.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from types import SimpleNamespace
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import azure.functions
import azure_functions_runtime as worker
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

KINDS = {"string": 9, "json": 9, "bytes": 12, "stream": 12, "int": 18, "double": 1}
NUMBERS = {"string": 1, "json": 2, "bytes": 3, "stream": 4, "int": 6, "double": 7}


def typed_data() -> Any:
    """The one message whose own checks matter, TypedData, as a real one: protobuf decides what fits a field."""
    file = descriptor_pb2.FileDescriptorProto(name="typed_data.proto", syntax="proto3")
    message = file.message_type.add(name="TypedData")
    message.oneof_decl.add(name="data")
    for name, kind in KINDS.items():
        message.field.add(name=name, number=NUMBERS[name], type=kind, label=1, oneof_index=0)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("TypedData"))


class Message:
    """Stands in for every other message: fields as they were given."""

    Failure, Success = 0, 1
    undefined, out, inout = 0, 1, 2

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def WhichOneof(self, group: str) -> str:
        return "data"


class Protos:
    """Stands in for the host's FunctionRpc messages."""

    TypedData = typed_data()

    def __getattr__(self, name: str) -> type[Message]:
        return Message


def request_of(protos: Protos, **fields: Any) -> Any:
    return SimpleNamespace(request=SimpleNamespace(**fields), properties={"protos": protos, "host": "127.0.0.1"})


async def run(case: dict[str, Any]) -> dict[str, Any]:
    protos = Protos()
    os.chdir(case["directory"])
    sys.path.insert(0, case["directory"])
    init = SimpleNamespace(capabilities={}, function_app_directory=case["directory"])
    loaded = await worker.worker_init_request(request_of(protos, worker_init_request=init))
    if loaded.result.status != Message.Success:
        return {"loads": False, "problem": loaded.result.exception.message}
    described = await worker.functions_metadata_request(request_of(protos))
    if not described.function_metadata_results:
        return {"loads": False, "problem": "it has no functions"}
    names = {function.name: function for function in described.function_metadata_results}
    wanted = [name for name in names[case["function"]].bindings if name in {"payload", "secret"}]
    data = [Message(name=name, data=incoming(protos, case[name])) for name in wanted]
    trace = SimpleNamespace(trace_parent="", trace_state="", attributes={})
    invocation = SimpleNamespace(
        invocation_id="1",
        function_id=str(uuid5(NAMESPACE_OID, case["function"])),
        input_data=data,
        trigger_metadata={},
        trace_context=trace,
        retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
    )
    answer = await worker.invocation_request(request_of(protos, invocation_request=invocation))
    if answer.result.status != Message.Success:
        return {"loads": True, "fails": answer.result.exception.message}
    return {"loads": True, **outgoing(answer.return_value)}


def incoming(protos: Protos, value: str | None) -> Any:
    """What the host sends for text; nothing for None."""
    return protos.TypedData() if value is None else protos.TypedData(string=value)


def outgoing(data: Any) -> dict[str, Any]:
    kind = data.WhichOneof("data") if data is not None else None
    value = getattr(data, kind) if kind else None
    return {"type": kind, "value": value.hex() if isinstance(value, bytes) else value}


def in_a_fork(case: dict[str, Any]) -> dict[str, Any]:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            outcome = asyncio.run(run(case))
        except BaseException as error:
            traceback.print_exc()
            outcome = {"loads": True, "ends": f"{type(error).__name__}: {error}"}
        with os.fdopen(write_end, "w") as pipe:
            json.dump(outcome, pipe)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else {"loads": True, "ends": "the process ended"}


if __name__ == "__main__":
    assert azure.functions.__version__
    json.dump([in_a_fork(case) for case in json.load(sys.stdin)], sys.stdout)
