"""Uses every public name, for type checkers; never run."""
# pyright: strict

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Any, Literal, assert_never, assert_type

from aiohttp import web
from taskiq import AsyncBroker

from bandwidth_mfa_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BasicAuth,
    BulkSender,
    BulkSummary,
    ClientStateError,
    CodeRequest,
    CodeTemplate,
    ConfigurationError,
    ConnectTimeoutError,
    CredentialChain,
    DeadlineExceededError,
    Delivery,
    DeliveryUnknownError,
    DisconnectedError,
    GuardRefusedError,
    InvalidRequestError,
    ItemOutcome,
    JournalError,
    JournalReport,
    KeyInFlightError,
    LedgerError,
    Limits,
    LoggingHook,
    MemoryStore,
    MessagingCodeResponse,
    MFAClient,
    MFAError,
    NotFoundError,
    NotSentError,
    OAuth2ClientCredentials,
    PermissionDeniedError,
    Rate,
    RateLimitError,
    ReadTimeoutError,
    RedisLimits,
    RedisStore,
    RequestError,
    Resend,
    ResponseDecodeError,
    ResponseMeta,
    RetryPolicy,
    ServerError,
    SQLiteJournal,
    SQLiteStore,
    StoreError,
    TLSError,
    VerificationLockedError,
    VerifyCodeRequest,
    VerifyCodeResponse,
    VoiceCodeResponse,
    __version__,
    normalize_code,
)
from bandwidth_mfa_async.bulk import OutcomeStream
from bandwidth_mfa_async.signin import Check, Guard, SignIn, SignIns, Ticket, UnverifiedBudget
from bandwidth_mfa_async.simulator import (
    AccountLimits,
    Fault,
    Faults,
    InvalidFaultError,
    InvalidOptionError,
    Message,
    ReceiptPolicy,
    ReceiptState,
    RequestRecord,
    Simulator,
    SimulatorError,
    SimulatorStateError,
    StateFileError,
    count_segments,
    wait_until_ready,
)
from bandwidth_mfa_async.stores import (
    Argument,
    Change,
    KeyRecord,
    KeyStatus,
    Records,
    Reply,
    Step,
    Store,
    StoredRecord,
    TransactionalStore,
    load_scripts,
    store_from_url,
)
from bandwidth_mfa_async.telemetry import (
    LOGGER_NAME,
    AttemptEvent,
    CallEvent,
    CallStartedEvent,
    CredentialSwitchedEvent,
    Event,
    HookList,
    LimitChangedEvent,
    LimitWaitEvent,
    OpenTelemetryHook,
    SendsPausedEvent,
    SignInEvent,
)
from bandwidth_mfa_async.telemetry import Hook as HookProtocol
from bandwidth_mfa_async.testing import Clock, FakeTransport, ManualClock, Outcome, SentRequest, ThreadedSimulator
from bandwidth_mfa_async.webhooks import (
    DeliveryReceipt,
    DeliveryTracker,
    ErrorFamily,
    OnReceipt,
    OtherEventError,
    ReceiptASGIApp,
    ReceiptTimeoutError,
    ReceiverOptions,
    WebhookError,
    add_receipt_route,
    error_family,
    parse_delivery_receipt,
    receipt_asgi_app,
    receipt_handler,
)
from bandwidth_mfa_async.worker import CodeOutcome, Job, JobOutcome, JobProgress, MFAWorker, RedisLedger, known_jobs


class Hook:
    def on_event(self, event: Event) -> None:
        match event:
            case CallStartedEvent():
                assert_type(event.url, str)
            case AttemptEvent():
                assert_type(event.status, int | None)
            case CallEvent():
                assert_type(event.delivery, Delivery)
            case LimitWaitEvent() | SendsPausedEvent():
                assert_type(event.seconds, float)
            case LimitChangedEvent():
                assert_type(event.rate, float)
            case CredentialSwitchedEvent():
                assert_type(event.current, Literal["basic", "oauth2"])
            case SignInEvent():
                assert_type(event.region, str | None)
            case _:
                assert_never(event)


