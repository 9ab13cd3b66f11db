"""Sign-ins cancelled at each wait: no text is uncounted, no one is let in twice, and the flow can go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import MemoryStore
from bandwidth_mfa_async.signin import Guard, SignIns
from bandwidth_mfa_async.signin._counters import load
from tests.support.signins import NUMBER, SECRET, VISITOR, VOICE
from tests.support.suspensions import every_suspension

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async.simulator import Simulator
    from bandwidth_mfa_async.testing import ManualClock


class SlowStore(MemoryStore):
    """A store that waits before each decision and after it."""

    async def run(self, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        reply = await super().run(*args, **options)
        await asyncio.sleep(0)
        return reply


@pytest.fixture
def store(clock: ManualClock) -> SlowStore:
    return SlowStore(clock=clock, secret=SECRET)


def counted(store: MemoryStore) -> int:
    """Return the number of texts that the number's limits have counted."""
    return sum(
        sum(load(record, "w").get("3600000", {}).values())
        for name, record in store._records.items()
        if name.startswith("n:")
    )


@pytest.mark.parametrize("action", ["start", "resend", "call"])
async def test_a_start_cancelled_at_every_wait_sends_nothing_uncounted(
    make: Callable[..., SignIns], sim: Simulator, store: SlowStore, action: str
) -> None:
    signins = make(cooldown=0, guard=Guard(per_number="1000/h", per_visitor=None), max_sends=10, voice_template=VOICE)
    flow_ids: list[str] = []

    async def act() -> None:
        if action == "start":
            await signins.start(NUMBER, visitor=VISITOR)
        else:
            await getattr(signins, action)(flow_ids[-1])

    async def again() -> None:
        flow_ids.append((await signins.start(NUMBER, visitor=VISITOR)).id)

    ends = set()
    await again()
    async for _suspensions, task in every_suspension(act):
        ends.add(task.cancelled())
        await again()
    assert ends == {True, False}
    assert counted(store) >= len(sim.inbox) > len(flow_ids)
    code = next(text.code for text in reversed(sim.inbox))
    assert (await signins.check(flow_ids[-1], code)).valid


async def test_a_check_cancelled_at_every_wait_lets_no_one_in_twice(
    make: Callable[..., SignIns], sim: Simulator, clock: ManualClock
) -> None:
    signins = make(cooldown=0, guard=None)
    flow_ids: list[str] = []
    results: list[bool] = []

    async def check() -> None:
        results.append((await signins.check(flow_ids[-1], sim.inbox[-1].code)).valid)

    async def again() -> None:
        flow_ids.append((await signins.start(NUMBER, visitor=VISITOR)).id)

    await again()
    async for _suspensions, task in every_suspension(check):
        known = await signins.get(flow_ids[-1])
        assert known is not None
        later = await signins.check(flow_ids[-1], sim.inbox[-1].code)
        # Cancelled after the record of its success, the flow is used: no one is let in.
        assert later.valid is (known.expires_in > 0)
        assert task.cancelled() or not later.valid
        await again()
    assert True in results


@pytest.mark.parametrize("action", ["get", "cancel", "done", "admit", "release", "verified"])
async def test_a_decision_cancelled_at_every_wait_is_made_or_not(
    make: Callable[..., SignIns], store: SlowStore, action: str
) -> None:
    guard = Guard(per_number="1000/h", per_visitor=None, store=store)
    signins = make(cooldown=0, guard=guard)
    flow = await signins.start(NUMBER, visitor=VISITOR)
    ticket = await guard.admit(NUMBER, visitor=VISITOR)

    async def act() -> None:
        if action == "admit":
            await guard.admit(NUMBER, visitor=VISITOR)
        else:
            await getattr(ticket if action in {"release", "verified"} else signins, action)(
                *(() if action in {"release", "verified"} else (flow.id,))
            )

    before = counted(store)
    ends = set()
    async for _suspensions, task in every_suspension(act):
        ends.add(task.cancelled())
    assert ends == {True, False}
    known = await signins.get(flow.id)
    assert known is not None
    assert (known.expires_in == 0) is (action in {"cancel", "done"})
    assert counted(store) - before in {"admit": range(1, 20), "release": [-1]}.get(action, [0])
