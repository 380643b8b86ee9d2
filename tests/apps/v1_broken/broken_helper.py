def connect():
    raise RuntimeError("cannot\nconnect")
