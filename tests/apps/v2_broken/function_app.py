import azure.functions as func

app = func.FunctionApp()


@app.dapr_service_invocation_trigger(arg_name="payload", method_name="fine")
def fine(payload):
    return payload


@app.dapr_secret_input(arg_name="secret", secret_store_name="store", key="key", metadata="")
def no_trigger(secret):
    return secret


@app.function_name("Twice")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="one")
def one(payload):
    return payload


@app.function_name("twice")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="two")
def two(payload):
    return payload


@app.dapr_service_invocation_trigger(arg_name="payload", method_name="undeclared")
def undeclared(payload, secret):
    return secret


@app.dapr_service_invocation_trigger(arg_name="payload", method_name="not_json", setting=object())
def not_json(payload):
    return payload


@app.dapr_service_invocation_trigger(arg_name="payload", method_name="bad_retry")
@app.retry(strategy="sometimes", max_retry_count="3")
def bad_retry(payload):
    return payload
