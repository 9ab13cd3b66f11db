"""Sign-in flows against the simulator: the table of `check`, one success, caps, cool-downs, keys and failures."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    BadRequestError,
    CodeTemplate,
    ConfigurationError,
    Delivery,
    DeliveryUnknownError,
    GuardRefusedError,
    InvalidRequestError,
    MemoryStore,
    MFAClient,
    NotSentError,
    PermissionDeniedError,
    RequestError,
    ServerError,
    StoreError,
    VerificationLockedError,
)
from bandwidth_mfa_async.signin import Guard, SignIn, SignIns
from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.testing import ManualClock
from tests.support.signins import LOGIN, NUMBER, OTHER, VISITOR, VOICE, Events, wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async.stores import Store


async def begin(signins: SignIns, number: str = NUMBER, **options: Any) -> SignIn:
    return await signins.start(number, **({"visitor": VISITOR, "subject": "user 7"} | options))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that the client is asked to make."""
    seen: list[Any] = []
    for name in ("generate_messaging_code", "generate_voice_code", "verify_code"):
        original = getattr(MFAClient, name)

        async def record(self: MFAClient, request: Any, original: Any = original, **options: Any) -> Any:
            seen.append(request)
            return await original(self, request, **options)

        monkeypatch.setattr(MFAClient, name, record)
    return seen


async def test_a_sign_in(make: Callable[..., SignIns], sim: Simulator, events: Events) -> None:
    signins = make()
    flow = await begin(signins)
    assert (flow.delivery, flow.masked_number) == (Delivery.ACCEPTED, "+***34")
    assert (flow.resend_in, flow.sends_left, flow.checks_left, flow.expires_in) == (30, 2, 5, 600)
    assert not flow.can_call
    assert flow.id not in repr(flow)
    check = await signins.check(flow.id, sim.inbox[-1].code)
    assert (check.valid, check.number, check.subject, check.reason) == (True, NUMBER, "user 7", None)
    assert NUMBER not in repr(check)
    assert "user 7" not in repr(check)
    with pytest.raises(TypeError, match=r"use \.valid"):
        bool(check)
    assert events.kinds == ["started", "sent", "verified"]
    assert {event.region for event in events.seen} == {"US"}


