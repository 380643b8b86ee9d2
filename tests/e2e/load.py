"""Callers of an app, and the figure that they come to: sent, answered, lost."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import grpc

from daprfunc.rpc.appcallback_pb2_grpc import AppCallbackStub
from daprfunc.rpc.common_pb2 import InvokeRequest

CALL_SECONDS = 30.0


class Caller(Protocol):
    """Anything that calls an app, and lets go of its connection at the end."""

    def post(self, method: str, payload: object = None) -> tuple[Any, str]: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...


C = TypeVar("C", bound=Caller)


@dataclass
class Tally:
    """What became of the invocations that were sent.

    Attributes:
        answers: how many were answered, by status.
        losses: how many were not, by what happened instead.
    """

    answers: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return self.answers.total()

    @property
    def lost(self) -> int:
        return self.losses.total()

    @property
    def sent(self) -> int:
        return self.answered + self.lost

    def take(self, call: Callable[[], object]) -> None:
        """Make one call, which returns the answer's status or raises when there is none, and count it."""
        try:
            self.answers[str(call())] += 1
        except (OSError, http.client.HTTPException, grpc.RpcError) as error:
            self.losses[type(error).__name__] += 1

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted((self.answers + self.losses).items()))
        return f"sent {self.sent}, answered {self.answered}, lost {self.lost} ({counts})"


class HttpCaller:
    """One caller's HTTP/1.1 connection to an app, made again when it was lost."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._headers = dict(headers or {})
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_SECONDS)

    def send(self, method: str, payload: object = None) -> None:
        """Send an invocation without waiting for its answer; see :meth:`answer`."""
        body = b"" if payload is None else json.dumps(payload).encode()
        self.connection.request("POST", f"/{method}", body, self._headers)

    def answer(self) -> tuple[int, str]:
        """Wait for the answer: status and body."""
        response = self.connection.getresponse()
        return response.status, response.read().decode()

    def post(self, method: str, payload: object = None) -> tuple[int, str]:
        """Send an invocation and wait for its answer."""
        try:
            self.send(method, payload)
            return self.answer()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def __enter__(self) -> HttpCaller:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


class GrpcCaller:
    """One caller's gRPC connection to an app."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        )
        self.stub: Any = AppCallbackStub(self.channel)

    def send(self, method: str, payload: object = None) -> Any:
        """Send an invocation; returns grpc's future of its answer."""
        return self.stub.OnInvoke.future(self.request(method, payload), timeout=CALL_SECONDS)

    def post(self, method: str, payload: object = None) -> tuple[str, str]:
        """Send an invocation and wait for its answer: the code's name, and the body or the message."""
        return self.answer(self.send(method, payload))

    @staticmethod
    def answer(call: Any) -> tuple[str, str]:
        """Wait for the answer to what :meth:`send` sent."""
        try:
            return "OK", call.result().data.value.decode()
        except grpc.RpcError:
            return call.code().name, call.details()

    @staticmethod
    def request(method: str, payload: object = None) -> Any:
        message: Any = InvokeRequest(method=method)
        message.data.value = b"" if payload is None else json.dumps(payload).encode()
        return message

    def __enter__(self) -> GrpcCaller:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()


class Load(Generic[C]):
    """Callers who call as fast as they are answered, from entering the context until leaving it.

    Args:
        new_caller: makes each caller.
        call: makes a call of it: returns the answer's status, raises when there is none.
        callers: how many there are.
    """

    def __init__(self, new_caller: Callable[[], C], call: Callable[[C], object], callers: int) -> None:
        self._new_caller = new_caller
        self._call = call
        self._tallies = [Tally() for _ in range(callers)]
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(tally,), daemon=True) for tally in self._tallies]

    def _run(self, tally: Tally) -> None:
        with self._new_caller() as caller:
            while not self._stopping.is_set():
                tally.take(lambda: self._call(caller))

    @property
    def tally(self) -> Tally:
        """What all callers' invocations came to so far."""
        total = Tally()
        for tally in self._tallies:
            total.answers.update(tally.answers.copy())
            total.losses.update(tally.losses.copy())
        return total

    def __enter__(self) -> Load[C]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(CALL_SECONDS)
