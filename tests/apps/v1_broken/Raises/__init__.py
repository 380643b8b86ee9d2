from ..broken_helper import connect  # noqa: TID252

connect()


def main(payload):
    return payload
