"""What an observer, a limiter or a defect of ours raises inside an attempt: no connection failure, never retried."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    BulkSender,
    ConfigurationError,
    Delivery,
    DeliveryUnknownError,
    JournalError,
    Limits,
    MFAError,
    NotSentError,
    RequestError,
    Resend,
    RetryPolicy,
    SQLiteJournal,
)
from bandwidth_mfa_async._transport import Transport, _documented, _fast_path
from bandwidth_mfa_async._wire import MESSAGING
from bandwidth_mfa_async.limits.shared._redis_limits import RedisLimits
from tests.conftest import TO
from tests.support.clients import Recorder
from tests.support.fault_server import Act, FaultServer, answer
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient

pytestmark = pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)

QUICK: dict[str, Any] = {"wait_initial": 0.001, "wait_max": 0.002}
AGAIN = RetryPolicy(resend=Resend.AT_LEAST_ONCE, **QUICK)


class DeniedError(MFAError):
    """What an observer raises; not a `RequestError`."""


class Observer:
    """Raises a planned error in an attempt: before it, or when it has a connection."""

    maybe_delivered = False

    def __init__(self, error: Exception | None, *, attempt: int = 1, late: bool = False, retries: int = 9) -> None:
        self._error = error
        self._retries = retries
        self._attempt = attempt
        self._late = late
        self.attempts = 0
        self.failures: list[type[RequestError]] = []
        self.interruptions: list[Delivery] = []

    @property
    def before_wait(self) -> Any:
        return None

    def check_before_write(self) -> None:
        if self._late and self.attempts == self._attempt and self._error is not None:
            raise self._error

    async def before_attempt(self) -> bool:
        self.attempts += 1
        if not self._late and self.attempts == self._attempt:
            if self._error is None:
                return False
            raise self._error
        return True

    def may_retry(self) -> bool:
        self._retries -= 1
        return self._retries >= 0

    def attempt_failed(self, error: RequestError) -> None:
        self.failures.append(type(error))

    def interrupted(self, delivery: Delivery) -> None:
        self.interruptions.append(delivery)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("status", "lane"), [(500, "interactive"), (429, "interactive"), (429, "bulk"), (401, "interactive")]
)
async def test_a_call_that_its_observer_stops_ends_with_its_last_error(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, status: int, lane: Any, before: bool
) -> None:
    """Before a retry the wait is left out; when the retry is due, nothing is written. The events agree."""
    server.default = answer(status, {}, headers={"Retry-After": "0"} if status == 429 else None)
    hook = Recorder()
    client = make_client(retry=AGAIN, hooks=[hook])
    observer = Observer(None, attempt=2) if before else Observer(None, attempt=9, retries=0)
    with pytest.raises(RequestError) as caught:
        await client._executor.call(MESSAGING, template.to(TO), None, lane, observer)
    error = caught.value
    assert len(server.seen) == 1
    assert not observer.interruptions
    if before and status != 401:  # basic credentials that are rejected have no other to try
        assert isinstance(error, DeliveryUnknownError if status == 500 else NotSentError)
        assert error.retry_stopped_by == "closed"
    else:
        assert getattr(error, "status", None) == status
    (ended,) = hook.calls
    assert (ended.error_type, ended.attempts) == (type(error).__name__, 1)
    assert len(hook.attempts) == 1


@pytest.mark.virtual_time
async def test_an_observer_waits_only_while_its_call_holds_nothing(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A slot becomes free when the channel was just paused: the call keeps it during the pause, without its observer.

    What the observer waits for may be another call, which needs that slot.
    """
    client = make_client(limits=Limits(max_in_flight=1, adaptive=False), retry=RetryPolicy(max_attempts=1, timeout=60))
    server.play(answer(429, {}, headers={"Retry-After": "3"}, delay=1.0))
    first = asyncio.ensure_future(client.generate_messaging_code(template.to(TO)))
    while not server.seen:
        await asyncio.sleep(0)
    slots, held = client._executor.slots, []

    class Waiting(Observer):
        @property
        def before_wait(self) -> Any:
            async def wait() -> None:
                held.append(slots.taken - (not first.done()))

            return wait

    observer = Waiting(None, attempt=9)
    response = await client._executor.call(MESSAGING, template.to(TO), None, "interactive", observer)
    assert isinstance(first.exception(), RequestError)
    assert (held, slots.taken, response.meta.attempts) == ([0], 0, 1)


