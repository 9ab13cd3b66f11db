"""Single codes in the ledger: put there by whoever wants one sent, taken and settled by a worker."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from ..._item_state import DELIVERY_OF_LEDGER_STATE, LedgerState, pack_error, unpack_error
from ..._redis._batcher import Batcher
from ...errors import DeadlineExceededError, DeliveryUnknownError, InvalidRequestError
from ._codec import pack_code
from ._scripts import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._lease import Lease
    from ..._models import CodeRequest
    from ...errors import Delivery, MFAError
    from ._ledger import RedisLedger

_KEY_BYTES: Final = 16
MAX_KEY: Final = 512


def _pack_outcome(provider_id: str | None, error: MFAError | None) -> str:
    return json.dumps([provider_id, pack_error(error)])


_INTERRUPTED: Final = _pack_outcome(
    None, DeliveryUnknownError("the worker died or was cut off while the request was under way")
)
_EXPIRED: Final = _pack_outcome(None, DeadlineExceededError("no worker sent the code in time", attempts=0))


@frozen
class CodeOutcome:
    """What is known of a single code.

    Attributes:
        delivery: what became of it; None while it waits or is under way.
        provider_id: the service's id of an accepted one.
        error: why it was not accepted.
    """

    delivery: Delivery | None
    provider_id: str | None = None
    error: MFAError | None = field(default=None, repr=False)


class CodeQueue:
    """The single codes of a ledger, whose operations travel together.

    Args:
        ledger: theirs.
    """

    def __init__(self, ledger: RedisLedger) -> None:
        self._ledger = ledger
        self._batcher = Batcher(self._run, ledger.clock)

    @staticmethod
    def name(key: object) -> str:
        """Return what messages, Redis and logs know a code by: a digest, since a key may hold anything.

        Raises:
            InvalidRequestError: no usable key.
        """
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
            raise InvalidRequestError("key", f"must be a text of 1 to {MAX_KEY} characters, like 'login:42'")
        return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).hexdigest()

    async def put(self, name: str, request: CodeRequest, channel: str, seconds: float) -> CodeOutcome:
        """Ask for a code to be sent, unless it was; one that was not sent is asked for again.

        Args:
            name: see `name`.
            request: what to send.
            channel: ``"messaging"`` or ``"voice"``.
            seconds: how long it may wait for a worker.

        Raises:
            InvalidRequestError: the key stands for another request.
        """
        payload, digest = pack_code(request, channel)
        keep = max(1, round(self._ledger.retention))
        state, kept = await self._batcher.call(("put", name, digest, payload, round(seconds * 1000), keep))
        if state == "D":
            raise InvalidRequestError("key", "stands for another request in this ledger; give each request its own")
        return _outcome(state, kept)

    async def read(self, name: str) -> CodeOutcome | None:
        """Return what is known of a code; None when nothing is."""
        state, kept = await self._batcher.call(("read", name))
        return None if state == "G" else _outcome(state, kept)

    async def withdraw(self, name: str) -> CodeOutcome | None:
        """Take a code back that nobody works at, and return what is known of it then."""
        state, kept = await self._batcher.call(("withdraw", name, _EXPIRED))
        return None if state == "G" else _outcome(state, kept)

    async def claim(self, name: str, lease: Lease, *, resends_unknown: bool) -> str | None:
        """Return a code's payload, now that the lease is ours; None when there is nothing to do."""
        now = lease.now()
        ms = round(lease.seconds * 1000)
        state, payload = await self._batcher.call(
            ("take", name, lease.fencing_token, ms, resends_unknown, _INTERRUPTED, _EXPIRED)
        )
        if state != "T":
            return None
        lease.renewed_at(now)
        return str(payload)

    async def renew(self, name: str, lease: Lease) -> bool:
        """Renew a code's lease; False when it is lost."""
        now = lease.now()
        letter, _ = await self._batcher.call(("renew", name, lease.fencing_token, round(lease.seconds * 1000)))
        if letter == "K":
            lease.renewed_at(now)
        return bool(letter == "K")

    async def intent(self, name: str, lease: Lease, *, resends_unknown: bool) -> str:
        """Put an attempt on record; return ``1``, or the letter that says why not."""
        letter, _ = await self._batcher.call(("intent", name, lease.fencing_token, resends_unknown))
        return str(letter)

    def settle(  # noqa: PLR0913 - what is known of an end
        self,
        name: str,
        lease: Lease,
        state: LedgerState,
        provider_id: str | None,
        error: MFAError | None,
        *,
        resends_unknown: bool,
    ) -> None:
        """Write soon what became of a code."""
        kept = "" if state is LedgerState.PENDING else _pack_outcome(provider_id, error)
        self._batcher.submit(("settle", name, lease.fencing_token, state.value, kept, resends_unknown))

    async def stale(self, seconds: float, limit: int) -> list[str]:
        """Return codes that have waited for so long and that nobody may be working at."""
        key = f"{self._ledger.prefix}:{{codes}}:waiting"
        found = await self._ledger.connection.script(SCRIPTS["stale"], [key], [round(seconds * 1000), limit])
        return [name.decode() for name in found]

    async def flush(self) -> None:
        """Return once everything that was told is in Redis."""
        await self._batcher.flush()

    async def _run(self, operations: list[tuple[Any, ...]]) -> Sequence[Any]:
        prefix = f"{self._ledger.prefix}:{{codes}}"
        names = (operation[1] for operation in operations)
        keys = [f"{prefix}:waiting", f"{prefix}:writer:{self._ledger.writer}", *(f"{prefix}:{name}" for name in names)]
        arguments = [self._ledger.next_batch(), json.dumps(operations)]
        answers = await self._ledger.connection.script(SCRIPTS["codes"], keys, arguments)
        found: list[Any] = json.loads(answers)
        return found


def _outcome(state: str, kept: str) -> CodeOutcome:
    if state in {LedgerState.PENDING, LedgerState.SENDING}:
        return CodeOutcome(None)
    provider_id, error = json.loads(kept)
    return CodeOutcome(DELIVERY_OF_LEDGER_STATE[LedgerState(state)], provider_id, unpack_error(error))
