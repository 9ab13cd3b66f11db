"""Outcomes of a bulk run, their order, and runs that end early."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    AuthenticationError,
    BadRequestError,
    BulkSender,
    ClientStateError,
    CodeRequest,
    CodeTemplate,
    ConfigurationError,
    Delivery,
    DeliveryUnknownError,
    InvalidRequestError,
    ItemOutcome,
    Limits,
    MFAClient,
    NotSentError,
    OAuth2ClientCredentials,
    PermissionDeniedError,
    RateLimitError,
    Resend,
    RetryPolicy,
    SQLiteJournal,
    VoiceCodeResponse,
)
from bandwidth_mfa_async.simulator import Fault, Simulator
from tests.support.clients import Recorder
from tests.support.fault_server import Act, FaultServer, answer, until

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator, Iterator

    from tests.support.clients import MakeClient


def numbers(count: int) -> list[str]:
    return [f"+1919555{index:04}" for index in range(count)]


async def collect(bulk: BulkSender, source: Any, **options: Any) -> list[ItemOutcome]:
    return [outcome async for outcome in bulk.send(source, **options)]


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.uvloop
@pytest.mark.parametrize("kind", ["iterable", "async iterable", "numbers"])
async def test_every_item_has_exactly_one_outcome(server: FaultServer, make_client: MakeClient, kind: str) -> None:
    """Outcomes match the input by count, index and key; the server receives each number once."""
    template = CodeTemplate("+19195554321", "app")

    async def asynchronous() -> AsyncIterator[CodeRequest]:
        for number in numbers(250):
            await asyncio.sleep(0)
            yield template.to(number)

    source: Any = asynchronous() if kind == "async iterable" else (template.to(n) for n in numbers(250))
    options: dict[str, Any] = {}
    if kind == "numbers":
        source, options = numbers(250), {"template": template}
    async with BulkSender(make_client()) as bulk:
        outcomes = await collect(bulk, source, **options)
    assert sorted(outcome.index for outcome in outcomes) == list(range(250))
    assert len({outcome.key for outcome in outcomes}) == 250
    assert all(outcome.delivery is Delivery.ACCEPTED and outcome.response for outcome in outcomes)
    assert all(outcome.request and outcome.request.to == numbers(250)[outcome.index] for outcome in outcomes)
    assert sorted(str(seen.document["to"]) for seen in server.seen) == numbers(250)
    summary = bulk.summary
    assert (summary.taken, summary.accepted, summary.attempts, summary.done) == (250, 250, 250, 250)
    assert (summary.in_flight, summary.ending) == (0, "finished")


@pytest.mark.parametrize("ordered", [True, False])
async def test_ordered_outcomes_wait_for_a_slow_first_item(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, ordered: bool
) -> None:
    """Unordered outcomes do not wait."""
    server.play(Act(answer().reply, delay=0.05, accepted=True))
    async with BulkSender(make_client(), ordered=ordered, max_in_flight=8) as bulk:
        places = [o.index for o in await collect(bulk, numbers(40), template=template)]
    assert sorted(places) == list(range(40))
    assert (places == sorted(places)) is ordered


async def test_an_invalid_item_does_not_end_the_run(make_client: MakeClient, template: CodeTemplate) -> None:
    """An invalid number, a value that is not a request and a key function that raises each give one outcome."""
    source: list[Any] = ["+19195550001", "919", 7, template.to("+19195550002"), "+19195550003\n", "+19195550004"]

    def key(request: CodeRequest) -> str:
        if request.to.endswith("4"):
            raise KeyError(request.to)
        return request.to

    async with BulkSender(make_client(), ordered=True) as bulk:
        outcomes = await collect(bulk, source, template=template, key=key)
        kinds = [outcome.delivery for outcome in outcomes]
    invalid, accepted = Delivery.INVALID, Delivery.ACCEPTED
    assert kinds == [accepted, invalid, invalid, accepted, invalid, invalid]
    errors = [outcome.error for outcome in outcomes if outcome.delivery is invalid]
    assert all(isinstance(error, InvalidRequestError) for error in errors)
    assert [error.field for error in errors if isinstance(error, InvalidRequestError)] == ["to", "request", "to", "key"]
    assert "919555" not in repr(outcomes) + str(errors)
    assert bulk.summary.invalid == 4


async def test_a_key_function_that_raises_cancelled_error_makes_one_invalid_item(
    make_client: MakeClient, template: CodeTemplate
) -> None:
    """A CancelledError from a function that awaits nothing is an error like any other: the run continues."""
    cancelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    cancelled.cancel()

    def key(request: CodeRequest) -> str:
        return cancelled.result() if request.to.endswith("1") else request.to

    async with BulkSender(make_client(), ordered=True) as bulk, asyncio.timeout(5):
        outcomes = await collect(bulk, ["+19195550001", "+19195550002"], template=template, key=key)
    assert [outcome.delivery for outcome in outcomes] == [Delivery.INVALID, Delivery.ACCEPTED]
    assert "raised CancelledError" in str(outcomes[0].error)
    assert bulk.summary.ending == "finished"


class _Hostile:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise ZeroDivisionError


@pytest.mark.parametrize("journaled", [True, False])
async def test_malformed_items_do_not_end_the_run(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, journaled: bool
) -> None:
    """A line that is not UTF-8 and an object that raises on inspection are invalid; a key may contain surrogates."""
    source: list[Any] = ["+19195550001", "+1919\udc80", _Hostile(), "+19195550002"]
    path = tmp_path / "run.db" if journaled else None
    async with BulkSender(make_client(), ordered=True, journal=path) as bulk:
        outcomes = await collect(bulk, source, template=template, key=lambda request: f"\udc80{request.to}")
    invalid, accepted = Delivery.INVALID, Delivery.ACCEPTED
    assert [outcome.delivery for outcome in outcomes] == [accepted, invalid, invalid, accepted]
    assert "ZeroDivisionError" in str(outcomes[2].error)
    assert (bulk.summary.taken, bulk.summary.done, bulk.summary.ending) == (4, 4, "finished")


async def test_an_input_that_can_continue_after_an_invalid_item_continues(
    make_client: MakeClient, template: CodeTemplate
) -> None:
    """`map` continues after it raises; a generator ends, and the error suggests `template=`."""
    wrong = ["+19195550001", "x", "+19195550002"]
    async with BulkSender(make_client(), ordered=True) as bulk:
        outcomes = await collect(bulk, map(template.to, wrong))
    assert [o.delivery.value for o in outcomes] == ["accepted", "invalid", "accepted"]

    done = []
    async with BulkSender(make_client()) as bulk:
        with pytest.raises(InvalidRequestError) as caught:
            async for outcome in bulk.send(template.to(number) for number in wrong):
                done.append(outcome.delivery)
    assert done == [Delivery.ACCEPTED]
    assert any("template=" in note for note in caught.value.__notes__)
    assert bulk.summary.ending == "failed"


async def test_an_input_error_is_raised_after_the_outcomes_of_all_items_taken(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The stream raises the error of the input once."""

    def broken() -> Iterator[str]:
        yield from numbers(5)
        raise ZeroDivisionError

    async with BulkSender(make_client()) as bulk:
        stream = bulk.send(broken(), template=template)
        outcomes = []
        with pytest.raises(ZeroDivisionError):
            async for outcome in stream:
                outcomes.append(outcome)
        assert [outcome async for outcome in stream] == []
    assert len(outcomes) == 5
    assert len(server.seen) == sum(outcome.delivery is Delivery.ACCEPTED for outcome in outcomes)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_cancellation_inside_the_input_is_an_error(
    make_client: MakeClient, template: CodeTemplate, kind: str
) -> None:
    """If a future that the input awaits is cancelled, the rest of the input is missing: an error, not a stop."""
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()

    async def waiting() -> AsyncIterator[str]:
        for number in numbers(5):
            yield number
        await cancelled

    def asking() -> Iterator[str]:
        yield from numbers(5)
        cancelled.result()

    async with BulkSender(make_client()) as bulk:
        outcomes = []
        with pytest.raises(RuntimeError, match="the input ended early"):
            async for outcome in bulk.send(waiting() if kind == "async" else asking(), template=template):
                outcomes.append(outcome.delivery)
    assert outcomes == [Delivery.ACCEPTED] * 5
    assert bulk.summary.ending == "failed"


