"""Clients emit one event per attempt and one per call, without personal data."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async import (
    CodeTemplate,
    ConfigurationError,
    Delivery,
    Limits,
    LoggingHook,
    RateLimitError,
    RequestError,
    Resend,
    RetryPolicy,
    VerificationLockedError,
)
from bandwidth_mfa_async.telemetry import LOGGER_NAME, AttemptEvent, CallEvent, Event, LimitWaitEvent, SendsPausedEvent
from tests.conftest import TO
from tests.support import processes
from tests.support.clients import Recorder
from tests.support.fault_server import Act, FaultServer, answer, hung_call, reply

if TYPE_CHECKING:
    from tests.support.clients import MakeClient

OWN_ERROR = {"error": "Internal Error", "requestId": "r-1"}


async def test_a_retried_call_emits_an_event_for_each_attempt(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The attempts come in order, then the call; all events have the same call id."""
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
async def test_the_event_of_a_throttled_bulk_attempt_has_its_wait(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, adaptive: bool, waits: list[float]
) -> None:
    """`retry_in` grows with each 429 only if no adaptive limiter paces the next attempt."""
    recorder = Recorder()
    client = make_client(
        hooks=[recorder], retry=RetryPolicy(wait_initial=1, wait_max=50), limits=Limits(adaptive=adaptive)
    )
    client._executor.state.rng.uniform = lambda _low, high: high  # type: ignore[method-assign]
    throttled = answer(429, OWN_ERROR)
    server.play(throttled, throttled, answer(429, OWN_ERROR, headers={"Retry-After": "20"}))
    await client.generate_messaging_code(template.to(TO), lane="bulk")
    assert [(event.attempt, event.status) for event in recorder.attempts] == [(1, 429), (2, 429), (3, 429), (4, 200)]
    assert [event.retry_in for event in recorder.attempts] == [*waits, None]
    assert [event.attempts for event in recorder.calls] == [4]


async def test_a_verify_lock_out_is_not_retried_in_the_bulk_lane(server: FaultServer, make_client: MakeClient) -> None:
    """The 429 of a verify is a lock-out of the number, not a rate limit."""
    server.play(answer(429, OWN_ERROR))
    with pytest.raises(VerificationLockedError):
        await make_client().verify_code(to=TO, code="123456", lane="bulk")
    assert len(server.seen) == 1