async def use() -> None:
    template = CodeTemplate("+19195554321", "app", scope="login", digits=8)
    request = template.to("+19195551234")
    assert_type(request, CodeRequest)
    async with MFAClient(
        account_id="9900000",
        auth=CredentialChain(OAuth2ClientCredentials("id", "secret"), BasicAuth("user", "pass"), probe_after=60.0),
        retry=RetryPolicy(max_attempts=5, resend=Resend.NEVER_TWICE),
        limits=Limits(rate=Rate(60, per=60), voice_rate=Rate.parse("5/s"), max_in_flight=10),
        hooks=[Hook(), LoggingHook(), OpenTelemetryHook()],
    ) as mfa:
        assert_type(mfa, MFAClient)
        await mfa.warm_up(2)
        sent = await mfa.generate_messaging_code(request, timeout=5.0, lane="bulk")
        assert_type(sent, MessagingCodeResponse)
        assert_type(sent.message_id, str)
        assert_type(sent.meta, ResponseMeta)
        keyed = await mfa.generate_messaging_code(request, idempotency_key="login:42", not_after=datetime.now(UTC))
        assert_type(keyed.meta.replayed, bool)
        called = await mfa.generate_voice_code(request, idempotency_key="login:42", not_after=1.8e9)
        assert_type(called, VoiceCodeResponse)
        check = await mfa.verify_code(to="+19195551234", code="123456", scope="login", expiration_time_in_minutes=1.5)
        assert_type(check, VerifyCodeResponse)
        assert_type(check.valid, bool)
        assert_type(normalize_code("123 456"), str)
        again = await mfa.verify_code(VerifyCodeRequest("+19195551234", "123456"))
        assert_type(again.valid, bool)
        view = mfa.with_options(timeout=3.0, limits=Limits(), hooks=[])
        assert_type(view, MFAClient)
        try:
            await view.generate_messaging_code(request)
        except RateLimitError as error:
            assert_type(error.retry_after, float | None)
            assert_type(error.local, bool)
        except APIStatusError as error:
            assert_type(error.status, int)
            assert_type(error.error_text, str | None)
        except RequestError as error:
            assert_type(error.delivery, Delivery)
            assert_type(error.attempts, int)
        except InvalidRequestError as error:
            assert_type(error.field, str)
    MFAClient.from_env(auth=OAuth2ClientCredentials("id", "secret", token_url="https://example.com/token"))


async def simulate() -> None:
    async with Simulator(seed=1) as sim, MFAClient(**sim.client_kwargs()) as mfa:
        sim.faults.script(Fault(status=503), Fault(drop="after_read"), operation="messaging")
        sim.faults.chance(Fault(status=429, headers={"Retry-After": "1"}), 0.1)
        await mfa.verify_code(to="+19195551234", code="123456")
        assert_type(sim.inbox, list[Message])
        message = await sim.wait_for_message("+19195551234", timeout=1.0)
        assert_type(message.code, str)


def errors(error: MFAError) -> str:
    match error:
        case ConfigurationError() | ClientStateError() | JournalError() | LedgerError():
            return str(error)
        case InvalidRequestError():
            return error.rule
        case ConnectTimeoutError() | TLSError() | NotSentError():
            assert_type(error.delivery, Delivery)
        case KeyInFlightError() | StoreError():
            assert_type(error.retryable, bool)
        case GuardRefusedError():
            assert_type(error.clearable, bool)
        case ReadTimeoutError() | DisconnectedError() | ResponseDecodeError() | DeliveryUnknownError():
            assert_type(error.elapsed, float)
        case DeadlineExceededError():
            assert_type(error.retry_after, float | None)
        case VerificationLockedError():
            assert_type(error.local, bool)
        case BadRequestError() | AuthenticationError() | PermissionDeniedError() | NotFoundError() | ServerError():
            assert_type(error.status, int)
        case _:
            pass
    caught: ConnectionError | TimeoutError = NotSentError()
    return f"{caught}, {__version__}"


