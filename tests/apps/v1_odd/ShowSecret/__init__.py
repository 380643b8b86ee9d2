def main(request, secret):
    return secret
