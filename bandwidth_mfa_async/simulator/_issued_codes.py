"""Issued codes, wrong tries and lock-outs."""

from __future__ import annotations

import enum
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import define

from ._errors import InvalidOptionError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

# https://dev.bandwidth.com/docs/mfa: the verifier's window is at most 15 minutes, so an older code never matches.
MAX_WINDOW: Final = 15 * 60.0


class Verdict(enum.Enum):
    """The result of a verification."""

    VALID = "valid"
    INVALID = "invalid"
    LOCKED = "locked"


@define
class IssuedCode:
    """A code, when it was issued, and the id of its message. Times are seconds on a monotonic clock."""

    at: float
    code: str
    message_id: str = ""


@define
class WrongTries:
    """The wrong tries of one number."""

    count: int = 0
    last: float = 0.0
    locked_until: float | None = None


class IssuedCodes:
    """Codes by number and scope, and wrong tries by number.

    Known: each scope has its own codes; the verifier chooses the window, and any code generated within it is valid,
    so several codes can be valid at a time (https://dev.bandwidth.com/docs/mfa); wrong tries lock a number for a while.

    Args:
        rng: makes the codes.
        lockout_after: the number of wrong tries that are reported as invalid; after them the number is locked. Not
            known: the service's own value; it is more than two.
        lockout_seconds: seconds from the last of those tries until the lock ends. The documented text says two minutes;
            Bandwidth's own live test waits for 30 s (Bandwidth/python-sdk, commits a0cf2b0 and 16bdb5d).
        tries_remembered: seconds without a wrong try after which earlier ones no longer count. Not known.
        consume_on_success: whether a code is valid only once. Not known.
        reset_on_success: whether a right code resets the count of wrong tries. Not known.
        limit: the largest number of codes, and of numbers with wrong tries; the oldest are dropped. None keeps all that
            can still matter.
        latest_only: whether a newer code for the same number and scope replaces the older ones. Documented is the
            opposite; some applications promise it.

    Raises:
        InvalidOptionError: a value is out of range.
    """

    def __init__(  # noqa: PLR0913 - one argument for each unknown
        self,
        rng: random.Random,
        *,
        lockout_after: int = 5,
        lockout_seconds: float = 30.0,
        tries_remembered: float = MAX_WINDOW,
        consume_on_success: bool = False,
        reset_on_success: bool = True,
        latest_only: bool = False,
        limit: int | None = None,
    ) -> None:
        if lockout_after < 1:
            raise InvalidOptionError("lockout_after must be at least 1")
        if not lockout_seconds > 0:
            raise InvalidOptionError("lockout_seconds must be more than 0 seconds")
        if not tries_remembered > 0:
            raise InvalidOptionError("tries_remembered must be more than 0 seconds")
        self._rng = rng
        self._lockout_after = lockout_after
        self._lockout_seconds = lockout_seconds
        self._tries_remembered = tries_remembered
        self._consume_on_success = consume_on_success
        self._reset_on_success = reset_on_success
        self._latest_only = latest_only
        self._limit = math.inf if limit is None else limit
        self.on_valid: Callable[[IssuedCode], object] | None = None
        self.on_consumed: Callable[[str, str, IssuedCode], object] | None = None
        self.on_tries: Callable[[str, WrongTries | None], object] | None = None
        # Lists, because nearly all have one code, for which a deque takes seven times as much memory.
        self._codes: dict[tuple[str, str], list[IssuedCode]] = {}
        self._expiry: deque[tuple[float, tuple[str, str]]] = deque()
        self.wrong_tries: dict[str, WrongTries] = {}
        """By number, ordered by their last try."""

    def __len__(self) -> int:
        return sum(len(codes) for codes in self._codes.values())

    def issue(self, to: str, scope: str, digits: int, now: float) -> str:
        """Issue a code.

        Args:
            to: the recipient's number.
            scope: the action that the code is for.
            digits: the length of the code.
            now: seconds on a monotonic clock.
        """
        self._drop_expired(now)
        code = str(self._rng.randrange(10**digits)).zfill(digits)
        self.restore(to, scope, IssuedCode(now, code))
        return code

    def label(self, to: str, scope: str, message_id: str) -> None:
        """Name the message of the newest code of a number and scope."""
        self._codes[to, scope][-1].message_id = message_id

    def restore(self, to: str, scope: str, issued: IssuedCode) -> None:
        """Add a code that is newer than all others."""
        key = (to, scope)
        self._codes.setdefault(key, []).append(issued)
        self._expiry.append((issued.at, key))
        if len(self._expiry) > self._limit:
            self._drop_oldest()

    def live(self, now: float) -> Iterator[tuple[str, str, IssuedCode]]:
        """Return each code that can still be verified, with its number and scope, oldest first."""
        found = [
            (to, scope, issued)
            for (to, scope), codes in self._codes.items()
            for issued in codes
            if now - issued.at <= MAX_WINDOW
        ]
        return iter(sorted(found, key=lambda each: each[2].at))

    def consume(self, to: str, scope: str, code: str) -> None:
        """Remove the oldest equal code; do nothing if there is none."""
        codes = self._codes.get((to, scope), [])
        for issued in codes:
            if issued.code == code:
                codes.remove(issued)
                return

    def verify(self, to: str, scope: str, code: str, window: float, now: float) -> Verdict:
        """Verify that a code was issued for this number and scope within the last `window` seconds, inclusive.

        A wrong try counts even for a number without a code: Bandwidth's live test locks such a number.
        """
        tries = self.wrong_tries.get(to)
        if tries is not None:
            if tries.locked_until is not None and now < tries.locked_until:
                return Verdict.LOCKED
            if tries.locked_until is not None or now - tries.last > self._tries_remembered:
                del self.wrong_tries[to]
                tries = None
        codes = self._codes.get((to, scope), [])
        for issued in codes[-1:] if self._latest_only else codes:
            if issued.code == code and now - issued.at <= window:
                self._accept(to, scope, issued)
                return Verdict.VALID
        self._count_wrong_try(to, now)
        return Verdict.INVALID

    def _accept(self, to: str, scope: str, issued: IssuedCode) -> None:
        if self._consume_on_success:
            self._codes[to, scope].remove(issued)
            if self.on_consumed is not None:
                self.on_consumed(to, scope, issued)
        if self._reset_on_success and self.wrong_tries.pop(to, None) is not None and self.on_tries is not None:
            self.on_tries(to, None)
        if self.on_valid is not None:
            self.on_valid(issued)

    def locked_for(self, to: str, now: float) -> float:
        """Return the seconds until a number is unlocked, or 0 if it is not locked."""
        tries = self.wrong_tries.get(to)
        if tries is None or tries.locked_until is None:
            return 0.0
        return max(0.0, tries.locked_until - now)

    def clear(self) -> None:
        """Remove all codes, wrong tries and locks."""
        self._codes.clear()
        self._expiry.clear()
        self.wrong_tries.clear()

    def _count_wrong_try(self, to: str, now: float) -> None:
        tries = self.wrong_tries.pop(to, None) or WrongTries()
        tries.count += 1
        tries.last = now
        if tries.count >= self._lockout_after:
            tries.locked_until = now + self._lockout_seconds
        # Insert at the end, so that the dict is ordered by `last` and the oldest entry is the first.
        self.wrong_tries[to] = tries
        if self.on_tries is not None:
            self.on_tries(to, tries)
        oldest = next(iter(self.wrong_tries))
        age = now - self.wrong_tries[oldest].last
        if age > max(self._tries_remembered, self._lockout_seconds) or len(self.wrong_tries) > self._limit:
            del self.wrong_tries[oldest]

    def _drop_expired(self, now: float) -> None:
        # Remove a few at a time: memory stays bounded and no call takes long.
        for _ in range(4):
            if not self._expiry or now - self._expiry[0][0] <= MAX_WINDOW:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        at, key = self._expiry.popleft()
        codes = self._codes.get(key, [])
        # The code itself may have been consumed.
        while codes and codes[0].at <= at:
            del codes[0]
        if not codes:
            self._codes.pop(key, None)
