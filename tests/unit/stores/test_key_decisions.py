"""The decisions on idempotency keys, in a `MemoryStore`."""

from __future__ import annotations

from typing import Any

import pytest

from bandwidth_mfa_async import ConfigurationError, Delivery, MemoryStore, NotSentError, StoreError
from bandwidth_mfa_async._lease import Lease
from bandwidth_mfa_async.errors import BadRequestError, DeliveryUnknownError, ServerError
from bandwidth_mfa_async.stores import KeyRecord, KeyStatus
from bandwidth_mfa_async.testing import ManualClock

KEY, DIGEST = "5f" * 16, "d1"
UNKNOWN = DeliveryUnknownError("no answer")


class Keys:
    """One store and short names for its decisions."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock, **options)

    def lease(self) -> Lease:
        return Lease(self.store.lease, self.clock)

    async def claim(
        self, lease: Lease, *, begins: bool = True, resends: bool = False, digest: str = DIGEST
    ) -> KeyRecord:
        return await self.store.claim(KEY, digest, lease, begins=begins, resends_unknown=resends, deadline=1e9)

    async def begin(self, lease: Lease, *, resends: bool = False, maybe: bool = False) -> bool:
        return await self.store.begin(KEY, lease, resends_unknown=resends, maybe_delivered=maybe, deadline=1e9)

    async def settle(self, lease: Lease, delivery: Delivery | None, **outcome: Any) -> KeyRecord:
        return await self.store.settle(KEY, DIGEST, lease, delivery, deadline=1e9, **outcome)

    async def accept(self, lease: Lease, provider_id: str = "id-1") -> KeyRecord:
        return await self.settle(lease, Delivery.ACCEPTED, provider_id=provider_id)

    async def get(self) -> KeyRecord:
        return await self.store.get(KEY, DIGEST, deadline=1e9)


@pytest.fixture
def keys() -> Keys:
    return Keys()


async def test_a_new_key_is_claimed_sent_and_replayed(keys: Keys) -> None:
    lease, other = keys.lease(), keys.lease()
    assert (await keys.get()).status is KeyStatus.ABSENT
    assert (await keys.claim(lease)).status is KeyStatus.CLAIMED
    assert lease.is_valid
    assert (await keys.claim(other)).status is KeyStatus.SENDING
    assert not other.is_valid
    assert (await keys.get()).lease_left == keys.store.lease
    await keys.accept(lease)
    for record in (await keys.get(), await keys.claim(other), await keys.claim(lease)):
        assert (record.status, record.delivery, record.provider_id) == (KeyStatus.SETTLED, Delivery.ACCEPTED, "id-1")
        assert record.possible_duplicate is False


async def test_another_request_is_refused(keys: Keys) -> None:
    await keys.claim(keys.lease())
    assert (await keys.claim(keys.lease(), digest="d2")).status is KeyStatus.OTHER_REQUEST
    assert (await keys.store.get(KEY, "d2", deadline=1e9)).status is KeyStatus.OTHER_REQUEST


@pytest.mark.parametrize(
    ("delivery", "error"),
    [
        (Delivery.NOT_SENT, NotSentError()),
        (Delivery.REJECTED, BadRequestError(status=400)),
        (Delivery.REJECTED, ServerError(status=503)),
    ],
)
async def test_what_was_not_sent_is_sent_by_the_next_call(keys: Keys, delivery: Delivery, error: Any) -> None:
    lease = keys.lease()
    await keys.claim(lease)
    await keys.settle(lease, delivery, error=error)
    record = await keys.get()
    assert (record.delivery, type(record.error)) == (delivery, type(error))
    assert (await keys.claim(lease)).status is KeyStatus.LOST, "a repeated script must not open the key again"
    other = keys.lease()
    assert (await keys.claim(other)).status is KeyStatus.CLAIMED
    assert (await keys.accept(other)).possible_duplicate is False


async def test_an_expired_lease_makes_an_attempt_unknown_and_its_late_answer_settles_it(keys: Keys) -> None:
    lease = keys.lease()
    await keys.claim(lease)
    keys.clock.tick(keys.store.lease + 1)
    record = await keys.claim(keys.lease())
    assert (record.delivery, type(record.error)) == (Delivery.UNKNOWN, DeliveryUnknownError)
    assert not await keys.begin(lease)
    record = await keys.accept(lease)
    assert (record.delivery, record.possible_duplicate) == (Delivery.ACCEPTED, False)


async def test_the_one_unknown_attempt_may_say_that_it_was_rejected(keys: Keys) -> None:
    lease = keys.lease()
    await keys.claim(lease)
    keys.clock.tick(keys.store.lease + 1)
    assert (await keys.get()).delivery is Delivery.UNKNOWN
    await keys.claim(keys.lease())
    assert (
        await keys.settle(lease, Delivery.REJECTED, error=BadRequestError(status=400))
    ).delivery is Delivery.REJECTED


async def test_unknown_is_sent_again_only_if_asked(keys: Keys) -> None:
    first, second = keys.lease(), keys.lease()
    await keys.claim(first)
    assert (await keys.settle(first, Delivery.UNKNOWN, error=UNKNOWN)).delivery is Delivery.UNKNOWN
    assert (await keys.claim(second)).delivery is Delivery.UNKNOWN
    claimed = await keys.claim(second, resends=True)
    assert (claimed.status, claimed.maybe_delivered) == (KeyStatus.CLAIMED, True)
    assert (await keys.settle(second, Delivery.REJECTED, error=BadRequestError())).delivery is Delivery.UNKNOWN
    third = keys.lease()
    await keys.claim(third, resends=True)
    record = await keys.accept(third, "id-3")
    assert (record.provider_id, record.possible_duplicate) == ("id-3", True)
    assert (await keys.accept(first, "id-1")).provider_id == "id-3"


async def test_two_acceptances_are_a_possible_duplicate_with_the_first_id(keys: Keys) -> None:
    first, second = keys.lease(), keys.lease()
    await keys.claim(first)
    keys.clock.tick(keys.store.lease + 1)
    await keys.claim(second, resends=True)
    assert (await keys.accept(first, "id-1")).possible_duplicate is True
    record = await keys.accept(second, "id-2")
    assert (record.provider_id, record.possible_duplicate) == ("id-1", True)


async def test_a_claim_without_an_intent_can_be_withdrawn(keys: Keys) -> None:
    lease = keys.lease()
    await keys.claim(lease, begins=False)
    assert (await keys.claim(keys.lease())).status is KeyStatus.HELD
    record = await keys.store.withdraw(KEY, DIGEST, NotSentError("too late"), deadline=1e9)
    assert (record.delivery, type(record.error)) == (Delivery.NOT_SENT, NotSentError)
    assert not await keys.begin(lease)
    await keys.claim(keys.lease())
    assert (await keys.store.withdraw(KEY, DIGEST, NotSentError(), deadline=1e9)).status is KeyStatus.SENDING


async def test_between_two_attempts_nothing_is_in_flight(keys: Keys) -> None:
    lease = keys.lease()
    await keys.claim(lease)
    assert (await keys.settle(lease, None)).status is KeyStatus.HELD
    assert await keys.begin(lease)
    assert (await keys.get()).status is KeyStatus.SENDING
    await keys.settle(lease, None)
    keys.clock.tick(keys.store.lease + 1)
    assert (await keys.get()).status is KeyStatus.OPEN
    assert (await keys.claim(keys.lease())).status is KeyStatus.CLAIMED


async def test_an_unknown_attempt_before_the_last_one_is_remembered(keys: Keys) -> None:
    lease = keys.lease()
    await keys.claim(lease)
    await keys.begin(lease, maybe=True)
    assert (await keys.settle(lease, Delivery.REJECTED, error=BadRequestError())).delivery is Delivery.UNKNOWN


async def test_a_lease_longer_than_its_length_is_over(keys: Keys) -> None:
    """The clock was set back: the lease must not block the key for that long."""
    await keys.claim(keys.lease(), begins=False)
    keys.clock._wall_offset -= 7200
    assert (await keys.get()).status is KeyStatus.OPEN


async def test_a_small_correction_of_the_clock_changes_nothing(keys: Keys) -> None:
    """An attempt that is in flight is not called unknown, and not sent again, because NTP set the clock back a bit."""
    lease = keys.lease()
    await keys.claim(lease)
    keys.clock._wall_offset -= 0.5
    assert (await keys.get()).status is KeyStatus.SENDING
    assert (await keys.claim(keys.lease(), resends=True)).status is KeyStatus.SENDING
    await keys.settle(lease, None)
    assert await keys.begin(lease)
    assert (await keys.accept(lease)).delivery is Delivery.ACCEPTED


async def test_a_renewed_lease_stays_valid(keys: Keys) -> None:
    lease = keys.lease()
    await keys.claim(lease)
    for _ in range(3):
        keys.clock.tick(keys.store.lease * 0.9)
        assert await keys.store.renew(KEY, lease, deadline=1e9)
    assert (await keys.get()).status is KeyStatus.SENDING
    await keys.accept(lease)
    assert not await keys.store.renew(KEY, lease, deadline=1e9)


async def test_what_the_store_lost_is_stored_again(keys: Keys) -> None:
    lease = keys.lease()
    await keys.claim(lease)
    keys.store._records.clear()
    assert (await keys.settle(lease, None)).status is KeyStatus.ABSENT
    assert (await keys.accept(lease)).provider_id == "id-1"


async def test_a_key_is_kept_for_its_retention() -> None:
    keys = Keys(retention=60)
    lease = keys.lease()
    await keys.claim(lease)
    await keys.accept(lease)
    keys.clock.tick(59)
    assert (await keys.get()).status is KeyStatus.SETTLED
    keys.clock.tick(2)
    assert (await keys.get()).status is KeyStatus.ABSENT
    assert await keys.store.counts(deadline=1e9) == {}
    assert (await keys.claim(keys.lease())).status is KeyStatus.CLAIMED


async def test_a_full_store_forgets_nothing() -> None:
    keys = Keys(max_records=1, retention=60)
    await keys.claim(keys.lease())
    with pytest.raises(StoreError, match="full"):
        await keys.store.claim("aa", DIGEST, keys.lease(), begins=True, resends_unknown=False, deadline=1e9)
    assert (await keys.get()).status is KeyStatus.SENDING
    assert await keys.store.counts(deadline=1e9) == {"k": {"1": 1}}
    keys.clock.tick(61)
    claimed = await keys.store.claim("aa", DIGEST, keys.lease(), begins=True, resends_unknown=False, deadline=1e9)
    assert claimed.status is KeyStatus.CLAIMED


async def test_what_expires_at_once_is_removed_in_parts_and_all_of_it_if_the_store_is_full() -> None:
    """A million records that expire in one second must not block the event loop."""
    keys = Keys(max_records=2_000, retention=60)
    options = {"resends_unknown": False, "deadline": 1e9}
    for number in range(2_000):
        await keys.store.claim(f"{number:04x}", DIGEST, keys.lease(), begins=1, **options)
    keys.clock.tick(61)
    await keys.get()
    assert len(keys.store._records) == 1_500
    assert await keys.store.counts(deadline=1e9) == {}
    assert (await keys.store.get("07cf", DIGEST, deadline=1e9)).status is KeyStatus.ABSENT
    for number in range(3_000, 3_000 + 2_000):
        await keys.store.claim(f"{number:04x}", DIGEST, keys.lease(), begins=1, **options)
    assert len(keys.store._records) == 2_000


@pytest.mark.parametrize(
    "options", [{"lease": 0}, {"lease": "30"}, {"retention": 1}, {"max_records": 0}, {"lease": float("nan")}]
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        MemoryStore(**options)


async def test_the_outcome_of_an_earlier_attempt_that_arrives_late_changes_nothing(keys: Keys) -> None:
    """A script whose reply was lost runs again: its attempt sent nothing, but the next one is in flight."""
    lease = keys.lease()
    await keys.claim(lease)
    await keys.settle(lease, None)
    assert await keys.begin(lease)
    lease.attempts -= 1
    assert (await keys.settle(lease, None)).status is KeyStatus.SENDING
    lease.attempts += 1
    assert (await keys.store.withdraw(KEY, DIGEST, NotSentError(), deadline=1e9)).status is KeyStatus.SENDING
    assert (await keys.settle(lease, None)).status is KeyStatus.HELD


def test_a_key_is_kept_as_long_as_its_lease() -> None:
    with pytest.raises(ConfigurationError, match=r"retention: must be a number of seconds of at least 100"):
        MemoryStore(lease=100, retention=60)
