"""Every public coroutine cancelled at each wait: slots and permits are back, and outcomes are correct."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import pathlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    CodeTemplate,
    CredentialChain,
    Delivery,
    Limits,
    MFAClient,
    OAuth2ClientCredentials,
    RequestError,
    Resend,
    RetryPolicy,
)
from bandwidth_mfa_async.telemetry import CallEvent, Event
from bandwidth_mfa_async.webhooks import DeliveryTracker, ReceiptTimeoutError
from tests.conftest import TO
from tests.support.fault_server import Act, FaultServer, answer, hung_call, reply, taken, until
from tests.support.resolver import Resolver
from tests.support.suspensions import Suspensions, every_suspension

if TYPE_CHECKING:
    from tests.support.clients import MakeClient

OWN_ERROR = {"error": "Internal Error", "requestId": "r"}
ANSWER = {"valid": True, "messageId": "m", "callId": "c"}
TOKEN = Act(reply(200, {"access_token": "t", "expires_in": 3600}))


FUZZ = "integration/client/test_cancellation_fuzz::test_"
BULK = "integration/bulk/test_bulk_cancellation::test_a_"
SIMULATOR = "integration/simulator/test_lifecycle::test_cancellation_at_every_suspension_leaves_it_restartable"
THREADS = "integration/testing/test_threaded::test_a_task_in_another_loop_can_wait_for_a_message"
JOB = "integration/worker/test_worker_cancellation::test_"
QUESTION, WORK, OPENING = (JOB + end for end in ("an_operation_cancelled", "a_claim_cancelled", "an_opening_cancelled"))
STORE = "integration/stores/test_store_cancellation::test_a_store_operation_cancelled"
STORE_METHODS = ("claim", "begin", "renew", "settle", "withdraw", "get", "run", "counts", "aclose", "secrets")
SIGN_IN = "integration/signin/test_cancellation::test_"
SUBMISSION = "integration/worker/test_worker::test_a_submission_that_was_cancelled"
# Each public coroutine, and the beginning of the name of the test that cancels it at each wait.
PUBLIC: dict[str, str] = {
    "MFAClient.generate_messaging_code": FUZZ + "a_call_cancelled",
    "MFAClient.generate_voice_code": FUZZ + "a_call_cancelled",
    "MFAClient.verify_code": FUZZ + "a_call_cancelled",
    "MFAClient.warm_up": FUZZ + "a_warm_up_cancelled",
    "MFAClient.aclose": FUZZ + "a_close_cancelled",
    "RedisLimits.status": "integration/limits/test_redis_cancellation::test_a_status_query_cancelled",
    "ChannelLimiter.acquire": FUZZ + "a_call_cancelled",
    "Limiter.acquire": "integration/limits/test_redis_cancellation::test_a_send_cancelled",
    "PrioritySemaphore.acquire": FUZZ + "a_call_cancelled",
    "OutcomeStream.aclose": BULK + "run_cancelled",
    "OutcomeStream.wait_idle": BULK + "run_cancelled",
    **{f"SQLiteJournal.{name}": BULK + "journal_cancelled" for name in ("open", "bind", "counts", "flush", "aclose")},
    **{f"SQLiteJournal.{name}": BULK + "journal_cancelled" for name in ("claim_numbers", "record_input")},
    **{
        f"{store}.{name}": STORE
        for store in ("MemoryStore", "SQLiteStore", "RedisStore", "Store", "TransactionalStore")
        for name in STORE_METHODS
    },
    **{f"{store}.transact": STORE for store in ("MemoryStore", "SQLiteStore", "TransactionalStore")},
    "RedisStore.check": STORE,
    "DeliveryTracker.wait": FUZZ + "a_wait_for_a_receipt",
    **{f"Job.{name}": QUESTION for name in ("cancel", "outcomes", "progress", "resume", "watch")},
    "known_jobs": QUESTION,
    "MFAWorker.jobs": QUESTION,
    "MFAWorker.submit": SUBMISSION,
    "MFAWorker.aclose": OPENING,
    **{f"RedisLedger.{name}": QUESTION for name in ("check", "exists", "facts", "flush", "jobs", "leases")},
    **{f"RedisLedger.{name}": QUESTION for name in ("next_chunk", "results", "resume", "stop")},
    **{f"RedisLedger.{name}": WORK for name in ("claim_chunk", "plan", "release_chunk")},
    **{f"RedisLedger.{name}": SUBMISSION for name in ("register", "submit")},
    # Each sends one command to Redis, like those above.
    **{f"RedisLedger.{name}": QUESTION for name in ("drop_results", "forget")},
    "RedisLedger.aclose": OPENING,
    **{f"Simulator.{name}": SIMULATOR for name in ("accept_connections", "refuse_connections", "start", "stop")},
    "Simulator.wait_for_message": SIMULATOR,
    "wait_until_ready": "integration/simulator/test_access::test_a_wait_for_a_simulator_can_be_cancelled",
    # Each waits for another thread, once.
    **{f"ThreadedSimulator.{name}": THREADS for name in ("accept_connections", "refuse_connections", "stop")},
    "ThreadedSimulator.wait_for_message": THREADS,
    "ThreadedSimulator.start": "integration/testing/test_threaded::test_a_start_can_be_cancelled",
    **{f"SignIns.{name}": SIGN_IN + "a_start" for name in ("start", "resend", "call")},
    "SignIns.check": SIGN_IN + "a_check",
    **{f"SignIns.{name}": SIGN_IN + "a_decision" for name in ("get", "cancel", "done")},
    "Guard.admit": SIGN_IN + "a_decision",
    **{f"Ticket.{name}": SIGN_IN + "a_decision" for name in ("release", "verified")},
    # It only yields to other tasks.
    "ManualClock.advance": "unit/testing/test_fake::test_with_a_clock_the_default_retry_policy_applies",
}


def public_coroutines() -> set[str]:
    """Return the names of everything that a user can await or iterate, of all public modules."""
    names = (
        *("", ".bulk", ".limits", ".signin", ".simulator", ".stores", ".telemetry", ".testing", ".webhooks"),
        ".worker",
    )
    found = set()
    for module in (importlib.import_module(f"bandwidth_mfa_async{name}") for name in names):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.iscoroutinefunction(thing):
                found.add(name)
            elif inspect.isclass(thing):
                found |= {
                    f"{name}.{member}"
                    for member, function in inspect.getmembers(thing, inspect.isfunction)
                    if not member.startswith("_")
                    and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function))
                }
    return found


def test_every_public_coroutine_has_a_cancellation_test() -> None:
    """A new coroutine is listed here until a test cancels it."""
    assert public_coroutines() == set(PUBLIC)
    for test in set(PUBLIC.values()):
        module, _, beginning = test.partition("::")
        tree = ast.parse((pathlib.Path(__file__).parents[2] / f"{module}.py").read_text(encoding="utf-8"))
        functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
        assert any(name.startswith(beginning) for name in functions), f"{test} is not there"


class LastCall:
    def __init__(self) -> None:
        self.event: CallEvent | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, CallEvent):
            self.event = event


async def assert_whole(client: MFAClient) -> None:
    """Assert that slots, permits, connections and waits are as before the call."""
    executor = client._executor
    for _ in range(5):  # a cancelled call closes its connection in the next iterations
        await asyncio.sleep(0)
    while executor.state.authorizer._tasks:
        await asyncio.sleep(0)  # a token is fetched for all calls, so a cancelled one does not cancel it
    assert (executor.slots.taken, executor.slots.waiting) == (0, 0)
    assert {limiter.waiting for limiter in executor.limiters.values()} == {0}
    assert executor.state._active == 0
    assert taken(client) == 0


SITUATIONS: dict[str, dict[str, Any]] = {
    "cold": {},
    "warm": {},
    "refused twice": {"retry": RetryPolicy(wait_initial=1.0)},
    "in a backoff": {"retry": RetryPolicy(wait_initial=1.0, wait_max=2.0)},
    "behind a gate": {"limits": Limits(adaptive=False)},
    "at a known rate": {"limits": Limits(rate="1/s")},  # type: ignore[arg-type]
    "at a learnt rate": {},
    "with a token": {"auth": "token"},
    "with a refused token": {"auth": "token"},
    "with other credentials": {"auth": "chain"},
    "lost and sent again": {"retry": RetryPolicy(resend=Resend.AT_LEAST_ONCE, wait_initial=0.5)},
    "behind others": {"limits": Limits(max_in_flight=1)},
    # The slot is free when the pause has just begun: the call that gets it holds it during the pause.
    "behind others and a gate": {"limits": Limits(max_in_flight=1, adaptive=False)},
}


def prepare(server: FaultServer, situation: str) -> None:
    server.script.clear()
    match situation:
        case "refused twice" | "at a learnt rate":
            server.play(answer(429, {}), answer(429, {}))
        case "behind a gate":
            server.play(answer(429, {}, headers={"Retry-After": "3"}))
        case "in a backoff":
            server.play(answer(500, OWN_ERROR), answer(503, OWN_ERROR))
        case "with a token":
            server.play(TOKEN)
        case "with a refused token":
            server.play(TOKEN, answer(200, ANSWER), answer(401, {"message": "Unauthorized"}), TOKEN)
        case "with other credentials":
            server.play(TOKEN, answer(401, {"message": "Unauthorized"}))
        case "lost and sent again":
            server.play(Act(then="fin", accepted=True))
        case "behind others":
            server.play(answer(200, ANSWER, delay=1.0))
        case "behind others and a gate":
            server.play(answer(429, {}, headers={"Retry-After": "3"}, delay=1.0))


def calls(client: MFAClient, template: CodeTemplate, operation: str, lane: Any) -> Any:
    request = template.to(TO)
    if operation == "verify":
        return client.verify_code(to=TO, code="123456", lane=lane)
    send = client.generate_messaging_code if operation == "send" else client.generate_voice_code
    return send(request, lane=lane)


# Every scenario for the send, and for the others those that differ.
CASES = [("send", name, lane) for name in SITUATIONS for lane in ("interactive", "bulk")]
CASES += [("call", name, "interactive") for name in ("cold", "behind a gate", "in a backoff")]
CASES += [("verify", name, "interactive") for name in ("cold", "with a token", "in a backoff", "behind others")]


@pytest.mark.virtual_time
@pytest.mark.parametrize(("operation", "situation", "lane"), CASES, ids=[" ".join(case) for case in CASES])
async def test_a_call_cancelled_at_every_wait(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, operation: str, situation: str, lane: str
) -> None:
    """Nothing stays acquired, NOT_SENT was not sent, there are no more texts than attempts, and the next call works."""
    last = LastCall()
    options = SITUATIONS[situation] | {"hooks": [last]}
    oauth2 = OAuth2ClientCredentials("c", "s", f"{server.origin}/token")
    match options.get("auth"):
        case "token":
            options["auth"] = oauth2
        case "chain":
            options["auth"] = CredentialChain(oauth2, BasicAuth("u", "p"))
    server.default = answer(200, ANSWER)
    holding: list[asyncio.Task[Any]] = []
    client: MFAClient
    before = 0

    async def make() -> None:
        await calls(client, template, operation, lane)

    ends = set()
    waits = 0
    for late in (False, True):
        at = 0
        while True:
            client = make_client(**options)
            prepare(server, situation)
            if situation in {"warm", "at a known rate", "with a refused token"}:
                await calls(client, template, operation, lane)
            if situation.startswith("behind others"):
                holding = [asyncio.create_task(calls(client, template, operation, lane))]
                await until(lambda: not server.script)  # it was read and is already counted
            last.event, before = None, server.sent
            suspensions = Suspensions(at, late=late)
            task = await suspensions.run(make())
            if holding:
                await asyncio.gather(*holding)
            await assert_whole(client)
            ends.add("cancelled" if task.cancelled() else "finished")
            event: CallEvent | None = last.event
            if task.cancelled() and event is not None and event.error_type == "CancelledError":
                await asyncio.sleep(0.01)  # requests in flight would arrive now
                ledger = server.sent - before
                assert ledger <= event.attempts, f"cancelled at wait {at}"
                if event.delivery is Delivery.NOT_SENT:
                    assert ledger == 0, f"cancelled at wait {at} and called not sent"
            server.script.clear()
            if options.get("auth") and client._executor.state.authorizer.select("verify_code").current() is None:
                server.play(TOKEN)
            await calls(client, template, operation, "interactive")
            await client.aclose()
            waits = max(waits, suspensions.count)
            if suspensions.count <= at:
                break
            at += 1
            assert at < 400
    assert ends == {"cancelled", "finished"}
    assert waits >= 1


@pytest.mark.virtual_time
async def test_cancelled_calls_return_their_permits(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """At one text per second: a call cancelled before its request is written delays no other call."""
    loop = asyncio.get_running_loop()
    client = make_client(limits=Limits(rate="1/s"))  # type: ignore[arg-type]
    await client.generate_messaging_code(template.to(TO))
    began, sent = loop.time(), len(server.seen)
    for _ in range(20):
        waiter = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
        await asyncio.sleep(0.01)
        waiter.cancel()
        await asyncio.wait([waiter])
        assert waiter.cancelled()
    await client.generate_messaging_code(template.to(TO))
    assert len(server.seen) == sent + 1
    assert loop.time() - began < 1.3


@pytest.mark.virtual_time
async def test_calls_cancelled_while_connecting_return_their_permits(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """At one text in ten seconds: each had its permit, none wrote a byte, and the next one is sent immediately."""
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(resolver=Resolver(*["hang"] * 5, ["127.0.0.1"]), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        base_url = f"http://mfa.localhost:{server.port}/api/v1"
        client = make_client(base_url=base_url, session=session, limits=Limits(rate="6/m"))  # type: ignore[arg-type]
        began = loop.time()
        for _ in range(5):
            connecting = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
            await asyncio.sleep(0.01)
            connecting.cancel()
            await asyncio.wait([connecting])
            assert connecting.cancelled()
        await client.generate_messaging_code(template.to(TO))
        assert len(server.seen) == 1
        assert loop.time() - began < 1.0
        await client.aclose()


@pytest.mark.uvloop
async def test_a_warm_up_cancelled_at_every_wait(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Opened connections are either in the pool or closed."""
    clients: list[MFAClient] = []

    def make() -> Any:
        clients.append(make_client())
        return clients[-1].warm_up(3)

    seen = set()
    async for _suspensions, task in every_suspension(make):
        seen.add(task.cancelled())
        await assert_whole(clients[-1])
        await clients[-1].generate_messaging_code(template.to(TO))
        await clients[-1].aclose()
        await until(lambda: server.open_connections == 0)
    assert seen == {True, False}


