"""`SignIn` and `Check`: what a flow looks like to the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias

from attrs import field, frozen

from .._concise import ConciseType
from .._redaction import hide, mask_phone_repr

if TYPE_CHECKING:
    from ..errors import Delivery

CheckReason: TypeAlias = Literal["malformed", "used", "wrong", "exhausted", "expired"]
"""Why a code was not accepted. ``malformed``: not a code of the right length, so nothing was asked and no try is spent;
``wrong``: the service says no; ``exhausted``: all tries are spent; ``used``: the flow has had its one success;
``expired``: too late, ended, or no such flow here."""


def _hide_number(number: str | None) -> str:
    return "None" if number is None else mask_phone_repr(number)


@frozen(kw_only=True)
class SignIn(metaclass=ConciseType):
    """A sign-in flow: one number, one purpose, a few texts, one success.

    Attributes:
        id: the flow's id. Keep it in a ``__Host-`` cookie (HttpOnly, Secure, SameSite=Lax), never in a URL, a form or a
            log.
        delivery: what is known of the last text: `Delivery.ACCEPTED`, or `Delivery.UNKNOWN`, with which the person may
            hold a code as well.
        masked_number: the number for display, with its last two digits only.
        resend_in: seconds, rounded up, until another text or voice call may be asked for.
        sends_left: texts and voice calls that the flow may still send.
        checks_left: codes that the person may still try.
        expires_in: seconds, rounded up, until the flow expires; 0 if it has ended.
        can_call: whether `SignIns.call` can be used: there is a voice template, and a send is left.
    """

    id: str = field(repr=hide)
    delivery: Delivery
    masked_number: str
    resend_in: int
    sends_left: int
    checks_left: int
    expires_in: int
    can_call: bool


@frozen(kw_only=True)
class Check(metaclass=ConciseType):
    """The result of a check: read `.valid`.

    Attributes:
        valid: whether the person holds the number. True once per flow.
        number: the verified number; None unless `valid`.
        subject: whom the application meant when it started the flow; None unless `valid`.
        checks_left: codes that the person may still try.
        reason: why the code was not accepted; None if `valid`.
    """

    valid: bool
    number: str | None = field(default=None, repr=_hide_number)
    subject: str | None = field(default=None, repr=hide)
    checks_left: int = 0
    reason: CheckReason | None = None

    def __bool__(self) -> NoReturn:
        """Raise: ``if await signins.check(...)`` would otherwise accept every code.

        Raises:
            TypeError: always.
        """
        msg = "the truth of a Check is ambiguous; use .valid, which is False for a wrong code"
        raise TypeError(msg)
