"""The steps of idempotency keys, as pure functions over one record.

Fields of a record: ``v`` format; ``s`` state (a `LedgerState`); ``d`` digest of the request; ``t`` fencing token of the
last holder; ``u`` end of its lease (ms) and ``l`` its length (ms), while it holds the key; ``o`` packed outcome; ``n``
which of the holder's attempts was begun last; ``m`` 1 if an attempt before the last one is unknown; ``g`` token of the
only attempt that is unknown; ``a`` time of the last change (ms); ``e`` expiry (ms).

Unknown is sticky, as in the ledger's ``codes.lua``: only an acceptance, or the outcome of the one attempt that is
unknown, settles it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from .._item_state import LedgerState
from ._step import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._step import Argument, Records, Reply, StoredRecord

FORMAT: Final = 1
CLOCK_CORRECTION: Final = 1_000
"""Milliseconds."""
PENDING, SENDING, RESENDING = "0", "1", "9"
REJECTED, REFUSED, NOT_SENT, UNKNOWN = "3", "7", "4", "5"
ACCEPTED, DUPLICATE = "a", "b"
_ACCEPTED: Final = (ACCEPTED, DUPLICATE, LedgerState.ACCEPTED_UNRECORDED.value)
_IN_FLIGHT: Final = (SENDING, RESENDING)
_FAILED: Final = (REJECTED, REFUSED, NOT_SENT)
INTERRUPTED: Final = ""
"""The outcome of a key whose holder's lease expired while an attempt was in flight."""


def _is_live(record: StoredRecord, now: int) -> bool:
    """Return whether a lease is valid. One that is longer than its length counts as over: the clock was set back.

    Small corrections of a clock are normal: they must not make an attempt that is in flight unknown.
    """
    return bool(now < record.get("u", 0) <= now + record.get("l", 0) + CLOCK_CORRECTION)


def _release(record: StoredRecord) -> None:
    for name in ("u", "l", "g"):
        record.pop(name, None)


def _observe(records: Records, now: int) -> StoredRecord | None:
    """Return the record; one whose lease expired while an attempt was in flight is unknown."""
    record = records[0]
    if record is not None and record["s"] in _IN_FLIGHT and not _is_live(record, now):
        origin = "" if record.get("m") else record["t"]
        _release(record)
        record.update(s=UNKNOWN, o=INTERRUPTED)
        if origin:
            record["g"] = origin
    return record


def _state(record: StoredRecord, now: int) -> Reply:
    if _is_live(record, now):
        word = "sending" if record["s"] in _IN_FLIGHT else "held"
        return [word, record["u"] - now]
    return ["open"] if record["s"] == PENDING else [record["s"], record.get("o", "")]


def claim(records: Records, args: Sequence[Argument], now: int) -> Reply:
    """Claim a key, and store the intent if `begin`; or return what is known.

    Args:
        records: the record.
        args: digest, token, lease (ms), retention (ms), begin (0 or 1), whether an unknown key is sent again (0 or 1),
            the number of the attempt.
        now: Unix time (ms).

    Returns:
        ``["claimed", 1 if an earlier attempt is unknown]``, ``["held", ms]`` or ``["sending", ms]`` with the rest of
        the holder's lease, ``["other"]`` (another request), ``["lost"]`` (this token has settled the key), or a state
        and its outcome.
    """
    digest, token, lease, retention, begin, resends_unknown, attempt = cast("Any", args)
    record = _observe(records, now)
    if record is None:
        record = {"v": FORMAT, "s": PENDING, "d": digest}
    elif record["d"] != digest:
        return ["other"]
    state, is_live = record["s"], _is_live(record, now)
    is_mine = record.get("t") == token
    if state in _ACCEPTED or (state == UNKNOWN and not resends_unknown):
        return [state, record.get("o", "")]
    if is_live and not is_mine:
        return _state(record, now)
    if is_mine and not is_live and state != PENDING:
        return ["lost"]
    maybe_delivered = 1 if state in (UNKNOWN, RESENDING) or record.get("m") else 0
    if state in _FAILED:
        record["s"] = PENDING
        record.pop("o", None)
    if begin:
        _begin(record, attempt, maybe_delivered=bool(maybe_delivered))
    record.update(t=token, u=now + lease, l=lease, a=now, e=now + retention)
    records.save(0, record)
    return ["claimed", maybe_delivered]


def _begin(record: StoredRecord, attempt: int, *, maybe_delivered: bool) -> None:
    record["n"] = attempt
    record["s"] = RESENDING if maybe_delivered else SENDING
    if maybe_delivered:
        record["m"] = 1
    record.pop("g", None)


def begin(records: Records, args: Sequence[Argument], now: int) -> Reply:
    """Store the intent of an attempt, and renew the lease.

    Args:
        records: the record.
        args: token, lease (ms), retention (ms), whether an unknown key is sent again, whether an earlier attempt of
            the same call is unknown (0 or 1), the number of the attempt.
        now: Unix time (ms).

    Returns:
        ``["begun"]``; ``["lost"]`` if the token does not hold the key.
    """
    token, lease, retention, resends_unknown, maybe_delivered, attempt = cast("Any", args)
    record = records[0]
    if record is None or record.get("t") != token or not _is_live(record, now):
        return ["lost"]
    is_unknown = record["s"] in (UNKNOWN, RESENDING) or bool(record.get("m"))
    if record["s"] == UNKNOWN and not resends_unknown:
        return ["lost"]
    _begin(record, attempt, maybe_delivered=is_unknown or bool(maybe_delivered))
    record.update(u=now + lease, l=lease, a=now, e=now + retention)
    records.save(0, record)
    return ["begun"]


