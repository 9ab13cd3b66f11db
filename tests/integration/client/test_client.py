"""The client from the outside: calls, options, state, closing."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    ClientStateError,
    CodeRequest,
    CodeTemplate,
    ConfigurationError,
    DeadlineExceededError,
    Delivery,
    DisconnectedError,
    InvalidRequestError,
    Limits,
    MFAClient,
    NotSentError,
    Rate,
    RateLimitError,
    RequestError,
    RetryPolicy,
    VerifyCodeRequest,
)
from bandwidth_mfa_async._wire import MESSAGING
from tests.conftest import APPLICATION, FROM, TO
from tests.support.fault_server import Act, FaultServer, answer, hung_call, reply

if TYPE_CHECKING:
    from tests.support.clients import MakeClient


async def test_each_operation_uses_its_own_path_body_and_response(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    client = make_client()
    server.play(answer(200, {"messageId": "m"}), answer(200, {"callId": "c"}), answer(200, {"valid": True}))
    assert (await client.generate_messaging_code(template.to(TO))).message_id == "m"
    assert (await client.generate_voice_code(template.to(TO))).call_id == "c"
    assert (await client.verify_code(to=TO, code="123456", scope="login")).valid is True
    paths = [seen.head.split()[1] for seen in server.seen]
    assert paths == [f"/api/v1/accounts/9900000/code/{name}" for name in ("messaging", "voice", "verify")]
    assert server.seen[2].document == {"to": TO, "code": "123456", "scope": "login", "expirationTimeInMinutes": 3}


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
async def test_every_request_has_the_same_headers(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """JSON in both directions, no compression, no cookies, and a user agent."""
    server.play(answer(headers={"Set-Cookie": "session=abc"}))
    # By name: aiohttp's cookie jar accepts no cookies from IP addresses.
    client = make_client(base_url=f"http://localhost:{server.port}/api/v1")
    for _ in range(2):
        await client.generate_messaging_code(template.to(TO))
    for seen in server.seen:
        assert seen.headers["content-type"] == "application/json"
        assert seen.headers["accept"] == "application/json"
        assert seen.headers["accept-encoding"] == "identity"
        assert seen.headers["user-agent"].startswith("bandwidth-mfa-async/")
        assert "cookie" not in seen.headers


async def test_verify_takes_a_request_or_keywords(server: FaultServer, make_client: MakeClient) -> None:
    """Both forms send the same; both at once, or neither, is an error before any I/O."""
    server.default = answer(200, {"valid": False})
    client = make_client()
    request = VerifyCodeRequest(TO, "123456", "s", 5)
    await client.verify_code(request)
    await client.verify_code(to=TO, code="123456", scope="s", expiration_time_in_minutes=5)
    assert server.seen[0].body == server.seen[1].body
    with pytest.raises(TypeError):
        await client.verify_code(request, code="123456")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        await client.verify_code()  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError):
        await client.verify_code(to=TO, code="12a456")
    assert len(server.seen) == 2


@pytest.mark.parametrize("request_", [None, {"to": TO}, VerifyCodeRequest(TO, "1234")], ids=["None", "dict", "verify"])
async def test_a_request_of_the_wrong_class_is_refused(
    make_client: MakeClient, server: FaultServer, request_: Any
) -> None:
    """The error names it before any I/O."""
    with pytest.raises(InvalidRequestError, match="CodeRequest"):
        await make_client().generate_messaging_code(request_)
    assert not server.accepted_connections


async def test_a_voice_call_refuses_a_callback_url(make_client: MakeClient, server: FaultServer) -> None:
    """Receipts are documented for texts only; accepting it silently would promise one."""
    request = CodeRequest(TO, FROM, APPLICATION, callback_url="https://example.com/x")
    with pytest.raises(InvalidRequestError, match="callback_url"):
        await make_client().generate_voice_code(request)
    assert not server.accepted_connections


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("nan")}, {"timeout": "3"}, {"lane": "fast"}])
async def test_invalid_call_options_are_refused(
    make_client: MakeClient, server: FaultServer, template: CodeTemplate, options: Any
) -> None:
    """The error names them before any I/O, and nothing is left running."""
    client = make_client()
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        await client.generate_messaging_code(template.to(TO), **options)
    await client.aclose()
    assert not server.accepted_connections


async def test_a_verify_is_never_a_possible_duplicate(server: FaultServer, make_client: MakeClient) -> None:
    """A repeated verify sends nothing, even after an unknown outcome."""
    server.play(answer(500, b"<html>"), answer(200, {"valid": True}))
    response = await make_client().verify_code(to=TO, code="123456")
    assert (response.meta.attempts, response.meta.possible_duplicate) == (2, False)


async def test_meta_describes_the_attempts(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    server.play(answer(429, {}))
    response = await make_client().generate_messaging_code(template.to(TO))
    assert (response.meta.attempts, response.meta.possible_duplicate) == (2, False)
    assert 0 < response.meta.elapsed < 5


@pytest.mark.virtual_time
async def test_a_429_pauses_all_sends_of_the_client(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """One rejection with a Retry-After delays every other send until then; a verify is not delayed."""
    client = make_client(retry=RetryPolicy(wait_initial=0.01))
    loop = asyncio.get_running_loop()
    server.play(answer(429, {}, headers={"Retry-After": "10"}))
    first = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    while not server.seen:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    began = loop.time()
    others = [asyncio.create_task(client.generate_messaging_code(template.to(TO))) for _ in range(5)]
    server.play(answer(200, {"valid": True}))
    await client.verify_code(to=TO, code="123456")
    assert loop.time() - began < 1
    assert len(server.seen) == 2
    await asyncio.gather(first, *others)
    assert loop.time() - began >= 10 - 0.1


@pytest.mark.virtual_time
async def test_a_pause_longer_than_the_call_fails_immediately(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """During a pause, a call that cannot wait so long is refused immediately, and nothing is sent."""
    client = make_client()
    server.play(answer(429, {}, headers={"Retry-After": "50"}))
    with pytest.raises(RateLimitError):
        await client.generate_messaging_code(template.to(TO), timeout=20)
    with pytest.raises(RateLimitError) as caught:
        await client.generate_messaging_code(template.to(TO), timeout=20)
    error = caught.value
    assert (error.local, error.delivery, error.attempts) == (True, Delivery.NOT_SENT, 0)
    assert error.elapsed < 1
    assert error.retry_after == pytest.approx(50, abs=1)
    assert len(server.seen) == 1


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
@pytest.mark.virtual_time
async def test_waiting_in_the_bulk_queue_does_not_use_the_calls_time(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The time of a bulk item stands still while it waits, so that a slow account makes no item fail."""
    limits = Limits(rate=Rate(1), adaptive=False)
    client = make_client(limits=limits, retry=RetryPolicy(timeout=2.0, max_attempts=1))
    server.default = answer(delay=0.5)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO), lane="bulk") for _ in range(6)))
    assert asyncio.get_running_loop().time() - began > 4.0
    assert len(server.seen) == 6


