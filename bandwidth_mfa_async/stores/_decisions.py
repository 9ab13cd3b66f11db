"""The decisions on idempotency keys, as steps of any store that can run steps."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from .._clock import SystemClock
from .._item_state import (
    DELIVERY_OF_LEDGER_STATE,
    POSSIBLE_DUPLICATE_OF,
    LedgerState,
    ledger_state_of,
    pack_error,
    unpack_error,
)
from .._validation import checked_seconds
from ..errors import ConfigurationError, Delivery, DeliveryUnknownError, MFAError
from . import _transitions as steps
from ._protocol import KeyRecord, KeyStatus
from ._secret import checked_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from .._clock import Clock
    from .._lease import Lease
    from ._secret import StoreSecret
    from ._step import Argument, Reply, Step

DEFAULT_LEASE: Final = 30.0
DEFAULT_RETENTION: Final = 86_400.0
_MIN_LEASE: Final = 1.0
_MIN_RETENTION: Final = 60.0


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _name(key: str) -> tuple[list[str], str]:
    """Return the name of a key's record and its group: on a cluster, 16 groups spread the keys over the nodes."""
    return [f"k:{key}"], f"k{key[:1]}"


class KeyDecisions(ABC):
    """The decisions on keys, made of steps. Subclasses run the steps.

    Args:
        lease: seconds for which a claim is valid unless it is renewed; at least 1. When a process dies while a text is
            in flight, others wait so long for its outcome.
        retention: seconds for which a key is kept after its last change; at least 60, and at least `lease`.
        clock: the time source; for tests. Its wall clock, not the store's, then decides on leases and expiry.
        secret: under which sign-ins and guards make digests of numbers and visitors; see `secrets`.
    """

    def __init__(self, *, lease: float, retention: float, clock: Clock | None, secret: StoreSecret = None) -> None:
        self.lease: float = checked_seconds("lease", lease, minimum=_MIN_LEASE)
        # A record lives at least as long as the lease that it names.
        self.retention: float = checked_seconds("retention", retention, minimum=max(_MIN_RETENTION, self.lease))
        self.clock: Clock = clock or SystemClock()
        self._secrets = checked_secrets(secret)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @abstractmethod
    async def run(  # noqa: PLR0913 - the facts of a step
        self,
        step: Step,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        deadline: float,
        group: str = "",
        confirm: bool = False,
    ) -> Reply:
        """Run a step atomically and return its reply; see `Store.run`."""

    @abstractmethod
    async def counts(self, *, deadline: float) -> Mapping[str, Mapping[str, int]]:
        """Return the number of records by kind and state; see `Store.counts`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close. The store may be used again: it reopens."""

    async def secrets(self, *, deadline: float) -> Sequence[bytes]:
        """Return the secrets for digests of numbers and visitors; see `Store.secrets`."""
        return self._secrets or await self._make_secrets(deadline=deadline)

    async def _make_secrets(self, *, deadline: float) -> Sequence[bytes]:  # noqa: ARG002 - for stores that keep one
        """Return the secrets of a store that was given none.

        Raises:
            ConfigurationError: this store cannot make one.
        """
        raise ConfigurationError(
            "secret: sign-ins and guards on this store need one, because all its processes must share it; "
            "pass secret= or set BW_STORE_SECRET"
        )

    async def claim(  # noqa: PLR0913 - the facts of a claim
        self, key: str, digest: str, lease: Lease, *, begins: bool, resends_unknown: bool, deadline: float
    ) -> KeyRecord:
        """Claim a key, or return what is known of it; see `Store.claim`."""
        now = lease.now()
        lease.attempts += begins
        args = (digest, lease.fencing_token, *self._times(lease), int(begins), int(resends_unknown), lease.attempts)
        reply = await self._run(steps.CLAIM, key, args, deadline, confirm=begins)
        if reply[0] == KeyStatus.CLAIMED.value:
            lease.renewed_at(now)
            return KeyRecord(KeyStatus.CLAIMED, maybe_delivered=bool(reply[1]))
        return _record(reply)

    async def begin(
        self, key: str, lease: Lease, *, resends_unknown: bool, maybe_delivered: bool, deadline: float
    ) -> bool:
        """Store the intent of an attempt and renew the lease; see `Store.begin`."""
        now = lease.now()
        lease.attempts += 1
        args = (lease.fencing_token, *self._times(lease), int(resends_unknown), int(maybe_delivered), lease.attempts)
        reply = await self._run(steps.BEGIN, key, args, deadline, confirm=True)
        return _granted(reply, lease, now)

    async def renew(self, key: str, lease: Lease, *, deadline: float) -> bool:
        """Renew the lease; return False if it is lost."""
        now = lease.now()
        reply = await self._run(steps.RENEW, key, (lease.fencing_token, *self._times(lease)), deadline)
        return _granted(reply, lease, now)

    async def settle(  # noqa: PLR0913 - the facts of an outcome
        self,
        key: str,
        digest: str,
        lease: Lease,
        delivery: Delivery | None,
        *,
        provider_id: str | None = None,
        error: MFAError | None = None,
        possible_duplicate: bool = False,
        deadline: float,
    ) -> KeyRecord:
        """Store the outcome of an attempt; see `Store.settle`."""
        outcome = "" if delivery is None else _pack(provider_id, error)
        state = _state_of(delivery, error, possible_duplicate=possible_duplicate)
        args = (lease.fencing_token, digest, _ms(self.retention), state.value, outcome, lease.attempts)
        return _record(await self._run(steps.SETTLE, key, args, deadline))

    async def withdraw(self, key: str, digest: str, error: MFAError, *, deadline: float) -> KeyRecord:
        """Make a key that is claimed without an intent ``NOT_SENT``; see `Store.withdraw`."""
        return _record(await self._run(steps.WITHDRAW, key, [digest, _pack(None, error)], deadline))

    async def get(self, key: str, digest: str, *, deadline: float) -> KeyRecord:
        """Return what is known of a key."""
        return _record(await self._run(steps.GET, key, [digest], deadline))

    def _times(self, lease: Lease) -> tuple[int, int]:
        return _ms(lease.seconds), _ms(self.retention)

    async def _run(
        self, step: Step, key: str, args: Sequence[Argument], deadline: float, *, confirm: bool = False
    ) -> Reply:
        names, group = _name(key)
        return await self.run(step, names, args, deadline=deadline, group=group, confirm=confirm)


