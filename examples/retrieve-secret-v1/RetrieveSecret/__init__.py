"""Reads a secret from a Dapr secret store, in Python's v1 programming model."""

import json
import logging


def main(payload, secret: str) -> list[str]:
    values = json.loads(secret)
    for key, value in values.items():
        # For the sake of the demonstration: no real app should log its secrets.
        logging.info("The store holds %s = %s", key, value)
    return list(values)
