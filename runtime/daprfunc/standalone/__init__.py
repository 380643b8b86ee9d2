"""An embedded sidecar for development: local secret stores behind Dapr's own gRPC API, with no Dapr installed."""
