"""Makes calls: token, permit, slot, attempt and retry, and releases what each step acquired."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs

from .._frames import clear_locals
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
from .._retry import Retries, backoff, is_retryable
from .._validation import checked_lane
from .._wire import decipher, encode, header_request_id
from ..errors import (
    AuthenticationError,
    Delivery,
    PermissionDeniedError,
    RateLimitError,
    RequestError,
)
from ..limits import ChannelLimiter, PrioritySemaphore
from ._admission import Admission, AdmissionControl
from ._authorization import change_credential, current_header, proves_authorization, record_accepted, wait_for_header
from ._call import ENDED, NO_DEADLINE, REPORTED, Call
from ._observer import AttemptPostponed, CallEnded

if TYPE_CHECKING:
    from .._config import Limits, Rate, RetryPolicy
    from .._validation import Lane
    from .._wire import Operation
    from ..limits import Limiter
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
        self.has_hooks: bool = bool(hooks)
        """Whether there are any; read several times per call."""
        self.limits = limits
        if parent is not None:
            self.slots, self.limiters = parent.slots, parent.limiters
        else:
            self.slots = PrioritySemaphore(limits.max_in_flight, clock=state.clock)
            rates = (("messaging", limits.rate), ("voice", limits.voice_rate))
            self.limiters = {channel: self._limiter(channel, rate) for channel, rate in rates}
            state.register(self.slots, *self.limiters.values())
        self._admission = AdmissionControl(
            state, self.limiters, self.slots, limits.application_name, is_timed=self.has_hooks
        )

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
        call = self._new_call(operation, request, timeout, lane, observer)
        self.state.call_started()
        try:
            if self.has_hooks:
                self.hooks.emit(call.started_event(str(self.state.urls[operation.name])))
            response = await self._run(call)
            response = attach_meta(response, self._meta(call))
            self._emit_end(call, None)
        except RequestError as error:
            result: Exception = call.finalize_error(error)  # one unknown attempt: so is the call
            cause = None
            self._emit_end(call, result)
            if result is error:
                raise
        except CallEnded as ended:
            known = self._known_result(call, ended.result)
            if not isinstance(known, RequestError):
                return cast("_Response", known)
            result, cause = known, None
        except asyncio.CancelledError as error:
            call.interrupt(error)
            self._emit_end(call, error)
            raise
        except Exception as error:
            # Not a failed request: raised by the observer or a shared limiter, or a defect. Never tried again.
            call.interrupt(error)
            result = call.interrupted_error(error) if call.maybe_delivered else error
            cause = error
            self._emit_end(call, result)
            clear_locals(error)  # frames that an error of ours ended may hold values as they are
            if result is error:
                raise
        else:
            return response
        finally:
            self.state.call_finished()
        # Outside the handlers, so that `__context__` does not hold the last attempt's error, which says less.
        raise result from cause

    def _new_call(
        self,
        operation: Operation[_Request, _Response],
        request: _Request,
        timeout: float | None,
        lane: Lane,
        observer: AttemptObserver | None,
    ) -> Call[_Request, _Response]:
        try:
            policy = self.policy if timeout is None else attrs.evolve(self.policy, timeout=timeout)
            checked_lane(lane)
            call_id = f"{self.state.rng.getrandbits(64):016x}" if self.has_hooks else ""
            return Call(operation, request, encode(request), policy, lane, self.state.clock, call_id, observer)
        except Exception as error:
            clear_locals(error)
            raise

    async def _run(self, call: Call[_Request, _Response]) -> _Response:
        """Make the attempts of a call."""
        state = self.state
        response: _Response | None = None
        try:
            response = await self._attempt(call)
        except RequestError as error:
            if not is_retryable(error, sends=call.operation.sends, resend=call.policy.resend):
                raise
            first_error = error
        else:
            state.budget.deposit(1)
            return response
        retries = _CallRetries(self, call)
        async for trial in retries.trials():
            with trial:
                if trial.retry_state.attempt_number == 1:
                    raise first_error
                response = await self._attempt(call)
        del first_error  # this frame is in its traceback
        state.budget.deposit(retries.cost)
        assert response is not None  # noqa: S101 - otherwise the last trial raised
        return response

    async def _attempt(self, call: Call[_Request, _Response]) -> _Response:
        """Make one counted attempt, and free ones: with other credentials, and after a 429 in the bulk lane."""
        state, throttled = self.state, 0
        while True:
            call.new_attempt()
            try:
                async with Admission(self._admission, call) as turn:
                    if call.observer is not None:
                        await call.record_intent(call.observer)
                    # The token may have expired during the waits.
                    call.header = current_header(call) or await wait_for_header(state, call)
                    raw = await state.transport.send(
                        state.urls[call.operation.name],
                        state.headers(call.header),
                        call.start(turn),
                        operation=call.operation.name,
                        timeout=call.attempt_timeout,
                        connect_timeout=call.policy.connect_timeout,
                    )
                    secrets = partial(self._secrets, call)
                    response = decipher(call.operation, raw, now=state.clock.time(), secrets=secrets)
                    call.request_id = header_request_id(raw, secrets)
            except RequestError as error:
                failure = error
            else:
                call.end_attempt(None)
                if state.authorizer.tracks:
                    self._emit_switch(record_accepted(state, call))
                return response
            failure = call.fail(failure)
            if state.authorizer.tracks and proves_authorization(failure):
                self._emit_switch(record_accepted(state, call))
            if isinstance(failure, AttemptPostponed):
                await call.before_wait()
            elif await self._has_other_credential(call, failure):
                self._report_attempt(call, 0.0)
            elif self._is_free(call, failure):
                throttled += 1
                # An adaptive limiter delays the next attempt itself; without one the backoff must grow.
                limiter_delays = self.limits.adaptive and failure.retry_after is None
                wait = 0.0 if limiter_delays else backoff(call.policy, failure, throttled, state.rng)
                self._report_attempt(call, wait)
                await self._pause(call, wait)
                call.deadline = NO_DEADLINE  # its full time from the next permit
            else:
                raise failure
            del failure  # this frame is in its traceback

    async def _has_other_credential(self, call: Call[Any, Any], failure: RequestError) -> bool:
        """Return whether the attempt is made again with another credential than the rejected one."""
        is_rejected = isinstance(failure, (AuthenticationError, PermissionDeniedError))
        if not is_rejected or failure.delivery is not Delivery.REJECTED or not call.may_retry():
            return False
        return await change_credential(self.state, call, failure)

    @staticmethod
    def _is_free(call: Call[Any, Any], failure: RequestError) -> bool:
        """Return whether a bulk item waits for the rate instead of spending an attempt."""
        return (
            isinstance(failure, RateLimitError)
            and call.lane == "bulk"
            and call.operation.sends
            and failure.delivery is Delivery.REJECTED
            and (failure.retry_after or 0.0) <= call.policy.max_retry_after
            and call.may_retry()
        )

    async def _pause(self, call: Call[Any, Any], seconds: float) -> None:
        if seconds:
            name, failed = call.operation.name, type(call.error).__name__
            WAITS.debug("%s waits %.3f s before its next attempt; attempt %d: %s", name, seconds, call.attempts, failed)
        if not await self.state.sleeper.sleep(seconds):
            error = call.error
            assert isinstance(error, RequestError)  # noqa: S101 - only a failure leads to a pause
            error._update(retry_stopped_by="closed")  # noqa: SLF001 - errors are this package's own
            raise error

    def _secrets(self, call: Call[Any, Any]) -> tuple[str, ...]:
        return (*call.secrets, *self.state.authorizer.secrets())

    def _meta(self, call: Call[Any, Any]) -> ResponseMeta:
        possible_duplicate = call.maybe_delivered and call.operation.sends
        credential = None if call.credential is None else call.credential.kind
        return ResponseMeta(call.attempts, call.elapsed, call.request_id, possible_duplicate, credential=credential)

    def _known_result(self, call: Call[Any, Any], result: Any) -> Any:
        """Return what the observer knew: the response of an earlier call, with the facts of this one, or an error."""
        if isinstance(result, RequestError):
            error = call.finalize_error(result)
            self._emit_end(call, error)
            return error
        self._emit_end(call, None)
        meta = attrs.evolve(result.meta, attempts=call.attempts, elapsed=call.elapsed, replayed=True)
        return attach_meta(result, meta)

    def _emit_switch(self, event: CredentialSwitchedEvent | None) -> None:
        if event is not None and self.has_hooks:
            self.hooks.emit(event)

    def _report_attempt(self, call: Call[Any, Any], retry_in: float | None) -> None:
        """Emit the event of an attempt that has ended."""
        if call.attempt_state is ENDED:
            call.attempt_state = REPORTED
            if self.has_hooks:
                self.hooks.emit(call.attempt_event(retry_in))

    def _emit_end(self, call: Call[Any, Any], error: BaseException | None) -> None:
        if self.has_hooks:
            self._report_attempt(call, None)
            self.hooks.emit(call.call_event(error))


class _CallRetries(Retries):
    """The retries of a call.

    Args:
        executor: makes the call.
        call: the call.
    """

    def __init__(self, executor: CallExecutor, call: Call[Any, Any]) -> None:
        state = executor.state
        super().__init__(call.policy, state.budget, state.rng, sends=call.operation.sends)
        self._executor = executor
        self._call = call

    def may_retry(self) -> bool:
        """Return whether the observer, if there is one, allows another attempt."""
        return self._call.may_retry()

    def time_left(self) -> float:
        """Return the seconds until the call's deadline."""
        return self._call.time_left

    def before_pause(self, seconds: float) -> None:
        """Report the failed attempt."""
        self._executor._report_attempt(self._call, seconds)  # noqa: SLF001 - of one module

    async def pause(self, seconds: float) -> None:
        """Wait, unless the client is closed meanwhile."""
        await self._executor._pause(self._call, seconds)  # noqa: SLF001 - of one module
