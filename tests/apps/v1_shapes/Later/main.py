import azure.functions as func


async def main(payload, context: "func.Context"):
    return context.function_name
