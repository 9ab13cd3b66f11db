"""Checks whose answer comes after the flow has ended, expired or was used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async import PermissionDeniedError
from bandwidth_mfa_async.simulator import Fault, Simulator
from tests.support.signins import NUMBER, VISITOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async.signin import SignIns
    from bandwidth_mfa_async.testing import ManualClock


async def received(sim: Simulator, count: int) -> None:
    async with asyncio.timeout(10):
        while len(sim.requests) < count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("event", "expected"),
    [("expires", (True, None)), ("is cancelled", (False, "expired")), ("is used", (False, "used"))],
)
async def test_a_late_yes(
    make: Callable[..., SignIns], sim: Simulator, clock: ManualClock, event: str, expected: tuple[bool, str | None]
) -> None:
    """What was typed in time is right, unless the flow was ended or used meanwhile."""
    signins = make(lifetime=60)
    flow = await signins.start(NUMBER, visitor=VISITOR)
    code = sim.inbox[-1].code
    sim.faults.script(Fault(delay=0.3), operation="verify")
    late = asyncio.create_task(signins.check(flow.id, code))
    await received(sim, 2)
    match event:
        case "expires":
            clock.tick(70)
            assert (await signins.check(flow.id, code)).reason == "expired"
        case "is cancelled":
            await signins.cancel(flow.id)
        case _:
            assert (await signins.check(flow.id, code)).valid
    check = await late
    assert (check.valid, check.reason) == expected


async def test_a_text_whose_flow_was_cancelled_meanwhile(
    make: Callable[..., SignIns], sim: Simulator, clock: ManualClock
) -> None:
    """A resend that fails then still gives back what it counted."""
    signins = make()
    flow = await signins.start(NUMBER, visitor=VISITOR)
    clock.tick(30)
    sim.faults.script(Fault(status=403, delay=0.2), operation="messaging")
    resend = asyncio.create_task(signins.resend(flow.id))
    await received(sim, 2)
    await signins.cancel(flow.id)
    with pytest.raises(PermissionDeniedError):
        await resend
    assert (await signins.start(NUMBER, visitor=VISITOR)).resend_in == 60
