"""No frame of this package holds a number, a code, a text or a credential when an entry point raises."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import pathlib
import tempfile
import zlib
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from taskiq import InMemoryBroker

from bandwidth_mfa_async import (
    BasicAuth,
    BulkSender,
    ClientStateError,
    CodeRequest,
    CodeTemplate,
    CredentialChain,
    DeliveryUnknownError,
    InvalidRequestError,
    LedgerError,
    MemoryStore,
    MFAClient,
    OAuth2ClientCredentials,
    RedisLimits,
    RedisStore,
    SQLiteJournal,
    StoreError,
    VerifyCodeRequest,
    cli,
    normalize_code,
)
from bandwidth_mfa_async._frames import clear_locals
from bandwidth_mfa_async.signin import Guard, SignIns
from bandwidth_mfa_async.simulator import Fault, ReceiptPolicy, Simulator, _state_file
from bandwidth_mfa_async.stores import store_from_url
from bandwidth_mfa_async.testing import FakeTransport, Outcome, ThreadedSimulator
from bandwidth_mfa_async.webhooks import (
    DeliveryTracker,
    add_receipt_route,
    parse_delivery_receipt,
    receipt_asgi_app,
    receipt_handler,
)
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger
from bandwidth_mfa_async.worker.ledger._codec import pack_code, unpack_code, unpack_keys, unpack_requests
from tests.support.crash_reports import our_frames, shown
from tests.support.fault_server import refused_port
from tests.support.secrets import SENTINELS, assert_clean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

NUMBER, CODE, TEXT = SENTINELS["to"], SENTINELS["code"], SENTINELS["message"]
PASSWORD, HOOK = SENTINELS["password"], SENTINELS["callback_url"]
BASIC = BasicAuth(SENTINELS["username"], PASSWORD)
TEMPLATE = CodeTemplate(SENTINELS["from_"], "app", "login", TEXT, 8)
REQUEST = TEMPLATE.to(NUMBER)
DEAD_REDIS = f"redis://s3ntinel:s3ntinel@127.0.0.1:{refused_port()}/0"
GOOD: dict[str, Any] = {"to": NUMBER, "from_": SENTINELS["from_"], "application_id": "app", "message": TEXT}
VERIFY: dict[str, Any] = {"to": NUMBER, "code": CODE}
LEDGER = {"ledger": RedisLedger(DEAD_REDIS, timeout=0.2), "client": MFAClient.from_env}


def client(**options: Any) -> MFAClient:
    return FakeTransport().client(auth=BASIC, **options)


class Broken(str):
    """A number whose validation fails with an error that is not of this package."""

    __slots__ = ()

    def startswith(self, *_: object) -> bool:
        raise ZeroDivisionError

    def encode(self, *_: object) -> bytes:
        raise ZeroDivisionError


def numbers() -> Iterator[str]:
    yield NUMBER
    raise KeyError("the input failed")


async def requests() -> AsyncIterator[CodeRequest]:
    yield REQUEST
    raise KeyError("the input failed")


# Values.

VALUES: dict[str, Callable[[], object]] = {
    **{f"request: {name}": lambda name=name, value=value: CodeRequest(**(GOOD | {name: value})) for name, value in {
        "to": NUMBER + "x", "from_": NUMBER + " ", "application_id": NUMBER * 9, "scope": NUMBER * 9,
        "message": "s3ntinel", "digits": 90817263, "callback_url": HOOK.replace("https", "ftp"),
    }.items()},
    "request: surrogate": lambda: CodeRequest(**(GOOD | {"message": TEXT + "\ud800"})),
    "request: bytes": lambda: CodeRequest(**(GOOD | {"to": NUMBER.encode()})),
    "request: unknown keyword": lambda: CodeRequest(**GOOD, number=NUMBER),
    "request: missing": lambda: CodeRequest(to=NUMBER),  # type: ignore[call-arg]
    "template": lambda: CodeTemplate(NUMBER + "x", "app", "login", TEXT),
    "template.to": lambda: TEMPLATE.to(NUMBER + "x"),
    "template.to: list": lambda: TEMPLATE.to([NUMBER]),  # type: ignore[arg-type]
    "evolve": lambda: attrs.evolve(REQUEST, to=NUMBER + "x"),
    "verify request": lambda: VerifyCodeRequest(NUMBER, CODE + "x"),
    "verify request: minutes": lambda: VerifyCodeRequest(NUMBER, CODE, expiration_time_in_minutes=99),
    "verify request: int": lambda: VerifyCodeRequest(NUMBER, int(CODE)),  # type: ignore[arg-type]
    "normalize_code": lambda: normalize_code(int(CODE)),  # type: ignore[arg-type]
    "BasicAuth": lambda: BasicAuth("s3ntinel:user", PASSWORD),
    "BasicAuth: newline": lambda: BasicAuth("s3ntinel", PASSWORD + "\n"),
    "BasicAuth: bytes": lambda: BasicAuth("s3ntinel", PASSWORD.encode()),  # type: ignore[arg-type]
    "BasicAuth: surrogate": lambda: BasicAuth("s3ntinel", PASSWORD + "\ud800"),
    "OAuth2": lambda: OAuth2ClientCredentials("s3ntinel", PASSWORD, "http://s3ntinel:s3ntinel@example.com"),
    "CredentialChain": lambda: CredentialChain(("s3ntinel", PASSWORD), BASIC),  # type: ignore[arg-type]
    "client: auth": lambda: MFAClient("9", ("s3ntinel", PASSWORD)),  # type: ignore[arg-type]
    "client: account": lambda: MFAClient(NUMBER, BASIC),
    "client: base_url": lambda: MFAClient("9", BASIC, base_url="https://s3ntinel:s3ntinel@example.com"),
    "client: proxy": lambda: MFAClient("9", BASIC, proxy="socks5://s3ntinel:s3ntinel@example.com"),
    "client: set": lambda: setattr(client(), "auth", PASSWORD),
    "from_env": lambda: MFAClient.from_env(auth=(PASSWORD,), account_id="9"),  # type: ignore[arg-type]
    "RedisLimits": lambda: RedisLimits(DEAD_REDIS + "?nonsense=s3ntinel", key="9"),
    "RedisStore": lambda: RedisStore(DEAD_REDIS + "?nonsense=s3ntinel"),
    "store_from_url": lambda: store_from_url(DEAD_REDIS.replace("redis:", "s3ntinel:")),
    "RedisLedger": lambda: RedisLedger(DEAD_REDIS.replace("redis:", "http:")),
    "MFAWorker": lambda: MFAWorker(InMemoryBroker(), ledger=DEAD_REDIS + "?x=s3ntinel", client=client),
    "BulkSender": lambda: BulkSender(NUMBER),  # type: ignore[arg-type]
    "BulkSender.send": lambda: BulkSender(client()).send([NUMBER, TEXT], template=TEXT),  # type: ignore[call-overload]
    "BulkSender.send: outside": lambda: BulkSender(client()).send([NUMBER], template=TEMPLATE),
    "SQLiteJournal": lambda: SQLiteJournal("x.db", template=NUMBER),  # type: ignore[arg-type]
    "receipt": lambda: parse_delivery_receipt({"type": "x", "description": f"to {NUMBER}"}),
    "receipt: not JSON": lambda: parse_delivery_receipt(f'{{"text": "{NUMBER} s3ntinel'.encode()),
    "receipt: not UTF-8": lambda: parse_delivery_receipt(NUMBER.encode() + b"\xff"),
    "receipt: deep": lambda: parse_delivery_receipt("[" * 90_000 + NUMBER),
    "receipt_handler": lambda: receipt_handler(print, auth=("s3ntinel", PASSWORD)),  # type: ignore[arg-type]
    "receipt_asgi_app": lambda: receipt_asgi_app(print, auth=("s3ntinel", PASSWORD)),  # type: ignore[arg-type]
    "add_receipt_route": lambda: add_receipt_route(None, "/", print, auth=PASSWORD),  # type: ignore[arg-type]
    "Simulator": lambda: Simulator(password=PASSWORD, client_secret="s3ntinel", token_lifetime=-1),
    "faults.script": lambda: Simulator().faults.script(Fault(), to=NUMBER, operation="token"),
    "faults.chance": lambda: Simulator().faults.chance(Fault(), 2, to=NUMBER),
    "Simulator.last_code": lambda: Simulator().last_code(NUMBER),
    "ThreadedSimulator": lambda: ThreadedSimulator(password=PASSWORD, token_lifetime=-1),
    "ReceiptPolicy": lambda: ReceiptPolicy(password=PASSWORD),
    "FakeTransport.client": lambda: FakeTransport().client(auth=PASSWORD),  # type: ignore[typeddict-item]
    "ledger: requests": lambda: unpack_requests(zlib.compress(json.dumps({"t": [], "r": [[0, NUMBER]]}).encode())),
    "ledger: keys": lambda: unpack_keys(zlib.compress(json.dumps({"x": [NUMBER]}).encode())),
    "ledger: code": lambda: unpack_code(json.dumps(["messaging", NUMBER + "x", "s3ntinel"])),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_wrong_value_stays_in_no_frame(name: str) -> None:
    """Of constructors and functions, wherever the value comes from."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each has its own class
        VALUES[name]()
    assert our_frames(caught.value), "no frame was looked at"
    assert_clean(shown(caught.value), name)


