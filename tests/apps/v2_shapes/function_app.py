import azure.functions as func
from orders import blueprint
from wording import GREETING


class Proxy:
    @property
    def __class__(self):
        raise RuntimeError("there is nothing behind it yet")


class App(func.FunctionApp):
    pass


app = App()
proxy = Proxy()
the_same_app = app
app.register_functions(blueprint)


@app.function_name("Greet")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="greet")
@app.dapr_secret_input(arg_name="secret", secret_store_name="store", key="key", metadata="")
@app.retry(
    strategy="exponential_backoff", max_retry_count="-1", minimum_interval="00:00:01", maximum_interval="00:01:00"
)
def greet(payload: str, secret: str, context: func.Context) -> str:
    return GREETING + payload
