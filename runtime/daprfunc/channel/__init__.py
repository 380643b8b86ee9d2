"""The app channel: one port on which daprd (or anybody) calls the app, over HTTP/1.1, HTTP/2 or gRPC."""