# Calls.


async def _voice(request: Any) -> object:
    async with client() as mfa:
        return await mfa.generate_voice_code(request)


async def _text(request: Any, **options: Any) -> object:
    async with client() as mfa:
        return await mfa.generate_messaging_code(request, **options)


async def _verify(*arguments: Any, **keywords: Any) -> object:
    async with client() as mfa:
        return await mfa.verify_code(*arguments, **keywords)


async def _fails(outcome: Outcome | Callable[[Any], Outcome]) -> object:
    fake = FakeTransport()
    fake.always(outcome)
    async with fake.client(auth=BASIC) as mfa:
        return await mfa.verify_code(**VERIFY)


async def _bulk(source: Any, **options: Any) -> object:
    async with client() as mfa, BulkSender(mfa) as bulk:
        return [outcome async for outcome in bulk.send(source, **options)]


class _BrokenStore(MemoryStore):
    """A store that fails in some steps."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken

    async def run(self, step: Any, *args: Any, **options: Any) -> Any:
        if step.name.startswith(self.broken):
            raise StoreError("the store cannot be used")
        return await super().run(step, *args, **options)


async def _keyed(broken: str = "-", key: Any = "login:42", **options: Any) -> object:
    """Fail in a call with an idempotency key."""
    store = _BrokenStore(broken)
    async with client(store=store) as mfa:
        if options:
            await mfa.generate_messaging_code(TEMPLATE.to("+19195550000"), idempotency_key=key)
        return await mfa.generate_messaging_code(REQUEST, idempotency_key=key)


async def _sign_in(
    work: Callable[[SignIns, str], Any], *, outcome: Outcome | None = None, broken: str = "-", **options: Any
) -> object:
    """Fail in a flow that has started."""
    fake = FakeTransport()
    store = _BrokenStore("-")
    async with fake.client(auth=BASIC) as mfa:
        # A ninth digit more or less does not make a real number of it.
        signins = SignIns(mfa, TEMPLATE, store=store, **({"guard": Guard(premium=True), "max_checks": 20} | options))
        flow = await signins.start(NUMBER, visitor="s3ntinel", subject="s3ntinel")
        store.broken = broken
        if outcome is not None:
            fake.always(outcome)
        return await work(signins, flow.id)


async def _guard(work: Callable[[Guard], Any], broken: str = "ticket_admit") -> object:
    return await work(Guard(store=_BrokenStore(broken)))


async def _release(name: str) -> object:
    ticket = await Guard(store=_BrokenStore("ticket_end")).admit(NUMBER, visitor="s3ntinel")
    return await getattr(ticket, name)()


async def _provider() -> object:
    async with client() as mfa:
        mfa._executor.state.authorizer = None  # type: ignore[assignment] - a bug of ours
        return await mfa.verify_code(**VERIFY)


async def _bug_while_encoding() -> object:
    request = TEMPLATE.to(NUMBER)
    object.__setattr__(request, "to", Broken(NUMBER))
    async with client() as mfa:
        return await mfa.generate_messaging_code(request)


async def _wait_for_message() -> object:
    async with Simulator() as sim:
        return await sim.wait_for_message(NUMBER, timeout=0)


async def _resend_receipt() -> object:
    async with Simulator() as sim, MFAClient(**sim.client_kwargs()) as mfa:
        await mfa.generate_messaging_code(REQUEST)
        sim.resend_receipt(sim.inbox[0])
    return None


async def _damaged_state(damage: Callable[[bytes], bytes]) -> object:
    """Start with a state file that has a message and is damaged after the simulator was made."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state"
        async with Simulator(state=path) as sim, MFAClient(**sim.client_kwargs()) as mfa:
            await mfa.generate_messaging_code(REQUEST)
        whole = path.read_bytes()
        late = Simulator(state=path)
        path.write_bytes(damage(whole))
        await late.start()
    return None