@pytest.mark.uvloop
@pytest.mark.parametrize("auth", ["basic", "token"])
async def test_a_close_cancelled_at_every_wait(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, auth: str
) -> None:
    """Calls in flight have their outcome, every connection is closed, and closing again returns immediately."""
    credentials = OAuth2ClientCredentials("c", "s", f"{server.origin}/token")
    options: dict[str, Any] = {"auth": credentials} if auth == "token" else {}
    for late in (False, True):
        at = 0
        while True:
            if options:
                server.play(TOKEN)
            client = make_client(**options)
            call = await hung_call(server, client.generate_messaging_code(template.to(TO)))
            if options:
                await until(lambda: len(server.seen) % 2 == 0)
            suspensions = Suspensions(at, late=late)
            closing = await suspensions.run(client.aclose(drain_timeout=0.001))
            assert closing.cancelled() or closing.exception() is None
            with pytest.raises(RequestError) as caught:
                await call
            assert caught.value.delivery in {Delivery.UNKNOWN, Delivery.NOT_SENT}
            await until(lambda: server.open_connections == 0)
            await client.aclose()
            server.script.clear()
            at += 1
            if suspensions.count < at:
                break


@pytest.mark.virtual_time
async def test_a_wait_for_a_receipt_cancelled_at_every_wait() -> None:
    """A tracker forgets a waiter that was cancelled."""
    tracker = DeliveryTracker()
    ends = set()
    async for _suspensions, task in every_suspension(lambda: tracker.wait("m-1", timeout=5)):
        ends.add(None if task.cancelled() else type(task.exception()))
    assert ends == {None, ReceiptTimeoutError}
    assert not tracker._waiting