@pytest.mark.virtual_time
async def test_429s_of_a_bulk_item_do_not_use_its_time(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Each attempt after a 429 has the full timeout again, however long the service asked to wait."""
    client = make_client(limits=Limits(adaptive=False), retry=RetryPolicy(timeout=2.0, max_attempts=1))
    server.play(*[answer(429, {}, headers={"Retry-After": "3"}, delay=0.5)] * 2)
    server.default = answer(delay=1.5)
    response = await client.generate_messaging_code(template.to(TO), lane="bulk")
    assert response.meta.attempts == len(server.seen) == 3


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
@pytest.mark.virtual_time
async def test_a_permit_is_refunded_while_waiting_for_a_slot(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """With one slot and responses as slow as the rate, eight texts take eight seconds: no permit is lost."""
    client = make_client(limits=Limits(rate=Rate(1), adaptive=False, max_in_flight=1))
    server.default = answer(delay=1.0)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(8)))
    assert asyncio.get_running_loop().time() - began < 9.0


@pytest.mark.virtual_time
async def test_nothing_is_written_after_the_calls_deadline(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Even if a connection is available and the time ran out in an unbounded wait, such as that of an observer."""

    class Slow:
        before_wait = None
        check_before_write = None
        maybe_delivered = False

        async def before_attempt(self) -> bool:
            await asyncio.sleep(3.0)
            return True

        def may_retry(self) -> bool:
            return True

        def attempt_failed(self, error: RequestError) -> None:
            pass

        def interrupted(self, delivery: Delivery) -> None:
            pass

    client = make_client()
    await client.generate_messaging_code(template.to(TO))
    with pytest.raises(DeadlineExceededError) as caught:
        await client._executor.call(MESSAGING, template.to(TO), 2.0, "interactive", Slow())
    assert (caught.value.delivery, caught.value.attempts, len(server.seen)) == (Delivery.NOT_SENT, 0, 1)


async def test_the_retry_budget_is_withdrawn_and_refunded(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A first success earns one, a retry costs what its reason costs, and a success after it refunds that."""
    client = make_client(limits=Limits(adaptive=False))
    budget = client._executor.state.budget
    budget.tokens = 100
    await client.generate_messaging_code(template.to(TO))
    assert budget.tokens == 101
    server.play(answer(503, {"error": "x"}))
    await client.generate_messaging_code(template.to(TO))
    assert budget.tokens == 101
    server.play(answer(503, {"error": "x"}), answer(500, {"error": "x"}), answer(400, {"error": "x"}))
    with pytest.raises(RequestError):
        await client.generate_messaging_code(template.to(TO))
    assert budget.tokens == 101 - 5 - 14
    server.play(answer(429, {"error": "x"}))
    await client.generate_messaging_code(template.to(TO), lane="bulk")
    assert budget.tokens == 101 - 5 - 14 + 1, "a free retry costs nothing, and the success earns one"


async def test_a_retried_429_error_is_freed_without_the_garbage_collector(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A slow account rejects a bulk run very often: its errors are in no reference cycle."""
    client = make_client(limits=Limits(adaptive=False))
    gc.collect()
    gc.disable()
    try:
        before = sum(type(thing) is RateLimitError for thing in gc.get_objects())
        server.play(answer(429, {"error": "x"}), answer(429, {"error": "x"}))
        await client.generate_messaging_code(template.to(TO), lane="bulk")
        assert len(server.seen) == 3
        assert sum(type(thing) is RateLimitError for thing in gc.get_objects()) == before
    finally:
        gc.enable()


async def test_max_in_flight_bounds_concurrent_attempts(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """No more attempts than slots are in flight."""
    client = make_client(limits=Limits(max_in_flight=3))
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(20)))
    assert server.accepted_connections <= 3
    assert len(server.seen) == 20


@pytest.mark.virtual_time
async def test_waiting_for_a_slot_ends_at_the_calls_deadline(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A call whose time runs out in the queue was not sent."""
    client = make_client(limits=Limits(max_in_flight=1))
    server.play(Act(then="hang"))
    first = asyncio.create_task(client.generate_messaging_code(template.to(TO), timeout=30))
    while not server.seen:
        await asyncio.sleep(0)
    with pytest.raises(DeadlineExceededError) as caught:
        await client.generate_messaging_code(template.to(TO), timeout=2)
    assert (caught.value.delivery, caught.value.attempts) == (Delivery.NOT_SENT, 0)
    with pytest.raises(RequestError):
        await first
    assert (await client.generate_messaging_code(template.to(TO))).message_id


async def test_a_view_has_other_options_and_the_same_pool(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """`with_options` shares connections and the budget; closing a view closes nothing."""
    client = make_client()
    view = client.with_options(retry=RetryPolicy(max_attempts=1), timeout=5.0, limits=Limits(max_in_flight=2))
    server.play(answer(500, {"error": "x"}))
    with pytest.raises(RequestError) as caught:
        await view.generate_messaging_code(template.to(TO))
    assert (caught.value.attempts, caught.value.retry_stopped_by) == (1, "attempts")
    await view.aclose()
    await client.generate_messaging_code(template.to(TO))
    assert server.accepted_connections == 1
    await client.aclose()
    with pytest.raises(ClientStateError):
        await view.generate_messaging_code(template.to(TO))
    with pytest.raises(ConfigurationError):
        client.with_options(timeout=-1)


async def test_two_clients_in_one_loop_share_nothing(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Closing one does not affect the other."""
    first, second = make_client(), make_client(auth=BasicAuth("other", "pw"))
    await first.generate_messaging_code(template.to(TO))
    await second.generate_messaging_code(template.to(TO))
    await first.aclose()
    await second.generate_messaging_code(template.to(TO))
    assert len({seen.headers["authorization"] for seen in server.seen}) == 2


async def test_a_borrowed_session_lends_only_its_connections(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """It is not closed, and its headers, cookies and timeouts are not used."""
    async with aiohttp.ClientSession(
        headers={"X-Internal": "secret", "Authorization": "Bearer internal"},
        cookies={"session": "abc"},
        timeout=aiohttp.ClientTimeout(total=0.000001),
        raise_for_status=True,
    ) as session:
        client = make_client(session=session)
        server.play(answer(500, {"error": "x"}))
        await client.generate_messaging_code(template.to(TO))
        for seen in server.seen:
            assert "x-internal" not in seen.headers
            assert "cookie" not in seen.headers
            assert seen.headers["authorization"].startswith("Basic ")
        await client.aclose()
        assert not session.closed
        assert session.connector is not None
        assert not session.connector.closed


async def test_a_closed_borrowed_session_is_refused(make_client: MakeClient, template: CodeTemplate) -> None:
    """The error names it, instead of failing inside aiohttp."""
    session = aiohttp.ClientSession()
    await session.close()
    with pytest.raises(ClientStateError, match="session"):
        await make_client(session=session).generate_messaging_code(template.to(TO))


async def test_aclose_is_idempotent_and_final(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Closing twice, concurrently, or before any use is allowed; later calls are refused."""
    unused = make_client()
    await unused.aclose()
    client = make_client()
    await client.generate_messaging_code(template.to(TO))
    await asyncio.gather(client.aclose(), client.aclose())
    await client.aclose()
    for closed in (client, unused):
        assert "closed" in repr(closed)
        with pytest.raises(ClientStateError, match="closed"):
            await closed.generate_messaging_code(template.to(TO))
        with pytest.raises(ClientStateError):
            await closed.warm_up()
        with pytest.raises(ClientStateError):
            async with closed:
                pass
    assert server.open_connections == 0 or len(server.seen) == 1


async def test_closing_waits_for_calls_in_flight(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Calls that have begun end normally; new ones are refused meanwhile."""
    client = make_client()
    release = asyncio.Event()

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(reply(headers={"Connection": "close"}))
        await writer.drain()
        writer.close()

    late = await asyncio.start_server(answer_late, "127.0.0.1", 0)
    client = make_client(base_url=f"http://127.0.0.1:{late.sockets[0].getsockname()[1]}/api/v1")
    call = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    for _ in range(50):
        await asyncio.sleep(0)
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)
    with pytest.raises(ClientStateError):
        await client.generate_messaging_code(template.to(TO))
    assert not closing.done()
    release.set()
    assert (await call).message_id
    await closing
    late.close()
    await late.wait_closed()


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "where", ["in an attempt", "in a backoff", "behind a gate", "for a slot", "before a connection"]
)
async def test_closing_cancels_calls_after_the_drain_timeout(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, where: str
) -> None:
    """Every call then ends with an error that states what is known of it."""
    client = make_client(retry=RetryPolicy(wait_initial=50.0, wait_max=50.0), limits=Limits(max_in_flight=1))
    loop = asyncio.get_running_loop()
    if where == "in a backoff":
        server.play(answer(503, {"error": "x"}))
    elif where == "behind a gate":
        server.play(answer(429, {}, headers={"Retry-After": "40"}))
    else:
        server.play(Act(then="hang"))
    tasks = [asyncio.create_task(client.generate_messaging_code(template.to(TO)))]
    while not server.seen:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    if where in {"behind a gate", "for a slot"}:
        tasks.append(asyncio.create_task(client.generate_messaging_code(template.to(TO))))
        await asyncio.sleep(0)
    began = loop.time()
    await client.aclose(drain_timeout=3.0)
    assert 3.0 <= loop.time() - began < 4.0
    results = await asyncio.gather(*tasks, return_exceptions=True)
    first, last = results[0], results[-1]
    assert isinstance(last, RequestError)
    assert isinstance(first, RequestError)
    if where in {"in an attempt", "before a connection"}:
        assert (type(last), last.delivery) == (DisconnectedError, Delivery.UNKNOWN)
    elif where == "in a backoff":
        assert (last.delivery, last.retry_stopped_by) == (Delivery.REJECTED, "closed")
    else:
        assert (type(last), last.delivery, last.retry_stopped_by) == (NotSentError, Delivery.NOT_SENT, "closed")
        if where == "for a slot":
            assert first.delivery is Delivery.UNKNOWN


async def test_a_cancelled_close_cancels_calls_immediately(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Cancelling `aclose` does not leave the pool open."""
    client = make_client()
    call = await hung_call(server, client.generate_messaging_code(template.to(TO)))
    closing = asyncio.create_task(client.aclose(drain_timeout=1000))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    with pytest.raises(DisconnectedError):
        await call


def test_using_a_client_in_another_loop_is_refused(template: CodeTemplate) -> None:
    """The error names the reason, instead of a hang."""
    client = MFAClient("9900000", BasicAuth("u", "p"), base_url="http://127.0.0.1:1/api/v1")

    async def use() -> None:
        with pytest.raises(NotSentError):
            await client.with_options(retry=RetryPolicy(max_attempts=1)).generate_messaging_code(template.to(TO))

    async def use_again() -> None:
        with pytest.raises(ClientStateError, match="event loop"):
            await client.generate_messaging_code(template.to(TO))
        with pytest.raises(ClientStateError, match="event loop"):
            await client.aclose()

    with asyncio.Runner() as first:
        first.run(use())
        with asyncio.Runner() as second:
            second.run(use_again())
        first.run(client.aclose())


async def test_using_a_client_after_a_fork_is_refused(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A forked child that uses its parent's client would share its sockets; the error says to make a new one."""
    client = make_client()
    await client.generate_messaging_code(template.to(TO))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(client.generate_messaging_code(template.to(TO)))
        except BaseException as error:  # noqa: BLE001 - the child must not run on into pytest
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)  # noqa: ASYNC222 - the child ends at once
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    assert said.startswith("ClientStateError: this client was used before a fork")


async def test_no_unread_response_stays_in_the_pool(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Responses that were not read to the end leave no connection that could confuse the next call."""
    client = make_client(retry=RetryPolicy(max_attempts=1))
    for act in (answer(200, b"x" * 200_000), answer(500, b"y" * 70_000), Act(reply(length=900), then="fin")):
        server.play(act)
        with pytest.raises(RequestError):
            await client.generate_messaging_code(template.to(TO))
        assert (await client.generate_messaging_code(template.to(TO))).message_id
    for _ in range(20):
        await asyncio.sleep(0)
    assert server.open_connections == 1


async def test_warm_up_opens_connections(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """n connections and no request; the next calls use them."""
    client = make_client()
    await client.warm_up(4)
    assert (server.accepted_connections, server.seen) == (4, [])
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(4)))
    assert server.accepted_connections == 4
    with pytest.raises(ConfigurationError, match="n"):
        await client.warm_up(0)


async def test_warm_up_of_an_unreachable_service_is_not_sent(template: CodeTemplate) -> None:
    async with MFAClient("9", BasicAuth("u", "p"), base_url="http://127.0.0.1:1/x") as client:
        with pytest.raises(NotSentError):
            await client.warm_up()


def test_requests_can_be_pickled(template: CodeTemplate) -> None:
    """Requests are sent to workers."""
    assert pickle.loads(pickle.dumps(template.to(TO))) == template.to(TO)
