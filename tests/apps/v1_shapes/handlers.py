from greeting import greeting


def _helper():
    return greeting()


def only_one(payload):
    return _helper()