def _granted(reply: Reply, lease: Lease, now: tuple[float, float]) -> bool:
    if reply[0] == KeyStatus.LOST.value:
        return False
    lease.renewed_at(now)
    return True


def _pack(provider_id: str | None, error: MFAError | None) -> str:
    return json.dumps([provider_id, pack_error(error)])


def _state_of(delivery: Delivery | None, error: MFAError | None, *, possible_duplicate: bool) -> LedgerState:
    if delivery is None:
        return LedgerState.PENDING
    if delivery is Delivery.ACCEPTED:
        return LedgerState.POSSIBLE_DUPLICATE if possible_duplicate else LedgerState.ACCEPTED
    return ledger_state_of(delivery, error or MFAError())


_WORDS: Final = {status.value: status for status in KeyStatus}


def _record(reply: Reply) -> KeyRecord:
    word, *rest = reply
    status = _WORDS.get(word)
    if status in {KeyStatus.HELD, KeyStatus.SENDING}:
        return KeyRecord(status, lease_left=rest[0] / 1000)
    if status is not None:
        return KeyRecord(status)
    state = LedgerState(word)
    if state in {LedgerState.SENDING, LedgerState.RESENDING}:
        return KeyRecord(KeyStatus.SENDING)
    if state is LedgerState.PENDING:
        return KeyRecord(KeyStatus.OPEN)
    delivery = DELIVERY_OF_LEDGER_STATE[state]
    provider_id, error = None, None
    if rest[0] != steps.INTERRUPTED:
        provider_id, packed = json.loads(rest[0])
        error = unpack_error(packed)
    if delivery is Delivery.UNKNOWN and getattr(error, "delivery", None) is not Delivery.UNKNOWN:
        # Its holder's lease expired, or its last attempt was not delivered and an earlier one may have been.
        error = DeliveryUnknownError("an earlier call with this key may have sent the text, and its outcome is lost")
    return KeyRecord(KeyStatus.SETTLED, delivery, provider_id, error, POSSIBLE_DUPLICATE_OF.get(state, False))
