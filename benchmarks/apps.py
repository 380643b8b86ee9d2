"""Writes what is too long to keep by hand: apps with many bindings or functions, and daprd's resources."""

from __future__ import annotations

import json
from pathlib import Path

SECRET_COUNTS = (1, 5, 20)
FUNCTION_COUNTS = (1, 100, 1000)
STORE = "localsecretstore"
SECRETS = {"my-secret": "abcd", **{f"secret-{number}": f"value-{number}" for number in range(max(SECRET_COUNTS))}}

_HEAD = '''"""Written by benchmarks/apps.py."""

import json

import azure.functions as func

app = func.FunctionApp()
'''

_COMPONENT = f"""apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: {STORE}
spec:
  type: secretstores.local.file
  version: v1
  metadata:
    - name: secretsFile
      value: secrets.json
"""


def write_resources(directory: Path) -> Path:
    """A directory in which to start daprd: its components, and beside them the file of its local.file secret store."""
    _write(directory / "components" / f"{STORE}.yaml", _COMPONENT)
    _write(directory / "secrets.json", json.dumps(SECRETS, indent=2))
    return directory


def write_bindings_app(directory: Path) -> Path:
    """One function ``Secrets<n>`` per count of secret bindings; it parses every secret and answers them all."""
    _write(directory / "function_app.py", _HEAD + "".join(map(_secrets_function, SECRET_COUNTS)))
    return directory


def write_functions_app(directory: Path, count: int) -> Path:
    """An app with `count` functions ``Function<i>``, each of which reads one secret."""
    _write(directory / "function_app.py", _HEAD + "".join(map(_numbered_function, range(count))))
    return directory


def _secrets_function(count: int) -> str:
    names = [f"secret_{number}" for number in range(count)]
    decorators = "".join(_secret_input(name, name.replace("_", "-")) for name in names)
    return f"""

@app.function_name("Secrets{count}")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="Secrets{count}")
{decorators}def secrets_{count}(payload: str, {", ".join(f"{name}: str" for name in names)}) -> dict[str, str]:
    answer = {{}}
    for secret in ({", ".join(names)},):
        answer.update(json.loads(secret))
    return answer
"""


def _numbered_function(number: int) -> str:
    return f"""

@app.function_name("Function{number}")
@app.dapr_service_invocation_trigger(arg_name="payload", method_name="Function{number}")
{_secret_input("secret", "my-secret")}def function_{number}(payload: str, secret: str) -> dict[str, str]:
    return json.loads(secret)
"""


def _secret_input(parameter: str, key: str) -> str:
    return (
        f'@app.dapr_secret_input(arg_name="{parameter}", secret_store_name="{STORE}",'
        f' key="{key}", metadata="metadata.namespace=default")\n'
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
