"""The renewal of a lease by its holder."""

import asyncio

import pytest

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async._lease import Lease, LeaseKeeper
from bandwidth_mfa_async.errors import LedgerError


class Ledger:
    """Grants renewals while `held` is true, and counts them."""

    def __init__(self):
        self.renewals = 0
        self.lost = 0
        self.held = True
        self.error = None

    async def renew(self):
        self.renewals += 1
        if self.error is not None:
            raise self.error
        return self.held

    def on_lost(self):
        self.lost += 1


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def lease(clock):
    lease = Lease(20.0, clock)
    lease.renewed_at(lease.now())
    return lease


async def test_a_lease_is_renewed_four_times_in_its_duration_until_the_block_ends(clock, lease):
    ledger = Ledger()
    async with LeaseKeeper(lease, ledger.renew).renewing():
        await clock.advance(60)
        assert ledger.renewals == 12
        assert lease.is_valid
    await clock.advance(60)
    assert ledger.renewals == 12
    assert not lease.is_valid
    assert not clock.pending


async def test_a_lost_lease_is_not_renewed_again(clock, lease):
    ledger = Ledger()
    ledger.held = False
    async with LeaseKeeper(lease, ledger.renew, ledger.on_lost).renewing():
        await clock.advance(60)
    assert (ledger.renewals, ledger.lost, lease.lost, lease.is_valid) == (1, 1, True, False)


async def test_an_outage_ends_the_renewal_and_not_the_work(clock, lease):
    ledger = Ledger()
    ledger.error = LedgerError("away")
    async with LeaseKeeper(lease, ledger.renew, ledger.on_lost).renewing():
        await clock.advance(60)
    assert (ledger.renewals, ledger.lost, lease.lost) == (1, 0, False)


@pytest.mark.parametrize(
    ("replies", "held", "lost", "expected", "renewals"),
    [
        (["S"], True, False, "S", 0),
        (["L", "S"], True, False, "S", 1),
        (["L", "X"], True, False, "X", 1),
        (["L"], False, False, "L", 1),
        (["L"], True, True, "L", 0),
    ],
)
async def test_an_intent_renews_a_lease_that_expired_once(lease, replies, held, lost, expected, renewals):
    """Unless it is known to be lost: another worker may hold it."""
    ledger = Ledger()
    ledger.held, lease.lost = held, lost

    async def ask():
        await asyncio.sleep(0)
        return replies.pop(0)

    assert await LeaseKeeper(lease, ledger.renew).intent(ask, lease_lost="L") == expected
    assert (ledger.renewals, replies) == (renewals, [])
