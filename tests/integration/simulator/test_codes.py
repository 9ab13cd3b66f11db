"""Codes, windows, scopes and lock-outs: examples over HTTP, and a state machine for `IssuedCodes`."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.simulator._issued_codes import MAX_WINDOW, IssuedCodes, Verdict
from tests.integration.simulator.conftest import TO, ApiClient

VALID = (200, {"valid": True})
INVALID = (200, {"valid": False})


def _wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}d}"


async def test_a_wrong_code_gets_200_and_valid_false(api, sim):
    await api.send()
    assert await api.verify(_wrong(sim.last_code(TO))) == INVALID
    assert sim.requests[-1].reason


async def test_a_number_without_a_code_gets_200_and_valid_false(api):
    """As in Bandwidth's live tests since 2021."""
    assert await api.verify("123456") == INVALID


async def test_the_verifier_chooses_the_window(api, sim, clock):
    """A code is valid if it was generated within the last n minutes."""
    await api.send()
    code = sim.last_code(TO)
    clock.tick(60)
    assert await api.verify(code, minutes=0.5) == INVALID
    assert await api.verify(code, minutes=1) == VALID
    assert await api.verify(code, minutes=15) == VALID
    clock.tick(15 * 60)
    assert await api.verify(code, minutes=15) == INVALID


async def test_several_codes_are_valid_at_the_same_time(api, sim, clock):
    await api.send()
    clock.tick(10)
    await api.send()
    first, second = (message.code for message in sim.inbox)
    assert await api.verify(first) == VALID
    assert await api.verify(second) == VALID


async def test_latest_code_only_replaces_the_earlier_codes_of_the_scope(session, clock):
    async with Simulator(clock=clock, latest_code_only=True) as sim:
        api = ApiClient(session, sim)
        for scope in ("login", "pay", "login"):
            await api.send(scope=scope)
        first, other, last = (message.code for message in sim.inbox)
        assert await api.verify(first) == INVALID
        assert await api.verify(other, scope="pay") == VALID
        assert await api.verify(last) == VALID


async def test_a_code_is_valid_only_for_its_scope(api, sim):
    await api.send()
    assert await api.verify(sim.last_code(TO), scope="transfer") == INVALID
    assert await api.verify(sim.last_code(TO)) == VALID


async def test_wrong_tries_lock_the_number_until_the_lock_expires(api, sim, clock):
    """The documented text says 2 minutes; Bandwidth's live test finds the lock gone after 30 s."""
    await api.send()
    await api.send(to="+19195550000")
    code = sim.last_code(TO)
    for _ in range(5):
        assert await api.verify(_wrong(code)) == INVALID
    status, body = await api.verify(code)
    assert status == 429
    assert body["error"] == "This number has exceeded verification attempts, please wait 2 minutes"
    assert body.keys() == {"error", "requestId"}
    assert await api.verify(sim.last_code("+19195550000"), to="+19195550000") == VALID
    clock.tick(29.9)
    assert (await api.verify(code))[0] == 429
    clock.tick(0.1)
    assert await api.verify(code) == VALID


async def test_options_set_the_behaviour_that_is_not_known(session, clock):
    async with Simulator(
        clock=clock, lockout_after=2, lockout_seconds=120, consume_on_success=True, reset_on_success=False
    ) as sim:
        api = ApiClient(session, sim)
        await api.send()
        code = sim.last_code(TO)
        assert await api.verify(_wrong(code)) == INVALID
        assert await api.verify(code) == VALID
        assert await api.verify(code) == INVALID
        clock.tick(119)
        assert (await api.verify(code))[0] == 429


@pytest.mark.parametrize("header", [None, "30"])
async def test_the_lock_out_has_a_retry_after_only_with_the_option(session, clock, header):
    async with Simulator(clock=clock, lockout_after=1, lockout_retry_after=header is not None) as sim:
        api = ApiClient(session, sim)
        await api.verify("123456")
        url = f"{sim.base_url}/accounts/{sim.account_id}/code/verify"
        body = {"to": TO, "scope": "login", "code": "123456", "expirationTimeInMinutes": 3}
        async with session.post(url, json=body, headers=api.basic) as response:
            assert response.status == 429
            assert response.headers.get("Retry-After") == header


