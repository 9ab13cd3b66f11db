"""What an attempt needs before it is made: a token, a permit of the rate limit and a slot, all valid at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from .._logger import WAITS
from ..errors import RateLimitError
from ..limits import message_weight
from ._authorization import current_header, wait_for_header
from ._call import NO_DEADLINE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from ..limits import Limiter, Permit, PrioritySemaphore
    from ..limits._permit import Turn
    from ._call import Call
    from ._shared_state import SharedState


@frozen
class AdmissionControl:
    """What the calls of one executor wait for.

    Attributes:
        state: what the client shares with its views.
        limiters: the rate limits by channel.
        slots: the slots.
        application_name: the name that the service puts into texts, if it is known.
        is_timed: whether to measure how long a call waits.
    """

    state: SharedState
    limiters: Mapping[str, Limiter]
    slots: PrioritySemaphore
    application_name: str | None
    is_timed: bool


class Admission:
    """Waits for what an attempt needs, and returns it afterwards. Yields the turn to write, if a rate is configured.

    A call that begins to wait holds no permit and no slot, and lets its observer wait first. Only a call that had to
    wait for its slot may keep it while it waits for its permit. The time that a bulk item waits does not count against
    its timeout, however slow the account is.

    Args:
        control: the limits and the slots.
        call: the call.
    """

    __slots__ = ("_call", "_control", "_limiter", "_permit")

    def __init__(self, control: AdmissionControl, call: Call[Any, Any]) -> None:
        self._call = call
        self._control = control
        channel = call.operation.channel
        self._limiter = None if channel is None else control.limiters[channel]
        self._permit: Permit | None = None

    async def __aenter__(self) -> Turn | None:
        call, control = self._call, self._control
        state, bulk = control.state, call.lane == "bulk"
        clock, is_timed = state.clock, bulk or control.is_timed
        began = clock.monotonic() if is_timed else 0.0
        time_left = 0.0
        if bulk:
            time_left = call.policy.timeout if call.deadline == NO_DEADLINE else call.deadline - began
            call.deadline = NO_DEADLINE
        if call.credential is None:
            call.credential = state.authorizer.select(call.operation.name)
        header = current_header(call)
        if not header:
            await call.before_wait()
            header = await wait_for_header(state, call)
        call.header = header
        if not self._try_permit():
            await call.before_wait()
            await self._wait_for_permit()
        if not control.slots.try_acquire(call.lane):
            await self._wait_for_slot()
        if is_timed:
            now = clock.monotonic()
            call.waited = now - began
            if bulk:
                call.deadline = now + time_left
        return None if self._permit is None else self._permit.turn

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        limiter, permit = self._limiter, self._permit
        if limiter is None or permit is None:
            self._control.slots.release()
            return
        if error is not None:
            if not self._call.begun:
                limiter.refund(permit)
            else:
                if permit.turn is not None:
                    permit.turn.written()
                if isinstance(error, RateLimitError):
                    limiter.rejected(permit, error.retry_after)
        self._control.slots.release()
        if error is None:
            limiter.accepted(permit)

    def _try_permit(self) -> bool:
        """Take a permit if one is free; return True also if the operation needs none."""
        if self._limiter is None:
            return True
        self._permit = self._limiter.try_acquire(self._weight(), self._call.lane)
        return self._permit is not None

    async def _wait_for_slot(self) -> None:
        call, slots = self._call, self._control.slots
        # A permit is valid now. If kept while waiting for a slot, many would be used at once, above the rate.
        if self._limiter is not None and self._permit is not None:
            self._limiter.refund(self._permit)
        WAITS.debug("%s waits for a slot: %r", call.operation.name, slots)
        await call.before_wait()
        await slots.acquire(call.lane, deadline=call.wait_until)
        try:
            if not self._try_permit():
                await self._wait_for_permit()
        except BaseException:
            slots.release()
            raise

    async def _wait_for_permit(self) -> None:
        call, limiter = self._call, self._limiter
        assert limiter is not None  # noqa: S101 - it had no permit to give
        WAITS.debug("%s waits for a permit in the %s lane: %r", call.operation.name, call.lane, limiter)
        self._permit = await limiter.acquire(self._weight(), call.lane, deadline=call.wait_until)

    def _weight(self) -> int:
        """Return how many messages a request counts as: Bandwidth counts the segments of a text."""
        call = self._call
        if call.operation.channel != "messaging":
            return 1
        request, name = call.request, self._control.application_name
        return message_weight(request.message, request.scope, request.digits, name)
