"""What a store is: the `Store` protocol, and the values that it takes and returns."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from .._concise import ConciseType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._clock import Clock
    from .._lease import Lease
    from ..errors import Delivery, MFAError
    from ._step import Argument, Reply, Step


class KeyStatus(enum.Enum):
    """What a store knows of a key."""

    ABSENT = "absent"
    OPEN = "open"
    """It was claimed, nothing was begun, and the claim has ended: the next call may claim it."""
    CLAIMED = "claimed"
    """This call holds it now."""
    HELD = "held"
    """Another call holds it and has not begun an attempt."""
    SENDING = "sending"
    """An attempt of another call may be in flight."""
    SETTLED = "settled"
    """Its outcome is known, or known to be unknown."""
    OTHER_REQUEST = "other"
    """The key belongs to another request."""
    LOST = "lost"
    """The lease has expired or was withdrawn, or another call holds the key."""


@frozen
class KeyRecord(metaclass=ConciseType):
    """What a store knows of a key.

    Attributes:
        status: whether the key is claimed, held, in flight, settled, or belongs to another request.
        delivery: the outcome of a settled key.
        provider_id: the service's id of an accepted one.
        error: why it was not accepted.
        possible_duplicate: whether it was accepted and another attempt may have been delivered too; None if an older
            version did not record that.
        lease_left: seconds until the lease of another call ends; 0 without one.
        maybe_delivered: whether an earlier attempt is unknown, of a key that this call has claimed.
    """

    status: KeyStatus
    delivery: Delivery | None = None
    provider_id: str | None = None
    error: MFAError | None = field(default=None, repr=False)
    possible_duplicate: bool | None = False
    lease_left: float = 0.0
    maybe_delivered: bool = False


class Store(Protocol):
    """Decides on idempotency keys, and runs the steps of sign-ins and guards. Each method is one atomic decision.

    A key is a digest and names one request. Implement it by subclassing `TransactionalStore`, which needs one method.

    Every method takes `deadline`, in seconds of the clock's monotonic time, and raises `StoreError` if the store cannot
    be used, or did not answer by then. A method that raises may still take effect later, but not once its deadline has
    passed on the store's own clock.

    Attributes:
        clock: the time source.
        lease: seconds for which a claim is valid unless it is renewed.
        retention: seconds for which a key is kept after its last change.
    """

    clock: Clock
    lease: float
    retention: float

    async def claim(  # noqa: PLR0913 - the facts of a claim
        self, key: str, digest: str, lease: Lease, *, begins: bool, resends_unknown: bool, deadline: float
    ) -> KeyRecord:
        """Claim a key, or return what is known of it.

        Args:
            key: the digest of account and key.
            digest: the digest of the request.
            lease: a new lease.
            begins: whether to store the intent of an attempt as well.
            resends_unknown: whether an unknown key may be sent again.
            deadline: see the class.

        Returns:
            A record that is `KeyStatus.CLAIMED`, ``HELD``, ``SENDING``, ``SETTLED``, ``OTHER_REQUEST`` or ``LOST``.
        """
        ...

    async def begin(
        self, key: str, lease: Lease, *, resends_unknown: bool, maybe_delivered: bool, deadline: float
    ) -> bool:
        """Store the intent of an attempt and renew the lease; return False if the lease is lost.

        Args:
            key: the digest of account and key.
            lease: the lease under which the key was claimed.
            resends_unknown: whether an unknown key may be sent again.
            maybe_delivered: whether an earlier attempt of the same call is unknown.
            deadline: see the class.
        """
        ...

    async def renew(self, key: str, lease: Lease, *, deadline: float) -> bool:
        """Renew the lease; return False if it is lost."""
        ...

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
        """Store the outcome of an attempt, and return what the key is now.

        An unknown key stays unknown, unless an attempt was accepted or this is the one attempt that made it unknown.

        Args:
            key: the digest of account and key.
            digest: the digest of the request.
            lease: the lease under which the attempt was begun.
            delivery: the outcome; None if the attempt sent nothing and the call goes on.
            provider_id: the service's id.
            error: why it was not accepted.
            possible_duplicate: whether another attempt of the same call may have been delivered too.
            deadline: see the class.
        """
        ...

    async def withdraw(self, key: str, digest: str, error: MFAError, *, deadline: float) -> KeyRecord:
        """Make a key that is claimed without an intent ``NOT_SENT`` with this error; return what the key is now."""
        ...

    async def get(self, key: str, digest: str, *, deadline: float) -> KeyRecord:
        """Return what is known of a key."""
        ...

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
        """Run a step atomically and return its reply.

        Args:
            step: the step.
            keys: the names of its records. A name begins with its kind and a colon, like ``"k:1f0c..."``, contains no
                personal data and no braces.
            args: its arguments.
            deadline: see the class.
            group: records of one group can be in one step; on a Redis Cluster they are on one node.
            confirm: whether a `RedisStore` with ``confirm=`` returns only once the change is confirmed.
        """
        ...

    async def secrets(self, *, deadline: float) -> Sequence[bytes]:
        """Return the secrets under which sign-ins and guards make digests of numbers and visitors.

        The first makes new digests; the records of all are found. To replace one, first add the new one at the end in
        all processes, then move it to the front, and remove the old one once its records have expired.

        Raises:
            ConfigurationError: the store has none and cannot make one that all its processes share.
        """
        ...

    async def counts(self, *, deadline: float) -> Mapping[str, Mapping[str, int]]:
        """Return the number of records by kind (the name up to the colon) and state (the field ``s``)."""
        ...

    async def aclose(self) -> None:
        """Close. The store may be used again: it reopens."""
        ...
