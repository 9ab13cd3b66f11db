"""`OpenTelemetryHook`, which creates OpenTelemetry spans and metrics; imports OpenTelemetry when a hook is made."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from attrs import frozen

from .._version import __version__
from ..errors import ConfigurationError
from ._events import AttemptEvent, CallEvent, CallStartedEvent, LimitChangedEvent, SignInEvent

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ._events import Event

_INSTRUMENTATION_NAME: Final = "bandwidth_mfa_async"
# Bucket boundaries in seconds, as the semantic conventions advise
# (https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpclientrequestduration).
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Calls and waits may last as long as the whole deadline, and longer in the bulk lane.
_LONG_BUCKETS: Final = (*_BUCKETS, 30.0, 60.0, 300.0, 900.0)
_ACCOUNT_SEGMENT: Final = re.compile(r"/accounts/[^/]+/")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_Attributes = dict[str, str | int | float | bool]


@frozen
class _ActiveCall:
    """A call that has started: its span, the token that detaches the span, and the attributes of its requests."""

    span: Span
    token: Token[Context]
    started_ns: int
    lane: str
    url: str
    target: _Attributes


class OpenTelemetryHook:
    """Creates a span for each call and each attempt, and records metrics; needs the ``[otel]`` extra.

    The span of a call is a child of the caller's current span. It is the current span until the call ends, so log
    records and spans made during the call belong to its trace. Each attempt is a client span below it that follows the
    semantic conventions for HTTP. The only part of a request that is recorded is its URL: no number, code, text or
    credential.

    The spans of a call and its attempts have the attribute ``bandwidth_mfa.call_id``, as do the records of
    `LoggingHook`.

    Metrics:

    - ``http.client.request.duration``: duration of an attempt in seconds;
    - ``bandwidth_mfa.client.call.duration``: duration of a call in seconds;
    - ``bandwidth_mfa.client.wait.duration``: seconds that an attempt waited for its permit and slot;
    - ``bandwidth_mfa.client.active_calls``: number of calls that have started and not ended;
    - ``bandwidth_mfa.client.limit.rate``: the limiter's estimate of the account's rate limit, in messages per second;
    - ``bandwidth_mfa.signin.events``: what happened in sign-ins, by kind, region, channel and reason of a refusal.

    Args:
        tracer_provider: provider of the tracer; by default the global one.
        meter_provider: provider of the meter; by default the global one.

    Raises:
        ConfigurationError: opentelemetry-api is not installed.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ModuleNotFoundError:
            raise ConfigurationError(
                "OpenTelemetryHook needs opentelemetry-api, which is not installed; "
                "run: pip install 'bandwidth-mfa-async[otel]'"
            ) from None
        self._context, self._trace = context, trace
        self._error = trace.Status(trace.StatusCode.ERROR)
        self._tracer = trace.get_tracer(_INSTRUMENTATION_NAME, __version__, tracer_provider)
        meter = metrics.get_meter(_INSTRUMENTATION_NAME, __version__, meter_provider)
        self._attempt_seconds = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._call_seconds = meter.create_histogram(
            "bandwidth_mfa.client.call.duration",
            unit="s",
            description="Duration of calls, including waits and retries.",
            explicit_bucket_boundaries_advisory=_LONG_BUCKETS,
        )
        self._wait_seconds = meter.create_histogram(
            "bandwidth_mfa.client.wait.duration",
            unit="s",
            description="Time that attempts waited for a permit and a slot.",
            explicit_bucket_boundaries_advisory=_LONG_BUCKETS,
        )
        self._active_counter = meter.create_up_down_counter(
            "bandwidth_mfa.client.active_calls",
            unit="{call}",
            description="Number of calls that have started and not ended.",
        )
        self._rate_gauge = meter.create_gauge(
            "bandwidth_mfa.client.limit.rate",
            unit="{message}/s",
            description="The limiter's estimate of the account's rate limit.",
        )
        self._signin_counter = meter.create_counter(
            "bandwidth_mfa.signin.events",
            unit="{event}",
            description="What happened in sign-ins.",
        )
        self._active_calls: dict[str, _ActiveCall] = {}

    def on_event(self, event: Event) -> None:
        """Start or end a span and record metrics."""
        match event:
            case CallStartedEvent():
                self._start_call(event)
            case AttemptEvent():
                self._record_attempt(event)
            case CallEvent():
                self._end_call(event)
            case LimitChangedEvent():
                self._rate_gauge.set(event.rate, {"bandwidth_mfa.channel": event.channel})
            case SignInEvent():
                facts = {"kind": event.kind, "region": event.region, "channel": event.channel, "reason": event.reason}
                self._signin_counter.add(
                    1, {f"bandwidth_mfa.{name}": value for name, value in facts.items() if value is not None}
                )
            case _:
                pass

    def _start_call(self, event: CallStartedEvent) -> None:
        started_ns = time.time_ns()
        span = self._tracer.start_span(
            event.operation,
            attributes={
                "bandwidth_mfa.call_id": event.call_id,
                "bandwidth_mfa.operation": event.operation,
                "bandwidth_mfa.lane": event.lane,
            },
            start_time=started_ns,
        )
        token = self._context.attach(self._trace.set_span_in_context(span))
        self._active_calls[event.call_id] = _ActiveCall(
            span, token, started_ns, event.lane, event.url, _target_attributes(event.url)
        )
        self._active_counter.add(1, _call_labels(event.operation, event.lane))

    def _record_attempt(self, event: AttemptEvent) -> None:
        call = self._active_calls.get(event.call_id)
        if call is None:
            return
        labels = dict(call.target)
        if event.status is not None:
            labels["http.response.status_code"] = event.status
        if event.error_type is not None:
            # Per the conventions: the status if the response is the error, else the name of the error.
            is_http_error = event.status is not None and event.status >= 400
            labels["error.type"] = str(event.status) if is_http_error else event.error_type
        self._attempt_seconds.record(event.elapsed, labels)
        self._wait_seconds.record(event.waited, _call_labels(event.operation, call.lane))
        ended_ns = time.time_ns()
        span = self._tracer.start_span(
            f"POST {labels['url.template']}",
            context=self._trace.set_span_in_context(call.span),
            kind=self._trace.SpanKind.CLIENT,
            attributes=labels | _attempt_attributes(event, call.url),
            # The event arrives when the attempt has ended. `max`: the two clocks differ, by less than a call's set-up.
            start_time=max(call.started_ns, ended_ns - round(event.elapsed * 1e9)),
        )
        if event.error_type is not None:
            span.set_status(self._error)
        span.end(ended_ns)

    def _end_call(self, event: CallEvent) -> None:
        call = self._active_calls.pop(event.call_id, None)
        if call is None:
            return
        self._context.detach(call.token)
        labels = _call_labels(event.operation, event.lane)
        self._active_counter.add(-1, labels)
        labels = labels | {"bandwidth_mfa.delivery": str(event.delivery)}
        if event.error_type is not None:
            labels["error.type"] = event.error_type
            call.span.set_status(self._error)
        self._call_seconds.record(event.elapsed, labels)
        if call.span.is_recording():
            call.span.set_attributes(labels | _call_attributes(event))
        call.span.end()