class TestCheck:
    """The table of `check` in the design."""

    async def test_malformed_keeps_the_try(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make()
        flow = await begin(signins)
        asked = len(sim.requests)
        for typed in ("", "12345", "1234567", "abcdef", "12345x", "1" * 200, "\u200b"):
            check = await signins.check(flow.id, typed)
            assert (check.valid, check.reason, check.checks_left) == (False, "malformed", 5)
        assert len(sim.requests) == asked

    @pytest.mark.parametrize("form", ["{0}-{1}", " {0} {1}\n", "{0}\u200b{1}", "\uff11", "{0}\u2011{1}"])
    async def test_what_people_type_is_put_right(self, make: Callable[..., SignIns], sim: Simulator, form: str) -> None:
        signins = make()
        flow = await begin(signins)
        code = sim.inbox[-1].code
        typed = form.format(code[:3], code[3:])
        if form == "\uff11":
            typed = "".join(chr(0xFF10 + int(digit)) for digit in code)
        assert (await signins.check(flow.id, typed)).valid

    async def test_right_first_and_right_later(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make()
        flow = await begin(signins)
        code = sim.inbox[-1].code
        assert (await signins.check(flow.id, code)).valid
        asked = len(sim.requests)
        for typed in (code, wrong(code)):
            check = await signins.check(flow.id, typed)
            assert (check.valid, check.reason, check.number, check.subject) == (False, "used", None, None)
        assert len(sim.requests) == asked

    async def test_wrong_spends_a_try_and_the_last_one_ends_the_flow(
        self, make: Callable[..., SignIns], sim: Simulator
    ) -> None:
        signins = make(max_checks=3)
        flow = await begin(signins)
        code = sim.inbox[-1].code
        left = [(await signins.check(flow.id, wrong(code))).checks_left for _ in range(3)]
        assert left == [2, 1, 0]
        asked = len(sim.requests)
        check = await signins.check(flow.id, code)
        assert (check.valid, check.reason, check.checks_left) == (False, "exhausted", 0)
        assert len(sim.requests) == asked
        with pytest.raises(GuardRefusedError) as refused:
            await signins.resend(flow.id)
        assert refused.value.reason == "expired"

    @pytest.mark.parametrize("flow_id", [None, "", "unknown", "x" * 500, "\ud800", "é"])
    async def test_an_unknown_flow(self, make: Callable[..., SignIns], flow_id: str | None) -> None:
        signins = make()
        check = await signins.check(flow_id, "123456")
        assert (check.valid, check.reason, check.checks_left) == (False, "expired", 0)
        assert await signins.get(flow_id) is None
        await signins.cancel(flow_id)
        await signins.done(flow_id)
        with pytest.raises(GuardRefusedError) as refused:
            await signins.resend(flow_id)
        assert refused.value.reason == "expired"
        assert not refused.value.retryable

    async def test_a_flow_of_another_purpose_or_account(
        self, make: Callable[..., SignIns], sim: Simulator, store: Store
    ) -> None:
        flow = await begin(make())
        code = sim.inbox[-1].code
        assert (await make(purpose="payment").check(flow.id, code)).reason == "expired"
        async with MFAClient(**sim.client_kwargs() | {"account_id": "1234567"}) as other:
            assert (await SignIns(other, LOGIN, store=store).check(flow.id, code)).reason == "expired"

    async def test_too_late(self, make: Callable[..., SignIns], sim: Simulator, clock: ManualClock) -> None:
        signins = make(lifetime=120)
        flow = await begin(signins)
        clock.tick(119.9)
        assert (await signins.get(flow.id)).expires_in == 1  # type: ignore[union-attr]
        clock.tick(0.1)
        assert (await signins.check(flow.id, sim.inbox[-1].code)).reason == "expired"
        state = await signins.get(flow.id)
        assert state is None or state.expires_in == 0

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (Fault(status=400), BadRequestError),
            (Fault(status=403), PermissionDeniedError),
            (Fault(status=500, body={"error": "sorry", "requestId": "r"}), ServerError),
            (Fault(status=429), VerificationLockedError),
            (None, NotSentError),
        ],
        ids=["400", "403", "500", "429", "no connection"],
    )
    async def test_what_the_service_did_not_check_gives_the_try_back(
        self, make: Callable[..., SignIns], mfa: MFAClient, sim: Simulator, fault: Fault | None, kind: type[Exception]
    ) -> None:
        signins = make()
        flow = await begin(signins)
        if fault is None:
            await sim.refuse_connections()
            with suppress(RequestError):  # the open connection is lost
                await mfa.verify_code(to=OTHER, code="123456")
        else:
            sim.faults.script(fault, operation="verify")
        with pytest.raises(kind):
            await signins.check(flow.id, sim.inbox[-1].code)
        if fault is None:
            await sim.accept_connections()
        assert (await signins.get(flow.id)).checks_left == 5  # type: ignore[union-attr]
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid

    async def test_an_unknown_outcome_spends_the_try(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make()
        flow = await begin(signins)
        sim.faults.script(Fault(drop="after_read"), operation="verify")
        with pytest.raises(DeliveryUnknownError):
            await signins.check(flow.id, sim.inbox[-1].code)
        assert (await signins.get(flow.id)).checks_left == 4  # type: ignore[union-attr]
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid

    async def test_a_code_that_is_no_text(self, make: Callable[..., SignIns]) -> None:
        signins = make()
        flow = await begin(signins)
        with pytest.raises(InvalidRequestError, match="code"):
            await signins.check(flow.id, 123456)  # type: ignore[arg-type]


class TestSends:
    async def test_each_text_has_the_flows_scope_and_reads_as_before(
        self, make: Callable[..., SignIns], sim: Simulator
    ) -> None:
        template = CodeTemplate(
            LOGIN.from_, LOGIN.application_id, scope="a long scope of mine", message="{SCOPE}: {CODE}"
        )
        signins = make(template, cooldown=0)
        first = await begin(signins)
        await signins.resend(first.id)
        await begin(signins)
        texts = list(sim.inbox)
        assert [text.text for text in texts] == [f"a long scope of mine: {text.code}" for text in texts]
        scopes = [text.scope for text in texts]
        assert scopes[0] == scopes[1] != scopes[2]
        for scope in scopes:
            assert scope.startswith("a long scope-")
            assert len(scope) == 25
            assert set(scope[13:]) <= set("abcdefghijklmnopqrstuvwxyz234567")

    async def test_a_code_of_another_flow_is_wrong(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make(cooldown=0)
        first, second = await begin(signins), await begin(signins)
        codes = [text.code for text in sim.inbox]
        assert (await signins.check(second.id, codes[0])).reason == "wrong"
        assert (await signins.check(first.id, codes[0])).valid

    async def test_all_codes_of_a_flow_are_right_to_its_end(
        self, make: Callable[..., SignIns], sim: Simulator, clock: ManualClock, requests: list[Any]
    ) -> None:
        """The service is asked for the age of the flow in minutes."""
        signins = make(lifetime=600)
        flow = await begin(signins)
        clock.tick(590)
        await signins.resend(flow.id)
        clock.tick(305)
        assert (await signins.check(flow.id, sim.inbox[0].code)).valid
        assert requests[-1].expiration_time_in_minutes == 15

    @pytest.mark.parametrize(("age", "minutes"), [(0, 1), (59.9, 1), (60, 1), (60.1, 2), (600, 10)])
    async def test_the_window_is_the_age(
        self, make: Callable[..., SignIns], requests: list[Any], clock: ManualClock, age: float, minutes: int
    ) -> None:
        signins = make(lifetime=900)
        flow = await begin(signins)
        clock.tick(age)
        await signins.check(flow.id, "000000")
        assert requests[-1].expiration_time_in_minutes == minutes

    async def test_cooldowns_and_the_number_of_texts(
        self, make: Callable[..., SignIns], clock: ManualClock, sim: Simulator
    ) -> None:
        signins = make()
        flow = await begin(signins)
        clock.tick(29)
        with pytest.raises(GuardRefusedError) as refused:
            await signins.resend(flow.id)
        assert (refused.value.reason, refused.value.retry_after) == ("cooldown", 1.0)
        clock.tick(1)
        flow = await signins.resend(flow.id)
        assert (flow.resend_in, flow.sends_left, flow.expires_in) == (60, 1, 600)
        clock.tick(60)
        flow = await signins.resend(flow.id)
        assert (flow.resend_in, flow.sends_left) == (60, 0)
        clock.tick(60)
        with pytest.raises(GuardRefusedError) as refused:
            await signins.resend(flow.id)
        assert (refused.value.reason, refused.value.retry_after) == ("sends", None)
        assert len(sim.inbox) == 3

    async def test_a_cooldown_holds_for_a_new_flow_of_the_number(
        self, make: Callable[..., SignIns], clock: ManualClock
    ) -> None:
        signins = make()
        await begin(signins)
        with pytest.raises(GuardRefusedError) as refused:
            await begin(make(purpose="another"))
        assert refused.value.reason == "cooldown"
        await begin(signins, OTHER)
        clock.tick(30)
        assert (await begin(signins)).resend_in == 60

    async def test_a_success_ends_the_cooldown(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make()
        flow = await begin(signins)
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid
        assert (await begin(signins)).resend_in == 30

    async def test_a_flow_never_lives_longer_than_15_minutes(
        self, make: Callable[..., SignIns], clock: ManualClock
    ) -> None:
        signins = make(lifetime=600)
        flow = await begin(signins)
        clock.tick(500)
        assert (await signins.resend(flow.id)).expires_in == 400

    @pytest.mark.parametrize("fault", [Fault(status=400), Fault(status=403), None], ids=["400", "403", "no connection"])
    async def test_a_text_that_was_not_sent_counts_for_nothing(
        self, make: Callable[..., SignIns], sim: Simulator, store: Any, clock: ManualClock, fault: Fault | None
    ) -> None:
        signins = make(guard=Guard(per_number="1/h", total="1/h"))
        for _ in range(3):
            if fault is None:
                await sim.refuse_connections()
            else:
                sim.faults.script(fault, operation="messaging")
            with pytest.raises(RequestError) as failed:
                await begin(signins)
            assert not isinstance(failed.value, GuardRefusedError)
            if fault is None:
                await sim.accept_connections()
        assert not [name for name in store._records if name.startswith("f:")]
        flow = await begin(signins)
        assert flow.sends_left == 2

    async def test_a_resend_that_was_not_sent_counts_for_nothing(
        self, make: Callable[..., SignIns], sim: Simulator, clock: ManualClock
    ) -> None:
        signins = make()
        flow = await begin(signins)
        clock.tick(40)
        for _ in range(4):
            sim.faults.script(Fault(status=403), operation="messaging")
            with pytest.raises(PermissionDeniedError):
                await signins.resend(flow.id)
        known = await signins.get(flow.id)
        assert known is not None
        assert (known.sends_left, known.resend_in, known.expires_in) == (2, 0, 560)
        assert (await signins.resend(flow.id)).sends_left == 1

    async def test_an_unknown_outcome_counts_as_sent(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make()
        sim.faults.script(Fault(drop="after_read"), operation="messaging")
        flow = await begin(signins)
        assert (flow.delivery, flow.sends_left, flow.resend_in) == (Delivery.UNKNOWN, 2, 30)
        known = await signins.get(flow.id)
        assert known is not None
        assert known.delivery is Delivery.UNKNOWN
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid

    async def test_a_voice_call(
        self, make: Callable[..., SignIns], sim: Simulator, clock: ManualClock, requests: list[Any]
    ) -> None:
        signins = make(voice_template=VOICE)
        flow = await begin(signins)
        assert flow.can_call
        clock.tick(30)
        flow = await signins.call(flow.id)
        assert (flow.sends_left, sim.inbox[-1].channel) == (1, "voice")
        assert sim.inbox[-1].scope == sim.inbox[0].scope
        assert requests[-1].application_id == VOICE.application_id
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid

    async def test_a_voice_call_without_a_template(self, make: Callable[..., SignIns]) -> None:
        signins = make()
        flow = await begin(signins)
        with pytest.raises(ConfigurationError, match="voice_template"):
            await signins.call(flow.id)

    async def test_languages(self, make: Callable[..., SignIns], sim: Simulator, clock: ManualClock) -> None:
        def in_language(message: str) -> CodeTemplate:
            return CodeTemplate(LOGIN.from_, LOGIN.application_id, scope="login", message=message)

        templates = {"en": in_language("code {CODE}"), "de": in_language("Code lautet {CODE}")}
        signins = make(templates)
        for number, language, beginning in (
            (NUMBER, "de-CH", "Code lautet"),
            (OTHER, "xx", "code"),
            ("+19195550101", None, "code"),
        ):
            flow = await begin(signins, number, language=language)
            assert sim.inbox[-1].text.startswith(beginning)
        clock.tick(30)
        first = await begin(signins, language="de")
        clock.tick(60)
        await signins.resend(first.id)
        assert sim.inbox[-1].text.startswith("Code lautet")
        assert flow.id != first.id


class TestIdempotencyKey:
    async def test_a_double_click_waits_for_the_first_and_gets_the_same_flow(
        self, make: Callable[..., SignIns], sim: Simulator
    ) -> None:
        signins = make()
        sim.faults.script(Fault(delay=0.2), operation="messaging")
        flows = await asyncio.gather(*(begin(signins, idempotency_key="form-1") for _ in range(5)))
        assert len({flow.id for flow in flows}) == 1
        assert {flow.delivery for flow in flows} == {Delivery.ACCEPTED}
        assert len(sim.inbox) == 1
        assert (await begin(signins, idempotency_key="form-1")).id == flows[0].id

    async def test_a_key_of_another_number(self, make: Callable[..., SignIns]) -> None:
        signins = make()
        await begin(signins, idempotency_key="form-1")
        with pytest.raises(InvalidRequestError, match="idempotency_key"):
            await begin(signins, OTHER, idempotency_key="form-1")

    async def test_a_key_whose_text_was_not_sent_sends(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make()
        sim.faults.script(Fault(status=403), operation="messaging")
        with pytest.raises(PermissionDeniedError):
            await begin(signins, idempotency_key="form-1")
        assert (await begin(signins, idempotency_key="form-1")).delivery is Delivery.ACCEPTED
        assert len(sim.inbox) == 1

    async def test_a_key_of_a_flow_that_has_ended_sends_nothing(
        self, make: Callable[..., SignIns], sim: Simulator, clock: ManualClock
    ) -> None:
        signins = make()
        flow = await begin(signins, idempotency_key="form-1")
        await signins.cancel(flow.id)
        assert (await begin(signins, idempotency_key="form-1")).expires_in == 0
        clock.tick(21 * 60)
        with pytest.raises(GuardRefusedError) as refused:
            await begin(signins, idempotency_key="form-1")
        assert refused.value.reason == "expired"
        assert len(sim.inbox) == 1


async def test_a_small_correction_of_the_clock_ends_no_flow(
    make: Callable[..., SignIns], sim: Simulator, clock: Any
) -> None:
    signins = make(lifetime=900)
    flow = await begin(signins)
    clock._wall_offset -= 0.5
    assert (await signins.check(flow.id, sim.inbox[-1].code)).valid


class TestSendFalse:
    async def test_it_looks_like_a_flow_and_sends_nothing(
        self, make: Callable[..., SignIns], sim: Simulator, clock: ManualClock
    ) -> None:
        signins = make(max_checks=2, voice_template=VOICE)
        real = await begin(signins, OTHER)
        fake = await begin(signins, send=False)
        assert len(sim.inbox) == 1
        shown = [(f.delivery, f.resend_in, f.sends_left, f.checks_left, f.expires_in, f.can_call) for f in (real, fake)]
        assert shown[0] == shown[1]
        with pytest.raises(GuardRefusedError):
            await signins.resend(fake.id)
        clock.tick(30)
        assert (await signins.resend(fake.id)).sends_left == 1
        clock.tick(60)
        assert (await signins.call(fake.id)).sends_left == 0
        asked = len(sim.requests)
        checks = [await signins.check(fake.id, "123456") for _ in range(3)]
        assert [check.reason for check in checks] == ["wrong", "wrong", "exhausted"]
        assert (len(sim.requests), len(sim.inbox)) == (asked, 1)


class TestEnds:
    async def test_cancel(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make()
        flow = await begin(signins)
        await signins.cancel(flow.id)
        assert (await signins.check(flow.id, sim.inbox[-1].code)).reason == "expired"
        known = await signins.get(flow.id)
        assert known is not None
        assert (known.expires_in, known.sends_left, known.checks_left) == (0, 0, 0)

    async def test_done_ends_the_flow(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make(guard=Guard(per_visitor="1/h"))
        flow = await begin(signins)
        await signins.done(flow.id)
        assert (await signins.check(flow.id, sim.inbox[-1].code)).reason == "expired"
        await begin(signins, OTHER)


async def test_simultaneous_checks_have_one_success(make: Callable[..., SignIns], sim: Simulator) -> None:
    signins = make(max_checks=20)
    flow = await begin(signins)
    checks = await asyncio.gather(*(signins.check(flow.id, sim.inbox[-1].code) for _ in range(20)))
    assert sum(check.valid for check in checks) == 1
    assert {check.reason for check in checks} <= {None, "used"}


async def test_parallel_guesses_reach_the_service_max_checks_times(
    make: Callable[..., SignIns], sim: Simulator
) -> None:
    signins = make()
    flow = await begin(signins)
    code = sim.inbox[-1].code
    asked = len(sim.requests)
    guesses = [f"{n:06}" for n in range(200) if f"{n:06}" != code]
    checks = await asyncio.gather(*(signins.check(flow.id, guess) for guess in guesses))
    assert len(sim.requests) - asked == 5
    assert sum(check.reason == "wrong" for check in checks) == 5


class BrokenStore(MemoryStore):
    """A store that fails from a step on, once or for ever."""

    fails: frozenset[str] = frozenset()

    async def run(self, step: Any, keys: Any, args: Any, **options: Any) -> Any:
        if step.name in self.fails:
            raise StoreError("the store cannot be used")
        return await super().run(step, keys, args, **options)


class TestFailClosed:
    @pytest.fixture
    def store(self, clock: ManualClock) -> BrokenStore:
        return BrokenStore(clock=clock)

    async def test_nothing_uncounted_is_sent(
        self, make: Callable[..., SignIns], store: BrokenStore, sim: Simulator, clock: ManualClock
    ) -> None:
        signins = make()
        store.fails = frozenset({"flow_start"})
        with pytest.raises(StoreError):
            await begin(signins)
        store.fails = frozenset()
        flow = await begin(signins)
        clock.tick(60)
        for step in ("flow_get", "flow_send"):
            store.fails = frozenset({step})
            with pytest.raises(StoreError):
                await signins.resend(flow.id)
        assert len(sim.inbox) == 1

    async def test_no_one_is_let_in(self, make: Callable[..., SignIns], store: BrokenStore, sim: Simulator) -> None:
        signins = make()
        flow = await begin(signins)
        code = sim.inbox[-1].code
        for step in ("flow_check", "flow_checked"):
            store.fails = frozenset({step})
            with pytest.raises(StoreError):
                await signins.check(flow.id, code)
        store.fails = frozenset()
        check = await signins.check(flow.id, code)
        assert (check.valid, check.checks_left) == (True, 3)

    async def test_a_store_that_is_lost_after_the_text(
        self, make: Callable[..., SignIns], store: BrokenStore, sim: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The outcome is returned, and the text stays counted."""
        signins = make()
        store.fails = frozenset({"flow_sent"})
        with caplog.at_level(logging.WARNING):
            flow = await begin(signins)
        assert "could not be stored" in caplog.text
        assert flow.delivery is Delivery.ACCEPTED
        store.fails = frozenset()
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid

    async def test_a_store_that_is_lost_after_a_failure(
        self, make: Callable[..., SignIns], store: BrokenStore, sim: Simulator
    ) -> None:
        signins = make()
        store.fails = frozenset({"flow_sent"})
        sim.faults.script(Fault(status=403), operation="messaging")
        with pytest.raises(PermissionDeniedError):
            await begin(signins)
        store.fails = frozenset({"flow_checked"})
        flow = await begin(signins, OTHER)
        sim.faults.script(Fault(status=403), operation="verify")
        with pytest.raises(PermissionDeniedError):
            await signins.check(flow.id, "123456")

    async def test_a_process_that_dies_with_its_text_in_flight(
        self, make: Callable[..., SignIns], store: BrokenStore, sim: Simulator, clock: ManualClock
    ) -> None:
        """A second click with the same key gets the flow; after the timeout the outcome is unknown."""
        signins = make(timeout=0.3)
        store.fails = frozenset({"flow_sent"})
        flow = await begin(signins, idempotency_key="form")
        store.fails = frozenset()
        again = await begin(signins, idempotency_key="form")
        assert (again.id, again.delivery) == (flow.id, Delivery.UNKNOWN)
        clock.tick(10)
        assert (await begin(signins, idempotency_key="form")).delivery is Delivery.UNKNOWN
        assert len(sim.inbox) == 1


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"max_sends": 0}, "max_sends"),
            ({"max_checks": 101}, "max_checks"),
            ({"max_checks": True}, "max_checks"),
            ({"cooldown": -1}, "cooldown"),
            ({"cooldown": (30, "60")}, "cooldown"),
            ({"cooldown": 901}, "cooldown"),
            ({"lifetime": 59}, "lifetime"),
            ({"lifetime": 901}, "lifetime"),
            ({"timeout": 0}, "timeout"),
            ({"timeout": 46}, "timeout"),
            ({"purpose": ""}, "purpose"),
            ({"template": "text"}, "template"),
            ({"template": {}}, "template"),
            ({"voice_template": {"en": None}}, "voice_template"),
        ],
    )
    async def test_a_wrong_option_is_named(
        self, make: Callable[..., SignIns], options: dict[str, Any], name: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"^{name}: "):
            make(**options)

    async def test_a_store_is_needed(self, mfa: MFAClient) -> None:
        with pytest.raises(ConfigurationError, match=r"SQLiteStore.*RedisStore.*MemoryStore"):
            SignIns(mfa, LOGIN)

    async def test_the_clients_store(self, sim: Simulator) -> None:
        store = MemoryStore()
        async with MFAClient(**sim.client_kwargs(), store=store) as mfa:
            await begin(SignIns(mfa, LOGIN))
        assert store._records

    async def test_the_stores_of_guard_and_flows_are_one(self, mfa: MFAClient) -> None:
        store = MemoryStore()
        with pytest.raises(ConfigurationError, match="guard"):
            SignIns(mfa, LOGIN, store=MemoryStore(), guard=Guard(store=store))
        signins = SignIns(mfa, LOGIN, guard=Guard(store=store))
        await begin(signins)
        assert store._records

    @pytest.mark.parametrize(
        "options", [{"subject": 7}, {"visitor": 7}, {"language": 7}, {"region": 7}, {"idempotency_key": ""}]
    )
    async def test_wrong_arguments_of_start(self, make: Callable[..., SignIns], options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(InvalidRequestError, match=f"^{name}: "):
            await begin(make(), **options)

    async def test_scopes_that_differ_need_a_purpose(self, make: Callable[..., SignIns]) -> None:
        other = CodeTemplate(LOGIN.from_, LOGIN.application_id, scope="other")
        with pytest.raises(ConfigurationError, match=r"^purpose: "):
            make({"en": LOGIN, "de": other})
        make({"en": LOGIN, "de": other}, purpose="login")

    async def test_without_a_guard(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make(guard=None, cooldown=0)
        for _ in range(12):
            await begin(signins, "+19005551234")
        assert len(sim.inbox) == 12


UNKNOWNS = list(itertools.product((True, False), (True, False), (2, 5), (True, False), (True, False)))


@pytest.mark.parametrize(("consume", "reset", "lockout_after", "retry_after", "latest_only"), UNKNOWNS)
async def test_flows_do_not_depend_on_what_the_service_does_not_document(
    consume: bool, reset: bool, lockout_after: int, retry_after: bool, latest_only: bool, clock: ManualClock
) -> None:
    """Whether a code is consumed, a resend invalidates the older one, success resets the count, and tries lock."""
    options: dict[str, Any] = {"consume_on_success": consume, "lockout_retry_after": retry_after}
    options["latest_code_only"] = latest_only
    async with (
        Simulator(lockout_after=lockout_after, lockout_seconds=0.05, reset_on_success=reset, **options) as sim,
        MFAClient(**sim.client_kwargs()) as mfa,
    ):
        store = MemoryStore(clock=clock)
        signins = SignIns(mfa, LOGIN, store=store, guard=Guard(per_number="100/h"), cooldown=0)
        first = await begin(signins)
        await signins.resend(first.id)
        old, new = (text.code for text in sim.inbox)
        assert (await signins.check(first.id, old)).reason == ("wrong" if latest_only else None)
        assert not latest_only or (await signins.check(first.id, new)).valid
        assert (await signins.check(first.id, old)).reason == "used"
        assert (await signins.check(first.id, new)).reason == "used"
        second = await begin(signins)
        left = 5
        code = sim.inbox[-1].code
        for guess in (old, new, wrong(code)):
            if guess == code:
                continue
            try:
                check = await signins.check(second.id, guess)
            except VerificationLockedError:
                await asyncio.sleep(0.06)
            else:
                left -= 1
                assert (check.reason, check.checks_left) == ("wrong", left)
        await asyncio.sleep(0.06)
        check = await signins.check(second.id, code)
        assert (check.valid, check.checks_left) == (True, left - 1)
