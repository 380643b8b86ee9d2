"""From a route to a reply: finds the function's plan and runs it within the limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from daprfunc.deadlines import Deadlines
from daprfunc.errors import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    NOT_FOUND,
    OVERLOADED,
    AppError,
    CallerError,
    FunctionError,
    InvocationError,
    SidecarError,
)
from daprfunc.invocation import Invocation, Reply
from daprfunc.model import BrokenFunction, Retry
from daprfunc.plan import Plan

log = logging.getLogger(__name__)

# How many routes an error message lists.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an invocation.

    Attributes:
        function_timeout: seconds that one may take in all; None for no limit (host.json's functionTimeout).
        max_concurrency: how many may run at once.
        retry: the policy of functions that have none of their own (host.json's retry).
    """

    function_timeout: float | None
    max_concurrency: int
    retry: Retry | None = None


class Dispatcher:
    """The compiled app: finds the plan for a route and runs it within the limits.

    Args:
        plans: the functions that can be called, by route in lower case.
        limits: bounds invocations.
        broken: the functions that cannot be called.
        warnings: what was tolerated in those that can, one line each.
        reasons: why not, by the route that they would have, in lower case.

    Attributes:
        plans: the functions that can be called, by route in lower case.
        broken: those that cannot.
        warnings: what was tolerated, one line each.
        in_flight: how many invocations run.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        limits: Limits,
        *,
        broken: Sequence[BrokenFunction] = (),
        warnings: Sequence[str] = (),
        reasons: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.plans = plans
        self.broken = broken
        self.warnings = warnings
        self.in_flight = 0
        self._reasons = reasons
        self._limit = limits.max_concurrency
        self._deadlines = Deadlines(limits.function_timeout, self._expire)
        self._expired: set[asyncio.Task[Any]] = set()
        self._timeout = limits.function_timeout
        self._idle = asyncio.Event()
        self._idle.set()

    async def invoke(self, invocation: Invocation) -> Reply:
        """Run the function that the invocation asks for, in the current task.

        Raises:
            InvocationError: what to answer instead of a reply.
        """
        plan = self.plans.get(invocation.method.lower()) or self.find(invocation.method)
        if self.in_flight >= self._limit:
            raise InvocationError(
                OVERLOADED,
                f"{self._limit} invocations are in flight, which is the limit (--max-concurrency); try again later",
            )
        task: Any = asyncio.current_task()
        self.in_flight += 1
        self._deadlines.start(task)
        try:
            return await plan.run(invocation)
        except asyncio.CancelledError:
            if task in self._expired:
                raise self._too_slow(plan) from None
            raise
        except SidecarError as error:
            name, code = plan.function.name, error.status.name
            log.warning("%s: function '%s', secret '%s' of '%s': %s", code, name, error.key, error.store, error)
            raise
        except FunctionError:
            raise
        except InvocationError as error:
            level = logging.DEBUG if isinstance(error, CallerError) else logging.ERROR
            log.log(level, "%s: function '%s': %s", error.status.name, plan.function.name, error)
            raise
        except Exception as error:
            log.exception("the runtime failed to run function '%s'; please report this", plan.function.name)
            raise AppError(f"Function invocation failed: {type(error).__name__} in the runtime", INTERNAL) from None
        finally:
            self._deadlines.stop(task)
            self._expired.discard(task)
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    def find(self, method: str) -> Plan:
        """Return the plan whose route is `method`, in any case.

        Raises:
            AppError: that function did not load; says why.
            CallerError: there is no such route; says which there are.
        """
        plan = self.plans.get(method.lower())
        if plan is not None:
            return plan
        reason = self._reasons.get(method.lower())
        if reason is not None:
            raise AppError(reason, INTERNAL)
        routes = [plan.route for plan in self.plans.values()]
        listed = ", ".join(sorted(routes)[:_LISTED]) + (", ..." if len(routes) > _LISTED else "")
        raise CallerError(f"no function has the route '{method[:200]}'; there are: {listed}", NOT_FOUND)

    def _expire(self, task: asyncio.Task[Any]) -> None:
        self._expired.add(task)
        task.cancel()

    def _too_slow(self, plan: Plan) -> AppError:
        text = f"function '{plan.function.name}' took more than functionTimeout, {self._timeout:g} s"
        log.error("%s: %s", plan.function.script, text)
        return AppError(text, DEADLINE_EXCEEDED)

    async def drained(self) -> None:
        """Wait until no invocation is in flight."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()