def _call_labels(operation: str, lane: str) -> _Attributes:
    return {"bandwidth_mfa.operation": operation, "bandwidth_mfa.lane": lane}


@lru_cache(maxsize=64)
def _target_attributes(url: str) -> _Attributes:
    """Return the attributes of all requests to a URL; their cardinality is low, so metrics have them too."""
    parts = urlsplit(url)
    return {
        "http.request.method": "POST",
        "server.address": parts.hostname or "",
        "server.port": parts.port or _DEFAULT_PORTS.get(parts.scheme, 443),
        "url.scheme": parts.scheme,
        "url.template": _ACCOUNT_SEGMENT.sub("/accounts/{accountId}/", parts.path, count=1),
    }


def _attempt_attributes(event: AttemptEvent, url: str) -> _Attributes:
    """Return the attributes of an attempt's span that its metrics do not have."""
    attributes: dict[str, Any] = {
        "url.full": url,
        "bandwidth_mfa.call_id": event.call_id,
        "bandwidth_mfa.operation": event.operation,
        "bandwidth_mfa.delivery": str(event.delivery),
        "bandwidth_mfa.waited": event.waited,
        # Per the conventions, only on repeated requests.
        "http.request.resend_count": event.attempt - 1 or None,
        "bandwidth_mfa.request_id": event.request_id,
        "bandwidth_mfa.retry_in": event.retry_in,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _call_attributes(event: CallEvent) -> _Attributes:
    """Return the attributes of a call's span that its metrics do not have."""
    attributes: dict[str, Any] = {
        "bandwidth_mfa.attempts": event.attempts,
        "bandwidth_mfa.possible_duplicate": event.possible_duplicate,
        "bandwidth_mfa.request_id": event.request_id,
        "bandwidth_mfa.retry_stopped_by": event.retry_stopped_by,
    }
    return {name: value for name, value in attributes.items() if value is not None}