async def test_the_event_of_a_failed_call_matches_its_error(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Delivery, error type and request id are those of the error."""
    recorder = Recorder()
    server.play(answer(400, OWN_ERROR))
    with pytest.raises(RequestError):
        await make_client(hooks=[recorder]).generate_messaging_code(template.to(TO))
    (attempt,), (call,) = recorder.attempts, recorder.calls
    assert (attempt.retry_in, attempt.status) == (None, 400)
    assert (call.delivery, call.error_type, call.request_id) == (Delivery.REJECTED, "BadRequestError", "r-1")


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (answer(headers={"x-amzn-RequestId": "354cc8a3-6701"}), "354cc8a3-6701"),
        (answer(headers={"x-amzn-requestid": f"r-{TO[1:]}"}), None),  # another's, or ours: it may not be shown
        (answer(headers={"x-amzn-requestid": "a b"}), None),
        (answer(), None),
        (answer(200, b"<html>", headers={"x-amzn-requestid": "r-2"}), "r-2"),
        (Act(reply(200, b"{", headers={"x-amzn-requestid": "r-3"}, length=9), then="fin"), "r-3"),
        (answer(403, b"<html>", headers={"x-amzn-requestid": "r-4"}), "r-4"),
        (answer(204, b"", headers={"x-amzn-requestid": "r-5"}), "r-5"),
    ],
    ids=["accepted", "a number", "not an id", "none", "no document", "cut off", "rejected", "empty"],
)
async def test_the_request_id_of_a_response_is_kept(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, response: Act, expected: str | None
) -> None:
    """On the result or the error, and on the events of the attempt and the call."""
    recorder = Recorder()
    server.play(response)
    mfa = make_client(hooks=[recorder])
    try:
        found = (await mfa.generate_messaging_code(template.to(TO))).meta.request_id
    except RequestError as error:
        found = error.request_id
    assert [found, recorder.attempts[0].request_id, recorder.calls[0].request_id] == [expected] * 3


@pytest.mark.virtual_time
async def test_a_call_without_an_attempt_emits_no_attempt_event(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A call that the local limiter refuses emits only its own event, with 0 attempts."""
    recorder = Recorder()
    client = make_client(hooks=[recorder])
    server.play(answer(429, {}, headers={"Retry-After": "30"}))
    for _ in range(2):
        with pytest.raises(RateLimitError):
            await client.generate_messaging_code(template.to(TO), timeout=10)
    assert [event.attempts for event in recorder.calls] == [1, 0]
    assert len(recorder.attempts) == 1
    assert recorder.calls[1].delivery is Delivery.NOT_SENT
    assert [event.channel for event in recorder.events if isinstance(event, SendsPausedEvent)] == ["messaging"]


@pytest.mark.virtual_time
async def test_a_wait_for_a_permit_emits_an_event(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The event and the attempt have the duration of the wait."""
    recorder = Recorder()
    client = make_client(hooks=[recorder], limits=Limits(rate="1/s"))  # type: ignore[arg-type]
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(3)))
    waits = [event.seconds for event in recorder.events if isinstance(event, LimitWaitEvent)]
    assert waits
    assert max(waits) > 0.5
    assert max(event.waited for event in recorder.attempts) == pytest.approx(max(waits), abs=0.1)


async def test_a_cancelled_call_emits_its_events(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """If the request was written before the cancellation, the delivery is unknown."""
    recorder = Recorder()
    client = make_client(hooks=[recorder])
    task = await hung_call(server, client.generate_messaging_code(template.to(TO)))
    task.cancel()
    await asyncio.wait([task])
    (attempt,), (call,) = recorder.attempts, recorder.calls
    assert (attempt.delivery, attempt.error_type) == (Delivery.UNKNOWN, "CancelledError")
    assert (call.delivery, call.error_type) == (Delivery.UNKNOWN, "CancelledError")


async def test_an_exception_in_a_hook_does_not_fail_the_call(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    """The log shows only the type of the exception, and the remaining hooks run."""

    class Broken:
        def on_event(self, event: Event) -> None:
            raise RuntimeError(f"{TO} {event}")

    recorder = Recorder()
    client = make_client(hooks=[Broken(), recorder])
    await client.generate_messaging_code(template.to(TO))
    assert len(recorder.events) == 3
    assert "Broken raised RuntimeError" in caplog.text
    assert TO not in caplog.text


async def test_levels_of_the_logging_hook(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    """A success is INFO, a rejection WARNING, an unknown outcome ERROR; each record has its event."""
    client = make_client(hooks=[LoggingHook()])
    with caplog.at_level(logging.DEBUG, logger="bandwidth_mfa_async"):
        await client.generate_messaging_code(template.to(TO))
        server.play(answer(400, OWN_ERROR), Act(then="fin"), answer(503, OWN_ERROR))
        for _ in range(2):
            with pytest.raises(RequestError):
                await client.generate_messaging_code(template.to(TO))
        await client.generate_messaging_code(template.to(TO))
    records = [record for record in caplog.records if record.name == LOGGER_NAME]  # not those of the waits
    calls = [record for record in records if isinstance(record.__dict__["mfa_event"], CallEvent)]
    assert [record.levelname for record in calls] == ["INFO", "WARNING", "ERROR", "INFO"]
    attempts = [record for record in records if isinstance(record.__dict__["mfa_event"], AttemptEvent)]
    assert [record.levelname for record in attempts] == ["DEBUG", "DEBUG", "DEBUG", "INFO", "DEBUG"]
    assert "next attempt in" in attempts[3].getMessage()
    assert TO not in caplog.text


def test_the_logger_is_silent_by_default() -> None:
    """Without a logging configuration, the library writes nothing to stderr."""
    code = (
        "import logging; from bandwidth_mfa_async import MFAClient\n"
        "logging.getLogger('bandwidth_mfa_async').error('must not be seen')"
    )
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_an_async_hook_is_refused(make_client: MakeClient) -> None:
    """It would return a coroutine that never runs."""

    class Async:
        async def on_event(self, event: Event) -> None:
            """Do nothing."""

    for refused in ([Async()], [LoggingHook(), Async()]):
        with pytest.raises(ConfigurationError, match="hooks: on_event must not be async"):
            make_client(hooks=refused)