async def test_a_base_exception_of_the_input_is_raised(make_client: MakeClient, template: CodeTemplate) -> None:
    """Test frameworks raise exceptions that are not subclasses of `Exception`."""

    class Skipped(BaseException):
        pass

    def broken() -> Iterator[str]:
        yield from numbers(5)
        raise Skipped

    async with BulkSender(make_client()) as bulk:
        with pytest.raises(Skipped):
            await collect(bulk, broken(), template=template)
    assert (bulk.summary.accepted, bulk.summary.ending) == (5, "failed")


async def test_a_stop_ends_an_input_that_suppresses_cancellations(
    make_client: MakeClient, template: CodeTemplate
) -> None:
    """A stop ends the run even if the input continues after it is cancelled."""
    asked = 0

    async def stubborn() -> AsyncIterator[str]:
        nonlocal asked
        yield numbers(1)[0]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        for number in numbers(1000):
            asked += 1
            yield number

    async with BulkSender(make_client(), max_in_flight=2) as bulk:
        stream = bulk.send(stubborn(), template=template)
        await anext(stream)
        bulk.stop()
        rest = [outcome.delivery async for outcome in stream]
    assert rest == [Delivery.NOT_SENT]
    assert (asked, bulk.summary.taken, bulk.summary.ending) == (1, 2, "stopped")


