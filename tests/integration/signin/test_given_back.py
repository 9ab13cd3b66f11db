"""Texts that were counted and not sent: a script that runs twice, a store that fails after it, a cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import Delivery, MFAClient, StoreError
from bandwidth_mfa_async.signin import Guard, SignIns
from tests.support.signins import LOGIN, NUMBER, VISITOR, wrong

if TYPE_CHECKING:
    from bandwidth_mfa_async.simulator import Simulator
    from bandwidth_mfa_async.stores import Store
    from tests.support.signins import WallClock

COUNTING = {"flow_start", "flow_send", "ticket_admit"}


@pytest.fixture
def signins(mfa: MFAClient, any_store: Store) -> SignIns:
    return SignIns(mfa, LOGIN, guard=Guard(per_number="3/h"), store=any_store)


async def idle() -> None:
    """Wait until no task runs but this one: what was counted is given back by one."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        waiting = [task for task in others if "give" in repr(task.get_coro()) or "settle" in repr(task.get_coro())]
        if not waiting:
            return
        await asyncio.wait(waiting)


async def test_a_start_whose_script_runs_twice_sends_once(
    signins: SignIns, any_store: Store, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reply was lost, and the connection ran it again."""
    run = any_store.run

    async def twice(*args: Any, **options: Any) -> Any:
        await run(*args, **options)
        return await run(*args, **options)

    monkeypatch.setattr(any_store, "run", twice)
    flow = await signins.start(NUMBER, visitor=VISITOR, idempotency_key="k" * 20)
    assert (flow.delivery, flow.sends_left, len(sim.inbox)) == (Delivery.ACCEPTED, 2, 1)
    again = await signins.start(NUMBER, visitor=VISITOR, idempotency_key="k" * 20)
    assert (again.id, len(sim.inbox)) == (flow.id, 1)


def failing(store: Store, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Make the next step that counts a text fail after it has run: the reply is lost, or its call is cancelled."""
    run, failed = store.run, False

    async def fail_once(step: Any, *args: Any, **options: Any) -> Any:
        nonlocal failed
        reply = await run(step, *args, **options)
        if step.name in COUNTING and not failed:
            failed = True
            if how == "cancelled":
                raise asyncio.CancelledError
            raise StoreError("the store's Redis did not confirm in time")
        return reply

    monkeypatch.setattr(store, "run", fail_once)


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_start_that_sends_nothing_counts_nothing(
    signins: SignIns, any_store: Store, sim: Simulator, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    failing(any_store, monkeypatch, how)
    with pytest.raises((StoreError, asyncio.CancelledError)):
        await signins.start(NUMBER, visitor=VISITOR, idempotency_key="k" * 20)
    await idle()
    flow = await signins.start(NUMBER, visitor=VISITOR, idempotency_key="k" * 20)  # no cool-down, and the same key
    assert (flow.delivery, len(sim.inbox)) == (Delivery.ACCEPTED, 1)


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_resend_that_sends_nothing_counts_nothing(
    signins: SignIns, any_store: Store, sim: Simulator, wall: WallClock, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    flow = await signins.start(NUMBER, visitor=VISITOR)
    wall.tick(31)
    failing(any_store, monkeypatch, how)
    with pytest.raises((StoreError, asyncio.CancelledError)):
        await signins.resend(flow.id)
    await idle()
    assert (await signins.resend(flow.id)).sends_left == 1
    assert len(sim.inbox) == 2


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_ticket_that_is_not_returned_counts_nothing(
    any_store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    guard = Guard(per_number="1/h", store=any_store)
    failing(any_store, monkeypatch, how)
    with pytest.raises((StoreError, asyncio.CancelledError)):
        await guard.admit(NUMBER, visitor=VISITOR)
    await idle()
    await guard.admit(NUMBER, visitor=VISITOR)


async def test_a_person_who_is_locked_out_and_signs_in_in_another_way_leaves_the_limits(
    mfa: MFAClient, any_store: Store, sim: Simulator
) -> None:
    """`done` after the last wrong code: the texts of a person who is known count no longer against the address."""
    signins = SignIns(mfa, LOGIN, guard=Guard(per_visitor="1/h"), store=any_store, max_checks=1, cooldown=0)
    flow = await signins.start(NUMBER, visitor=VISITOR)
    assert (await signins.check(flow.id, wrong(sim.inbox[-1].code))).checks_left == 0
    await signins.done(flow.id)
    assert (await signins.start(NUMBER, visitor=VISITOR)).delivery is Delivery.ACCEPTED
