"""`OpenTelemetryHook` creates spans and metrics by the HTTP conventions, without personal data."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from bandwidth_mfa_async import (
    BasicAuth,
    ClientStateError,
    CodeTemplate,
    Limits,
    LoggingHook,
    MFAClient,
    RateLimitError,
    RequestError,
    Resend,
    RetryPolicy,
)
from bandwidth_mfa_async.telemetry import CallEvent, CallStartedEvent, Event, OpenTelemetryHook
from tests.conftest import TO
from tests.integration.test_redaction import FAULTS
from tests.support import processes
from tests.support.fault_server import Act, FaultServer, answer, hung_call, refused_port
from tests.support.secrets import SENTINELS, assert_clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.support.clients import MakeClient

OWN_ERROR = {"error": "Internal Error", "requestId": "r-1"}


class Exporters:
    """In-memory exporters of the SDK, and a hook that uses them."""

    def __init__(self, **options: Any) -> None:
        self._spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False, **options)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.hook = OpenTelemetryHook(tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    @property
    def attempts(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.kind is SpanKind.CLIENT]

    @property
    def calls(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.kind is SpanKind.INTERNAL]

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def everything(self) -> str:
        data = self._reader.get_metrics_data()
        return "".join(span.to_json() for span in self.spans) + (data.to_json() if data else "")


@pytest.fixture
def otel() -> Iterator[Exporters]:
    exporters = Exporters()
    yield exporters
    exporters.tracer_provider.shutdown()
    exporters.meter_provider.shutdown()


async def test_each_call_and_each_attempt_has_a_span(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, otel: Exporters
) -> None:
    """Attempts are client spans below the call's span, which is below the caller's span."""
    client = make_client(hooks=[otel.hook], retry=RetryPolicy(wait_initial=0.001, resend=Resend.AT_LEAST_ONCE))
    server.play(answer(503, OWN_ERROR), Act(then="fin"))
    with otel.tracer_provider.get_tracer("app").start_as_current_span("sign-in") as sign_in:
        await client.generate_messaging_code(template.to(TO))
        assert trace.get_current_span() is sign_in
    (call,) = (span for span in otel.calls if span.name != "sign-in")
    assert call.name == "generate_messaging_code"
    assert call.parent == sign_in.get_span_context()
    assert call.status.status_code is StatusCode.UNSET
    assert {name.removeprefix("bandwidth_mfa."): value for name, value in dict(call.attributes or {}).items()} == {
        "call_id": dict(call.attributes or {})["bandwidth_mfa.call_id"],
        "operation": "generate_messaging_code",
        "lane": "interactive",
        "delivery": "accepted",
        "attempts": 3,
        "possible_duplicate": True,
    }
    first, second, third = otel.attempts
    for attempt in otel.attempts:
        assert attempt.parent == call.context
        assert attempt.name == "POST /api/v1/accounts/{accountId}/code/messaging"
        values = dict(attempt.attributes or {})
        assert values["http.request.method"] == "POST"
        assert values["server.address"] == "127.0.0.1"
        assert values["server.port"] == server.port
        assert values["url.full"] == f"{server.base_url}/accounts/9900000/code/messaging"
        assert values["bandwidth_mfa.call_id"] == dict(call.attributes or {})["bandwidth_mfa.call_id"]
        assert call.start_time <= attempt.start_time < attempt.end_time <= call.end_time  # type: ignore[operator]
    keys = ("http.response.status_code", "error.type", "http.request.resend_count", "bandwidth_mfa.delivery")
    assert [tuple((span.attributes or {}).get(key) for key in keys) for span in otel.attempts] == [
        (503, "503", None, "rejected"),
        (None, "DisconnectedError", 1, "unknown"),
        (200, None, 2, "accepted"),
    ]
    assert [span.status.status_code for span in (first, second, third)] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]


async def test_spans_of_concurrent_calls_do_not_mix(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, otel: Exporters
) -> None:
    """The span of each call is a child of its own task's span."""
    client = make_client(hooks=[otel.hook])
    tracer = otel.tracer_provider.get_tracer("app")

    async def sign_in(n: int) -> None:
        with tracer.start_as_current_span(f"sign-in {n}"):
            await client.generate_messaging_code(template.to(TO))

    await asyncio.gather(*(sign_in(n) for n in range(30)))
    outer = {span.context.span_id for span in otel.calls if span.name.startswith("sign-in")}  # type: ignore[union-attr]
    inner = [span for span in otel.calls if not span.name.startswith("sign-in")]
    assert {span.parent.span_id for span in inner if span.parent} == outer
    assert {span.parent.span_id for span in otel.attempts if span.parent} == {
        span.context.span_id for span in inner if span.context
    }
    assert len(otel.attempts) == 30


