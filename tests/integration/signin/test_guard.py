"""The guard alone, by tickets, and in flows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import ConfigurationError, GuardRefusedError, MemoryStore
from bandwidth_mfa_async.signin import Guard, SignIns, UnverifiedBudget
from tests.support.signins import NUMBER, OTHER, SECRET, VISITOR, Events, WallClock, wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async.simulator import Simulator
    from bandwidth_mfa_async.stores import Store
    from bandwidth_mfa_async.testing import ManualClock

DAY = 86_400
NO_LIMITS: dict[str, Any] = {"per_number": None, "per_visitor": None}


def number(index: int) -> str:
    """Return a number whose prefix differs from that of every other index."""
    return f"+1919{2000000 + index % 700 * 10_000 + index // 700}"


async def refusal(guard: Guard, *arguments: Any, **options: Any) -> GuardRefusedError | None:
    try:
        await guard.admit(*arguments, **({"visitor": VISITOR} | options))
    except GuardRefusedError as error:
        return error
    return None


async def reasons(guard: Guard, numbers: list[str], **options: Any) -> list[str]:
    found = [await refusal(guard, each, **options) for each in numbers]
    return ["" if error is None else error.reason for error in found]


class TestWindows:
    async def test_per_number(self, any_store: Store, wall: WallClock) -> None:
        guard = Guard(store=any_store, per_number=("2/h", "3/d"), per_visitor=None)
        assert await reasons(guard, [NUMBER] * 3) == ["", "", "number"]
        assert await reasons(guard, [OTHER]) == [""]
        wall.tick(3599)
        error = await refusal(guard, NUMBER)
        assert error is not None
        assert (error.retry_after, error.clearable, error.retryable) == (1.0, True, False)
        wall.tick(1)
        assert await reasons(guard, [NUMBER] * 2) == ["", "number"]
        error = await refusal(guard, NUMBER)
        assert error is not None
        assert error.retry_after == DAY - 3600
        wall.tick(DAY - 3600)
        assert await reasons(guard, [NUMBER]) == [""]

    async def test_cleared_has_a_second_share(self, any_store: Store) -> None:
        guard = Guard(store=any_store, per_number="1/h", per_visitor=None)
        assert await reasons(guard, [NUMBER] * 2) == ["", "number"]
        assert await reasons(guard, [NUMBER] * 2, cleared=True) == ["", "number"]
        error = await refusal(guard, NUMBER, cleared=True)
        assert error is not None
        assert not error.clearable

    async def test_per_visitor_counts_what_was_not_verified(self, any_store: Store) -> None:
        guard = Guard(store=any_store, per_visitor="2/h")
        tickets = [await guard.admit(number(n), visitor=VISITOR) for n in range(2)]
        assert await reasons(guard, [OTHER]) == ["visitor"]
        await tickets[0].verified()
        await tickets[0].verified()
        assert await reasons(guard, [OTHER, NUMBER]) == ["", "visitor"]
        assert await reasons(guard, [NUMBER], visitor="198.51.100.8") == [""]

    async def test_visitors_of_one_ipv6_network_are_one(self, any_store: Store) -> None:
        guard = Guard(store=any_store, per_visitor="1/h")
        assert await reasons(guard, [NUMBER], visitor="2001:db8::1") == [""]
        assert await reasons(guard, [OTHER], visitor="2001:db8::2") == ["visitor"]
        assert await reasons(guard, [OTHER], visitor="2001:db8:0:1::2") == [""]

    async def test_without_a_visitor_one_warning(self, any_store: Store, caplog: pytest.LogCaptureFixture) -> None:
        guard = Guard(store=any_store, per_visitor="1/h")
        assert await reasons(guard, [NUMBER, OTHER], visitor=None) == ["", ""]
        assert [record.message for record in caplog.records if "visitor" in record.message] == [
            "a sign-in without visitor=: limits by visitor do not apply to it"
        ]

    async def test_total(self, any_store: Store, wall: WallClock) -> None:
        """A large limit counts in sixtieths of its period, and never admits more."""
        guard = Guard(store=any_store, total="100/h", **NO_LIMITS)
        for _ in range(100):
            wall.tick(1)
            assert await reasons(guard, [OTHER]) == [""]
        assert await reasons(guard, [OTHER]) == ["total"]
        error = await refusal(guard, OTHER)
        assert error is not None
        assert 3500 <= (error.retry_after or 0) <= 3600
        assert not error.clearable
        wall.tick(3600 + 60)
        assert await reasons(guard, [OTHER]) == [""]

    async def test_a_released_ticket_counts_for_nothing(self, any_store: Store) -> None:
        budget = UnverifiedBudget(expected_per_day=1)
        guard = Guard(store=any_store, per_number="1/h", per_visitor="1/h", total="1/h", unverified=budget)
        for _ in range(12):
            ticket = await guard.admit(NUMBER, visitor=VISITOR)
            await ticket.release()
            await ticket.release()
            await ticket.verified()
        assert await reasons(guard, [NUMBER] * 2) == ["", "number"]


class TestBudget:
    async def test_a_visitor(self, any_store: Store, wall: WallClock) -> None:
        """5 an hour and 10 a day; refused attempts count as well."""
        guard = Guard(store=any_store, unverified=UnverifiedBudget(expected_per_day=100_000), **NO_LIMITS)
        assert await reasons(guard, [number(n) for n in range(7)]) == [""] * 5 + ["unverified"] * 2
        error = await refusal(guard, NUMBER)
        assert error is not None
        assert error.clearable
        assert (error.retry_after or 0) > 700
        assert await reasons(guard, [number(8)], visitor="198.51.100.8") == [""]
        wall.tick(1000)
        assert await reasons(guard, [number(9)]) == [""]

    async def test_a_prefix(self, any_store: Store) -> None:
        guard = Guard(store=any_store, unverified=UnverifiedBudget(expected_per_day=100_000), **NO_LIMITS)
        found = [await reasons(guard, [f"+1919555{n:04}"], visitor=f"10.0.0.{n}") for n in range(7)]
        assert found == [[""]] * 5 + [["unverified"]] * 2
        assert await reasons(guard, [number(1)], visitor="10.0.1.1") == [""]
        assert await reasons(guard, ["+19195550009"], visitor="10.0.1.2", cleared=True) == [""]

    async def test_an_attack_on_one_prefix_does_not_close_its_region(self, any_store: Store) -> None:
        guard = Guard(store=any_store, unverified=UnverifiedBudget(expected_per_day=1), **NO_LIMITS)
        tickets = [await guard.admit(f"+1919555{n:04}", visitor=f"10.0.0.{n}") for n in range(5)]
        assert await reasons(guard, ["+19195550009"], visitor="10.0.1.1") == ["unverified"]
        # One of the five counts for the region, which has room for three.
        found = [await reasons(guard, [number(100 + n)], visitor=f"10.0.2.{n}") for n in range(3)]
        assert found == [[""], [""], ["unverified"]]
        for ticket in tickets:
            await ticket.verified()
        assert await reasons(guard, [number(200)], visitor="10.0.3.1") == [""]

    async def test_a_region(self, any_store: Store) -> None:
        """3 an hour without history; what was refused does not count."""
        guard = Guard(store=any_store, unverified=UnverifiedBudget(expected_per_day={"CA": 9000}), **NO_LIMITS)
        found = [await reasons(guard, [number(n)], visitor=f"10.0.0.{n}") for n in range(6)]
        assert found == [[""]] * 3 + [["unverified"]] * 3
        assert await reasons(guard, ["+14165551234"], visitor="10.0.1.1") == [""]

    async def test_a_verified_flow_drains_every_text(self, any_store: Store) -> None:
        guard = Guard(store=any_store, unverified=UnverifiedBudget(expected_per_day=1), **NO_LIMITS)
        for n in range(30):
            ticket = await guard.admit(number(n), visitor=VISITOR)
            await ticket.verified()

    async def test_a_number_that_was_verified_is_exempt_for_90_days(self, any_store: Store, wall: WallClock) -> None:
        guard = Guard(store=any_store, unverified=UnverifiedBudget(expected_per_day=1), **NO_LIMITS)
        await (await guard.admit(NUMBER, visitor="10.0.1.1")).verified()

        async def fill() -> None:
            for n in range(4):
                await refusal(guard, number(n), visitor=f"10.0.2.{n}")

        for days, expected in ((1, ""), (88, ""), (2, "unverified")):
            wall.tick(days * DAY)
            await fill()
            assert await reasons(guard, [NUMBER], visitor="10.0.3.1") == [expected]

    async def test_history_raises_the_threshold(self, wall: WallClock) -> None:
        guard = Guard(store=MemoryStore(clock=wall), unverified=UnverifiedBudget(observe_first=0), **NO_LIMITS)
        for n in range(200):
            ticket = await guard.admit(number(n), visitor=f"10.1.0.{n}")
            await ticket.verified()
        wall.tick(3 * 3600)
        found = [await reasons(guard, [number(300 + n)], visitor=f"10.0.0.{n}") for n in range(12)]
        # The best day has 200 verified: 40 unverified a day, a sixth of that in an hour.
        assert found.count([""]) == 6

    async def test_it_observes_first_and_says_so_once(
        self, any_store: Store, wall: WallClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        guard = Guard(store=any_store, unverified=UnverifiedBudget(observe_first="2d"), **NO_LIMITS)
        numbers = [number(n) for n in range(12)]
        assert set(await reasons(guard, numbers)) == {""}
        wall.tick(2 * DAY - 1)
        assert set(await reasons(guard, numbers)) == {""}
        assert len([record for record in caplog.records if "expected_per_day" in record.message]) == 1
        wall.tick(1)
        assert "unverified" in await reasons(guard, numbers)

    @pytest.mark.parametrize(
        "options",
        [
            {"expected_per_day": 0},
            {"expected_per_day": True},
            {"expected_per_day": {"US": "many"}},
            {"observe_first": "14 weeks"},
            {"observe_first": -1},
        ],
    )
    def test_wrong_options(self, options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(ConfigurationError, match=f"^{name}: "):
            UnverifiedBudget(**options)


class TestObserve:
    async def test_it_refuses_nothing(self, any_store: Store) -> None:
        guard = Guard(store=any_store, regions={"US"}, per_number="1/h", total="3/h", mode="observe")
        numbers = [NUMBER] * 3 + ["+18765551234", "+19005551234", OTHER]
        assert set(await reasons(guard, numbers)) == {""}

    async def test_an_invalid_number_is_refused(self, any_store: Store) -> None:
        assert await reasons(Guard(store=any_store, mode="observe"), ["hello"]) == ["invalid"]

    async def test_one_reason(self, any_store: Store) -> None:
        budget = UnverifiedBudget(expected_per_day=1)
        guard = Guard(store=any_store, unverified=budget, per_number="1/h", observe={"unverified"})
        numbers = [number(n) for n in range(20)]
        assert set(await reasons(guard, numbers)) == {""}
        assert await reasons(guard, [numbers[0]]) == ["number"]

    async def test_the_report_is_that_of_enforcement(self, clock: ManualClock) -> None:
        """The same attempts and verifications leave the same counts, whether they were refused or only noted."""
        reports = []
        for mode in ("enforce", "observe"):
            store = MemoryStore(clock=clock, secret=SECRET)
            budget = UnverifiedBudget(expected_per_day=60)
            options: dict[str, Any] = {"mode": mode, "per_number": "2/h", "per_visitor": "6/h", "total": "30/h"}
            guard = Guard(store=store, unverified=budget, **options)
            for n in range(80):
                try:
                    ticket = await guard.admit(number(n % 23), visitor=f"10.0.0.{n % 9}")
                except GuardRefusedError:
                    continue
                if n % 3:
                    await ticket.verified()
            reports.append({name: record["h"] for name, record in store._records.items() if name.startswith("r:")})
        assert reports[0] == reports[1]
        ((sent, verified, refused),) = json.loads(reports[0]["r:US"]).values()
        assert sent > verified > 0
        assert refused > 0


class TestInFlows:
    async def test_reasons(self, make: Callable[..., SignIns], sim: Simulator, events: Events) -> None:
        signins = make(guard=Guard(regions={"US"}, denied_prefixes=("+1202",)))
        for typed, reason in (
            ("+18765551234", "region"),
            ("+12025550123", "prefix"),
            ("+19005551234", "premium"),
            ("hello", "invalid"),
        ):
            with pytest.raises(GuardRefusedError) as refused:
                await signins.start(typed, visitor=VISITOR)
            assert refused.value.reason == reason
            assert typed not in str(refused.value)
        assert len(sim.inbox) == 0
        assert [event.reason for event in events.seen] == ["region", "prefix", "premium", "invalid"]

    async def test_what_people_type_is_put_into_canonical_form(
        self, make: Callable[..., SignIns], sim: Simulator
    ) -> None:
        signins = make()
        flow = await signins.start("(919) 555-1234", region="US", visitor=VISITOR)
        assert sim.inbox[-1].to == NUMBER
        assert (await signins.check(flow.id, sim.inbox[-1].code)).number == NUMBER
        await signins.start(NUMBER, visitor=VISITOR)
        with pytest.raises(GuardRefusedError):
            await signins.start("919-555-1234", region="US", visitor=VISITOR)

    async def test_a_stranger_does_not_lock_the_victim_out(
        self, make: Callable[..., SignIns], sim: Simulator, clock: ManualClock
    ) -> None:
        signins = make()
        for _ in range(5):
            await signins.start(NUMBER, visitor="203.0.113.9")
            clock.tick(60)
        with pytest.raises(GuardRefusedError) as refused:
            await signins.start(NUMBER, visitor=VISITOR)
        assert (refused.value.reason, refused.value.clearable) == ("number", True)
        flow = await signins.start(NUMBER, visitor=VISITOR, cleared=True)
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid

    async def test_100_wrong_codes_in_a_row_need_clearing(
        self, make: Callable[..., SignIns], sim: Simulator, store: Store, clock: ManualClock
    ) -> None:
        signins = make(guard=Guard(**NO_LIMITS), max_checks=20, cooldown=0)
        for _ in range(5):
            flow = await signins.start(NUMBER, send=False, visitor=VISITOR)
            for _ in range(20):
                assert (await signins.check(flow.id, "000000")).reason == "wrong"
        with pytest.raises(GuardRefusedError) as refused:
            await signins.start(NUMBER, visitor=VISITOR)
        assert (refused.value.reason, refused.value.clearable, refused.value.retry_after) == ("number", True, None)
        flow = await signins.start(NUMBER, visitor=VISITOR, cleared=True)
        assert (await signins.check(flow.id, wrong(sim.inbox[-1].code))).reason == "wrong"
        assert (await signins.check(flow.id, sim.inbox[-1].code)).valid
        await signins.start(NUMBER, visitor=VISITOR)

    async def test_flows_drain_the_budgets(self, make: Callable[..., SignIns], sim: Simulator) -> None:
        signins = make(guard=Guard(unverified=UnverifiedBudget(expected_per_day=1), **NO_LIMITS), cooldown=0)
        for n in range(8):
            flow = await signins.start(number(n), visitor=VISITOR)
            await signins.resend(flow.id)
            if n % 2:
                await signins.done(flow.id)
            else:
                assert (await signins.check(flow.id, sim.inbox[-1].code)).valid

    async def test_flows_that_send_nothing_cannot_close_a_region(self, make: Callable[..., SignIns]) -> None:
        signins = make(guard=Guard(unverified=UnverifiedBudget(expected_per_day=1), **NO_LIMITS))
        for n in range(20):
            await signins.start(number(n), visitor=f"10.0.0.{n}", send=False)
        await signins.start(NUMBER, visitor=VISITOR)


async def test_alone_it_needs_a_store() -> None:
    with pytest.raises(ConfigurationError, match=r"^store: "):
        await Guard().admit(NUMBER)


async def test_a_rotated_secret_finds_the_old_records(clock: ManualClock) -> None:
    old, new = "the old secret of this test", "the new secret of this test"
    store = MemoryStore(clock=clock, secret=old)
    options: dict[str, Any] = {"per_number": "3/h", "per_visitor": None}
    for secrets, expected in (([old], ""), ([old, new], ""), ([new, old], ""), ([new, old], "number"), ([old], "")):
        again = MemoryStore(clock=clock, secret=secrets)
        again._records, again._expiries = store._records, store._expiries
        assert await reasons(Guard(store=again, **options), [NUMBER]) == [expected]
