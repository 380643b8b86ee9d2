def main(payload):
    return payload
