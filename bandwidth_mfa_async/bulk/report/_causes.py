"""One-line explanations of the causes that a journal stores."""

from __future__ import annotations

from typing import Final

_MEANINGS: Final = {
    "APIStatusError": "the service answered with a status that is neither success nor a known rejection",
    "AuthenticationError": "the service received no credentials, or does not know them",
    "BadRequestError": "the service rejected a value: the number, the sender, the text or the application",
    "ClientStateError": "the client was closed before the request was written",
    "ConnectTimeoutError": "the connection to the service was not established in time",
    "DeadlineExceededError": "the call's deadline passed before the request was written",
    "DeliveryUnknownError": "the request was written, and no trustworthy answer came",
    "DisconnectedError": "the connection was closed after the request was written",
    "GuardRefusedError": "a guard refused the number: its region, a limit or a budget",
    "InterruptedRun": "the run was killed while this request was in flight",
    "InvalidRequestError": "a value of the item breaks a rule, so no request was made",
    "KeyInFlightError": "another call with the same idempotency key had no outcome yet",
    "NotFoundError": "the service has no such path: a wrong base URL or account id",
    "NotSentError": "the service could not be reached: DNS, a refused connection or a proxy",
    "PermissionDeniedError": "wrong credentials, or a user without the right to use MFA",
    "RateLimitError": "too many requests for the account's limit",
    "ReadTimeoutError": "the request was written, and the answer did not come in time",
    "ResponseDecodeError": "the answer has a success status but cannot be decoded",
    "ServerError": "the service, or a gateway in front of it, failed",
    "StoreError": "the store of idempotency keys could not be used, so nothing was sent",
    "TLSError": "the service's certificate was not trusted, or the TLS handshake failed",
}


def describe_cause(cause: str | None, http_status: int | None) -> str:
    """Return one lower-case line that says what happened.

    Args:
        cause: name of an error class, from the journal; None if the journal has none.
        http_status: HTTP status of the answer, if there was one.
    """
    if cause == "ServerError" and http_status in {502, 504}:
        return "a gateway in front of the service got no answer from it"
    if cause == "RateLimitError" and http_status is None:
        return "our own limiter: the wait for a permit would have outlasted the call"
    if cause is None:
        return "the journal has no cause"
    return _MEANINGS.get(cause, "a cause that this version does not know")
