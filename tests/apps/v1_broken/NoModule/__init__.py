from ..helpers import missing  # noqa: TID252


def main(payload):
    return missing
