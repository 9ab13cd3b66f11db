"""The single codes of a ledger: queued by a requester, claimed and settled by a worker."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from ..._item_state import DELIVERY_OF_LEDGER_STATE, LedgerState, pack_error, unpack_error
from ..._redis._batcher import Batcher
from ...errors import DeadlineExceededError, Delivery, DeliveryUnknownError, InvalidRequestError
from ._codec import pack_code
from ._protocol import Reply
from ._scripts import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._lease import Lease
    from ..._models import CodeRequest
    from ...errors import MFAError
    from ._ledger import RedisLedger

_KEY_BYTES: Final = 16
# The one state of an accepted code, since processes of an older version read it; the hash has a field for the flag.
_ACCEPTED: Final = LedgerState.ACCEPTED_UNRECORDED
MAX_KEY: Final = 512


def _pack_outcome(provider_id: str | None, error: MFAError | None) -> str:
    return json.dumps([provider_id, pack_error(error)])


_INTERRUPTED: Final = _pack_outcome(
    None, DeliveryUnknownError("the worker died or was disconnected while the request was in flight")
)
_EXPIRED: Final = _pack_outcome(None, DeadlineExceededError("no worker sent the code in time", attempts=0))


@frozen
class CodeOutcome:
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


class CodeQueue:
    """The single codes of a ledger; concurrent operations share a round trip.

    Args:
        ledger: the ledger.
    """

    def __init__(self, ledger: RedisLedger) -> None:
        self._ledger = ledger
        self._batcher = Batcher(self._run_batch, ledger.clock)

    @staticmethod
    def name(key: object) -> str:
        """Return the name of a code in messages, Redis and logs: a digest, since a key may contain personal data.

        Raises:
            InvalidRequestError: the key is not usable.
        """
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
            raise InvalidRequestError("key", f"must be a text of 1 to {MAX_KEY} characters, like 'login:42'")
        return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).hexdigest()

    async def put(self, name: str, request: CodeRequest, channel: str, seconds: float) -> CodeOutcome:
        """Queue a code unless the ledger knows it; queue it again if it was not sent.

        Args:
            name: see `name`.
            request: the request.
            channel: ``"messaging"`` or ``"voice"``.
            seconds: how long it may wait for a worker.

        Raises:
            InvalidRequestError: the key belongs to another request.
        """
        payload, digest = pack_code(request, channel)
        retention = max(1, round(self._ledger.retention))
        reply, *rest = await self._batcher.call(("put", name, digest, payload, round(seconds * 1000), retention))
        if reply == Reply.OTHER_REQUEST:
            raise InvalidRequestError("key", "belongs to another request in this ledger; use a new key per request")
        return _outcome(reply, *rest)

    async def read(self, name: str) -> CodeOutcome | None:
        """Return what is known of a code; None if the ledger does not know it."""
        reply, *rest = await self._batcher.call(("read", name))
        return None if reply == Reply.GONE else _outcome(reply, *rest)

    async def withdraw(self, name: str) -> CodeOutcome | None:
        """Withdraw a code unless a worker holds it; return its outcome, or None if the ledger does not know it."""
        reply, *rest = await self._batcher.call(("withdraw", name, _EXPIRED))
        return None if reply == Reply.GONE else _outcome(reply, *rest)

    async def claim(self, name: str, lease: Lease, *, resends_unknown: bool) -> tuple[str, bool] | None:
        """Claim a code under a lease; return its payload and whether it is unknown, or None if it must not be sent."""
        now = lease.now()
        ms = round(lease.seconds * 1000)
        operation = ("take", name, lease.fencing_token, ms, resends_unknown, _INTERRUPTED, _EXPIRED)
        reply, payload, *flag = await self._batcher.call(operation)
        if reply != Reply.CLAIMED:
            return None
        lease.renewed_at(now)
        return str(payload), flag == ["1"]

    async def renew(self, name: str, lease: Lease) -> bool:
        """Renew the lease of a code; return False if it is lost."""
        now = lease.now()
        reply, _ = await self._batcher.call(("renew", name, lease.fencing_token, round(lease.seconds * 1000)))
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
        reply, _ = await self._batcher.call(operation)
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
        self._batcher.submit(("settle", name, lease.fencing_token, state.value, text, is_duplicate))

    async def stale(self, seconds: float, limit: int) -> list[str]:
        """Return the names of codes that have waited for at least so many seconds, oldest first."""
        key = f"{self._ledger.prefix}:{{codes}}:waiting"
        found = await self._ledger.connection.script(SCRIPTS["stale"], [key], [round(seconds * 1000), limit])
        return [name.decode() for name in found]

    async def flush(self) -> None:
        """Wait until Redis holds every operation submitted so far."""
        await self._batcher.flush()

    async def _run_batch(self, operations: list[tuple[Any, ...]]) -> Sequence[Any]:
        prefix = f"{self._ledger.prefix}:{{codes}}"
        names = (operation[1] for operation in operations)
        keys = [f"{prefix}:waiting", f"{prefix}:writer:{self._ledger.writer}", *(f"{prefix}:{name}" for name in names)]
        arguments = [self._ledger.next_batch(), json.dumps(operations)]
        replies: list[Any] = json.loads(await self._ledger.connection.script(SCRIPTS["codes"], keys, arguments))
        return replies


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
