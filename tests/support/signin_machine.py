"""A Hypothesis state machine over the sign-in flows of one number, with one model for all stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bandwidth_mfa_async import (
    DeliveryUnknownError,
    GuardRefusedError,
    NotSentError,
    PermissionDeniedError,
    RetryPolicy,
)
from bandwidth_mfa_async.signin import Guard, SignIns
from bandwidth_mfa_async.testing import FakeTransport, Outcome
from tests.support.signins import LOGIN, NUMBER, WallClock

CODE, WRONG = "123456", "654321"
COOLDOWN, LIFETIME, MAX_SENDS, MAX_CHECKS, PER_HOUR = (30, 60), 600, 3, 3, 4
OUTCOMES = {
    "accepted": Outcome.accepted(),
    "not sent": Outcome.not_sent(),
    "rejected": Outcome.answer(403),
    "unknown": Outcome.unknown(),
}
FAILURES = {"not sent": NotSentError, "rejected": PermissionDeniedError, "unknown": DeliveryUnknownError}
PICK = st.sampled_from([lambda found: found[-1], lambda found: found[0]])


@define(eq=False)
class ModelFlow:
    """One flow, as the model knows it."""

    id: str
    texts: list[float] = field(factory=list)
    checks: int = 0
    state: str = "open"

    @property
    def expires(self) -> float:
        return min(self.texts[-1] + LIFETIME, self.texts[0] + 900)


class SignInMachine(RuleBasedStateMachine):
    """Subclasses make the store."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = WallClock()
        self.fake = FakeTransport(code=CODE)
        self.store = self.make_store(self.clock)
        self.runner.run(self.open())
        self.flows: list[ModelFlow] = []
        # The number's texts that its limits count, and its last text and streak before each of them.
        self.counted: list[float] = []
        self.last, self.streak = -1e9, 0

    def make_store(self, clock):
        raise NotImplementedError

    async def open(self):
        self.mfa = self.fake.client(retry=RetryPolicy(max_attempts=1))
        guard = Guard(per_number=f"{PER_HOUR}/h", per_visitor=None, total="1000/h")
        options: dict[str, Any] = {"cooldown": COOLDOWN, "max_sends": MAX_SENDS, "max_checks": MAX_CHECKS}
        self.signins = SignIns(self.mfa, LOGIN, store=self.store, guard=guard, lifetime=LIFETIME, **options)

    def teardown(self):
        async def close() -> None:
            await self.mfa.aclose()
            await self.store.aclose()

        self.runner.run(close())
        self.runner.close()

    # What the model says.

    @property
    def now(self):
        return self.clock.wall

    def is_open(self, flow):
        return flow.state == "open" and self.now < flow.expires

    def refusal(self, flow=None):
        """Return the reason and the wait of a refused text, or None."""
        if flow is not None and not self.is_open(flow):
            return "expired", None
        if flow is not None and len(flow.texts) >= MAX_SENDS:
            return "sends", None
        if (left := self.last + self.cooldown() - self.now) > 0:
            return "cooldown", left
        recent = [at for at in self.counted if at > self.now - 3600]
        if len(recent) >= PER_HOUR:
            return "number", recent[len(recent) - PER_HOUR] + 3600 - self.now
        return None

    def cooldown(self):
        streak = self.streak if self.now - self.last < 900 else 0
        return COOLDOWN[min(streak, len(COOLDOWN)) - 1] if streak else 0

    def send(self, work, outcome, flow=None):
        """Send a text and compare; return the flow that the application got, if any."""
        self.fake.script(OUTCOMES[outcome])
        expected = self.refusal(flow)
        if expected is not None:
            with pytest.raises(GuardRefusedError) as refused:
                self.runner.run(work)
            wait = refused.value.retry_after
            assert (refused.value.reason, None if wait is None else round(wait, 3)) == (
                expected[0],
                None if expected[1] is None else round(expected[1], 3),
            )
            self.fake._script.clear()
            return None
        if outcome in {"not sent", "rejected"}:
            with pytest.raises(FAILURES[outcome]) as failed:
                self.runner.run(work)
            assert not isinstance(failed.value, GuardRefusedError)
            return None
        shown = self.runner.run(work)
        assert shown.delivery == outcome
        self.streak = 1 + (self.streak if self.now - self.last < 900 else 0)
        self.last = self.now
        self.counted.append(self.now)
        return shown

    # What happens.

    @rule(outcome=st.sampled_from(sorted(OUTCOMES)))
    def start(self, outcome):
        shown = self.send(self.signins.start(NUMBER, subject="7"), outcome)
        if shown is not None:
            self.flows.append(ModelFlow(shown.id, [self.now]))

    @precondition(lambda self: self.flows)
    @rule(outcome=st.sampled_from(sorted(OUTCOMES)), pick=PICK)
    def resend(self, outcome, pick):
        flow = pick(self.flows)
        if self.send(self.signins.resend(flow.id), outcome, flow) is not None:
            flow.texts.append(self.now)

    @precondition(lambda self: self.flows)
    @rule(
        typed=st.sampled_from([CODE, CODE, WRONG, "123", " 12-34 56 "]),
        fate=st.sampled_from(["answered", "answered", "not sent", "rejected", "unknown"]),
        pick=PICK,
    )
    def check(self, typed, fate, pick):
        flow = pick(self.flows)
        code = "".join(filter(str.isdigit, typed))
        reason = self.reason(flow, code)
        if fate != "answered" and reason in {None, "wrong"}:
            self.fake.script(OUTCOMES[fate])
            with pytest.raises(FAILURES[fate]):
                self.runner.run(self.signins.check(flow.id, typed))
            flow.checks += fate == "unknown"
            self.end_if_exhausted(flow)
            return
        check = self.runner.run(self.signins.check(flow.id, typed))
        assert (check.valid, check.reason) == (reason is None, reason)
        assert (check.number, check.subject) == ((NUMBER, "7") if check.valid else (None, None))
        if reason in {None, "wrong"}:
            flow.checks += 1
            assert check.checks_left == MAX_CHECKS - flow.checks
        if reason is None:
            flow.state = "used"
            self.streak = 0
        self.end_if_exhausted(flow)

    def reason(self, flow, code):
        if flow.state == "ended" or (flow.state == "open" and not self.is_open(flow)):
            return "expired"
        if flow.state != "open":
            return flow.state
        if len(code) != 6:
            return "malformed"
        return None if code == CODE else "wrong"

    def end_if_exhausted(self, flow):
        if flow.state == "open" and flow.checks >= MAX_CHECKS:
            flow.state = "exhausted"

    @precondition(lambda self: self.flows)
    @rule(pick=PICK, name=st.sampled_from(["cancel", "done"]))
    def end(self, pick, name):
        flow = pick(self.flows)
        self.runner.run(getattr(self.signins, name)(flow.id))
        if self.is_open(flow):
            flow.state = "ended"

    @rule(seconds=st.sampled_from([1, 29, 30, 31, 60, 300, 599, 600]))
    def time_passes(self, seconds):
        self.clock.tick(seconds)
        # Ended flows are remembered for 20 minutes; the model forgets all that are old.
        self.flows = [flow for flow in self.flows if self.now - flow.texts[-1] < 900]

    @invariant()
    def flows_are_as_the_model_says(self):
        for flow in self.flows[-2:]:
            shown = self.runner.run(self.signins.get(flow.id))
            if not self.is_open(flow):
                assert shown is None or (shown.expires_in, shown.sends_left, shown.checks_left) == (0, 0, 0)
                continue
            assert shown is not None
            assert shown.sends_left == MAX_SENDS - len(flow.texts)
            assert shown.checks_left == MAX_CHECKS - flow.checks
            assert shown.expires_in == flow.expires - self.now
