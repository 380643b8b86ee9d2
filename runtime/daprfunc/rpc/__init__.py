"""Dapr's runtime protos as generated stubs (``make protos``), held in a descriptor pool of their own."""