async def sign_ins(mfa: MFAClient, template: CodeTemplate) -> str | None:
    guard = Guard(regions={"US"}, total="1000/h", unverified=UnverifiedBudget({"US": 2000}, observe_first="7d"))
    signins = SignIns(mfa, {"en": template, "de": template}, guard=guard, cooldown=(30, 60), store=MemoryStore())
    flow: SignIn = await signins.start("+19195551234", visitor="198.51.100.7", subject="7", idempotency_key="k")
    flow = await signins.resend(flow.id)
    flow = await signins.call(flow.id)
    assert_type(flow.delivery, Delivery)
    assert_type(await signins.get(flow.id), SignIn | None)
    check: Check = await signins.check(flow.id, "123456")
    await signins.cancel(flow.id)
    await signins.done(flow.id)
    ticket: Ticket = await guard.admit("+19195551234", visitor="198.51.100.7", cleared=True)
    await ticket.release()
    await ticket.verified()
    assert_type(check.number, str | None)
    return check.subject


async def stores(step: Step) -> KeyRecord:
    store: Store = MemoryStore(lease=30.0, retention=86_400.0, max_records=1_000)
    store = store_from_url("sqlite:///codes.db")
    store = SQLiteStore("codes.db", max_size=10_000_000, allow_network_mount=True)
    store = RedisStore("redis://127.0.0.1", cluster=False, prefix="mfa", require_aof=False, confirm="replica")
    load_scripts(step)
    assert_type(await store.run(step, ["k:1f"], ["1f", 2], deadline=1.0), list[Any])
    record = await store.get("1f", "2a", deadline=1.0)
    assert_type(record.status, KeyStatus)
    assert_type(record.possible_duplicate, bool | None)
    return record


class PostgresStore(TransactionalStore):
    async def transact(self, keys: Sequence[str], change: Change, *, deadline: float, is_read: bool) -> Reply:
        found: list[StoredRecord | None] = [None for _ in keys]
        reply, _ = change(found, 0)
        return reply

    async def counts(self, *, deadline: float) -> dict[str, dict[str, int]]:
        return {}

    async def aclose(self) -> None:
        pass


def count(records: Records, args: Sequence[Argument], now: int) -> Reply:
    record = records[0] or {"n": 0, "e": now + 1000}
    record["n"] += 1
    records.save(0, record)
    return [record["n"]]


COUNT = Step("count", count)


async def launch(mfa: MFAClient, template: CodeTemplate) -> BulkSummary:
    journal = SQLiteJournal("launch.db", run="november", template=template)
    async with BulkSender(mfa, journal=journal, ordered=True, drain_timeout=5.0) as bulk:
        assert_type(bulk, BulkSender)
        stream = bulk.send(["+19195551234"], template=template)
        assert_type(stream, OutcomeStream)
        async for outcome in stream:
            assert_type(outcome, ItemOutcome)
            assert_type(outcome.request, CodeRequest | None)
            assert_type(outcome.response, MessagingCodeResponse | VoiceCodeResponse | None)
            assert_type(outcome.error, MFAError | None)
        bulk.send((template.to(number) for number in ["+19195551234"]), key=lambda request: request.to)
        # Numbers need a template, and there are two channels.
        bulk.send(["+19195551234"])  # type: ignore[list-item] # ty: ignore[invalid-argument-type]
        BulkSender(mfa, channel="sms")  # type: ignore[arg-type] # ty: ignore[invalid-argument-type]
        bulk.stop()
    assert_type(JournalReport.read("launch.db").created, datetime)
    return bulk.summary


def shared() -> Limits:
    return Limits(shared=RedisLimits("redis://localhost", key="9900000", fallback_rate="5/s", required=True))


class MyClient(MFAClient):
    """`Self`: constructors of a client return the subclass."""


async def subclass() -> None:
    assert_type(MyClient.from_env(limits=shared(), proxy=None), MyClient)
    async with MyClient.from_env(hooks=[Hook()]) as mfa:
        assert_type(mfa, MyClient)
        assert_type(mfa.with_options(timeout=1.0), MyClient)


