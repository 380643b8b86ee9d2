import azure.functions as func

blueprint = func.Blueprint()


@blueprint.dapr_service_invocation_trigger(arg_name="order", method_name="place_order")
async def place_order(order: dict) -> dict:
    return order