async def test_failed_calls_have_error_spans_that_end(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, otel: Exporters
) -> None:
    """A rejected call, a cancelled call and a call without a connection."""
    server.play(answer(400, OWN_ERROR))
    client = make_client(hooks=[otel.hook])
    with pytest.raises(RequestError):
        await client.generate_messaging_code(template.to(TO))
    task = await hung_call(server, client.generate_messaging_code(template.to(TO)))
    task.cancel()
    await asyncio.wait([task])
    dead = make_client(
        hooks=[otel.hook], base_url=f"http://127.0.0.1:{refused_port()}", retry=RetryPolicy(max_attempts=1)
    )
    with pytest.raises(RequestError):
        await dead.verify_code(to=TO, code="123456")
    kinds = [(span.attributes or {}).get("error.type") for span in otel.attempts]
    assert kinds == ["400", "CancelledError", "NotSentError"]
    assert [(span.attributes or {})["error.type"] for span in otel.calls] == [
        "BadRequestError",
        "CancelledError",
        "NotSentError",
    ]
    assert all(span.status.status_code is StatusCode.ERROR for span in otel.spans)
    assert [point.value for point in otel.points("bandwidth_mfa.client.active_calls")] == [0, 0]


@pytest.mark.virtual_time
async def test_metrics_of_calls_and_attempts(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, otel: Exporters
) -> None:
    """Durations with the boundaries of the conventions, waits, and the number of active calls."""
    client = make_client(hooks=[otel.hook], limits=Limits(rate="1/s"))  # type: ignore[arg-type]
    calls = [asyncio.ensure_future(client.generate_messaging_code(template.to(TO))) for _ in range(3)]
    while len(server.seen) < 2:
        await asyncio.sleep(0)
    (active,) = otel.points("bandwidth_mfa.client.active_calls")
    assert active.value in {1, 2}
    await asyncio.gather(*calls)
    (active,) = otel.points("bandwidth_mfa.client.active_calls")
    assert active.value == 0
    (attempts,) = otel.points("http.client.request.duration")
    assert attempts.count == 3
    assert attempts.explicit_bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    assert dict(attempts.attributes) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "url.scheme": "http",
        "url.template": "/api/v1/accounts/{accountId}/code/messaging",
    }
    (waits,) = otel.points("bandwidth_mfa.client.wait.duration")
    assert waits.count == 3
    assert waits.max > 0.5
    (durations,) = otel.points("bandwidth_mfa.client.call.duration")
    assert durations.count == 3
    assert durations.max >= waits.max
    assert dict(durations.attributes)["bandwidth_mfa.delivery"] == "accepted"


@pytest.mark.virtual_time
async def test_the_estimated_rate_limit_is_a_metric(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, otel: Exporters
) -> None:
    """The gauge is set when a 429 changes the estimate."""
    client = make_client(hooks=[otel.hook])
    server.play(answer(), answer(), answer(429, {}, headers={"Retry-After": "1"}))
    for _ in range(3):
        await client.generate_messaging_code(template.to(TO))
    (rate,) = otel.points("bandwidth_mfa.client.limit.rate")
    assert rate.value > 0
    assert dict(rate.attributes) == {"bandwidth_mfa.channel": "messaging"}


