import a_package_that_is_not_there


def main(payload):
    return a_package_that_is_not_there