def simulator_parts(sim: Simulator) -> list[type[SimulatorError]]:
    assert_type(sim.faults, Faults)
    assert_type(sim.requests, list[RequestRecord])
    assert_type(sim.ssl_context, SSLContext | None)
    assert_type(sim.inbox[-1].receipt, ReceiptState)
    sim.set_limits(messaging=AccountLimits(rate=60, per=60), voice=AccountLimits.voice(retry_after=True))
    sim.set_credentials(basic=False)
    sim.set_receipts(ReceiptPolicy(failed_share=0.5))
    assert_type(sim.control_token, str | None)
    assert_type(sim.inbox[-1].verified, float | None)
    sim.resend_receipt(sim.inbox[-1])
    assert_type(sim.faults.remove(1, 2), bool)
    assert_type(count_segments("text"), int)
    return [InvalidFaultError, InvalidOptionError, SimulatorStateError, StateFileError]


async def tests() -> None:
    await wait_until_ready("http://127.0.0.1:4010", 30.0)
    clock = ManualClock()
    steps: Clock = clock
    await clock.advance(1.0)
    with ThreadedSimulator(seed=1, clock=steps) as sim:
        assert_type(sim, ThreadedSimulator)
        assert_type(sim.last_code("+19195551234"), str)
    fake = FakeTransport()
    fake.script(Outcome.answer(503, {"error": "no"}), Outcome.accepted("m-1"), Outcome.unknown())
    async with fake.client(clock=clock, retry=RetryPolicy(max_attempts=1)) as mfa:
        assert_type(mfa, MFAClient)
    assert_type(fake.sent, list[SentRequest])


async def receipts(app: web.Application, body: bytes) -> ErrorFamily | None:
    tracker = DeliveryTracker(max_age=60.0)
    options: ReceiverOptions = {"auth": BasicAuth("user", "pass")}
    callback: OnReceipt = tracker
    add_receipt_route(app, "/mfa/receipts", callback, **options)
    app.router.add_post("/other", receipt_handler(tracker))
    assert_type(receipt_asgi_app(tracker), ReceiptASGIApp)
    try:
        receipt = await tracker.wait("m-1", 10.0)
    except ReceiptTimeoutError:
        receipt = parse_delivery_receipt(body)
    except OtherEventError as error:
        return error_family(len(error.type))
    except WebhookError:
        return error_family(4720)
    assert_type(receipt, DeliveryReceipt)
    assert_type(receipt.delivered, bool)
    return receipt.error_family


def hooks() -> HookList:
    mine: HookProtocol = Hook()
    logging.getLogger(LOGGER_NAME)
    return HookList([mine])


async def work(broker: AsyncBroker, ledger: RedisLedger) -> None:
    template = CodeTemplate("+19195554321", "app", scope="login")
    async with MFAWorker(broker, ledger=ledger, client=MFAClient.from_env) as codes:
        assert_type(await codes.send_code.kiq(template.to("+19195551234"), key="login:42"), str)
        assert_type(await codes.send_code.outcome("login:42"), CodeOutcome | None)
        job = await codes.submit(["+19195551234"], name="launch", chunk=500, template=template)
        assert_type(job, Job)
        await codes.submit(["+19195551234"], name="x")  # type: ignore[list-item] # ty: ignore[invalid-argument-type]
        async for progress in job.watch():
            assert_type(progress, JobProgress)
            assert_type(progress.ending, str | None)
        async for outcome in job.outcomes():
            assert_type(outcome, JobOutcome)
            assert_type(outcome.delivery, Delivery)
            assert_type(outcome.provider_id, str | None)
        await codes.job("launch").cancel()
        assert_type(await job.resume(), JobProgress)
    assert_type(await known_jobs(ledger), list[Job])


asyncio.run(use())


def truth_value(check: VerifyCodeResponse) -> None:
    """Type checkers reject a check as a condition: what follows is unreachable, as `bool(check)` raises."""
    if check:  # pyright: ignore[reportGeneralTypeIssues]
        repr(check)  # type: ignore[unreachable]