@pytest.mark.virtual_time
async def test_a_call_without_an_attempt_has_one_span(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, otel: Exporters
) -> None:
    """The local limiter refuses the second call, so it has no attempt span."""
    client = make_client(hooks=[otel.hook])
    server.play(answer(429, {}, headers={"Retry-After": "30"}))
    for _ in range(2):
        with pytest.raises(RateLimitError):
            await client.generate_messaging_code(template.to(TO), timeout=10)
    assert [(span.attributes or {})["bandwidth_mfa.attempts"] for span in otel.calls] == [1, 0]
    assert len(otel.attempts) == 1


async def test_log_records_belong_to_the_span_of_their_call(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, otel: Exporters
) -> None:
    """Records have the call id and are written while the call's span is current."""
    seen: list[tuple[str, int]] = []

    class Current(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.__dict__["mfa_call_id"], trace.get_current_span().get_span_context().span_id))

    logger = logging.getLogger("tests.otel")
    logger.setLevel(logging.DEBUG)
    logger.handlers = [Current()]
    client = make_client(hooks=[LoggingHook(logger), otel.hook])
    server.play(answer(503, OWN_ERROR))
    await client.generate_messaging_code(template.to(TO))
    (call,) = otel.calls
    assert call.context is not None
    assert seen == [((call.attributes or {})["bandwidth_mfa.call_id"], call.context.span_id)] * 3


@pytest.mark.parametrize("fault", FAULTS)
async def test_spans_and_metrics_contain_no_personal_data(server: FaultServer, otel: Exporters, fault: str) -> None:
    """Even if the service echoes numbers, codes, texts or credentials."""
    server.default = FAULTS[fault]
    template = CodeTemplate(SENTINELS["from_"], "app", "login", SENTINELS["message"])
    async with MFAClient(
        "9900000",
        BasicAuth(SENTINELS["username"], SENTINELS["password"]),
        base_url=server.base_url,
        retry=RetryPolicy(wait_initial=0.0, resend=Resend.AT_LEAST_ONCE),
        hooks=[otel.hook],
    ) as client:
        with pytest.raises(RequestError):
            await client.generate_messaging_code(template.to(SENTINELS["to"]))
        with pytest.raises(RequestError):
            await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
    exported = otel.everything()
    assert "generate_messaging_code" in exported
    assert "verify_code" in exported
    assert_clean(exported, fault)


async def test_calls_without_sampled_spans_have_metrics(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The sampler affects only the spans."""
    otel = Exporters(sampler=ALWAYS_OFF)
    await make_client(hooks=[otel.hook]).generate_messaging_code(template.to(TO))
    assert otel.spans == []
    (point,) = otel.points("http.client.request.duration")
    assert point.count == 1
    otel.tracer_provider.shutdown()
    otel.meter_provider.shutdown()


async def test_every_started_call_emits_a_call_event(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Also a call that raises another error than `RequestError`: its borrowed session is closed."""
    import aiohttp

    class Recorder:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def on_event(self, event: Event) -> None:
            self.events.append(event)

    recorder = Recorder()
    session = aiohttp.ClientSession()
    client = make_client(hooks=[recorder], session=session)
    await session.close()
    with pytest.raises(ClientStateError):
        await client.generate_messaging_code(template.to(TO))
    first, *_, last = recorder.events
    assert isinstance(first, CallStartedEvent)
    assert isinstance(last, CallEvent)
    assert (last.error_type, last.delivery) == ("ClientStateError", "not_sent")
    assert first.call_id == last.call_id
    assert json.dumps(attrs.asdict(first))  # plain values, which a hook can serialise


def test_without_opentelemetry_the_error_names_the_extra() -> None:
    """OpenTelemetry is imported only when the hook is made."""
    code = (
        "import sys; from bandwidth_mfa_async import MFAClient, telemetry\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)\n"
        "sys.modules['opentelemetry'] = None\n"
        "from bandwidth_mfa_async import ConfigurationError\n"
        "try: telemetry.OpenTelemetryHook()\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'bandwidth-mfa-async[otel]'" in done.stdout