def test_expired_codes_and_tries_are_removed():
    """Memory is bounded by the codes and tries within the window."""
    codes = IssuedCodes(random.Random(1))
    for second in range(20_000):
        codes.issue(f"+1{second:010d}", "login", 6, float(second))
        codes.verify(f"+1{second:010d}", "login", "x", 60.0, float(second))
    assert len(codes) <= MAX_WINDOW + 2
    assert len(codes.wrong_tries) <= MAX_WINDOW + 2


def test_with_a_limit_the_oldest_codes_and_tries_are_dropped():
    codes = IssuedCodes(random.Random(1), limit=100, lockout_after=1)
    issued = [codes.issue(f"+1{index % 150}", "login", 6, float(index)) for index in range(300)]
    assert len(codes) == len(codes._codes) == len(codes._expiry) == 100
    for index in (0, 199, 200, 299):
        verdict = codes.verify(f"+1{index % 150}", "login", issued[index], MAX_WINDOW, 300.0)
        assert verdict is (Verdict.VALID if index >= 200 else Verdict.INVALID)
    for index in range(300):
        codes.verify(f"+2{index}", "login", "x", 60.0, 300.0)
    assert len(codes.wrong_tries) == 100


class IssuedCodesMachine(RuleBasedStateMachine):
    """Compares `IssuedCodes` with a simple model."""

    NUMBERS = st.sampled_from(["+19195551234", "+447700900000"])
    SCOPES = st.sampled_from(["2FA", "login"])

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.codes = IssuedCodes(random.Random(5), lockout_after=3, lockout_seconds=30.0)
        self.issued: list[tuple[str, str, str, float]] = []
        self.wrong: dict[str, int] = {}
        self.last: dict[str, float] = {}
        self.locked: dict[str, float] = {}

    @rule(to=NUMBERS, scope=SCOPES, digits=st.integers(4, 8))
    def issue(self, to, scope, digits):
        code = self.codes.issue(to, scope, digits, self.clock.monotonic())
        assert len(code) == digits
        assert code.isdigit()
        self.issued.append((to, scope, code, self.clock.monotonic()))

    @rule(seconds=st.sampled_from([0.0, 1.0, 15.0, 29.5, 30.0, 60.0, 600.0, 900.0, 901.0]))
    def pass_time(self, seconds):
        self.clock.tick(seconds)

    @rule(to=NUMBERS, scope=SCOPES, minutes=st.sampled_from([0.25, 1, 10, 15]), pick=st.integers(0, 30))
    def verify(self, to, scope, minutes, pick):
        now = self.clock.monotonic()
        # Mostly codes that were issued for any number and scope; sometimes an unknown code.
        code = self.issued[pick % len(self.issued)][2] if self.issued and pick < 24 else "none"
        matches = any(
            (to, scope, code) == (number, what, live) and now - when <= minutes * 60
            for number, what, live, when in self.issued
        )
        if to in self.locked and now >= self.locked[to]:
            del self.locked[to]
            self.wrong[to] = 0
        if now - self.last.get(to, now) > MAX_WINDOW and to not in self.locked:
            self.wrong[to] = 0
        if to in self.locked:
            expected = Verdict.LOCKED
        elif matches:
            expected = Verdict.VALID
            self.wrong[to] = 0
        else:
            expected = Verdict.INVALID
            self.wrong[to] = self.wrong.get(to, 0) + 1
            self.last[to] = now
            if self.wrong[to] >= 3:
                self.locked[to] = now + 30.0
        assert self.codes.verify(to, scope, code, minutes * 60.0, now) is expected

    @rule()
    def clear(self):
        self.codes.clear()
        self.issued.clear()
        self.wrong.clear()
        self.last.clear()
        self.locked.clear()

    @invariant()
    def locks_agree(self):
        now = self.clock.monotonic()
        for number in ("+19195551234", "+447700900000"):
            assert self.codes.locked_for(number, now) == max(0.0, self.locked.get(number, now) - now)


TestIssuedCodesMachine = IssuedCodesMachine.TestCase
TestIssuedCodesMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
