"""The holder's view of a lease: until when its own clocks allow it to send, and its renewal."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Final

from ._clock import sleep_until
from .errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from ._clock import Clock

# The share of a lease that stays unused: for differences between clocks and for the time from the check to the wire.
_MARGIN: Final = 0.1
_RENEWALS_PER_LEASE: Final = 4


class Lease:
    """The right to send what a chunk or a single code contains.

    Redis decides who holds a lease and is asked before every attempt. This class checks locally whether that answer is
    still valid. The time counts from before the question was sent, on the monotonic clock and on one that
    also counts while the machine is suspended. The wall clock does not matter: it may be set at any time.

    Args:
        seconds: the duration of the lease from each renewal.
        clock: the time source.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.fencing_token: str = secrets.token_hex(8)
        self.seconds = seconds
        self.lost = False
        # How many attempts were begun under it, as far as its holder counts them: a store does.
        self.attempts = 0
        self.clock = clock
        self._valid_until = (0.0, 0.0)

    def now(self) -> tuple[float, float]:
        """Return the time on both clocks. Call it before Redis is asked, and pass it to `renewed_at` afterwards."""
        return self.clock.monotonic(), self.clock.boottime()

    def renewed_at(self, now: tuple[float, float]) -> None:
        """Record that Redis granted or renewed the lease.

        Args:
            now: the time before the question was sent.
        """
        usable = self.seconds * (1 - _MARGIN)
        self._valid_until = (now[0] + usable, now[1] + usable)

    @property
    def is_valid(self) -> bool:
        """Whether an attempt may be written now."""
        monotonic, boottime = self._valid_until
        return not self.lost and self.clock.monotonic() < monotonic and self.clock.boottime() < boottime


class LeaseKeeper:
    """Renews a lease while its holder works.

    Args:
        lease: the lease.
        renew: asks the ledger to renew it; returns whether the holder still has it.
        on_lost: called when it does not.
    """

    def __init__(
        self, lease: Lease, renew: Callable[[], Awaitable[bool]], on_lost: Callable[[], None] = lambda: None
    ) -> None:
        self._lease = lease
        self._renew = renew
        self._on_lost = on_lost

    @contextlib.asynccontextmanager
    async def renewing(self) -> AsyncGenerator[None]:
        """Renew the lease until the block ends, however long that takes."""
        task = asyncio.create_task(self._renewal_loop())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def intent(self, ask: Callable[[], Awaitable[str]], lease_lost: str) -> str:
        """Ask the ledger whether an attempt may begin, and return its reply.

        A lease may have expired, during a suspension or an outage of Redis, without another worker having claimed it.
        It is then renewed, and the ledger is asked once more.

        Args:
            ask: asks the ledger.
            lease_lost: its reply to a lease that it does not know.
        """
        reply = await ask()
        if reply == lease_lost and not self._lease.lost and await self.renew():
            reply = await ask()
        return reply

    async def renew(self) -> bool:
        """Renew the lease once; return whether this worker still holds it.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        now = self._lease.now()
        if not await self._renew():
            self.lose()
            return False
        self._lease.renewed_at(now)
        return True

    def lose(self) -> None:
        """Record that the lease is lost."""
        self._lease.lost = True
        self._on_lost()

    async def _renewal_loop(self) -> None:
        clock = self._lease.clock
        with contextlib.suppress(LedgerError):  # the next attempt gets the same error
            while True:
                await sleep_until(clock, clock.monotonic() + self._lease.seconds / _RENEWALS_PER_LEASE)
                if not await self.renew():
                    return
