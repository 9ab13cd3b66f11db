"""Makes calls: token, permit, slot, attempt and retry, and releases what each step acquired."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs

from .._logger import WAITS
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
from .._validation import checked_lane
from .._wire import decipher, encode, header_request_id
from ..errors import (
    AuthenticationError,
    ConnectTimeoutError,
    DeadlineExceededError,
    Delivery,
    NotSentError,
    PermissionDeniedError,
    RateLimitError,
    RequestError,
)
from ..limits import ChannelLimiter, PrioritySemaphore, message_weight
from ._authorization import change_credential, current_header, proves_authorization, record_accepted, wait_for_header
from ._call import NO_DEADLINE, Call, clear_unless_request_failed
from ._observer import AttemptPostponed, CallEnded

if TYPE_CHECKING:
    from .._config import Limits, Rate, RetryPolicy
    from .._validation import Lane
    from .._wire import Operation
    from ..limits import Limiter, Permit
    from ..limits._permit import Turn
    from ..telemetry import CredentialSwitchedEvent, HookList
    from ._observer import AttemptObserver
    from ._shared_state import SharedState

_Request = TypeVar("_Request", CodeRequest, VerifyCodeRequest)
_Response = TypeVar("_Response", MessagingCodeResponse, VoiceCodeResponse, VerifyCodeResponse)


class CallExecutor:
    """Makes calls with one set of options over shared state.

    Args:
        state: connections, credentials and the retry budget.
        policy: the retry policy.
        hooks: receive the events.
        limits: rate and concurrency limits.
        parent: the executor whose limiters and slots to share; None for new ones.
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
        # Read several times per call.
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
            limiter: Limiter = build()
            return limiter
        options = (channel, limits.shared, rate, limits.adaptive, max_pause, hooks)
        return state.shared_limiters.get(options, build, self.slots)

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
            operation: the operation.
            request: its values.
            timeout: seconds for the whole call; None for the policy's.
            lane: the lane in which to wait.
            observer: called before each attempt is written and when it fails.

        Raises:
            RequestError: the call did not succeed.
            ConfigurationError: there is no such lane, or the timeout is not a number above 0.
            ClientStateError: the client is closed or belongs to another loop.
            Exception: unchanged: what the observer or a shared limiter raised, or a defect, if no attempt may have been
                delivered; otherwise it is the cause of a `DeliveryUnknownError`.
        """
        policy = self.policy if timeout is None else attrs.evolve(self.policy, timeout=timeout)
        checked_lane(lane)
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
                    response = None  # `call.error` says why
                if response is None:
                    response = await self._retry_after_first_failure(call)
                else:
                    state.budget.deposit(1)
                self._emit_end(call, None, emit_attempt=True)
                return attach_meta(response, self._meta(call))
            except RequestError as error:
                elapsed = state.clock.monotonic() - call.started
                final = call.finalize_error(error, elapsed)
                self._emit_end(call, final, emit_attempt=call.error is error)
                if final is error:
                    raise
                cause = None
            except asyncio.CancelledError as error:
                self._emit_end(call, error, emit_attempt=call.record_interruption(error))
                raise
            except Exception as error:
                # Not a failed request: raised by the observer or a shared limiter, or a defect.
                result = self._end_early(call, error)
                if result is error:
                    raise
                if not isinstance(result, RequestError):
                    return cast("_Response", result)
                final, cause = result, _cause(error)
            # Outside the handlers, so that `__context__` does not hold the last attempt's error, which says less.
            raise final from cause
        except Exception as error:
            clear_unless_request_failed(error)
            raise
        finally:
            state.call_finished()

    def _meta(self, call: Call[Any, Any]) -> ResponseMeta:
        elapsed = self.state.clock.monotonic() - call.started
        possible_duplicate = call.maybe_delivered and call.operation.sends
        credential = None if call.credential is None else call.credential.kind
        return ResponseMeta(call.attempts, elapsed, call.request_id, possible_duplicate, credential=credential)

    def _end_early(self, call: Call[Any, Any], error: Exception) -> Any:
        """Return the result of a call that something other than a failed request ended: `error` is raised unchanged."""
        elapsed = self.state.clock.monotonic() - call.started
        if isinstance(error, CallEnded):
            result: Any = error.result
            if isinstance(result, RequestError):
                result = call.finalize_error(result, elapsed)
                self._emit_end(call, result, emit_attempt=False)
                return result
            self._emit_end(call, None, emit_attempt=False)
            # The response that an earlier call got, with the facts of this call.
            meta = attrs.evolve(result.meta, attempts=call.attempts, elapsed=elapsed, replayed=True)
            return attach_meta(result, meta)
        emit_attempt = call.record_interruption(error)
        final: Exception = call.interrupted_error(error, elapsed) if call.maybe_delivered else error
        self._emit_end(call, final, emit_attempt=emit_attempt)
        return final

    async def _retry_after_first_failure(self, call: Call[_Request, _Response]) -> _Response:
        """Retry after a failed first attempt, as far as the policy allows.

        A separate method, because the closures it needs would cost every call, and most never use them.
        """
        state = self.state
        assert isinstance(call.error, RequestError)  # noqa: S101 - the first attempt raised it
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
            may_retry=call.may_retry,
            time_left=lambda: call.deadline - state.clock.monotonic(),
            sleep=lambda seconds: self._sleep(call, seconds),
            before_sleep=lambda _error, seconds: self._emit_attempt(call, seconds),
            rng=state.rng,
        )

    async def _sleep(self, call: Call[Any, Any], seconds: float) -> None:
        if seconds:
            name, failed = call.operation.name, type(call.error).__name__
            WAITS.debug("%s waits %.3f s before its next attempt; attempt %d: %s", name, seconds, call.attempts, failed)
        if not await self.state.sleeper.sleep(seconds):
            error = call.error
            assert isinstance(error, RequestError)  # noqa: S101 - only a failure leads to a sleep
            error._update(retry_stopped_by="closed")  # noqa: SLF001 - errors are this package's own
            call.payload = None  # its event was emitted before the sleep
            raise error

    async def _attempt(self, call: Call[_Request, _Response], failure: RequestError | None = None) -> _Response:
        """Make one counted attempt, and free retries: with other credentials, and after a 429 in the bulk lane.

        Args:
            call: the call.
            failure: the attempt's error if it was already made.
        """
        throttled = 0
        while True:
            if failure is None:
                try:
                    return await self._send(call)
                except RequestError as error:
                    failure = error
            if isinstance(failure, (AuthenticationError, PermissionDeniedError)):
                if failure.delivery is not Delivery.REJECTED or not call.may_retry():
                    raise failure
                if not await change_credential(self.state, call, failure):
                    raise failure
                self._emit_attempt(call, 0.0)
            elif isinstance(failure, RateLimitError):
                patient = call.lane == "bulk" and call.operation.sends and failure.delivery is Delivery.REJECTED
                if not patient or (failure.retry_after or 0.0) > call.policy.max_retry_after or not call.may_retry():
                    raise failure
                throttled += 1
                # An adaptive limiter delays the next attempt itself; without one the backoff must grow.
                limiter_delays = self.limits.adaptive and failure.retry_after is None
                wait = 0.0 if limiter_delays else backoff(call.policy, failure, throttled, self.state.rng)
                self._emit_attempt(call, wait)
                await self._sleep(call, wait)
                call.deadline = NO_DEADLINE
            elif isinstance(failure, AttemptPostponed):
                await _before_wait(call)
            else:
                raise failure
            failure = None

    async def _send(self, call: Call[_Request, _Response]) -> _Response:
        """Acquire what an attempt needs, send once, and release it."""
        channel = call.operation.channel
        limiter = None if channel is None else self.limiters[channel]
        call.error = call.payload = None
        try:
            permit = await self._admit(call, limiter)
            try:
                if call.observer is not None:
                    if not await call.observer.before_attempt():
                        raise NotSentError(
                            "the call was stopped before the request was written", attempts=0, retry_stopped_by="closed"
                        )
                    call.maybe_delivered = call.maybe_delivered or call.observer.maybe_delivered
                response = await self._exchange(call, None if permit is None else permit.turn)
            except BaseException as error:
                if limiter is not None and permit is not None:
                    _settle_permit(limiter, permit, call, error)
                raise
            finally:
                self.slots.release()
        except RequestError as error:
            call.record_failure(error)
            if self.state.authorizer.tracks and proves_authorization(error):
                self._emit_switch(record_accepted(self.state, call))
            raise
        if limiter is not None and permit is not None:
            limiter.accepted(permit)
        if self.state.authorizer.tracks:
            self._emit_switch(record_accepted(self.state, call))
        return response

    async def _admit(self, call: Call[Any, Any], limiter: Limiter | None) -> Permit | None:
        """Wait for a token, a permit and a slot, so that all three are valid on return; return the permit."""
        state = self.state
        bulk = call.lane == "bulk"
        timed = bulk or self._has_hooks
        began = state.clock.monotonic() if timed else 0.0
        time_left = 0.0
        if bulk:
            # A bulk item's waits do not count against its timeout, however slow the account is.
            time_left = call.policy.timeout if call.deadline == NO_DEADLINE else call.deadline - began
            call.deadline = NO_DEADLINE
        if call.credential is None:
            call.credential = state.authorizer.select(call.operation.name)
        header = current_header(call)
        if not header:
            await _before_wait(call)
            header = await wait_for_header(state, call)
        call.header = header
        permit = await self._permit(call, limiter)
        if not self.slots.try_acquire(call.lane):
            # A permit is valid now. If kept while waiting for a slot, many would be used at once, above the rate.
            if limiter is not None and permit is not None:
                limiter.refund(permit)
            WAITS.debug("%s waits for a slot: %r", call.operation.name, self.slots)
            await _before_wait(call)
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
            WAITS.debug("%s waits for a permit in the %s lane: %r", call.operation.name, call.lane, limiter)
            await _before_wait(call)
            permit = await limiter.acquire(weight, call.lane, deadline=call.wait_until)
        return permit

    def _weight(self, request: CodeRequest) -> int:
        """Return the number of segments of the text, which is how Bandwidth counts messages."""
        return message_weight(request.message, request.scope, request.digits, self.limits.application_name)

    async def _exchange(self, call: Call[_Request, _Response], turn: Turn | None) -> _Response:
        """Send one request, in its turn, and decipher its response."""
        state = self.state
        clock = state.clock
        # The token may have expired during the waits.
        header = call.header = current_header(call) or await wait_for_header(state, call)
        started = clock.monotonic()
        time_left = call.deadline - started
        if time_left <= 0:
            raise DeadlineExceededError("the call's time ran out before the request was written")
        call.attempts += 1
        call.payload = payload = Body(
            call.body, None if call.observer is None else call.observer.check_before_write, turn
        )
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
            # The deadline can also be what ended it: uvloop's timers run up to a millisecond early, so compare both.
            bound = min(call.policy.attempt_timeout, call.policy.connect_timeout)
            if bound < time_left and clock.monotonic() < call.deadline:
                raise
        else:
            secrets = partial(self._secrets, call)
            response = decipher(call.operation, raw, now=clock.time(), secrets=secrets)
            call.request_id = header_request_id(raw, secrets)
            return response
        finally:
            if self._has_hooks:
                call.elapsed = clock.monotonic() - started
        raise DeadlineExceededError("the call's time ran out before a connection was established")

    def _secrets(self, call: Call[Any, Any]) -> tuple[str, ...]:
        return (*call.secrets, *self.state.authorizer.secrets())

    def _emit_switch(self, event: CredentialSwitchedEvent | None) -> None:
        if event is not None and self._has_hooks:
            self.hooks.emit(event)

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


def _cause(error: Exception) -> Exception | None:
    """Return the cause of a call's error; the result that an observer knew has none."""
    return None if isinstance(error, CallEnded) else error


async def _before_wait(call: Call[Any, Any]) -> None:
    """Let the observer wait for what the attempt needs of it."""
    if call.observer is not None and (before_wait := call.observer.before_wait) is not None:
        await before_wait()


def _settle_permit(limiter: Limiter, permit: Permit, call: Call[Any, Any], error: BaseException) -> None:
    """Report to the limiter how an attempt with this permit failed: refund it, or count the rejection."""
    if not call.begun:
        limiter.refund(permit)
        return
    if permit.turn is not None:
        permit.turn.written()
    if isinstance(error, RateLimitError):
        limiter.rejected(permit, error.retry_after)
