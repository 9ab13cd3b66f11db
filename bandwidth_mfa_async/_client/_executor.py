"""How a call is made: token, permit, slot, attempt, retry, and what each outcome gives back."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from .._models import (
    CodeRequest,
    MessagingCodeResponse,
    ResponseMeta,
    VerifyCodeRequest,
    VerifyCodeResponse,
    VoiceCodeResponse,
    attach_meta,
)
from .._retry import backoff, is_retryable, retry
from .._transport import Body
from .._validation import LANES
from .._wire import decipher, encode
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectTimeoutError,
    DeadlineExceededError,
    Delivery,
    PermissionDeniedError,
    RateLimitError,
    RequestError,
)
from ..limits import ChannelLimiter, PrioritySemaphore, message_weight
from ._call import NO_DEADLINE, Call

if TYPE_CHECKING:
    from .._config import Limits, Rate, RetryPolicy
    from .._validation import Lane
    from .._wire import Operation
    from ..limits import Limiter, Permit
    from ..telemetry import HookList
    from ._observer import AttemptObserver
    from ._shared_state import SharedState

_Request = TypeVar("_Request", CodeRequest, VerifyCodeRequest)
_Response = TypeVar("_Response", MessagingCodeResponse, VoiceCodeResponse, VerifyCodeResponse)


class CallExecutor:
    """Makes calls with one set of options over a shared core.

    Args:
        state: connections, credentials, the retry budget.
        policy: how often and how long.
        hooks: who is told.
        limits: how fast and how wide.
        parent: a caller whose limiters and slots are to be used instead of new ones.
    """

    state: SharedState
    slots: PrioritySemaphore
    limiters: dict[str, Limiter]

    def __init__(
        self,
        state: SharedState,
        policy: RetryPolicy,
        hooks: HookList,
        limits: Limits,
        parent: CallExecutor | None = None,
    ) -> None:
        self.state = state
        self.policy = policy
        self.hooks = hooks
        # Asked several times in every call.
        self._has_hooks = bool(hooks)
        self.limits = limits
        if parent is not None:
            self.slots, self.limiters = parent.slots, parent.limiters
            return
        self.slots = PrioritySemaphore(limits.max_in_flight, clock=state.clock)
        rates = (("messaging", limits.rate), ("voice", limits.voice_rate))
        self.limiters = {channel: self._limiter(channel, rate) for channel, rate in rates}
        state.register(self.slots, *self.limiters.values())

    def _limiter(self, channel: str, rate: Rate | None) -> Limiter:
        state, limits, hooks, max_pause = self.state, self.limits, self.hooks, self.policy.max_retry_after
        emit = hooks.emit if hooks else None
        make = ChannelLimiter if limits.shared is None else limits.shared.limiter

        def build() -> Any:
            return make(channel, rate=rate, adaptive=limits.adaptive, clock=state.clock, emit=emit, max_pause=max_pause)

        if limits.shared is None:
            own: Limiter = build()
            return own
        options = (channel, limits.shared, rate, limits.adaptive, max_pause, hooks)
        return state.shared_limiter(options, build)

    async def call(
        self,
        operation: Operation[_Request, _Response],
        request: _Request,
        timeout: float | None,
        lane: Lane,
        observer: AttemptObserver | None = None,
    ) -> _Response:
        """Make one call.

        Args:
            operation: what to ask.
            request: with which values.
            timeout: seconds for the whole call; None for the policy's.
            lane: where to wait.
            observer: told of each attempt, before it is written and when it failed.

        Raises:
            RequestError: it did not succeed.
            ConfigurationError: there is no such lane, or the timeout is no number above 0.
            ClientStateError: the client is closed or belongs to another loop.
        """
        policy = self.policy if timeout is None else attrs.evolve(self.policy, timeout=timeout)
        if lane not in LANES:
            raise ConfigurationError("lane: must be 'interactive' or 'bulk'")
        state = self.state
        state.call_started()
        try:
            call_id = f"{state.rng.getrandbits(64):016x}" if self._has_hooks else ""
            call = Call(operation, request, encode(request), policy, lane, state.clock.monotonic(), call_id, observer)
            self._emit_start(call)
            try:
                response: _Response | None
                try:
                    response = await self._send(call)
                except RequestError:
                    response = None  # why not, the call knows
                if response is None:
                    response = await self._retry_after_first_failure(call)
                else:
                    state.budget.deposit(1)
            except RequestError as error:
                elapsed = state.clock.monotonic() - call.started
                final = call.finalize_error(error, elapsed)
                self._emit_end(call, final, emit_attempt=call.error is error)
                if final is error:
                    raise
            except asyncio.CancelledError as error:
                self._emit_end(call, error, emit_attempt=call.record_cancellation(error))
                raise
            except Exception as error:
                # No failure of a request; told all the same, so that every call that began has an end.
                self._emit_end(call, error, emit_attempt=False)
                raise
            else:
                elapsed = state.clock.monotonic() - call.started
                possible_duplicate = call.maybe_delivered and operation.sends
                meta = ResponseMeta(attempts=call.attempts, elapsed=elapsed, possible_duplicate=possible_duplicate)
                self._emit_end(call, None, emit_attempt=True)
                return attach_meta(response, meta)
            # Raised out of the handler: the error of the last attempt alone says less than is known.
            raise final
        finally:
            state.call_finished()

    async def _retry_after_first_failure(self, call: Call[_Request, _Response]) -> _Response:
        """Go on after a first attempt that failed, as far as that is allowed.

        Apart, as what it needs would cost every call objects that most never use.
        """
        state = self.state
        assert isinstance(call.error, RequestError)  # noqa: S101 - what the first attempt raised
        try:
            response = await self._attempt(call, call.error)
        except RequestError as error:
            if not is_retryable(error, sends=call.operation.sends, resend=call.policy.resend):
                raise
            first_error = error
        else:
            state.budget.deposit(1)
            return response
        return await retry(
            first_error,
            lambda: self._attempt(call),
            sends=call.operation.sends,
            policy=call.policy,
            budget=state.budget,
            time_left=lambda: call.deadline - state.clock.monotonic(),
            sleep=lambda seconds: self._sleep(call, seconds),
            before_sleep=lambda _error, seconds: self._emit_attempt(call, seconds),
            rng=state.rng,
        )

    async def _sleep(self, call: Call[Any, Any], seconds: float) -> None:
        if not await self.state.sleeper.sleep(seconds):
            error = call.error
            assert isinstance(error, RequestError)  # noqa: S101 - only a failure is slept on
            error._update(retry_stopped_by="closed")  # noqa: SLF001 - errors are this package's own
            call.payload = None  # its end was told before the sleep
            raise error

    async def _attempt(self, call: Call[_Request, _Response], failure: RequestError | None = None) -> _Response:
        """Make one attempt, plus those that cost none: after a stale bearer token, and after a 429 in the bulk lane.

        Args:
            call: whose.
            failure: what the attempt came to, if it was made already.
        """
        throttled = 0
        while True:
            if failure is None:
                try:
                    return await self._send(call)
                except RequestError as error:
                    failure = error
            if isinstance(failure, (AuthenticationError, PermissionDeniedError)):
                renewable = failure.delivery is Delivery.REJECTED and not call.token_renewed
                if not renewable or not self.state.authorizer.reject(call.header):
                    raise failure
                call.token_renewed = True
                self._emit_attempt(call, 0.0)
            elif isinstance(failure, RateLimitError):
                patient = call.lane == "bulk" and call.operation.sends and failure.delivery is Delivery.REJECTED
                if not patient or (failure.retry_after or 0.0) > call.policy.max_retry_after:
                    raise failure
                throttled += 1
                # A learning limiter paces what comes next by itself; without one the waits must grow.
                paced = self.limits.adaptive and failure.retry_after is None
                wait = 0.0 if paced else backoff(call.policy, failure, throttled, self.state.rng)
                self._emit_attempt(call, wait)
                await self._sleep(call, wait)
                call.deadline = NO_DEADLINE
            else:
                raise failure
            failure = None

    async def _send(self, call: Call[_Request, _Response]) -> _Response:
        """Get what an attempt needs, send once, and give back what was taken."""
        channel = call.operation.channel
        limiter = None if channel is None else self.limiters[channel]
        call.error = call.payload = None
        try:
            permit = await self._admit(call, limiter)
            try:
                if call.observer is not None:
                    await call.observer.before_attempt()
                response = await self._exchange(call)
            except BaseException as error:
                if limiter is not None and permit is not None:
                    _settle_permit(limiter, permit, call, error)
                raise
            finally:
                self.slots.release()
        except RequestError as error:
            call.record_failure(error)
            raise
        if limiter is not None and permit is not None:
            limiter.accepted(permit)
        return response

    async def _admit(self, call: Call[Any, Any], limiter: Limiter | None) -> Permit | None:
        """Wait for a token, a permit and a slot; what it returns with is fresh."""
        state = self.state
        bulk = call.lane == "bulk"
        timed = bulk or self._has_hooks
        began = state.clock.monotonic() if timed else 0.0
        time_left = 0.0
        if bulk:
            # The wait of a bulk item is not part of its time, however slow the account.
            time_left = call.policy.timeout if call.deadline == NO_DEADLINE else call.deadline - began
            call.deadline = NO_DEADLINE
        call.header = state.authorizer.current() or await self._token(call)
        permit = await self._permit(call, limiter)
        if not self.slots.try_acquire(call.lane):
            # A permit is for now: kept while waiting for a slot it would be used together with many others, at no rate.
            if limiter is not None and permit is not None:
                limiter.refund(permit)
            await self.slots.acquire(call.lane, deadline=call.wait_until)
            try:
                permit = await self._permit(call, limiter)
            except BaseException:
                self.slots.release()
                raise
        if timed:
            now = state.clock.monotonic()
            call.waited = now - began
            if bulk:
                call.deadline = now + time_left
        return permit

    async def _permit(self, call: Call[Any, Any], limiter: Limiter | None) -> Permit | None:
        if limiter is None:
            return None
        weight = self._weight(call.request) if call.operation.channel == "messaging" else 1
        permit = limiter.try_acquire(weight, call.lane)
        if permit is None:
            permit = await limiter.acquire(weight, call.lane, deadline=call.wait_until)
        return permit

    def _weight(self, request: CodeRequest) -> int:
        """Count the segments of a text, which is how Bandwidth counts messages."""
        return message_weight(request.message, request.scope, request.digits, self.limits.application_name)

    async def _exchange(self, call: Call[_Request, _Response]) -> _Response:
        """Put one request on the wire and read what its answer means."""
        state = self.state
        clock = state.clock
        # The waits may have outlasted the token that was at hand before them.
        header = call.header = state.authorizer.current() or await self._token(call)
        started = clock.monotonic()
        time_left = call.deadline - started
        if time_left <= 0:
            raise DeadlineExceededError("the call's time ran out before the request was written")
        call.attempts += 1
        call.payload = payload = Body(call.body, None if call.observer is None else call.observer.check_before_write)
        try:
            raw = await state.transport.send(
                state.urls[call.operation.name],
                state.headers(header),
                payload,
                operation=call.operation.name,
                timeout=min(call.policy.attempt_timeout, time_left),
                connect_timeout=call.policy.connect_timeout,
            )
        except ConnectTimeoutError:
            # Told by what bounded it as well: uvloop's timers run up to a millisecond early.
            bound = min(call.policy.attempt_timeout, call.policy.connect_timeout)
            if bound < time_left and clock.monotonic() < call.deadline:
                raise
        else:
            return decipher(
                call.operation,
                raw,
                now=clock.time(),
                secrets=partial(self._secrets, call),
            )
        finally:
            if self._has_hooks:
                call.elapsed = clock.monotonic() - started
        raise DeadlineExceededError("the call's time ran out before a connection was made")

    def _secrets(self, call: Call[Any, Any]) -> tuple[str, ...]:
        return (*call.secrets, *self.state.authorizer.secrets())

    async def _token(self, call: Call[Any, Any]) -> str:
        """Wait for the bearer token, together with everybody else who needs it."""
        state = self.state
        limit = None if call.wait_until is None else call.wait_until - state.clock.monotonic()
        error: RequestError
        try:
            async with asyncio.timeout(limit):
                return await state.authorizer.obtain()
        except RequestError as shared:
            # All who waited get this instance; each call needs one of its own to write its account on.
            error = type(shared)(*shared.args)
        except TimeoutError:
            error = DeadlineExceededError("the call's time ran out while it waited for a token")
        raise error

    def _emit_start(self, call: Call[Any, Any]) -> None:
        if self._has_hooks:
            self.hooks.emit(call.started_event(str(self.state.urls[call.operation.name])))

    def _emit_attempt(self, call: Call[Any, Any], retry_in: float | None) -> None:
        if self._has_hooks:
            event = call.attempt_event(retry_in)
            if event is not None:
                self.hooks.emit(event)

    def _emit_end(self, call: Call[Any, Any], error: BaseException | None, *, emit_attempt: bool) -> None:
        if not self._has_hooks:
            return
        if emit_attempt:
            self._emit_attempt(call, None)
        self.hooks.emit(call.call_event(error, self.state.clock.monotonic() - call.started))


def _settle_permit(limiter: Limiter, permit: Permit, call: Call[Any, Any], error: BaseException) -> None:
    """Tell the limiter what became of a permit whose attempt failed or was cancelled."""
    if not call.begun:
        limiter.refund(permit)
    elif isinstance(error, RateLimitError):
        limiter.rejected(permit, error.retry_after)
