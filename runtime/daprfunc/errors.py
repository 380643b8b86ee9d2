"""What can go wrong, whose fault it is, and the status that says so.

While an app loads, faults are collected as :class:`Problem` so that one start reports them all. While an invocation
runs, exactly one :class:`InvocationError` becomes its reply: its class says whose fault it is, its :class:`Status`
how HTTP and gRPC say that.

No message may hold a secret value: messages name stores, keys, parameters and types, never what was fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Status:
    """One outcome in both protocols' terms.

    Attributes:
        name: gRPC's name of the code, such as ``NOT_FOUND``.
        grpc: gRPC's status code, 0 to 16.
        http: the HTTP status code.
    """

    name: str
    grpc: int
    http: int


OK = Status("OK", 0, 200)
INVALID_ARGUMENT = Status("INVALID_ARGUMENT", 3, 400)
UNAUTHENTICATED = Status("UNAUTHENTICATED", 16, 401)
NOT_FOUND = Status("NOT_FOUND", 5, 404)
METHOD_NOT_ALLOWED = Status("UNIMPLEMENTED", 12, 405)
TOO_LARGE = Status("RESOURCE_EXHAUSTED", 8, 413)
INTERNAL = Status("INTERNAL", 13, 500)
# The .NET host has no status of its own for a function that raised: HTTP says 500. gRPC's word for it is UNKNOWN.
FUNCTION_FAILED = Status("UNKNOWN", 2, 500)
OVERLOADED = Status("RESOURCE_EXHAUSTED", 8, 503)
UNAVAILABLE = Status("UNAVAILABLE", 14, 503)
DEADLINE_EXCEEDED = Status("DEADLINE_EXCEEDED", 4, 504)


class DaprFuncError(Exception):
    """The base of every error that daprfunc raises; its text is one line, fit to be shown to a user."""


class SettingsError(DaprFuncError):
    """A flag, an environment variable or a settings file says what cannot be; the text names which and what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a function (or the whole app) cannot load.

    Attributes:
        message: what was found and what to do, one sentence each.
        file: the file in which to mend it.
        function: the function it concerns; None for the app itself.
        parameter: the parameter it concerns, if any.
    """

    message: str
    file: Path | None = None
    function: str | None = None
    parameter: str | None = None

    def __str__(self) -> str:
        place = [str(self.file)] if self.file else []
        if self.function:
            place.append(f"function '{self.function}'" + (f", parameter '{self.parameter}'" if self.parameter else ""))
        return ": ".join([*place, self.message])


class LoadError(DaprFuncError):
    """The app as a whole cannot load.

    Attributes:
        problems: every reason found, at least one.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class InvocationError(DaprFuncError):
    """One invocation failed; its status and text are the reply.

    Attributes:
        status: what to answer.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class CallerError(InvocationError):
    """The caller's fault: what it sent cannot be used."""

    def __init__(self, message: str, status: Status = INVALID_ARGUMENT) -> None:
        super().__init__(status, message)


class AppError(InvocationError):
    """The app's fault: a function that raised, or one that could not load."""

    def __init__(self, message: str, status: Status = FUNCTION_FAILED) -> None:
        super().__init__(status, message)


class FunctionError(AppError):
    """The function ran and raised; its traceback is in the log."""


class SidecarError(InvocationError):
    """The sidecar's or its store's fault.

    Attributes:
        store: the secret store that was asked, if any.
        key: the key that was asked for, if any.
    """

    def __init__(self, status: Status, message: str, *, store: str | None = None, key: str | None = None) -> None:
        super().__init__(status, message)
        self.store = store
        self.key = key


class FunctionRaised(Exception):  # noqa: N818 - it is no error of ours
    """Carries what a function raised, as its cause, where to raise that itself would mean something else.

    ``StopIteration`` would end the coroutine that awaits the function, and ``CancelledError`` would say that somebody
    has cancelled the invocation.
    """
