"""Generates the stubs in runtime/daprfunc/rpc from the protos beside this file; ``make protos`` runs it.

It needs the grpcio-tools that the Makefile names, and is run from the repository's root.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

PROTOS = Path("protos")
PACKAGE = Path("daprfunc", "rpc")
STUBS = Path("runtime") / PACKAGE
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")
WITHOUT_SERVICE = "common_pb2_grpc.py"
# In the pool that all share, the messages of the package dapr have the same names.
SHARED_POOL = b"from google.protobuf import descriptor_pool as _descriptor_pool\n"
OWN_POOL = b"from daprfunc.rpc import pool as _descriptor_pool\n"


def main() -> int:
    """Replace all stubs, or none where the protos are wrong; returns the exit status."""
    with TemporaryDirectory() as directory:
        code = generate(directory)
        if code == 0:
            replace(Path(directory) / PACKAGE)
    return code


def generate(directory: str) -> int:
    """Run protoc over all protos."""
    well_known = files("grpc_tools") / "_proto"
    outputs = [f"--{kind}_out={directory}" for kind in ("python", "pyi", "grpc_python")]
    protos = sorted(str(proto) for proto in (PROTOS / PACKAGE).glob("*.proto"))
    return int(protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *outputs, *protos]))


def replace(made: Path) -> None:
    """Put what was made in the place of what is there."""
    for pattern in GENERATED:
        for stub in STUBS.glob(pattern):
            stub.unlink()
        for stub in made.glob(pattern):
            if stub.name != WITHOUT_SERVICE:
                (STUBS / stub.name).write_bytes(stub.read_bytes().replace(SHARED_POOL, OWN_POOL))


if __name__ == "__main__":
    sys.exit(main())
