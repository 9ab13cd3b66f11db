"""Converts outcomes and errors into exit codes, messages and JSON documents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from ..errors import APIStatusError, Delivery, InvalidRequestError, RequestError
from ._terminal import printable

if TYPE_CHECKING:
    from .._models import MessagingCodeResponse, VerifyCodeResponse, VoiceCodeResponse
    from ..errors import MFAError

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
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
    "idempotency_key": "--key",
    "expiration_time_in_minutes": "--minutes",
}


def send_document(response: MessagingCodeResponse | VoiceCodeResponse) -> dict[str, Any]:
    """Return the JSON document of an accepted code."""
    name = "message_id" if hasattr(response, "message_id") else "call_id"
    document = {"delivery": str(Delivery.ACCEPTED), name: getattr(response, name), **_meta(response)}
    return {**document, "replayed": response.meta.replayed}


def verify_document(response: VerifyCodeResponse) -> dict[str, Any]:
    """Return the JSON document of the answer to a verify call."""
    return {"valid": response.valid, **_meta(response)}


def error_document(error: MFAError) -> dict[str, Any]:
    """Return the JSON document of an error."""
    document: dict[str, Any] = {"error": type(error).__name__, "detail": str(error)}
    if isinstance(error, RequestError):
        document |= {
            "delivery": str(error.delivery),
            "attempts": error.attempts,
            "elapsed": round(error.elapsed, 3),
            "request_id": error.request_id,
            "retry_after": error.retry_after,
            "retry_stopped_by": error.retry_stopped_by,
            "retryable": error.retryable,
        }
    if isinstance(error, APIStatusError):
        document["status"] = error.status
    return document


def exit_code(error: MFAError) -> int:
    """Return 1 if nothing was sent, 3 if the outcome is unknown, 2 for an error of usage or configuration."""
    if not isinstance(error, RequestError):
        return EXIT_USAGE
    return EXIT_UNKNOWN if error.delivery is Delivery.UNKNOWN else EXIT_FAILED


def fail(error: MFAError, *, as_json: bool) -> int:
    """Print an error, with fields named like their options, and return the exit code."""
    if isinstance(error, InvalidRequestError):
        error = InvalidRequestError(_OPTIONS.get(error.field, error.field), error.rule)
    if as_json:
        click.echo(json.dumps(error_document(error), ensure_ascii=False))
    else:
        click.echo(printable(f"error: {error}"), err=True)
    return exit_code(error)


def json_line(document: dict[str, Any]) -> str:
    """Return a document as one line of JSON."""
    return json.dumps(document, ensure_ascii=False)


def _meta(response: MessagingCodeResponse | VoiceCodeResponse | VerifyCodeResponse) -> dict[str, Any]:
    meta = response.meta
    return {
        "attempts": meta.attempts,
        "elapsed": round(meta.elapsed, 3),
        "possible_duplicate": meta.possible_duplicate,
    }
