"""The calls that we make to the Dapr sidecar, over gRPC."""
