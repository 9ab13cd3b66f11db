"""The guard's decisions: admit a text, give it back, and drain the budgets. `lua/_admission.lua` means the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ._counters import (
    DAY,
    DAYS_KEPT,
    HOUR,
    HOURS_KEPT,
    TEXT,
    Budget,
    dump,
    load,
    longest,
    pruned,
    region_thresholds,
    visitor_thresholds,
    window_add,
    window_wait,
)

if TYPE_CHECKING:
    from ..stores import Records, StoredRecord
    from ._counters import Rules

STREAK: Final = 15 * 60_000
"""Milliseconds without a text to a number after which its cool-downs begin again with the first."""
MAX_WRONG: Final = 100
"""Wrong codes in a row, over all flows of a number, after which only cleared requests are admitted."""
VERIFIED_FOR: Final = 90 * DAY
"""For how long a number that was verified is exempt from the budgets of its prefix and region."""
_REGION_KEPT: Final = (DAYS_KEPT + 2) * DAY
_META_KEPT: Final = 3650 * DAY

Ticket = dict[str, Any]
"""What was counted for one text: its time ``t``, the number's earlier time ``l`` and streak ``c``, and flags: ``x``
cleared, ``o`` would have been refused (mode observe), ``f`` nothing is sent, ``r`` counts for the region."""


class Roles:
    """The records of a step by their role.

    Args:
        records: the step's records.
        indexes: the indexes of each role. The first is written; others belong to older secrets.
    """

    def __init__(self, records: Records, indexes: dict[str, list[int]]) -> None:
        self._records = records
        self._indexes = indexes

    def __contains__(self, role: str) -> bool:
        return role in self._indexes

    def get(self, role: str) -> StoredRecord | None:
        """Return the record of a role."""
        for index in self._indexes.get(role, ()):
            if (record := self._records[index]) is not None:
                return record
        return None

    def save(self, role: str, record: StoredRecord) -> None:
        """Store the record of a role under the first of its keys."""
        first, *others = self._indexes[role]
        self._records.save(first, record)
        for index in others:
            if self._records[index] is not None:
                self._records.delete(index)

    def delete(self, role: str) -> None:
        """Delete the record of a role."""
        for index in self._indexes.get(role, ()):
            self._records.delete(index)


class Admission:
    """Decides on texts, with the records and the policy of one step.

    Args:
        roles: the records.
        a: the arguments of the step.
        now: Unix time in ms.
    """

    def __init__(self, roles: Roles, a: dict[str, Any], now: int) -> None:
        self._roles, self._a, self._now = roles, a, now

    def admit(self) -> tuple[str, int, Ticket, bool]:
        """Decide on one text, and count it.

        Returns:
            The reason of a refusal, or ""; the milliseconds until it no longer applies, or 0; the ticket; and whether
            the budget of unverified texts still collects the history that it needs.
        """
        number = self._roles.get("number") or {}
        last, streak = _streak(number, self._now)
        if gap := _cooldown_left(self._a["cooldown"], last, streak, self._now):
            return "cooldown", gap, {}, False
        failed, observing = self._failed_checks(number)
        enforced = next(((reason, wait) for reason, wait, observed in failed if not observed), None)
        if enforced:
            self._count_refused()
            return *enforced, {}, observing
        ticket = {"t": self._now, "l": last, "c": streak, "x": self._a["cleared"]}
        ticket |= {"o": int(bool(failed)), "f": self._a["fake"], "r": int(self._counts_for_region())}
        number["l"], number["c"] = self._now, streak + 1
        if failed:
            self._count_refused()
            self._save_number(number)
        else:
            self._count(ticket, number)
        return "", 0, ticket, observing

    def _failed_checks(self, number: StoredRecord) -> tuple[list[tuple[str, int, bool]], bool]:
        failed: list[tuple[str, int, bool]] = []

        def check(reason: str, wait: int) -> None:
            if wait:
                failed.append((reason, max(0, wait), reason in self._a["observe"]))

        if self._a["static"]:
            check(self._a["static"], -1)
        check("number", window_wait(load(number, "x" if self._a["cleared"] else "w"), self._a["per_number"], self._now))
        if number.get("f", 0) >= MAX_WRONG and not self._a["cleared"]:
            check("number", -1)
        check("visitor", window_wait(load(self._roles.get("visitor"), "w"), self._a["per_visitor"], self._now))
        check("total", window_wait(load(self._roles.get("total"), "w"), self._a["total"], self._now))
        observing = bool(self._a["budget"]) and self._is_observing()
        if self._a["budget"] and not observing:
            exempt = self._a["cleared"] or number.get("g", 0) + VERIFIED_FOR > self._now
            for role in ("visitor",) if exempt else ("visitor", "prefix", "region"):
                if role in self._roles:
                    check("unverified", self._budget(role).wait())
        return failed, observing

    def _is_observing(self) -> bool:
        if not self._a["observe_ms"]:
            return False
        meta = self._roles.get("meta") or {}
        if "b" not in meta:
            meta["b"] = self._now
            meta["e"] = self._now + _META_KEPT
            self._roles.save("meta", meta)
        return self._now < int(meta["b"]) + int(self._a["observe_ms"])

    def _budget(self, role: str) -> Budget:
        record = self._roles.get(role)
        if role == "region":
            return Budget(record, region_thresholds(record, self._a["expected"], self._now), self._now)
        return Budget(record, visitor_thresholds(record, self._now), self._now)

    def _counts_for_region(self) -> bool:
        """Return whether a text counts for its region: only if its prefix holds less than one unverified text.

        Otherwise an attack on the numbers of one prefix, which that prefix's budget ends, would close the region.
        """
        return bool(self._a["budget"]) and "prefix" in self._roles and self._budget("prefix").holds < TEXT

    def _count(self, ticket: Ticket, number: StoredRecord) -> None:
        self._add(number, "x" if ticket["x"] else "w", self._a["per_number"], self._now, 1)
        self._save_number(number)
        self._add_windows(self._now, 1)
        if self._a["budget"]:
            self._fill(_buckets(ticket), 1)
        if not ticket["f"]:
            self._count_in_region(0, 1, self._now)

    def _add_windows(self, at: int, n: int) -> None:
        self._add_to_window("visitor", self._a["per_visitor"], at, n)
        self._add_to_window("total", self._a["total"], at, n)

    def _add_to_window(self, role: str, rules: Rules, at: int, n: int) -> None:
        if role in self._roles and rules:
            record = self._roles.get(role) or {}
            self._add(record, "w", rules, at, n)
            _keep_until(record, self._now + max(2 * longest(rules), 2 * DAY))
            self._roles.save(role, record)

    def _add(self, record: StoredRecord, name: str, rules: Rules, at: int, n: int) -> None:
        windows = load(record, name)
        window_add(windows, rules, at, n, self._now)
        record[name] = dump(windows)

    def _fill(self, which: tuple[str, ...], texts: int) -> None:
        for role in which:
            if role in self._roles:
                record = self._roles.get(role) or {}
                record["b"] = self._budget(role).filled(texts)
                _keep_until(record, self._now + (_REGION_KEPT if role == "region" else 2 * DAY))
                self._roles.save(role, record)

    def _count_refused(self) -> None:
        """Count a refused attempt: in the report, and against its visitor only."""
        if self._a["budget"]:
            self._fill(("visitor",), 1)
        self._count_in_region(2, 1, self._now)

    def _count_in_region(self, column: int, n: int, at: int) -> None:
        record = self._roles.get("region") or {}
        if "n" not in record:
            record["n"] = self._a["region"]
            meta = self._roles.get("meta") or {}
            regions = load(meta, "r")
            if self._a["region"] not in regions:
                regions[self._a["region"]] = 1
                meta["r"] = dump(regions)
                meta["e"] = self._now + _META_KEPT
                self._roles.save("meta", meta)
        hours = pruned(load(record, "h"), self._now // HOUR, HOURS_KEPT)
        counts = hours.get(str(at // HOUR), [0, 0, 0])
        counts[column] = max(0, counts[column] + n)
        hours[str(at // HOUR)] = counts
        record["h"] = dump(hours)
        if column == 1:
            days = pruned(load(record, "d"), self._now // DAY, DAYS_KEPT)
            days[str(at // DAY)] = days.get(str(at // DAY), 0) + n
            record["d"] = dump(days)
        record["e"] = self._now + _REGION_KEPT
        self._roles.save("region", record)

    def _save_number(self, number: StoredRecord) -> None:
        kept = max(2 * longest(self._a["per_number"]), 2 * STREAK)
        if "g" in number or "f" in number:
            kept = max(kept, VERIFIED_FOR)
        _keep_until(number, self._now + kept)
        self._roles.save("number", number)

    def release(self, ticket: Ticket) -> None:
        """Give back everything that was counted for a text that was not sent."""
        number = self._roles.get("number") or {}
        if number.get("l") == ticket["t"]:
            number["l"], number["c"] = ticket["l"], ticket["c"]
        if not ticket["o"]:
            self._add(number, "x" if ticket["x"] else "w", self._a["per_number"], ticket["t"], -1)
        self._save_number(number)
        if ticket["o"]:
            return
        self._add_windows(ticket["t"], -1)
        if self._a["budget"]:
            self._fill(_buckets(ticket), -1)
        if not ticket["f"]:
            self._count_in_region(0, -1, ticket["t"])

    def drain(self, tickets: list[Ticket], *, verified: bool) -> None:
        """Take the texts of a flow out of the budgets and out of its visitor's limits.

        Args:
            tickets: those of the flow's texts.
            verified: whether a code was verified; otherwise the person signed in in another way.
        """
        # What would have been refused has no outcome.
        sent = [ticket for ticket in tickets if not ticket["o"] and not ticket["f"]]
        if verified:
            number = self._roles.get("number") or {}
            number["c"] = number["f"] = 0
            if sent:
                number["g"] = self._now
            self._save_number(number)
        if not sent:
            return
        for ticket in sent:
            self._add_to_window("visitor", self._a["per_visitor"], ticket["t"], -1)
        if self._a["budget"]:
            self._fill(("visitor", "prefix"), -len(sent))
            if in_region := sum(ticket["r"] for ticket in sent):
                self._fill(("region",), -in_region)
        if verified:
            last = max(ticket["t"] for ticket in sent)
            for role in ("visitor", "prefix"):
                if self._a["budget"] and role in self._roles:
                    record = self._roles.get(role) or {}
                    hours = pruned(load(record, "g"), self._now // HOUR, 24)
                    hours[str(last // HOUR)] = hours.get(str(last // HOUR), 0) + 1
                    record["g"] = dump(hours)
                    _keep_until(record, self._now + 2 * DAY)
                    self._roles.save(role, record)
            self._count_in_region(1, 1, last)

    def count_wrong(self) -> None:
        """Count a wrong code for a number."""
        number = self._roles.get("number") or {}
        number["f"] = number.get("f", 0) + 1
        self._save_number(number)


def _buckets(ticket: Ticket) -> tuple[str, ...]:
    # Nothing is sent for a fake flow, so it cannot close a prefix or a region.
    if ticket["f"]:
        return ("visitor",)
    return ("visitor", "prefix", "region") if ticket["r"] else ("visitor", "prefix")


def _streak(number: StoredRecord, now: int) -> tuple[int, int]:
    last = number.get("l", 0)
    return last, number.get("c", 0) if -STREAK < now - last < STREAK else 0


def next_cooldown(cooldown: list[int], streak: int) -> int:
    """Return the milliseconds between the last of `streak` texts and the next."""
    return cooldown[min(streak, len(cooldown)) - 1] if cooldown and streak > 0 else 0


def _cooldown_left(cooldown: list[int], last: int, streak: int, now: int) -> int:
    gap = next_cooldown(cooldown, streak)
    left = last + gap - now
    # More than the whole gap is left over from a clock that was set back.
    return left if 0 < left <= gap else 0


def _keep_until(record: StoredRecord, till: int) -> None:
    record["e"] = max(record.get("e", 0), till)
