"""The decisions of a sign-in flow. `lua/_flow.lua` and the Lua file of each step mean the same.

The record of a flow: ``s`` its state (``open``, ``used``, ``exhausted``, ``ended``), ``p`` the sealed number, subject
and visitor (deleted when the flow is used or ended), ``o`` the scope of its codes, ``g`` its language, ``d`` the
lengths of its codes, ``f`` whether it sends nothing, ``t`` the time of the first text, ``x`` when it expires, ``w``
when the next text may go, ``m`` its texts by token as JSON (see `Ticket`; and ``s`` the state of the text, ``u`` when
it is unknown if it is still in flight, ``q`` its place), ``k`` the number of checks, ``r`` its checks by token as JSON.
Times are Unix time in ms.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ..stores import Step, load_scripts
from ._admission import Admission, Roles, next_cooldown
from ._counters import DAY, dump, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..stores import Argument, Records, Reply, StoredRecord

TOMBSTONE: Final = 20 * 60_000
"""Milliseconds for which an ended flow is remembered."""
GRACE: Final = 60_000
"""Milliseconds after its expiry for which a flow takes the outcomes of checks that began before."""
MAX_AGE: Final = 15 * 60_000
"""Milliseconds from the first text after which a flow expires: the service verifies no older code."""
CLOCK_CORRECTION: Final = 1_000
"""Milliseconds by which a clock may be set back without an effect."""
MAX_GIVEN_BACK: Final = 20
"""Checks that were given back and whose tokens are remembered."""
TICKET_KEPT: Final = DAY


def start(roles: Roles, a: dict[str, Any], now: int) -> Reply:
    """Admit the first text of a new flow, and store the flow."""
    if (flow := roles.get("flow")) is not None:  # this step runs again
        return ["ok", *view(flow, now), 0]
    if a["key_digest"] and (known := roles.get("key")) is not None:
        return ["known", known["i"]] if known["h"] == a["key_digest"] else ["other"]
    reason, wait, ticket, observing = Admission(roles, a, now).admit()
    if reason:
        return ["refused", reason, wait]
    flow = {"s": "open", "p": a["sealed"], "o": a["scope"], "g": a["language"], "d": a["lengths"], "f": a["fake"]}
    flow |= {"t": now, "k": 0, "r": "{}", "m": "{}"}
    _add_text(roles, flow, a, ticket, now)
    if a["key_digest"]:
        roles.save("key", {"h": a["key_digest"], "i": a["sealed_id"], "e": now + MAX_AGE + TOMBSTONE})
    return ["ok", *view(flow, now), int(observing)]


def send(roles: Roles, a: dict[str, Any], now: int) -> Reply:
    """Admit another text of an open flow."""
    flow = _open(roles.get("flow"), now)
    if flow is None:
        return ["expired"]
    texts = load(flow, "m")
    if a["token"] in texts:  # this step runs again
        return ["ok", *view(flow, now), 0]
    if len(texts) >= a["max_sends"]:
        return ["refused", "sends", 0]
    reason, wait, ticket, observing = Admission(roles, a, now).admit()
    if reason:
        return ["refused", reason, wait]
    _add_text(roles, flow, a, ticket, now)
    return ["ok", *view(flow, now), int(observing)]


def _open(flow: StoredRecord | None, now: int) -> StoredRecord | None:
    return flow if flow is not None and flow["s"] == "open" and _is_live(flow, now) else None


def _is_live(flow: StoredRecord, now: int) -> bool:
    # An expiry further away than any is left over from a clock that was set back.
    return bool(now < flow["x"] <= now + MAX_AGE + CLOCK_CORRECTION)


def _add_text(roles: Roles, flow: StoredRecord, a: dict[str, Any], ticket: dict[str, Any], now: int) -> None:
    texts = load(flow, "m")
    place = 1 + max((text["q"] for text in texts.values()), default=0)
    texts[a["token"]] = ticket | {"s": "sending", "u": now + a["in_flight_ms"], "q": place}
    flow["m"] = dump(texts)
    _set_times(flow, a, now, now + next_cooldown(a["cooldown"], ticket["c"] + 1))
    roles.save("flow", flow)


def _set_times(flow: StoredRecord, a: dict[str, Any], last: int, next_text: int) -> None:
    flow["x"] = min(last + int(a["lifetime"]), flow["t"] + MAX_AGE)
    flow["w"] = next_text
    flow["e"] = flow["x"] + GRACE


def sent(roles: Roles, a: dict[str, Any], now: int) -> Reply:
    """Store the outcome of a text: ``accepted``, ``unknown``, or ``not sent``, which gives back what was counted."""
    flow = roles.get("flow")
    if flow is None:
        return ["expired"]
    texts = load(flow, "m")
    text = texts.get(a["token"])
    if text is None or text["s"] != "sending":  # this step runs again
        return ["ok", *view(flow, now), 0]
    if a["outcome"] != "not sent":
        text["s"] = a["outcome"]
        flow["m"] = dump(texts)
        roles.save("flow", flow)
        return ["ok", *view(flow, now), 0]
    Admission(roles, a, now).release(text)
    del texts[a["token"]]
    flow["m"] = dump(texts)
    if flow["s"] == "open":
        if not texts:
            roles.delete("flow")
            roles.delete("key")
            return ["expired"]
        number = roles.get("number") or {}
        last = max(text["t"] for text in texts.values())
        _set_times(flow, a, last, number.get("l", 0) + next_cooldown(a["cooldown"], number.get("c", 0)))
    roles.save("flow", flow)
    return ["ok", *view(flow, now), 0]


def view(flow: StoredRecord, now: int) -> list[Any]:
    """Return what is known of a flow.

    Its state, milliseconds until it expires and until the next text may go, the numbers of texts and checks, the
    outcome of the last text, and the parts that only this package reads.
    """
    texts: dict[str, dict[str, Any]] = load(flow, "m")
    last: dict[str, Any] = max(texts.values(), key=lambda text: int(text["q"]), default={"s": "accepted"})
    outcome = last["s"]
    if outcome == "sending" and now >= last["u"]:
        outcome = "unknown"
    is_open = _open(flow, now) is not None
    return [
        flow["s"] if is_open or flow["s"] != "open" else "ended",
        max(0, flow["x"] - now) if is_open else 0,
        max(0, flow["w"] - now),
        len(texts),
        flow["k"],
        outcome,
        flow.get("p", ""),
        flow["o"],
        flow["g"],
        flow["f"],
    ]


def get(roles: Roles, _a: dict[str, Any], now: int) -> Reply:
    """Return what is known of a flow."""
    flow = roles.get("flow")
    return ["expired"] if flow is None else ["ok", *view(flow, now), 0]


def check(roles: Roles, a: dict[str, Any], now: int) -> Reply:
    """Count a check before the service is asked."""
    flow = roles.get("flow")
    if flow is None or flow["s"] == "ended":
        return ["expired"]
    if flow["s"] != "open":
        return [flow["s"]]
    if not _is_live(flow, now):
        return ["expired"]
    checks = load(flow, "r")
    if a["token"] not in checks:
        if a["length"] not in flow["d"]:
            return ["malformed", max(0, a["max_checks"] - flow["k"])]
        if flow["k"] >= a["max_checks"]:
            return ["exhausted"]
        flow["k"] += 1
        checks[a["token"]] = "asked"
        flow["r"] = dump(checks)
        roles.save("flow", flow)
    return ["ask", flow["p"], flow["o"], now - flow["t"], flow["f"]]


def checked(roles: Roles, a: dict[str, Any], now: int) -> Reply:
    """Store the outcome of a check: ``valid``, ``wrong``, ``unknown``, or ``back``, which gives back the try."""
    flow = roles.get("flow")
    if flow is None or flow["s"] == "ended":
        return ["expired", 0]
    checks = load(flow, "r")
    if checks.get(a["token"]) != "asked":  # this step runs again
        return [checks.get(a["token"], "expired"), max(0, a["max_checks"] - flow["k"])]
    outcome = a["outcome"]
    if outcome == "valid" and flow["s"] != "open":
        outcome = "used" if flow["s"] == "used" else "expired"
    if outcome == "back":
        flow["k"] -= 1
        given_back = [token for token, state in checks.items() if state == "back"]
        if len(given_back) >= MAX_GIVEN_BACK:
            checks = {token: state for token, state in checks.items() if state != "back"}
    checks[a["token"]] = outcome
    flow["r"] = dump(checks)
    if outcome == "valid":
        Admission(roles, a, now).drain(_texts(flow), verified=True)
        _end(flow, "used", now)
    elif flow["s"] == "open" and flow["k"] >= a["max_checks"] and "asked" not in checks.values():
        _end(flow, "exhausted", now)
    if outcome == "wrong":
        Admission(roles, a, now).count_wrong()
    roles.save("flow", flow)
    return [outcome, max(0, a["max_checks"] - flow["k"])]


def _texts(flow: StoredRecord) -> list[dict[str, Any]]:
    return list(load(flow, "m").values())


def _end(flow: StoredRecord, state: str, now: int) -> None:
    flow["s"] = state
    if state != "exhausted":  # `end` can still drain the budgets
        flow.pop("p", None)
    flow["e"] = now + TOMBSTONE


def end(roles: Roles, a: dict[str, Any], now: int) -> Reply:
    """End a flow; with ``drain``, its texts leave the budgets, because the person signed in in another way."""
    flow = roles.get("flow")
    if flow is None or flow["s"] in {"used", "ended"}:
        return ["expired"]
    if a["drain"]:
        Admission(roles, a, now).drain(_texts(flow), verified=False)
    _end(flow, "ended", now)
    roles.save("flow", flow)
    return ["ok"]


def ticket_admit(roles: Roles, a: dict[str, Any], now: int) -> Reply:
    """Admit a text without a flow."""
    if roles.get("ticket") is not None:  # this step runs again
        return ["ok", 0]
    reason, wait, ticket, observing = Admission(roles, a, now).admit()
    if reason:
        return ["refused", reason, wait]
    roles.save("ticket", {"s": "open", "j": dump(ticket), "e": now + TICKET_KEPT})
    return ["ok", int(observing)]


def ticket_end(roles: Roles, a: dict[str, Any], now: int) -> Reply:
    """Give a ticket back, or drain the budgets by it; only the first of these takes effect."""
    record = roles.get("ticket")
    if record is None or record["s"] != "open":
        return ["ended"]
    ticket = load(record, "j")
    if a["outcome"] == "verified":
        Admission(roles, a, now).drain([ticket], verified=True)
    else:
        Admission(roles, a, now).release(ticket)
    record["s"] = a["outcome"]
    roles.save("ticket", record)
    return ["ok"]


def read(records: Records, args: Sequence[Argument], _now: int) -> Reply:
    """Return one field of each record; "" where there is none."""
    field, count = str(args[0]), int(args[1])
    found = [records[index] for index in range(count)]
    return [""] + [str(record.get(field, "")) if record is not None else "" for record in found]


def _step(name: str, decide: Callable[[Roles, dict[str, Any], int], Reply], **flags: bool) -> Step:
    def apply(records: Records, args: Sequence[Argument], now: int, /) -> Reply:
        """Decide on records by their role; the one argument is JSON."""
        a: dict[str, Any] = json.loads(str(args[0]))
        return decide(Roles(records, a["roles"]), a, now)

    return Step(name, apply, prelude=_PRELUDE, package=_PACKAGE, **flags)


_PACKAGE: Final = "bandwidth_mfa_async.signin"
_PRELUDE: Final = ("_counters", "_admission", "_flow")

START: Final = _step("flow_start", start)
SEND: Final = _step("flow_send", send)
SENT: Final = _step("flow_sent", sent, runs_late=True)
GET: Final = _step("flow_get", get, is_read=True)
CHECK: Final = _step("flow_check", check)
CHECKED: Final = _step("flow_checked", checked)
END: Final = _step("flow_end", end)
TICKET_ADMIT: Final = _step("ticket_admit", ticket_admit)
TICKET_END: Final = _step("ticket_end", ticket_end, runs_late=True)
READ: Final = Step("read_field", read, is_read=True, package=_PACKAGE)

load_scripts(START, SEND, SENT, GET, CHECK, CHECKED, END, TICKET_ADMIT, TICKET_END, READ)
