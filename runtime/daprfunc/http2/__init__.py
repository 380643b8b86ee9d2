"""HTTP/2 for gRPC: frames, and connections that know them. Serves both the app channel and the sidecar's client."""
