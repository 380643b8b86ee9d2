def main(payload, secrets, both):
    return payload