# A lost lease, a wrong setting, a refused descriptor (an OSError, as a lost connection is) and defects.
ERRORS = [DeniedError("x"), ConfigurationError("x"), OSError(24, "x"), TypeError("x"), RuntimeError("x")]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_of_an_observer_passes_through_unchanged(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, error: Exception, late: bool
) -> None:
    """Nothing was written; the call is not repeated, and its connection serves the next one."""
    client = make_client(retry=AGAIN)
    await client.generate_messaging_code(template.to(TO))
    observer = Observer(error, late=late)
    with pytest.raises(type(error)) as caught:
        await client._executor.call(MESSAGING, template.to(TO), None, "interactive", observer)
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert (observer.attempts, observer.failures, observer.interruptions) == (1, [], [Delivery.NOT_SENT])
    assert len(server.seen) == 1
    assert (await client.generate_messaging_code(template.to(TO))).message_id


async def test_a_request_error_of_an_observer_passes_through_unchanged(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Its class and its message stay; it is the attempt's failure, which the policy may repeat."""
    client = make_client(retry=RetryPolicy(max_attempts=1))
    error = NotSentError("the lease is lost")
    with pytest.raises(NotSentError) as caught:
        await client._executor.call(MESSAGING, template.to(TO), None, "interactive", Observer(error, late=True))
    assert caught.value is error
    assert (error.message, error.__context__, server.seen) == ("the lease is lost", None, [])


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_after_an_unknown_attempt_an_error_of_an_observer_is_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, error: Exception, late: bool
) -> None:
    """The first attempt may have been delivered; the observer ends the second. The error is the cause."""
    client = make_client(retry=AGAIN)
    server.play(Act(then="fin", accepted=True))
    observer = Observer(error, attempt=2, late=late)
    with pytest.raises(DeliveryUnknownError) as caught:
        await client._executor.call(MESSAGING, template.to(TO), None, "interactive", observer)
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.operation == "generate_messaging_code"
    assert caught.value.__cause__ is error
    assert caught.value.attempts == (2 if late else 1)
    assert type(error).__name__ in caught.value.message
    assert (observer.interruptions, len(server.seen)) == ([Delivery.UNKNOWN], 1)


