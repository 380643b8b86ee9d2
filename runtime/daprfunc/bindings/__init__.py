"""The bindings that we know: function.json's type name, in lower case -> the class that compiles it.

A binding is compiled once, when the app loads, into an object that does little more than its I/O for each invocation.
To add one: write its class in a file of its own and name it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from daprfunc.bindings.base import BindingError, Declaration, Fetch, Input, Trigger
from daprfunc.bindings.secret import SecretInput
from daprfunc.bindings.service_invocation import ServiceInvocationTrigger

__all__ = ["INPUTS", "TRIGGERS", "BindingError", "Declaration", "Fetch", "Input", "Trigger"]

TRIGGERS: Mapping[str, type[ServiceInvocationTrigger]] = MappingProxyType(
    {kind.type_name.lower(): kind for kind in (ServiceInvocationTrigger,)}
)
INPUTS: Mapping[str, type[SecretInput]] = MappingProxyType({kind.type_name.lower(): kind for kind in (SecretInput,)})
