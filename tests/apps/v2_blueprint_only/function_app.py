import azure.functions as func

orders = func.Blueprint()