async def test_a_call_that_continues_an_unknown_item_says_so(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A success is a possible duplicate, and every error is unknown, whatever the service says now."""
    hook = Recorder()

    class Earlier(Observer):
        maybe_delivered = True

    client = make_client(retry=AGAIN, hooks=[hook])
    nothing = DeniedError("no error is planned")

    async def call(observer: Observer) -> Any:
        return await client._executor.call(MESSAGING, template.to(TO), None, "interactive", observer)

    assert (await call(Earlier(nothing, attempt=9))).meta.possible_duplicate
    assert hook.calls[-1].possible_duplicate
    server.play(answer(400, {"error": "x", "requestId": "r"}))
    with pytest.raises(RequestError) as caught:
        await call(Earlier(nothing, attempt=9))
    assert (caught.value.delivery, hook.calls[-1].delivery) == (Delivery.UNKNOWN, Delivery.UNKNOWN)
    with pytest.raises(DeliveryUnknownError) as caught:
        await call(Earlier(nothing))
    assert caught.value.__cause__ is nothing


def break_before_writing(monkeypatch: pytest.MonkeyPatch, *, after: int = 0) -> list[int]:
    """Make our part of every attempt after so many raise a TypeError before there is a connection."""
    calls: list[int] = []
    for module, name in ((_fast_path.FastPath, "post"), (_documented, "post")):
        original = getattr(module, name)

        async def post(*arguments: Any, original: Any = original, **options: Any) -> None:
            calls.append(1)
            if len(calls) > after:
                raise TypeError("post() got an unexpected keyword argument")
            await original(*arguments, **options)

        monkeypatch.setattr(module, name, post)
        if module is _documented:
            monkeypatch.setattr("bandwidth_mfa_async._transport._session.post", post)
    return calls


async def test_a_defect_before_writing_passes_through_unchanged(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(retry=AGAIN)
    calls = break_before_writing(monkeypatch)
    with pytest.raises(TypeError, match="unexpected keyword") as caught:
        await client.generate_messaging_code(template.to(TO))
    assert (len(calls), server.seen) == (1, [])
    (note,) = caught.value.__notes__
    assert "a bug in bandwidth_mfa_async, or aiohttp" in note
    with pytest.raises(TypeError, match="unexpected keyword"):
        await client.verify_code(to=TO, code="123456")


async def test_a_defect_after_an_unknown_attempt_is_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(retry=AGAIN)
    calls = break_before_writing(monkeypatch, after=1)
    server.play(answer(502, b""))
    with pytest.raises(DeliveryUnknownError) as caught:
        await client.generate_messaging_code(template.to(TO))
    assert isinstance(caught.value.__cause__, TypeError)
    assert "a bug in bandwidth_mfa_async, or aiohttp" in caught.value.__cause__.__notes__[0]
    assert (len(calls), len(server.seen), caught.value.attempts) == (2, 1, 2)


@pytest.mark.parametrize("place", ["reading", "deciphering", "limiter", "result"])
async def test_a_defect_after_writing_is_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """While the response is read, deciphered, counted or returned: the text was sent, and the call is not repeated."""

    def broken(*_arguments: Any, **_options: Any) -> Any:
        raise TypeError("a defect")

    hook = Recorder()
    client = make_client(retry=AGAIN, hooks=[hook])
    if place == "reading":
        for name in ("_fast_path", "_documented"):
            monkeypatch.setattr(f"bandwidth_mfa_async._transport.{name}.read_body", broken)
    elif place == "deciphering":
        monkeypatch.setattr("bandwidth_mfa_async._client._executor.decipher", broken)
    elif place == "result":
        monkeypatch.setattr("bandwidth_mfa_async._client._executor.attach_meta", broken)
    else:
        monkeypatch.setattr(type(client._executor.limiters["messaging"]), "accepted", broken)
    with pytest.raises(DeliveryUnknownError) as caught:
        await client.generate_messaging_code(template.to(TO))
    assert isinstance(caught.value.__cause__, TypeError)
    assert (len(server.seen), caught.value.attempts, caught.value.delivery) == (1, 1, Delivery.UNKNOWN)
    attempts, calls = hook.attempts, hook.calls
    assert [(event.delivery, event.error_type) for event in attempts] == [(Delivery.UNKNOWN, "TypeError")]
    assert [(event.delivery, event.error_type) for event in calls] == [(Delivery.UNKNOWN, "DeliveryUnknownError")]


async def test_a_defect_in_a_warm_up_is_not_a_connection_failure(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()

    def broken(*_arguments: Any) -> Any:
        raise TypeError("a defect")

    monkeypatch.setattr(Transport, "_timeout", broken)
    with pytest.raises(TypeError, match="a defect"):
        await client.warm_up(1)


async def test_shared_limits_that_lose_their_rights_after_an_unknown_attempt(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: Any, common_redis: Any
) -> None:
    """`RedisLimits(required=True)`: the ConfigurationError is the cause, and the delivery is unknown."""
    redis = RedisServer(tmp_path)
    try:
        limits = Limits(rate="2/s", adaptive=False, shared=RedisLimits(redis.url, key="x", required=True))
        client = make_client(limits=limits, retry=RetryPolicy(max_attempts=30, **QUICK))

        def revoke(_server: FaultServer) -> None:
            with redis.client() as control:
                control.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")

        server.default = answer(502, b"", before=revoke)
        with pytest.raises(DeliveryUnknownError) as caught:
            await client.generate_messaging_code(template.to(TO))
        assert isinstance(caught.value.__cause__, ConfigurationError)
        await client.aclose()
    finally:
        redis.kill()


async def test_a_journal_that_fails_after_an_unknown_attempt_ends_the_run(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item is unknown, and the stream raises the journal's error."""
    begin, begun = SQLiteJournal.begin, []

    async def failing(journal: SQLiteJournal, row_id: int) -> None:
        begun.append(row_id)
        if len(begun) == 2:
            raise JournalError("the disk is full")
        await begin(journal, row_id)

    monkeypatch.setattr(SQLiteJournal, "begin", failing)
    server.play(Act(then="fin", accepted=True))
    outcomes = []
    async with BulkSender(make_client(retry=AGAIN), journal=tmp_path / "launch.db") as bulk:
        with pytest.raises(JournalError, match="full"):
            async for outcome in bulk.send([TO], template=template):
                outcomes.append(outcome)
    assert [outcome.delivery for outcome in outcomes] == [Delivery.UNKNOWN]
    assert isinstance(outcomes[0].error, DeliveryUnknownError)
    assert len(server.seen) == 1
