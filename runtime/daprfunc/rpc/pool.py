"""The descriptor pool of our stubs, apart from protobuf's default one.

The ``dapr`` package registers messages of the same full names in the default pool, and protobuf refuses a second
registration. A user's app may import ``dapr`` beside us, so our copy lives in a pool that nobody else sees. The
generated modules import this one where protoc would have them import ``google.protobuf.descriptor_pool``.
"""

from google.protobuf import any_pb2, descriptor_pool, empty_pb2

_POOL = descriptor_pool.DescriptorPool()
for _well_known in (any_pb2, empty_pb2):
    _POOL.AddSerializedFile(_well_known.DESCRIPTOR.serialized_pb)


def Default() -> descriptor_pool.DescriptorPool:  # noqa: N802 (the name that the generated code calls)
    """Return the pool that the generated modules register their files in."""
    return _POOL
