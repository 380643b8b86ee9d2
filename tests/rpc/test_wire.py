"""Our protos are a subset of Dapr's: whatever is in them is on the wire exactly what it is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import dapr.proto.runtime.v1 as dapr_runtime
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import Default

from daprfunc.rpc import appcallback_pb2, appcallback_pb2_grpc, common_pb2, dapr_pb2, dapr_pb2_grpc

FILES = [appcallback_pb2.DESCRIPTOR, common_pb2.DESCRIPTOR, dapr_pb2.DESCRIPTOR]
RPC = Path(dapr_pb2.__file__).parent
ROOT = RPC.parents[2]


def load_dapr() -> Any:
    """Dapr's own descriptors: its package registers them in the default pool as its modules are imported."""
    import_module("dapr.proto.common.v1.common_pb2")
    for module in iter_modules(dapr_runtime.__path__):
        if module.name.endswith("_pb2"):
            import_module(f"dapr.proto.runtime.v1.{module.name}")
    return Default()


THEIRS = load_dapr()


def messages_of(file: FileDescriptor) -> Iterator[Descriptor]:
    waiting = list(file.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        waiting.extend(message.nested_types)
        yield message


def enums_of(file: FileDescriptor) -> Iterator[EnumDescriptor]:
    yield from file.enum_types_by_name.values()
    for message in messages_of(file):
        yield from message.enum_types


MESSAGES = [message for file in FILES for message in messages_of(file)]
ENUMS = [enum for file in FILES for enum in enums_of(file)]
SERVICES = [service for file in FILES for service in file.services_by_name.values()]


def fields_of(message: Descriptor) -> dict[int, descriptor_pb2.FieldDescriptorProto]:
    """A message's fields by number, with name, type, label and the names of their messages and enums."""
    proto = descriptor_pb2.DescriptorProto()
    message.CopyToProto(proto)
    for field in proto.field:
        field.ClearField("json_name")  # names in JSON, which is not what travels here
    return {field.number: field for field in proto.field}


def named(each: Any) -> str:
    return str(each.full_name)


def test_there_is_something_to_compare() -> None:
    assert {"GetSecretRequest", "MetadataEntry", "InvokeRequest", "HTTPExtension"} <= {each.name for each in MESSAGES}
    assert [each.full_name for each in ENUMS] == ["dapr.proto.common.v1.HTTPExtension.Verb"]
    assert {each.name for each in SERVICES} == {"Dapr", "AppCallback", "AppCallbackHealthCheck"}
    assert all(THEIRS.FindMessageTypeByName(each.full_name) is not each for each in MESSAGES)


@pytest.mark.parametrize("message", MESSAGES, ids=named)
def test_messages(message: Descriptor) -> None:
    theirs = THEIRS.FindMessageTypeByName(message.full_name)

    assert message.GetOptions().map_entry == theirs.GetOptions().map_entry
    their_fields = fields_of(theirs)
    for number, field in fields_of(message).items():
        assert field == their_fields[number]


@pytest.mark.parametrize("enum", ENUMS, ids=named)
def test_enums(enum: EnumDescriptor) -> None:
    theirs = THEIRS.FindEnumTypeByName(enum.full_name)

    assert {each.name: each.number for each in enum.values} == {each.name: each.number for each in theirs.values}


@pytest.mark.parametrize("service", SERVICES, ids=named)
def test_services(service: ServiceDescriptor) -> None:
    theirs = THEIRS.FindServiceByName(service.full_name)

    for method in service.methods:
        their_method = theirs.methods_by_name[method.name]
        for side in ("input_type", "output_type"):
            assert getattr(method, side).full_name == getattr(their_method, side).full_name
        ours, others = descriptor_pb2.MethodDescriptorProto(), descriptor_pb2.MethodDescriptorProto()
        method.CopyToProto(ours)
        their_method.CopyToProto(others)
        assert (ours.client_streaming, ours.server_streaming) == (others.client_streaming, others.server_streaming)


class Recorder:
    """A channel that notes the methods which a stub asks it for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def unary_unary(self, path: str, *_: Any, **__: Any) -> None:
        self.paths.append(path)

    def __getattr__(self, kind: str) -> Any:
        return lambda *_, **__: None


def their_stub(service: str) -> type:
    for module in iter_modules(dapr_runtime.__path__):
        if module.name.endswith("_pb2_grpc"):
            stub = getattr(import_module(f"dapr.proto.runtime.v1.{module.name}"), f"{service}Stub", None)
            if isinstance(stub, type) and stub.__module__.endswith(module.name):
                return stub
    raise LookupError(service)


@pytest.mark.parametrize(
    ("service", "module"),
    [
        ("Dapr", dapr_pb2_grpc),
        ("AppCallback", appcallback_pb2_grpc),
        ("AppCallbackHealthCheck", appcallback_pb2_grpc),
    ],
)
def test_method_paths(service: str, module: Any) -> None:
    ours, theirs = Recorder(), Recorder()
    getattr(module, f"{service}Stub")(ours)
    their_stub(service)(theirs)

    assert ours.paths
    assert set(ours.paths) <= set(theirs.paths)


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def floor(package: str) -> tuple[int, ...]:
    found = re.search(rf'"{package}>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    assert found, f"pyproject.toml has no floor for {package}"
    return version(found[1])


@pytest.mark.parametrize("path", sorted(RPC.glob("*_pb2.py")), ids=lambda path: path.name)
def test_stubs_run_on_the_lowest_protobuf_that_pyproject_allows(path: Path) -> None:
    found = re.search(r"# Protobuf Python Version: ([\d.]+)", path.read_text())

    assert found
    assert version(found[1]) <= floor("protobuf")


@pytest.mark.parametrize("path", sorted(RPC.glob("*_pb2_grpc.py")), ids=lambda path: path.name)
def test_stubs_run_on_the_lowest_grpcio_that_pyproject_allows(path: Path) -> None:
    found = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", path.read_text())

    assert found
    assert version(found[1]) <= floor("grpcio")
