"""``daprSecret``: the values of one secret, read from the sidecar before the function is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from daprfunc.bindings.base import BindingError, Declaration, Fetch
from daprfunc.conversion import UnsupportedAnnotation, secret_reader
from daprfunc.endpoint import Endpoint, parse_endpoint, quoted
from daprfunc.errors import CallerError
from daprfunc.expressions import ExpressionError, Template, compile_metadata, compile_template
from daprfunc.payload import Payload
from daprfunc.sidecar.client import SecretRead, Secrets

_Read = tuple[SecretRead, Callable[[Mapping[str, str]], object]]


class SecretInput:
    """Reads ``key`` of ``secretStoreName``, with ``metadata``, from the sidecar at ``daprAddress`` or the app's own."""

    type_name: ClassVar = "daprSecret"
    properties: ClassVar = ("secretStoreName", "key", "metadata", "daprAddress")

    def __init__(self, declaration: Declaration) -> None:
        self._where = f"function '{declaration.function.name}', parameter '{declaration.parameter}'"
        self._services = declaration.services
        try:
            self._store = _template(declaration, "secretStoreName", required=True)
            self._key = _template(declaration, "key", required=True)
            self._address = _template(declaration, "daprAddress")
            self._metadata = compile_metadata(
                declaration.text("metadata"),
                app_settings=declaration.app_settings,
                trigger=declaration.function.trigger.name,
                function=declaration.function.name,
            )
            self._convert = secret_reader(
                declaration.annotation(inspect.Parameter.empty),
                function=declaration.function.name,
                parameter=declaration.parameter,
            )
        except (ExpressionError, UnsupportedAnnotation) as error:
            raise BindingError(str(error)) from None
        self._own_secrets = self._services.secrets(None)
        self._constant = self._constant_read()
        self._check_address()

    def _constant_read(self) -> _Read | None:
        store, key, metadata = self._store.constant, self._key.constant, self._metadata.constant
        if store == "" or key == "":
            raise BindingError(f"daprSecret has an empty '{'secretStoreName' if store == '' else 'key'}'; set it")
        if store is None or key is None or metadata is None:
            return None
        return self._with_convert(SecretRead(store, key, tuple(metadata.items())))

    def _with_convert(self, read: SecretRead) -> _Read:
        convert = self._convert
        return read, lambda values: convert(values, read.store, read.key)

    def _check_address(self) -> None:
        try:
            _endpoint(self._address.constant)
        except ValueError as error:
            raise BindingError(str(error)) from None

    def start(self, payload: Payload) -> Fetch:
        """Begin to read the secret."""
        read, convert = self._constant or self._rendered(payload)
        secrets = self._secrets(payload) if self._address.text else self._own_secrets
        return Fetch(secrets.get_secret(read), convert)

    def _rendered(self, payload: Payload) -> _Read:
        with self._blaming_the_caller():
            store, key = self._store.render(payload), self._key.render(payload)
            for name, value in (("secretStoreName", store), ("key", key)):
                if not value:
                    raise CallerError(f"its {name} is empty for this payload")
            metadata = self._metadata.render(payload)
        return self._with_convert(SecretRead(store, key, tuple(metadata.items())))

    def _secrets(self, payload: Payload) -> Secrets:
        with self._blaming_the_caller():
            return self._services.secrets(_endpoint(self._address.render(payload)))

    @contextmanager
    def _blaming_the_caller(self) -> Iterator[None]:
        """Say which binding could not use the payload."""
        try:
            yield
        except (CallerError, ValueError) as error:
            raise CallerError(f"{self._where}: {error}") from None

    def describe(self) -> str:
        """Return the store and the key, expressions as they were declared."""
        return f"{self._store.text}/{self._key.text}"

    @property
    def secret_store(self) -> str | None:
        """The store of the app's own sidecar that every invocation reads; None if that depends on the payload."""
        return None if self._address.text else self._store.constant


def _template(declaration: Declaration, name: str, *, required: bool = False) -> Template:
    return compile_template(
        declaration.text(name, required=required),
        app_settings=declaration.app_settings,
        trigger=declaration.function.trigger.name,
        function=declaration.function.name,
    )


def _endpoint(address: str | None) -> Endpoint | None:
    if not address:
        return None
    if address.lower().startswith("http://"):
        raise ValueError(
            f"daprAddress {quoted(address)} is an HTTP address; secrets are read over gRPC here: "
            "write host:port of the sidecar's gRPC API (DAPR_GRPC_PORT), or leave daprAddress out"
        )
    return parse_endpoint(address)