def renew(records: Records, args: Sequence[Argument], now: int) -> Reply:
    """Renew the lease of a key, also one that has expired unnoticed.

    Args:
        records: the record.
        args: token, lease (ms), retention (ms).
        now: Unix time (ms).

    Returns:
        ``["renewed"]`` or ``["lost"]``.
    """
    token, lease, retention = cast("Any", args)
    record = records[0]
    if record is None or record.get("t") != token or "u" not in record:
        return ["lost"]
    record.update(u=now + lease, l=lease, e=now + retention)
    records.save(0, record)
    return ["renewed"]


def _settle_failure(record: StoredRecord, new: str, outcome: str, token: str) -> bool:
    """Apply an outcome that is no acceptance; return whether it changes anything."""
    old = record["s"]
    holds = record.get("t") == token and "u" in record
    if old == UNKNOWN and record.get("g") == token:
        # No other attempt is unknown, so this outcome is the key's. Not pending: others may have read unknown.
        state = NOT_SENT if new == PENDING else new
    elif not holds or (old == UNKNOWN and new != UNKNOWN):
        return False
    else:
        state = UNKNOWN if old == RESENDING or record.get("m") else new
    if "u" in record and not holds:
        # Another call has claimed the unknown key and begun nothing: it keeps its claim.
        record["s"] = UNKNOWN if state == UNKNOWN else PENDING
        record.pop("g", None)
        return True
    record["s"] = state
    if new != PENDING or not holds:  # otherwise the call goes on, and keeps its lease
        if outcome or state != UNKNOWN:
            record["o"] = outcome
        _release(record)
    return True


def settle(records: Records, args: Sequence[Argument], now: int) -> Reply:
    """Store the outcome of an attempt.

    Args:
        records: the record.
        args: token, digest, retention (ms), state (pending if nothing was sent and the call goes on), outcome, the
            number of the attempt: the script of an earlier one, which runs late, must not make a later one pending.
        now: Unix time (ms).

    Returns:
        As `get`.
    """
    token, digest, retention, new, outcome, attempt = cast("Any", args)
    record = records[0]
    if record is None and new not in (PENDING, *_FAILED):
        # The store lost it, or it expired. Stored again is what forbids to send.
        record = {"v": FORMAT, "s": SENDING, "d": digest, "t": token, "u": now}
    if record is None or record["d"] != digest or (new == PENDING and record.get("n") != attempt):
        return get(records, [digest], now)
    old = record["s"]
    if new not in _ACCEPTED:
        is_changed = old not in _ACCEPTED and _settle_failure(record, new, outcome, token)
    elif old in _ACCEPTED:
        # If two attempts were accepted, the first id stays.
        is_changed = record["o"] != outcome
        record["s"] = DUPLICATE
    else:
        made_unknown, holds = old == UNKNOWN and record.get("g") == token, record.get("t") == token and "u" in record
        other = record.get("m") or (old == UNKNOWN and not made_unknown) or (old in _IN_FLIGHT and not holds)
        record.update(s=DUPLICATE if other else new, o=outcome, t=token)
        _release(record)
        is_changed = True
    if is_changed:
        record.update(a=now, e=now + retention)
        records.save(0, record)
    return get(records, [digest], now)


def withdraw(records: Records, args: Sequence[Argument], now: int) -> Reply:
    """Withdraw a key that is claimed without an intent, so that its holder cannot begin an attempt.

    Args:
        records: the record.
        args: digest of the request, outcome to store.
        now: Unix time (ms).

    Returns:
        As `get`.
    """
    digest, outcome = cast("Any", args)
    record = records[0]
    if record is not None and record["s"] == PENDING and record["d"] == digest:
        _release(record)
        record.pop("t", None)
        record.update(s=NOT_SENT, o=outcome, a=now)
        records.save(0, record)
    return get(records, [digest], now)


def get(records: Records, args: Sequence[Argument], now: int) -> Reply:
    """Return what is known of a key.

    Args:
        records: the record.
        args: digest of the request.
        now: Unix time (ms).

    Returns:
        ``["absent"]``, ``["other"]``, ``["open"]`` (a claim without an intent has expired), ``["held", ms]`` or
        ``["sending", ms]`` with the rest of the lease, or a state and its outcome.
    """
    record = _observe(records, now)
    if record is None:
        return ["absent"]
    return _state(record, now) if record["d"] == args[0] else ["other"]


_PRELUDE: Final = ("_keys",)
CLAIM: Final = Step("key_claim", claim, _PRELUDE)
BEGIN: Final = Step("key_begin", begin, _PRELUDE)
RENEW: Final = Step("key_renew", renew, _PRELUDE)
SETTLE: Final = Step("key_settle", settle, _PRELUDE, runs_late=True)
WITHDRAW: Final = Step("key_withdraw", withdraw, _PRELUDE)
GET: Final = Step("key_get", get, _PRELUDE, is_read=True)
