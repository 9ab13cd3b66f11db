"""How an outcome becomes an exit code, a line for a person, or JSON for a script. No I/O."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ..errors import APIStatusError, Delivery, RequestError

if TYPE_CHECKING:
    from .._models import MessagingCodeResponse, VerifyCodeResponse, VoiceCodeResponse
    from ..errors import MFAError

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNKNOWN: Final = 3


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
