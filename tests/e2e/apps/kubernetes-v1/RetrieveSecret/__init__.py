import json


def main(payload, secret):
    return json.loads(secret)
