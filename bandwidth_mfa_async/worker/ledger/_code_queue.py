"""The single codes of a ledger: queued by a requester, claimed and settled by a worker."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from ..._concise import ConciseType
from ..._item_state import DELIVERY_OF_LEDGER_STATE, LedgerState, pack_error, unpack_error
from ..._keys import MAX_KEY_LENGTH, key_digest
from ..._process import PerLoop
from ..._redis._batcher import Batcher
from ..._redis._time import RedisTime
from ...errors import DeadlineExceededError, Delivery, DeliveryUnknownError, InvalidRequestError, LedgerError
from ._codec import pack_code
from ._protocol import Reply
from ._timeline import CODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._lease import Lease
    from ..._models import CodeRequest
    from ...errors import MFAError
    from ._ledger import RedisLedger

_NAME_LENGTH: Final = 32
# The one state of an accepted code, since processes of an older version read it; the hash has a field for the flag.
_ACCEPTED: Final = LedgerState.ACCEPTED_UNRECORDED


def _pack_outcome(provider_id: str | None, error: MFAError | None) -> str:
    return json.dumps([provider_id, pack_error(error)])


_INTERRUPTED: Final = _pack_outcome(
    None, DeliveryUnknownError("the worker died or was disconnected while the request was in flight")
)
_EXPIRED: Final = _pack_outcome(None, DeadlineExceededError("no worker sent the code in time", attempts=0))


@frozen
class CodeOutcome(metaclass=ConciseType):
    """What is known of a single code.

    Attributes:
        delivery: its delivery; None while the code is queued or in flight.
        provider_id: the service's id of an accepted code.
        error: why it was not accepted.
        possible_duplicate: whether the code was accepted and another attempt may have been delivered too; None if it
            was accepted and an older version did not record that.
    """

    delivery: Delivery | None
    provider_id: str | None = None
    error: MFAError | None = field(default=None, repr=False)
    possible_duplicate: bool | None = False


@frozen
class ClaimedCode:
    """A code that this process may send.

    Attributes:
        payload: its request.
        secret: the `key_secret` of its key; empty if a version without keyed calls queued it.
        maybe_delivered: whether it is unknown.
    """

    payload: str = field(repr=False)
    secret: str = field(repr=False)
    maybe_delivered: bool


class CodeQueue:
    """The single codes of a ledger; concurrent operations share a round trip.

    Args:
        ledger: the ledger.
    """

    def __init__(self, ledger: RedisLedger) -> None:
        self._ledger = ledger
        self._times = PerLoop(RedisTime)
        self._batchers = PerLoop(lambda: Batcher(self._run_batch, ledger.clock), Batcher.adopt)

    @staticmethod
    def name(key: object) -> str:
        """Return the name of a code in messages, Redis and logs: a digest, since a key may contain personal data.

        Raises:
            InvalidRequestError: the key is not usable.
        """
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
            raise InvalidRequestError("key", f"must be a text of 1 to {MAX_KEY_LENGTH} characters, like 'login:42'")
        return key_digest(key).hex()

    @staticmethod
    def is_name(text: object) -> bool:
        """Return whether a text, such as that of a wake-up message, can be the name of a code."""
        return isinstance(text, str) and re.fullmatch(f"[0-9a-f]{{{_NAME_LENGTH}}}", text) is not None

    async def put(
        self, name: str, request: CodeRequest, channel: str, deadline: float, *, secret: str = ""
    ) -> CodeOutcome:
        """Queue a code unless the ledger knows it; queue it again if it was not sent.

        Args:
            name: see `name`.
            request: the request.
            channel: ``"messaging"`` or ``"voice"``.
            deadline: when to give up, in the clock's seconds. No attempt begins after it.
            secret: the `key_secret` of the key; without it, the code is sent without the store of the worker's client.

        Raises:
            InvalidRequestError: the key belongs to another request.
            LedgerError: the ledger cannot be used, or did not answer before the deadline.
        """
        clock = self._ledger.clock
        await self._ledger.check(max_wait=deadline - clock.monotonic())
        payload, digest = pack_code(request, channel)
        retention = max(1, round(self._ledger.retention))
        if not self._times.get().is_known:
            await self.read(name, deadline)
        reply, rest = Reply.TOO_LATE, [""]
        while reply == Reply.TOO_LATE and clock.monotonic() < deadline:
            # A reply of "too late" before the deadline means that Redis's clock was set; the reply contained its time.
            operation = ("put", name, digest, payload, deadline, retention, secret)
            reply, *rest = await self._batchers.get().call(operation, deadline=deadline)
        if reply == Reply.TOO_LATE:
            return _outcome(LedgerState.NOT_SENT, _EXPIRED)
        if reply == Reply.OTHER_REQUEST:
            raise InvalidRequestError("key", "belongs to another request in this ledger; use a new key per request")
        return _outcome(reply, *rest)

    async def read(self, name: str, deadline: float) -> CodeOutcome | None:
        """Return what is known of a code; None if the ledger does not know it."""
        reply, *rest = await self._batchers.get().call(("read", name), deadline=deadline)
        return None if reply == Reply.GONE else _outcome(reply, *rest)

    async def withdraw(self, name: str, deadline: float) -> CodeOutcome | None:
        """Withdraw a code unless a worker holds it; return its outcome, or None if the ledger does not know it."""
        reply, *rest = await self._batchers.get().call(("withdraw", name, _EXPIRED), deadline=deadline)
        return None if reply == Reply.GONE else _outcome(reply, *rest)

    async def claim(self, name: str, lease: Lease, *, resends_unknown: bool) -> ClaimedCode | None:
        """Claim a code under a lease; return None if it must not be sent."""
        now = lease.now()
        ms = round(lease.seconds * 1000)
        operation = ("take", name, lease.fencing_token, ms, resends_unknown, _INTERRUPTED, _EXPIRED)
        reply, *claimed = await self._batchers.get().call(operation)
        if reply != Reply.CLAIMED:
            return None
        lease.renewed_at(now)
        payload, flag, secret = claimed
        return ClaimedCode(payload, secret, maybe_delivered=flag == "1")

    async def renew(self, name: str, lease: Lease) -> bool:
        """Renew the lease of a code; return False if it is lost."""
        now = lease.now()
        reply, _ = await self._batchers.get().call(("renew", name, lease.fencing_token, round(lease.seconds * 1000)))
        if reply != Reply.RENEWED:
            return False
        lease.renewed_at(now)
        return True

    async def intent(self, name: str, lease: Lease, *, resends_unknown: bool, maybe_delivered: bool) -> str:
        """Store the intent of an attempt; return `LedgerState.SENDING`, or the reply that denies the attempt.

        Args:
            name: see `name`.
            lease: the lease of the code.
            resends_unknown: whether a code that the ledger calls unknown may be sent again.
            maybe_delivered: whether an earlier attempt of the same call is unknown.
        """
        operation = ("intent", name, lease.fencing_token, resends_unknown, maybe_delivered)
        reply, _ = await self._batchers.get().call(operation)
        return str(reply)

    def settle(
        self, name: str, lease: Lease, state: LedgerState, provider_id: str | None, error: MFAError | None
    ) -> None:
        """Schedule the write of a code's outcome.

        The ledger stores unknown or accepted instead if an earlier attempt of the code is unknown.
        """
        text = "" if state is LedgerState.PENDING else _pack_outcome(provider_id, error)
        is_duplicate = state is LedgerState.POSSIBLE_DUPLICATE
        if is_duplicate or state is LedgerState.ACCEPTED:
            state = _ACCEPTED
        self._batchers.get().submit(("settle", name, lease.fencing_token, state.value, text, is_duplicate))

    async def stale(self, seconds: float, limit: int) -> list[str]:
        """Return the names of codes that have waited for at least so many seconds, oldest first."""
        prefix = f"{self._ledger.prefix}:{{codes}}"
        arguments = [round(seconds * 1000), limit, _INTERRUPTED]
        _, found = await self._ledger.timeline.run("stale", CODES, [f"{prefix}:waiting", f"{prefix}:clock"], arguments)
        return [name.decode() for name in found]

    async def flush(self) -> None:
        """Wait until Redis holds every operation submitted so far."""
        await self._batchers.get().flush()

    async def _run_batch(self, operations: list[tuple[Any, ...]]) -> Sequence[Any]:
        prefix = f"{self._ledger.prefix}:{{codes}}"
        names = (operation[1] for operation in operations)
        writer = self._ledger.writer
        keys = [f"{prefix}:waiting", f"{prefix}:writer:{writer.id}", *(f"{prefix}:{name}" for name in names)]
        keys.append(f"{prefix}:clock")
        number = writer.next_batch()
        clock, time = self._ledger.clock, self._times.get()
        asked_at = 0.0

        def arguments() -> list[Any]:
            """Return the arguments of one try. The age of a request counts from when it was asked for."""
            nonlocal asked_at
            asked_at = clock.monotonic()
            ops = [
                _with_deadline(operation, time, asked_at) if operation[0] == "put" else operation
                for operation in operations
            ]
            return [number, json.dumps(ops), _INTERRUPTED, _EXPIRED]

        now, text = await self._ledger.timeline.run("codes", CODES, keys, arguments)
        replies = json.loads(text)
        if not replies:
            writer.renew()
            raise LedgerError("another process writes under the same id; the next operation uses a new one")
        time.update(asked_at, now, reset=any(reply[0] == Reply.TOO_LATE for reply in replies))
        return list(replies)


def _with_deadline(operation: tuple[Any, ...], time: RedisTime, now: float) -> tuple[Any, ...]:
    """Return a ``put`` with its deadline as the milliseconds that are left and as Redis's time."""
    kind, name, digest, payload, deadline, retention, secret = operation
    return kind, name, digest, payload, round((deadline - now) * 1000), retention, time.at(deadline), secret


def _outcome(state: str, text: str, flag: str = "") -> CodeOutcome:
    if state in {LedgerState.PENDING, LedgerState.SENDING}:
        return CodeOutcome(None)
    provider_id, packed = json.loads(text) if text else (None, "")
    error = unpack_error(packed)
    if state == _ACCEPTED:
        return CodeOutcome(Delivery.ACCEPTED, provider_id, error, None if flag == "" else flag == "1")
    delivery = DELIVERY_OF_LEDGER_STATE[LedgerState(state)]
    if delivery is Delivery.UNKNOWN and getattr(error, "delivery", None) is not Delivery.UNKNOWN:
        # The last attempt was not delivered; the ledger says that an earlier one may have been.
        error = DeliveryUnknownError("an earlier attempt may have been sent")
    return CodeOutcome(delivery, provider_id, error)
