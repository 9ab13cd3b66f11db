"""Sign-ins in logs and metrics."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from bandwidth_mfa_async import GuardRefusedError, LoggingHook, MemoryStore, MFAClient
from bandwidth_mfa_async.signin import Guard, SignIns
from bandwidth_mfa_async.telemetry import OpenTelemetryHook
from tests.support.signins import LOGIN, NUMBER, VISITOR

if TYPE_CHECKING:
    from bandwidth_mfa_async.simulator import Simulator


def points(reader: InMemoryMetricReader) -> dict[tuple[tuple[str, Any], ...], int]:
    data: Any = reader.get_metrics_data()

    def labels(point: Any) -> tuple[tuple[str, Any], ...]:
        return tuple(sorted((name.removeprefix("bandwidth_mfa."), value) for name, value in point.attributes.items()))

    return {
        labels(point): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "bandwidth_mfa.signin.events"
        for point in metric.data.data_points
    }


async def test_logs(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    async with MFAClient(**sim.client_kwargs(), hooks=[LoggingHook()]) as mfa:
        signins = SignIns(mfa, LOGIN, store=MemoryStore(), guard=Guard(regions={"US"}))
        with caplog.at_level(logging.INFO):
            flow = await signins.start(NUMBER, visitor=VISITOR)
            for number in (NUMBER, "+18765551234"):
                with suppress(GuardRefusedError):
                    await signins.start(number, visitor=VISITOR)
            for code in ("000000", sim.inbox[-1].code, sim.inbox[-1].code):
                await signins.check(flow.id, code)
            await signins.check("unknown", "000000")
    texts = [record.message for record in caplog.records if record.message.startswith("sign-in")]
    assert texts == [
        "sign-in started (messaging, region US) [purpose login]",
        "sign-in sent (accepted, messaging, region US) [purpose login]",
        "sign-in refused (cooldown, messaging, region US) [purpose login]",
        "sign-in refused (region, messaging, region JM) [purpose login]",
        "sign-in wrong (region US) [purpose login]",
        "sign-in verified (region US) [purpose login]",
        "sign-in used [purpose login]",
        "sign-in expired [purpose login]",
    ]


async def test_counters(sim: Simulator) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    async with MFAClient(**sim.client_kwargs(), hooks=[OpenTelemetryHook(meter_provider=provider)]) as mfa:
        signins = SignIns(mfa, LOGIN, store=MemoryStore())
        flow = await signins.start(NUMBER, visitor=VISITOR)
        for _ in range(2):
            with suppress(GuardRefusedError):
                await signins.resend(flow.id)
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid
    assert points(reader) == {
        (("channel", "messaging"), ("kind", "started"), ("region", "US")): 1,
        (("channel", "messaging"), ("kind", "sent"), ("region", "US")): 1,
        (("channel", "messaging"), ("kind", "refused"), ("reason", "cooldown"), ("region", "US")): 2,
        (("kind", "verified"), ("region", "US")): 1,
    }
    provider.shutdown()
