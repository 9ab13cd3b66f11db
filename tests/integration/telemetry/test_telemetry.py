"""Events: once per attempt, once per call, with nothing personal in them."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async import (
    CodeTemplate,
    Delivery,
    Limits,
    LoggingHook,
    RateLimitError,
    RequestError,
    Resend,
    RetryPolicy,
    VerificationLockedError,
)
from bandwidth_mfa_async.telemetry import AttemptEvent, CallEvent, Event, GateClosedEvent, LimitWaitEvent
from tests.conftest import TO
from tests.support import processes
from tests.support.fault_server import Act, FaultServer, answer, hung_call

if TYPE_CHECKING:
    from tests.support.clients import MakeClient

OWN_ERROR = {"error": "Internal Error", "requestId": "r-1"}


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    @property
    def attempts(self) -> list[AttemptEvent]:
        return [event for event in self.events if isinstance(event, AttemptEvent)]

    @property
    def calls(self) -> list[CallEvent]:
        return [event for event in self.events if isinstance(event, CallEvent)]


async def test_a_call_that_is_retried(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """An event for each attempt, in order, then one for the call, all with the same id."""
    recorder = Recorder()
    client = make_client(hooks=[recorder], retry=RetryPolicy(wait_initial=0.001, resend=Resend.AT_LEAST_ONCE))
    server.play(answer(500, OWN_ERROR), Act(then="fin"))
    await client.generate_messaging_code(template.to(TO))
    first, second, third = recorder.attempts
    (call,) = recorder.calls
    assert recorder.events[-1] is call
    assert len({event.call_id for event in (first, second, third, call)}) == 1
    assert [event.attempt for event in recorder.attempts] == [1, 2, 3]
    assert (first.status, first.delivery, first.error_type, first.request_id) == (
        500,
        Delivery.REJECTED,
        "ServerError",
        "r-1",
    )
    assert (second.status, second.delivery, second.error_type) == (None, Delivery.UNKNOWN, "DisconnectedError")
    assert (third.status, third.delivery, third.error_type, third.retry_in) == (200, Delivery.ACCEPTED, None, None)
    assert first.retry_in is not None
    assert second.retry_in is not None
    assert all(event.elapsed > 0 for event in recorder.attempts)
    assert (call.attempts, call.delivery, call.status, call.possible_duplicate) == (3, Delivery.ACCEPTED, 200, True)
    assert call.lane == "interactive"


@pytest.mark.virtual_time
@pytest.mark.parametrize(("adaptive", "waits"), [(False, [2.0, 4.0, 21.0]), (True, [0.0, 0.0, 21.0])])
async def test_a_refusal_that_is_waited_out(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, adaptive: bool, waits: list[float]
) -> None:
    """Each 429 of a bulk item is told with its wait, which grows where no limiter paces what comes next."""
    recorder = Recorder()
    client = make_client(
        hooks=[recorder], retry=RetryPolicy(wait_initial=1, wait_max=50), limits=Limits(adaptive=adaptive)
    )
    client._caller.core.rng.uniform = lambda _low, high: high  # type: ignore[method-assign]
    refusal = answer(429, OWN_ERROR)
    server.play(refusal, refusal, answer(429, OWN_ERROR, headers={"Retry-After": "20"}))
    await client.generate_messaging_code(template.to(TO), lane="bulk")
    assert [(event.attempt, event.status) for event in recorder.attempts] == [(1, 429), (2, 429), (3, 429), (4, 200)]
    assert [event.retry_in for event in recorder.attempts] == [*waits, None]
    assert [event.attempts for event in recorder.calls] == [4]


async def test_a_lock_out_is_waited_out_in_no_lane(server: FaultServer, make_client: MakeClient) -> None:
    """The 429 of a verify says nothing of a rate."""
    server.play(answer(429, OWN_ERROR))
    with pytest.raises(VerificationLockedError):
        await make_client().verify_code(to=TO, code="123456", lane="bulk")
    assert len(server.seen) == 1


async def test_a_call_that_fails(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """The call's event says what the error says."""
    recorder = Recorder()
    server.play(answer(400, OWN_ERROR))
    with pytest.raises(RequestError):
        await make_client(hooks=[recorder]).generate_messaging_code(template.to(TO))
    (attempt,), (call,) = recorder.attempts, recorder.calls
    assert (attempt.retry_in, attempt.status) == (None, 400)
    assert (call.delivery, call.error_type, call.request_id) == (Delivery.REJECTED, "BadRequestError", "r-1")