def _of_another_version(whole: bytes) -> bytes:
    """Append a record that is whole and not understood."""
    checksum = int(whole.splitlines()[-1][:8], 16)
    return whole + _state_file._line({"kind": "other", "to": NUMBER}, checksum)[0]


async def _receive(cancel: bool) -> object:
    async def callback(_receipt: object) -> None:
        await asyncio.Event().wait()

    app = receipt_asgi_app(callback)
    body = json.dumps({"type": "message-failed", "message": {"id": "m"}, "description": f"to {NUMBER}"}).encode()
    task = asyncio.create_task(app._receiver.receive(body))
    await asyncio.sleep(0)
    assert cancel
    task.cancel()
    return await task


CALLS: dict[str, Callable[[], Any]] = {
    "send: a number": lambda: _text(NUMBER),
    "send: a template": lambda: _text(TEMPLATE),
    "send: a dict": lambda: _text(GOOD),
    "send: timeout": lambda: _text(REQUEST, timeout=-1),
    "send: lane": lambda: _text(REQUEST, lane="x"),
    "send: a key without a store": lambda: _text(REQUEST, idempotency_key="login:42"),
    "send: a wrong key": lambda: _keyed(key=b"login:42"),
    "send: a key of another request": lambda: _keyed(other=True),
    "send: a store that fails": lambda: _keyed("key_claim"),
    "send: too late": lambda: _text(REQUEST, not_after=1.0),
    "send: not_after": lambda: _text(REQUEST, not_after="2030"),
    "call: a number": lambda: _voice(NUMBER),
    "call: a callback": lambda: _voice(attrs.evolve(REQUEST, callback_url=HOOK)),
    "verify: code": lambda: _verify(**(VERIFY | {"code": CODE + "x"})),
    "verify: number": lambda: _verify(**(VERIFY | {"to": NUMBER + "x"})),
    "verify: keyword": lambda: _verify(**VERIFY, number=NUMBER),
    "verify: a keyword that is a value": lambda: _verify(**VERIFY, **{NUMBER: CODE}),
    "verify: missing": lambda: _verify(code=CODE),
    "verify: both": lambda: _verify(VerifyCodeRequest(**VERIFY), **VERIFY),
    "verify: a number": lambda: _verify(NUMBER),
    "verify: a number and keywords": lambda: _verify(NUMBER, code=CODE),
    "verify: timeout": lambda: _verify(**VERIFY, timeout="x"),
    "verify: 400": lambda: _fails(Outcome.answer(400, {"error": f"{NUMBER} {CODE}"})),
    "verify: unknown": lambda: _fails(Outcome.unknown()),
    "verify: not sent": lambda: _fails(Outcome.not_sent()),
    "verify: a script that raises": lambda: _fails(lambda sent: Outcome.answer(sent.document["code"])),
    "a bug in a call": _provider,
    "a bug while encoding": _bug_while_encoding,
    "bulk: a failing input": lambda: _bulk(numbers(), template=TEMPLATE),
    "bulk: a failing async input": lambda: _bulk(requests()),
    "bulk: a str": lambda: _bulk(NUMBER, template=TEMPLATE),
    "bulk: a generator with a bad number": lambda: _bulk(TEMPLATE.to(number) for number in [NUMBER, NUMBER + "x"]),
    "sign-in: the store": lambda: _sign_in(lambda s, _: s.start(NUMBER, subject="s3ntinel"), broken="flow_start"),
    "sign-in: cool-down": lambda: _sign_in(lambda s, _: s.start(NUMBER, visitor="s3ntinel")),
    "sign-in: invalid": lambda: _sign_in(lambda s, _: s.start(NUMBER + "x", visitor="s3ntinel")),
    "sign-in: subject": lambda: _sign_in(lambda s, _: s.start(NUMBER, subject=7)),  # type: ignore[arg-type]
    "sign-in: not sent": lambda: _sign_in(lambda s, f: s.resend(f), outcome=Outcome.not_sent(), cooldown=0),
    "sign-in: rejected": lambda: _sign_in(lambda s, f: s.resend(f), outcome=Outcome.answer(400), cooldown=0),
    "sign-in: resend": lambda: _sign_in(lambda s, f: s.resend(f), broken="flow_send", cooldown=0),
    "sign-in: call": lambda: _sign_in(lambda s, f: s.call(f)),
    "sign-in: check, the store": lambda: _sign_in(lambda s, f: s.check(f, CODE), broken="flow_check"),
    "sign-in: check, the store later": lambda: _sign_in(lambda s, f: s.check(f, CODE), broken="flow_checked"),
    "sign-in: check, 400": lambda: _sign_in(lambda s, f: s.check(f, CODE), outcome=Outcome.answer(400)),
    "sign-in: check, unknown": lambda: _sign_in(lambda s, f: s.check(f, CODE), outcome=Outcome.unknown()),
    "sign-in: check, bytes": lambda: _sign_in(lambda s, f: s.check(f, CODE.encode())),  # type: ignore[arg-type]
    "sign-in: get": lambda: _sign_in(lambda s, f: s.get(f), broken="flow_get"),
    "sign-in: cancel": lambda: _sign_in(lambda s, f: s.cancel(f), broken="flow_end"),
    "sign-in: done": lambda: _sign_in(lambda s, f: s.done(f), broken="flow_end"),
    "guard: the store": lambda: _guard(lambda guard: guard.admit(NUMBER, visitor="s3ntinel")),
    "guard: a number": lambda: _guard(lambda guard: guard.admit(NUMBER.encode())),  # type: ignore[arg-type]
    "guard: release": lambda: _release("release"),
    "guard: verified": lambda: _release("verified"),
    "simulator": _wait_for_message,
    "simulator: receipt": _resend_receipt,
    "simulator: damaged state": lambda: _damaged_state(lambda whole: whole.replace(b'"kind"', b'"kinD"')),
    "simulator: state of another version": lambda: _damaged_state(_of_another_version),
    "receipt: cancelled": lambda: _receive(cancel=True),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_failing_call_holds_no_value_in_a_frame(name: str) -> None:
    """Wrong arguments, failing inputs, bugs, and cancellations."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - each has its own class
        await CALLS[name]()
    assert our_frames(caught.value), "no frame was looked at"
    assert_clean(shown(caught.value), name)


WORKER: dict[str, Callable[[MFAWorker], Any]] = {
    "kiq: the ledger": lambda worker: worker.send_code.kiq(REQUEST, key=NUMBER, timeout=5),
    "kiq: a number": lambda worker: worker.send_code.kiq(NUMBER, key=NUMBER),  # type: ignore[arg-type]
    "kiq: key": lambda worker: worker.send_code.kiq(REQUEST, key=NUMBER * 99),
    "kiq: keyword": lambda worker: worker.send_code.kiq(REQUEST, key=NUMBER, text=TEXT),  # type: ignore[call-arg]
    "kiq: channel": lambda worker: worker.send_code.kiq(REQUEST, key=NUMBER, channel="x"),
    "enqueue: the ledger": lambda worker: worker.send_code.enqueue(REQUEST, key=NUMBER, timeout=5),
    "outcome: the ledger": lambda worker: worker.send_code.outcome(NUMBER),
    "submit: the ledger": lambda worker: worker.submit([NUMBER], name="x", template=TEMPLATE),
    "submit: a str": lambda worker: worker.submit(NUMBER, name="x", template=TEMPLATE),
    "submit: template": lambda worker: worker.submit([NUMBER], name="x", template=TEXT),  # type: ignore[arg-type]
    "submit: name": lambda worker: worker.submit([NUMBER], name="x y", template=TEMPLATE),
}


@pytest.mark.parametrize("name", WORKER)
async def test_a_failing_worker_holds_no_value_in_a_frame(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Redis: errors of the ledger, and of arguments."""

    async def unavailable(*_: object) -> None:
        raise LedgerError("the ledger cannot be used")

    async def unchecked(**_: object) -> None:
        """Do not wait for it."""

    ledger = RedisLedger(DEAD_REDIS, timeout=0.2)
    monkeypatch.setattr(ledger.connection, "script", unavailable)
    monkeypatch.setattr(ledger, "check", unchecked)
    worker = MFAWorker(InMemoryBroker(), ledger=ledger, client=client)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each has its own class
        await WORKER[name](worker)
    await worker.aclose()
    assert our_frames(caught.value), "no frame was looked at"
    assert_clean(shown(caught.value), name)


async def test_a_cancelled_worker_holds_no_value_in_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits for Redis."""
    release = asyncio.Event()

    async def hang(*_: object) -> None:
        await release.wait()
        raise LedgerError("the ledger cannot be used")

    ledger = RedisLedger(DEAD_REDIS)
    monkeypatch.setattr(ledger.connection, "script", hang)
    worker = MFAWorker(InMemoryBroker(), ledger=ledger, client=client)
    task = asyncio.create_task(worker.send_code.kiq(REQUEST, key="k"))
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert_clean(shown(caught.value), "the cancellation")
    release.set()
    await ledger.aclose()


async def test_the_errors_of_bulk_outcomes_hold_no_value() -> None:
    """They are stored and not raised, but a program may log or raise them."""

    def key(request: CodeRequest) -> str:
        number = request.to
        raise ValueError(number)

    outcomes: Any = await _bulk([NUMBER + "x", 7, NUMBER, Broken(NUMBER)], template=TEMPLATE, key=key)
    errors = [outcome.error for outcome in outcomes]
    assert len(errors) == 4
    for error in errors:
        assert isinstance(error, InvalidRequestError)
        assert_clean(shown(error), "an outcome")


def test_an_uncaught_error_of_the_command_line_holds_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arguments are numbers and codes."""
    monkeypatch.setattr("sys.argv", ["bandwidth-mfa", "verify", NUMBER, CODE])

    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("bandwidth_mfa_async.cli._app.VerifyCodeRequest", broken)
    monkeypatch.setenv("BW_ACCOUNT_ID", "9")
    monkeypatch.setenv("BW_USERNAME", "s3ntinel")
    monkeypatch.setenv("BW_PASSWORD", PASSWORD)
    with pytest.raises(ZeroDivisionError) as caught:
        cli.main()
    assert our_frames(caught.value), "no frame was looked at"
    assert_clean(shown(caught.value), "the command line")


async def test_a_tracker_and_a_closed_client_have_nothing_to_hide() -> None:
    """Ids of messages are no secrets; a request shows none of its values."""
    with pytest.raises(TimeoutError) as late:
        await DeliveryTracker().wait("m", timeout=0)
    assert_clean(shown(late.value), "the tracker")
    mfa = client()
    await mfa.aclose()
    with pytest.raises(ClientStateError) as closed:
        await mfa.verify_code(**VERIFY)
    assert_clean(shown(closed.value), "a closed client")


def test_every_entry_point_is_in_a_table() -> None:
    """A public class or method whose parameters may be secret has a case above."""
    risky = {"to", "number", "code", "request", "requests", "message", "callback_url", "password", "client_secret",
             "auth", "key", "url", "ledger", "body", "text", "proxy", "username", "client_id", "from_"}  # fmt: skip
    source = pathlib.Path(__file__).read_text()
    missing = set()
    for cls in (CodeRequest, CodeTemplate, VerifyCodeRequest, BasicAuth, OAuth2ClientCredentials, MFAClient, BulkSender,
                RedisLimits, RedisLedger, MFAWorker, SignIns, Guard, Simulator, ReceiptPolicy,
                FakeTransport):  # fmt: skip
        for name, member in vars(cls).items():
            function = getattr(member, "__func__", member)
            if not inspect.isfunction(function) or (name.startswith("_") and name != "__init__"):
                continue
            if risky & inspect.signature(function).parameters.keys():
                wanted = f"{cls.__name__}(" if name == "__init__" else f".{name}("
                if wanted not in source:
                    missing.add(f"{cls.__name__}.{name}")
    # Operations of the ledger that only this package calls, below `submit`, `kiq` and the workers.
    assert {name for name in missing if not name.startswith("RedisLedger.")} == set()


# The mechanism.


async def test_clearing_does_not_end_a_suspended_coroutine() -> None:
    """A frame in an old traceback may belong to a coroutine that continues."""
    kept: list[BaseException] = []
    release = asyncio.Event()
    namespace: dict[str, Any] = {"__name__": "bandwidth_mfa_async.made", "kept": kept, "release": release}
    code = (
        "async def survive():\n"
        "    secret = 's3ntinel'\n"
        "    try:\n"
        "        1 / 0\n"
        "    except ZeroDivisionError as error:\n"
        "        kept.append(error)\n"
        "    await release.wait()\n"
        "    return secret\n"
        "def ended():\n"
        "    secret = 's3ntinel'\n"
        "    raise kept[0]\n"
    )
    exec(compile(code, "made.py", "exec"), namespace)
    task = asyncio.create_task(namespace["survive"]())
    await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError) as caught:
        namespace["ended"]()
    clear_locals(caught.value)
    frames = []
    traceback = caught.value.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    assert [frame.f_locals.get("secret") for frame in frames[1:]] == [None, "s3ntinel"]
    release.set()
    assert await task == "s3ntinel"
    gc.collect()


def test_a_hidden_context_of_an_error_of_a_caller_stays() -> None:
    """Only what this package hides is removed."""
    theirs, ours = ValueError(), InvalidRequestError("to", "x")
    for error in (theirs, ours):
        error.__context__, error.__suppress_context__ = KeyError(NUMBER), True
        clear_locals(error)
    assert isinstance(theirs.__context__, KeyError)
    assert ours.__context__ is None


def test_the_stored_form_of_a_code_is_a_secret() -> None:
    """It waits in frames and queues of the ledger."""
    packed, _ = pack_code(REQUEST, "messaging")
    assert_clean(repr(packed), "the packed code")
    assert unpack_code(packed) == ("messaging", REQUEST)
    assert isinstance(DeliveryUnknownError(), Exception)
