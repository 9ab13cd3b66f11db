"""A Hypothesis state machine over the decisions on one idempotency key, with one model for all stores.

The model knows only what calls did: which attempts were begun, and how they ended. From that follows what a store may
answer; it does not know the store's rules.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import Any

from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bandwidth_mfa_async import Delivery, NotSentError, _process, _sqlite
from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async._lease import Lease
from bandwidth_mfa_async.errors import BadRequestError, DeliveryUnknownError
from bandwidth_mfa_async.stores import KeyStatus, _sqlite_store

FAILED = {Delivery.NOT_SENT: NotSentError("no"), Delivery.REJECTED: BadRequestError(status=400)}
LEASE = 10.0
# Choose the latest one, an earlier one, or the first one.
PICK = st.sampled_from([lambda found: found[-1], lambda found: found[-1 - len(found) // 2], lambda found: found[0]])


class SteppedClock(SystemClock):
    """Real time for waits; a wall clock that moves only when a test steps it."""

    def __init__(self):
        self.wall = 1_750_000_000.0

    def time(self):
        return self.wall


@define(eq=False)
class Call:
    """One call with the key, as the model knows it.

    Attributes:
        lease: its lease.
        holds_until: until when no other call may hold the key; 0 once it has settled or was withdrawn.
        resends: whether it sends an unknown key again.
        begun: whether its attempt may have been written and its outcome is not known to have sent nothing.
        ended: how its attempt ended, if the call knows.
        returned: the attempts that sent nothing, after which the call went on.
    """

    lease: Lease
    resends: bool
    holds_until: float = 0.0
    begun: bool = False
    ended: Delivery | None = None
    returned: list[int] = field(factory=list)


class StoreMachine(RuleBasedStateMachine):
    """Subclasses make the store."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = SteppedClock()
        self.store = self.make_store(self.clock)
        self.key = secrets.token_hex(16)
        self.digest = "d"
        self.known: list[Call] = []
        self.last_holder: Call | None = None
        self.ids = itertools.count(1)
        self.first_id: str | None = None
        # Whether an unknown key was sent again: it stays unknown although every attempt says later that it failed.
        self.is_sticky = False
        self.files_of_parents: list[_sqlite_store._Files] = []

    def make_store(self, clock):
        raise NotImplementedError

    def run(self, work):
        async def bounded() -> Any:
            return await work(asyncio.get_running_loop().time() + 20)

        return self.runner.run(bounded())

    def teardown(self):
        self.run(lambda _deadline: self.store.aclose())
        self.runner.close()
        # A fork takes no thread along, but here the simulated parent's threads are in this process.
        for parent in self.files_of_parents:
            for file in parent.files.values():
                file.stop().join(20)

    # What the model says.

    def idle(self):
        """Return the calls that have begun no attempt, or none since the last one sent nothing."""
        return [call for call in self.known if not call.begun and call.ended is None]

    def sending(self):
        """Return the calls whose attempt is in flight."""
        return [call for call in self.known if call.begun and call.ended is None]

    def busy(self):
        """Return the calls that have begun an attempt, or have ended."""
        return [call for call in self.known if call.begun or call.ended is not None]

    def alone(self, call):
        return not self.in_flight(self.others(call))

    def others(self, call):
        return [other for other in self.known if other is not call]

    def in_flight(self, calls):
        """Return the calls whose attempt may have been delivered."""
        return [call for call in calls if call.begun]

    def check_may_send(self, call, maybe_delivered):
        others = self.others(call)
        assert self.first_id is None, "an accepted key was sent again"
        assert not [other for other in others if other.holds_until > self.clock.wall], "two calls hold the key"
        for other in self.in_flight(others):
            self.is_sticky = True
            assert other.holds_until <= self.clock.wall
            assert call.resends, "a key whose attempt may have been delivered was sent again"
            assert maybe_delivered

    def check_settled(self, record):
        delivered = self.in_flight(self.known)
        if record.delivery is Delivery.ACCEPTED:
            assert record.provider_id == self.first_id
            assert record.possible_duplicate or len(delivered) == 1
        elif record.delivery in FAILED:
            assert not delivered, "an attempt may have been delivered"
        else:
            assert record.delivery is Delivery.UNKNOWN
            assert record.error.delivery is Delivery.UNKNOWN
            assert self.first_id is None

    def check_reply(self, record):
        if record.status is KeyStatus.SETTLED:
            self.check_settled(record)
        elif record.status in {KeyStatus.ABSENT, KeyStatus.OPEN}:
            assert not self.in_flight(self.known)
        elif record.status in {KeyStatus.HELD, KeyStatus.SENDING}:
            assert 0 < record.lease_left <= LEASE

    # What calls do.

    def claim_for(self, call, *, begins):
        return self.run(
            lambda deadline: self.store.claim(
                self.key, self.digest, call.lease, begins=begins, resends_unknown=call.resends, deadline=deadline
            )
        )

    @rule(begins=st.booleans(), resends=st.booleans())
    def call(self, begins, resends):
        call = Call(Lease(LEASE, self.clock), resends)
        self.known.append(call)
        self.claim(call, begins=begins)

    @precondition(lambda self: self.idle())
    @rule(pick=PICK, begins=st.booleans())
    def claim_again(self, pick, begins):
        """A call that has not begun an attempt claims again: it waited, its script ran twice, or it lost its lease."""
        self.claim(pick(self.idle()), begins=begins)

    def claim(self, call, *, begins):
        record = self.claim_for(call, begins=begins)
        if record.status is KeyStatus.CLAIMED:
            self.check_may_send(call, record.maybe_delivered)
            call.holds_until = self.clock.wall + LEASE
            call.begun = begins
            self.last_holder = call
        else:
            self.check_reply(record)

    @precondition(lambda self: self.busy())
    @rule(pick=PICK, begins=st.booleans())
    def repeat_a_claim(self, pick, begins):
        """A script whose reply was lost runs again, perhaps after the call has ended: it opens nothing."""
        call = pick(self.busy())
        if call.ended is not None and call is not self.last_holder:
            return  # others held it since: the deadline of the script keeps it from running so late
        call.lease.attempts -= begins  # the same script, so the same number of the attempt
        record = self.claim_for(call, begins=begins)
        if record.status is KeyStatus.CLAIMED:
            assert call.ended is None, "a call that has ended holds the key again"
            call.holds_until = self.clock.wall + LEASE
        else:
            self.check_reply(record)

    @precondition(lambda self: self.idle())
    @rule(pick=PICK)
    def begin(self, pick):
        call = pick(self.idle())
        begun = self.run(
            lambda deadline: self.store.begin(
                self.key, call.lease, resends_unknown=call.resends, maybe_delivered=False, deadline=deadline
            )
        )
        if begun:
            assert call.holds_until > self.clock.wall, "a call without the lease began an attempt"
            self.check_may_send(call, maybe_delivered=True)
            call.holds_until = self.clock.wall + LEASE
            call.begun = True

    @precondition(lambda self: self.known)
    @rule(pick=PICK)
    def renew(self, pick):
        call = pick(self.known)
        if self.run(lambda deadline: self.store.renew(self.key, call.lease, deadline=deadline)):
            assert call.ended is None or call is not self.known[-1]
            assert not [other for other in self.others(call) if other.holds_until > self.clock.wall]
            call.holds_until = self.clock.wall + LEASE

    @precondition(lambda self: self.sending())
    @rule(pick=PICK, delivery=st.sampled_from([Delivery.ACCEPTED, Delivery.UNKNOWN, *FAILED, None]))
    def settle(self, pick, delivery):
        """The answer to an attempt, however late; None if it sent nothing and the call goes on."""
        call = pick(self.sending())
        outcome: dict[str, Any] = {}
        if delivery in FAILED:
            outcome["error"] = FAILED[delivery]
        elif delivery is Delivery.UNKNOWN:
            outcome["error"] = DeliveryUnknownError("no answer")
        elif delivery is Delivery.ACCEPTED:
            outcome["provider_id"] = f"id-{next(self.ids)}"
            self.first_id = self.first_id or outcome["provider_id"]
        call.ended = delivery
        call.begun = delivery in {Delivery.ACCEPTED, Delivery.UNKNOWN}
        if delivery is None:
            call.returned.append(call.lease.attempts)
        else:
            call.holds_until = 0.0
        for _ in range(2):  # a repeat changes nothing
            record = self.run(
                lambda deadline: self.store.settle(
                    self.key, self.digest, call.lease, delivery, deadline=deadline, **outcome
                )
            )
            self.check_reply(record)
        if self.alone(call) and call is self.known[-1] and not self.is_sticky:
            # No other attempt may have been delivered, so the key is what this one was.
            expected = Delivery.NOT_SENT if record.status is KeyStatus.SETTLED and delivery is None else delivery
            assert record.delivery is expected

    @precondition(lambda self: [call for call in self.sending() if call.returned])
    @rule()
    def repeat_the_pending_outcome_of_an_earlier_attempt(self):
        """Its script runs again while the next attempt is in flight."""
        call = next(call for call in self.sending() if call.returned)
        attempts, call.lease.attempts = call.lease.attempts, call.returned[-1]
        self.check_reply(
            self.run(lambda deadline: self.store.settle(self.key, self.digest, call.lease, None, deadline=deadline))
        )
        call.lease.attempts = attempts

    @rule()
    def withdraw(self):
        error = NotSentError("too late")
        record = self.run(lambda deadline: self.store.withdraw(self.key, self.digest, error, deadline=deadline))
        self.check_reply(record)
        assert record.status not in {KeyStatus.HELD, KeyStatus.OPEN} or self.is_sticky or self.in_flight(self.known)
        if record.status is KeyStatus.SETTLED and record.delivery is Delivery.NOT_SENT:
            for call in self.known:
                call.holds_until = 0.0

    @rule(seconds=st.sampled_from([0.001, LEASE / 2, LEASE - 0.001, LEASE, 3 * LEASE]))
    def expire(self, seconds):
        self.clock.wall += seconds

    @rule()
    def fork(self):
        """What a process that a fork made does: its connections, threads and locks are its own."""
        self.files_of_parents.append(_sqlite_store._files.get())
        _process._after_fork()
        _sqlite._close_in_child()

    @invariant()
    def what_is_known_is_true(self):
        self.check_reply(self.run(lambda deadline: self.store.get(self.key, self.digest, deadline=deadline)))
