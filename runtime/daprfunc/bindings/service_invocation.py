"""``daprServiceInvocationTrigger``: a function that other apps call by name through Dapr."""

from __future__ import annotations

import inspect
from typing import ClassVar

from daprfunc.bindings.base import BindingError, Declaration
from daprfunc.conversion import UnsupportedAnnotation, payload_reader
from daprfunc.expressions import ExpressionError, resolve_settings


class ServiceInvocationTrigger:
    """Reads the caller's payload; its route is ``methodName``, or else the function's name."""

    type_name: ClassVar = "daprServiceInvocationTrigger"
    properties: ClassVar = ("methodName",)

    def __init__(self, declaration: Declaration) -> None:
        name = declaration.text("methodName") or declaration.function.name
        try:
            self.route = resolve_settings(name, declaration.app_settings).strip("/")
            self.read = payload_reader(
                declaration.annotation(inspect.Parameter.empty),
                function=declaration.function.name,
                parameter=declaration.parameter,
            )
        except (ExpressionError, UnsupportedAnnotation) as error:
            raise BindingError(str(error)) from None
        if not self.route:
            raise BindingError(f"methodName '{name}' leaves no route; name the method or leave methodName out")
