def one(payload):
    return payload


def two(payload):
    return payload
