"""Sign-in by code: flows with limits and one success each, and a guard against abuse. No web framework.

::

    from bandwidth_mfa_async.signin import Guard, SignIns

    signins = SignIns(mfa, login, guard=Guard(regions={"US", "CA"}), store=store)
    flow = await signins.start(number, visitor=ip, subject=user_id)
    check = await signins.check(flow.id, code)
    if check.valid:
        ...
"""

from __future__ import annotations

from ._guard import Guard, Ticket
from ._policy import UnverifiedBudget
from ._signins import SignIns
from ._values import Check, SignIn

__all__ = [
    "Check",
    "Guard",
    "SignIn",
    "SignIns",
    "Ticket",
    "UnverifiedBudget",
]
