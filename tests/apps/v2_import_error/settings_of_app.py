def read(values):
    return values["CONNECTION"]