@pytest.mark.virtual_time
async def test_a_call_without_an_attempt(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """A call our own limiter refused has an event of its own and none for an attempt."""
    recorder = Recorder()
    client = make_client(hooks=[recorder])
    server.play(answer(429, {}, headers={"Retry-After": "30"}))
    for _ in range(2):
        with pytest.raises(RateLimitError):
            await client.generate_messaging_code(template.to(TO), timeout=10)
    assert [event.attempts for event in recorder.calls] == [1, 0]
    assert len(recorder.attempts) == 1
    assert recorder.calls[1].delivery is Delivery.NOT_SENT
    assert [event.channel for event in recorder.events if isinstance(event, GateClosedEvent)] == ["messaging"]


@pytest.mark.virtual_time
async def test_waits_are_told(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """A paced call says how long it waited for its permit."""
    recorder = Recorder()
    client = make_client(hooks=[recorder], limits=Limits(rate="1/s"))  # type: ignore[arg-type]
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(3)))
    waits = [event.seconds for event in recorder.events if isinstance(event, LimitWaitEvent)]
    assert waits
    assert max(waits) > 0.5
    assert max(event.waited for event in recorder.attempts) == pytest.approx(max(waits), abs=0.1)


async def test_a_cancelled_call_is_told(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """Cancelled with its request written: nobody knows, and the events say so."""
    recorder = Recorder()
    client = make_client(hooks=[recorder])
    task = await hung_call(server, client.generate_messaging_code(template.to(TO)))
    task.cancel()
    await asyncio.wait([task])
    (attempt,), (call,) = recorder.attempts, recorder.calls
    assert (attempt.delivery, attempt.error_type) == (Delivery.UNKNOWN, "CancelledError")
    assert (call.delivery, call.error_type) == (Delivery.UNKNOWN, "CancelledError")


async def test_a_broken_hook_fails_no_call(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    """Its exception is logged by type, and the hooks after it still run."""

    class Broken:
        def on_event(self, event: Event) -> None:
            raise RuntimeError(f"{TO} {event}")

    recorder = Recorder()
    client = make_client(hooks=[Broken(), recorder])
    await client.generate_messaging_code(template.to(TO))
    assert len(recorder.events) == 3
    assert "Broken raised RuntimeError" in caplog.text
    assert TO not in caplog.text


async def test_the_logging_hook(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    """Success is INFO, a refusal WARNING, an unknown outcome ERROR; records carry the event."""
    client = make_client(hooks=[LoggingHook()])
    with caplog.at_level(logging.DEBUG, logger="bandwidth_mfa_async"):
        await client.generate_messaging_code(template.to(TO))
        server.play(answer(400, OWN_ERROR), Act(then="fin"), answer(503, OWN_ERROR))
        for _ in range(2):
            with pytest.raises(RequestError):
                await client.generate_messaging_code(template.to(TO))
        await client.generate_messaging_code(template.to(TO))
    calls = [record for record in caplog.records if isinstance(record.__dict__["mfa_event"], CallEvent)]
    assert [record.levelname for record in calls] == ["INFO", "WARNING", "ERROR", "INFO"]
    attempts = [record for record in caplog.records if isinstance(record.__dict__["mfa_event"], AttemptEvent)]
    assert [record.levelname for record in attempts] == ["DEBUG", "DEBUG", "DEBUG", "INFO", "DEBUG"]
    assert "again in" in attempts[3].getMessage()
    assert TO not in caplog.text


def test_the_logger_is_silent_by_default() -> None:
    """Without logging configured, nothing of ours reaches stderr."""
    code = (
        "import logging; from bandwidth_mfa_async import MFAClient\n"
        "logging.getLogger('bandwidth_mfa_async').error('must not be seen')"
    )
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
