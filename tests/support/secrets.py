"""Secrets to look for, and the search for them in text and in errors."""

from __future__ import annotations

import pickle
import traceback

SENTINELS = {
    "to": "+19998887766",
    "from_": "+18887776655",
    "code": "90817263",
    "message": "s3ntinel-text {CODE}",
    "username": "s3ntinel-user",
    "password": "s3ntinel-password",
    "client_id": "s3ntinel-client",
    "client_secret": "s3ntinel-secret",
    "callback_url": "https://hook:s3ntinel@example.com/s3ntinel?key=s3ntinel",
    "header": "Bearer s3ntinel-token",
    "application_id": "app",
    "scope": "login",
    "message_id": "m-1",
    "call_id": "c-1",
}
# Forbidden texts: the secrets, the numbers without their plus sign, and the base64 of the password in Basic.
FORBIDDEN = ["s3ntinel", "9998887766", "8887776655", "90817263", "czNudGluZWw"]


def assert_clean(shown: str, where: str) -> None:
    for secret in FORBIDDEN:
        assert secret not in shown, f"{secret!r} is shown by {where}: {shown[:300]}"


def everything(error: BaseException) -> str:
    """Return everything that a crash reporter can collect from an error."""
    parts = [str(error), repr(error), repr(error.args), repr(vars(error)), repr(getattr(error, "__notes__", ""))]
    parts.append(repr(pickle.dumps(error)))
    parts += traceback.format_exception(error)
    for chained in (error.__cause__, error.__context__):
        if chained is not None:
            parts += [repr(chained), str(chained), repr(chained.args)]
    return "\n".join(parts)
