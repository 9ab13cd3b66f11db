"""How an outcome becomes an exit code, a line for a person, or JSON for a script."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from ..errors import APIStatusError, Delivery, InvalidRequestError, RequestError

if TYPE_CHECKING:
    from .._models import MessagingCodeResponse, VerifyCodeResponse, VoiceCodeResponse
    from ..errors import MFAError

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNKNOWN: Final = 3

_OPTIONS: Final = {
    "from_": "--from",
    "application_id": "--application-id",
    "scope": "--scope",
    "message": "--message",
    "digits": "--digits",
    "to": "TO",
    "code": "CODE",
    "expiration_time_in_minutes": "--minutes",
}


def of_send(response: MessagingCodeResponse | VoiceCodeResponse) -> dict[str, Any]:
    """Describe a code that was taken."""
    name = "message_id" if hasattr(response, "message_id") else "call_id"
    return {"delivery": str(Delivery.ACCEPTED), name: getattr(response, name), **_meta(response)}


def of_verify(response: VerifyCodeResponse) -> dict[str, Any]:
    """Describe the answer to a verify."""
    return {"valid": response.valid, **_meta(response)}


def of_error(error: MFAError) -> dict[str, Any]:
    """Describe an error."""
    document: dict[str, Any] = {"error": type(error).__name__, "detail": str(error)}
    if isinstance(error, RequestError):
        document |= {
            "delivery": str(error.delivery),
            "attempts": error.attempts,
            "elapsed": round(error.elapsed, 3),
            "request_id": error.request_id,
            "retry_after": error.retry_after,
            "retry_stopped_by": error.retry_stopped_by,
        }
    if isinstance(error, APIStatusError):
        document["status"] = error.status
    return document


def exit_code(error: MFAError) -> int:
    """Return 1 for a refusal, 3 where nobody knows, 2 for what the user can mend."""
    if not isinstance(error, RequestError):
        return EXIT_USAGE
    return EXIT_UNKNOWN if error.delivery is Delivery.UNKNOWN else EXIT_REFUSED


def fail(error: MFAError, *, as_json: bool) -> int:
    """Print an error, which names a value as the command line does, and return the exit code."""
    if isinstance(error, InvalidRequestError):
        error = InvalidRequestError(_OPTIONS.get(error.field, error.field), error.rule)
    if as_json:
        click.echo(json.dumps(of_error(error), ensure_ascii=False))
    else:
        click.echo(f"error: {error}", err=True)
    return exit_code(error)


def as_json(document: dict[str, Any]) -> str:
    """Return one line of JSON."""
    return json.dumps(document, ensure_ascii=False)


def _meta(response: MessagingCodeResponse | VoiceCodeResponse | VerifyCodeResponse) -> dict[str, Any]:
    meta = response.meta
    return {
        "attempts": meta.attempts,
        "elapsed": round(meta.elapsed, 3),
        "possible_duplicate": meta.possible_duplicate,
    }