async def test_a_slow_reader_slows_the_sending(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The run takes at most twice `max_in_flight` items more than were read."""
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"+1919{taken:07}"

    async with BulkSender(make_client(), max_in_flight=5) as bulk:
        stream = bulk.send(endless(), template=template)
        for read in range(1, 30):
            await anext(stream)
            while len(server.seen) < read + 9:
                await asyncio.sleep(0)
            await turns()
            assert taken - read <= 10
            assert len(server.seen) - read <= 10
    assert bulk.summary.taken == taken


async def test_a_stop_finishes_requests_in_flight_and_starts_no_more(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """After `stop`, requests in flight get their response, and items that were only taken are not sent."""
    server.default = Act(answer().reply, delay=0.02, accepted=True)
    async with BulkSender(make_client(), max_in_flight=4) as bulk:
        stream = bulk.send(numbers(1000), template=template)
        outcomes = [await anext(stream) for _ in range(3)]
        while bulk.summary.taken < 11 or bulk.summary.in_flight < 4:
            await asyncio.sleep(0)
        bulk.stop()
        bulk.stop()
        outcomes += [outcome async for outcome in stream]
    assert len(outcomes) == bulk.summary.taken == 11
    sent = [outcome for outcome in outcomes if outcome.delivery is Delivery.ACCEPTED]
    unsent = [outcome for outcome in outcomes if outcome.delivery is Delivery.NOT_SENT]
    assert len(sent) + len(unsent) == len(outcomes)
    assert {o.request.to for o in sent if o.request} == {seen.document["to"] for seen in server.seen}
    errors = [outcome.error for outcome in unsent]
    assert errors
    assert all(isinstance(error, NotSentError) and error.retry_stopped_by == "closed" for error in errors)
    assert (bulk.summary.ending, bulk.summary.in_flight) == ("stopped", 0)


@pytest.mark.virtual_time
async def test_a_stop_does_not_wait_for_permits(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """At one text per minute, the items that wait for a permit are abandoned at once."""
    client = make_client(limits=Limits(rate="1/m"))
    loop = asyncio.get_running_loop()
    async with BulkSender(client, max_in_flight=10) as bulk:
        stream = bulk.send(numbers(100), template=template)
        assert (await anext(stream)).delivery is Delivery.ACCEPTED
        started = loop.time()
        bulk.stop()
        rest = [outcome.delivery async for outcome in stream]
        assert loop.time() - started < 1
    assert set(rest) == {Delivery.NOT_SENT}
    assert len(server.seen) == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize("how", ["break", "error", "cancellation"])
async def test_leaving_the_context_early_drains_the_run(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, how: str
) -> None:
    """Leaving the `async with` drains within `drain_timeout`; the stream still yields the remaining outcomes."""
    server.default = Act(answer().reply, delay=2.0, accepted=True)
    bulk = BulkSender(make_client(), max_in_flight=4)
    streams, read = [], []

    async def run() -> None:
        async with bulk:
            streams.append(bulk.send(numbers(1000), template=template))
            async for outcome in streams[0]:
                read.append(outcome)
                if how == "error":
                    raise ZeroDivisionError
                if how == "break":
                    return
                await asyncio.Event().wait()

    task = asyncio.create_task(run())
    # On a busy machine the run may end before four requests in flight are observed.
    while (not read or bulk.summary.in_flight < 4) and not task.done():
        await asyncio.sleep(0.01)
    if how == "cancellation":
        task.cancel()
    await asyncio.wait([task])
    ended = {"break": not task.cancelled() and task.exception() is None, "cancellation": task.cancelled()}
    assert ended.get(how, not task.cancelled() and isinstance(task.exception(), ZeroDivisionError))
    rest = [outcome async for outcome in streams[0]]
    kinds = [outcome.delivery for outcome in rest]
    assert set(kinds) <= {Delivery.ACCEPTED, Delivery.NOT_SENT}
    assert 1 + len(rest) == bulk.summary.taken == bulk.summary.done
    assert len(server.seen) == server.sent == bulk.summary.accepted


@pytest.mark.virtual_time
async def test_requests_that_outlast_the_drain_timeout_are_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A cancelled request may have been sent; an item that was not started was not."""
    server.default = Act(then="hang")
    loop = asyncio.get_running_loop()
    async with BulkSender(make_client(), max_in_flight=3, drain_timeout=5.0) as bulk:
        stream = bulk.send(numbers(1000), template=template)
        reader = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        while len(server.seen) < 3:
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        started = loop.time()
    assert 5 <= loop.time() - started < 6
    outcomes = [outcome async for outcome in stream]
    kinds = [outcome.delivery for outcome in outcomes]
    assert kinds.count(Delivery.UNKNOWN) == 3
    assert set(kinds) == {Delivery.UNKNOWN, Delivery.NOT_SENT}
    assert all(isinstance(o.error, DeliveryUnknownError) for o in outcomes if o.delivery is Delivery.UNKNOWN)
    assert bulk.summary.unknown == 3


@pytest.mark.virtual_time
async def test_a_second_cancellation_ends_the_drain(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A run that is cancelled again while it drains ends at once, and every item still has its outcome."""
    server.default = Act(then="hang")
    bulk = BulkSender(make_client(), max_in_flight=3)
    streams = []

    async def run() -> None:
        async with bulk:
            streams.append(bulk.send(numbers(1000), template=template))
            async for _ in streams[0]:
                pass

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(run())
    while len(server.seen) < 3:
        await asyncio.sleep(0)
    started = loop.time()
    task.cancel()
    await turns()
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert loop.time() - started < 1
    outcomes = [outcome async for outcome in streams[0]]
    assert len(outcomes) == bulk.summary.taken
    assert bulk.summary.unknown == 3


@pytest.mark.virtual_time
async def test_a_stop_between_two_attempts_starts_no_further_attempt(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """An item that waits for its retry is abandoned with its last rejection."""
    server.default = answer(429, {}, headers={"Retry-After": "30"})
    async with BulkSender(make_client(), max_in_flight=2) as bulk:
        stream = bulk.send(numbers(2), template=template)
        reader = asyncio.ensure_future(anext(stream))
        while not server.seen or bulk.summary.in_flight:
            await asyncio.sleep(0)
        seen = len(server.seen)
        bulk.stop()
        outcomes = [await reader, *[outcome async for outcome in stream]]
    assert len(server.seen) == seen
    rejected = [outcome for outcome in outcomes if isinstance(outcome.error, RateLimitError)]
    assert len(rejected) == seen == bulk.summary.throttled
    assert all(outcome.delivery in {Delivery.REJECTED, Delivery.NOT_SENT} for outcome in outcomes)


@pytest.mark.virtual_time
async def test_a_stop_starts_no_attempt_with_a_renewed_token(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """After a 401 an item could be sent at once with a token that was renewed meanwhile, but not after a stop."""

    def token(value: str) -> Act:
        return answer(200, {"access_token": value, "expires_in": 3600, "token_type": "Bearer"})

    refusal = answer(401, {"error": "x", "requestId": "r"})
    server.play(token("old"), answer(), Act(refusal.reply, delay=2.0), refusal, token("new"), answer())
    hook = Recorder()
    client = make_client(hooks=[hook], auth=OAuth2ClientCredentials("id", "secret", token_url=f"{server.origin}/token"))
    await client.generate_messaging_code(template.to("+19195559999"))
    async with BulkSender(client, max_in_flight=1) as bulk:
        stream = bulk.send(numbers(1), template=template)
        reader = asyncio.ensure_future(anext(stream))
        while len(server.seen) < 3:
            await asyncio.sleep(0)
        await client.generate_messaging_code(template.to("+19195559999"))
        bulk.stop()
        outcome = await reader
    assert isinstance(outcome.error, AuthenticationError)
    assert outcome.delivery is Delivery.REJECTED
    assert len(server.seen) == 6
    # Not CancelledError: the run only put the item back.
    assert [event.error_type for event in hook.calls if event.lane == "bulk"] == ["AuthenticationError"]


async def test_ten_account_errors_in_a_row_end_the_run(template: CodeTemplate) -> None:
    """A million items with a wrong password do not make a million requests."""
    async with (
        Simulator() as simulator,
        MFAClient(**(simulator.client_kwargs() | {"auth": _wrong(simulator)})) as client,
        BulkSender(client, max_in_flight=5) as bulk,
    ):
        with pytest.raises(PermissionDeniedError) as caught:
            await collect(bulk, (f"+1919{index:07}" for index in range(1_000_000)), template=template)
    assert any("10 items in a row" in note for note in caught.value.__notes__)
    assert 10 <= bulk.summary.attempts <= 20
    assert bulk.summary.ending == "failed"


async def test_ten_rejections_by_the_token_endpoint_end_the_run(server: FaultServer, make_client: MakeClient) -> None:
    """Nothing is sent, but it concerns the account all the same; also a 400, which the endpoint may answer."""
    server.default = answer(400, {"error": "invalid_client"})
    client = make_client(auth=OAuth2ClientCredentials("id", "secret", token_url=f"{server.origin}/token"))
    template = CodeTemplate("+19195554321", "app")
    async with BulkSender(client, max_in_flight=5) as bulk:
        with pytest.raises(BadRequestError, match="no token"):
            await collect(bulk, (f"+1919{index:07}" for index in range(1_000_000)), template=template)
    assert 10 <= bulk.summary.not_sent <= 30
    assert bulk.summary.ending == "failed"


def _wrong(simulator: Simulator) -> Any:
    from bandwidth_mfa_async import BasicAuth

    return BasicAuth(simulator.username, "wrong")


async def test_a_closed_client_ends_the_run(make_client: MakeClient, template: CodeTemplate) -> None:
    """An error that affects every item is raised, and no outcome is lost."""
    client = make_client()
    async with BulkSender(client, max_in_flight=5) as bulk:
        stream = bulk.send(numbers(100), template=template)
        outcomes = [await anext(stream)]
        await client.aclose()
        with pytest.raises(ClientStateError):
            async for outcome in stream:
                outcomes.append(outcome)
    assert len(outcomes) == bulk.summary.taken


async def test_the_voice_channel_makes_calls(template: CodeTemplate) -> None:
    """A callback URL is not allowed for calls, so it makes an item invalid."""
    with_callback = CodeTemplate("+19195554321", "app", callback_url="http://127.0.0.1/x")
    async with Simulator() as simulator, MFAClient(**simulator.client_kwargs()) as client:
        async with BulkSender(client, channel="voice", ordered=True) as bulk:
            requests = [template.to("+19195550001"), with_callback.to("+19195550002")]
            first, second = await collect(bulk, requests)
        assert [(message.channel, message.to) for message in simulator.inbox] == [("voice", "+19195550001")]
    assert isinstance(first.response, VoiceCodeResponse)
    assert second.delivery is Delivery.INVALID


@pytest.mark.virtual_time
async def test_an_interactive_call_goes_before_queued_bulk_items(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """At one text per second and with fifty items queued, an interactive call is sent next."""
    client = make_client(limits=Limits(rate="1/s"))
    async with BulkSender(client, max_in_flight=50) as bulk:
        stream = bulk.send(numbers(200), template=template)
        await anext(stream)
        await turns(200)
        before = len(server.seen)
        await client.generate_messaging_code(template.to("+19195559999"))
        assert len(server.seen) - before <= 2
        assert server.seen[-1].document["to"] == "+19195559999"


async def test_each_item_gets_the_outcome_of_its_own_request(template: CodeTemplate) -> None:
    """An outcome does not depend on other items, and the inbox matches the outcomes."""
    refusal = Fault(status=400, body={"error": "no", "requestId": "r"})
    async with Simulator() as simulator:
        retry = RetryPolicy(wait_initial=0.001, wait_max=0.002)
        simulator.faults.script(refusal, to="+19195550001")
        simulator.faults.script(Fault(drop="after_read"), to="+19195550002")
        simulator.faults.script(Fault(status=503, body={"error": "x", "requestId": "r"}), to="+19195550003")
        async with (
            MFAClient(**simulator.client_kwargs(), retry=retry) as client,
            BulkSender(client, ordered=True) as bulk,
        ):
            outcomes = await collect(bulk, numbers(5), template=template)
        kinds = [outcome.delivery.value for outcome in outcomes]
        assert kinds == ["accepted", "rejected", "unknown", "accepted", "accepted"]
        inbox = [message.to for message in simulator.inbox]
    assert all(
        (number in inbox) == (kind == "accepted")
        for number, kind in zip(numbers(5), kinds, strict=True)
        if kind != "unknown"
    )
    assert bulk.summary.attempts == 6


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight": True}, "max_in_flight"),
        ({"lane": "fast"}, "lane"),
        ({"channel": "fax"}, "channel"),
        ({"drain_timeout": -1}, "drain_timeout"),
        ({"drain_timeout": float("nan")}, "drain_timeout"),
        ({"journal": ":memory:"}, "journal"),
        ({"journal": ""}, "journal"),
    ],
)
def test_an_invalid_option_is_named_at_construction(
    make_client: MakeClient, options: dict[str, Any], field: str
) -> None:
    """Nothing happens before the error."""
    with pytest.raises(ConfigurationError, match=field):
        BulkSender(MFAClient("9900000", _auth()), **options)


def _auth() -> Any:
    from bandwidth_mfa_async import BasicAuth

    return BasicAuth("user", "pass")


async def test_each_misuse_raises_an_error_with_the_remedy(make_client: MakeClient, template: CodeTemplate) -> None:
    """Each mistake has an error that says what to do instead."""
    with pytest.raises(ConfigurationError, match="client"):
        BulkSender("client")  # type: ignore[arg-type]
    bulk = BulkSender(make_client())
    with pytest.raises(ClientStateError, match="async with"):
        bulk.send([], template=template)
    async with bulk:
        with pytest.raises(ConfigurationError, match="requests"):
            bulk.send("+19195550001", template=template)
        with pytest.raises(ConfigurationError, match="template"):
            bulk.send([], template="x")  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match="key"):
            bulk.send([], key="x")  # type: ignore[call-overload]
        stream = bulk.send(numbers(3), template=template)
        with pytest.raises(ClientStateError, match="already"):
            bulk.send(numbers(3), template=template)
        assert len([outcome async for outcome in stream]) == 3
        assert len(await collect(bulk, numbers(2), template=template)) == 2
    assert bulk.summary.taken == 5
    with pytest.raises(ClientStateError, match="async with"):
        bulk.send(numbers(3), template=template)
    with pytest.raises(ClientStateError, match="entered before"):
        await bulk.__aenter__()


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_stop_before_a_stream_applies_to_later_streams(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, how: str
) -> None:
    """A signal that arrives before sending starts, or between two streams, is not lost."""
    async with BulkSender(make_client()) as bulk:
        await collect(bulk, numbers(2), template=template)
        getattr(bulk, how)()
        assert await collect(bulk, numbers(5), template=template) == []
    assert (len(server.seen), bulk.summary.ending) == (2, "stopped")


async def test_closing_one_stream_allows_another(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """`aclose` of a stream does not stop the sender."""
    async with BulkSender(make_client(), max_in_flight=1) as bulk:
        async with contextlib.aclosing(bulk.send(numbers(100), template=template)) as stream:
            await anext(stream)
        before = len(server.seen)
        assert len(await collect(bulk, numbers(3), template=template)) == 3
    assert len(server.seen) == before + 3


@pytest.mark.virtual_time
async def test_elapsed_time_adds_up_over_streams(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The counts add up too, so a rate made from both is correct."""
    server.default = Act(answer().reply, delay=3.0, accepted=True)
    async with BulkSender(make_client()) as bulk:
        for seconds in (3, 6):
            await collect(bulk, numbers(5), template=template)
            assert seconds <= bulk.summary.elapsed < seconds + 1


@pytest.mark.parametrize("turns_", range(1, 8))
async def test_cancelling_all_tasks_loses_no_outcome(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, turns_: int
) -> None:
    """A program that cancels all tasks, also those that have not started, still gets every outcome."""
    async with BulkSender(make_client(), max_in_flight=4) as bulk:
        stream = bulk.send(numbers(20), template=template)
        reader = asyncio.ensure_future(anext(stream))
        await turns(turns_)
        for task in (stream._producer, *stream._pool._tasks):
            assert task is not None
            task.cancel()
        await asyncio.wait([reader])
        async with asyncio.timeout(5):
            rest = [outcome async for outcome in stream]
    assert len(rest) + (reader.exception() is None) == bulk.summary.taken == bulk.summary.done


async def test_an_empty_input_has_no_outcomes(make_client: MakeClient) -> None:
    """The run ends as finished."""
    async with BulkSender(make_client()) as bulk:
        assert await collect(bulk, []) == []
    assert (bulk.summary.taken, bulk.summary.ending) == (0, "finished")


async def test_a_stream_that_is_never_read_sends_nothing(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """As with a generator, sending starts when the first outcome is read."""
    async with BulkSender(make_client()) as bulk:
        stream = bulk.send(numbers(3), template=template)
        await turns()
    assert [outcome async for outcome in stream] == []
    assert server.seen == []


@pytest.mark.virtual_time
async def test_an_item_that_may_have_been_delivered_is_never_pending_again(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Between two attempts under AT_LEAST_ONCE, the journal must not say "not sent", because the run may be killed."""
    server.play(Act(then="fin", accepted=True))
    policy = RetryPolicy(resend=Resend.AT_LEAST_ONCE, wait_initial=20.0, wait_max=20.0)
    client = make_client(retry=policy, limits=Limits(adaptive=False))
    client._executor.state.rng.uniform = lambda _least, most: most  # type: ignore[method-assign]
    journal = SQLiteJournal(tmp_path / "run.db")
    async with BulkSender(client, journal=journal) as bulk:
        stream = bulk.send(numbers(1), template=template)
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: len(server.seen) == 1)
        await asyncio.sleep(5.0)
        await journal.flush()
        assert await journal.counts() == {"unknown": 1}
        outcome = await reading
    assert outcome.delivery is Delivery.ACCEPTED
    assert len(server.seen) == 2
