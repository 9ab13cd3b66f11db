"""What each cause that a journal names means to the person who reads it. No I/O."""

from __future__ import annotations

from typing import Final

_MEANINGS: Final = {
    "APIStatusError": "the service answered with a status that is neither success nor a known refusal",
    "AuthenticationError": "the credentials did not reach the service, or it does not know them",
    "BadRequestError": "the service refused a value: the number, the sender, the text or the application",
    "ClientStateError": "the client was closed before the request could leave",
    "ConnectTimeoutError": "no connection to the service in time",
    "DeadlineExceededError": "the call's time ran out before the request could leave",
    "DeliveryUnknownError": "written to the service, and no trustworthy answer came",
    "DisconnectedError": "the connection was cut after the request was written",
    "InterruptedRun": "the run was killed while this request was under way",
    "InvalidRequestError": "a value of the item breaks a rule, so nothing was asked of the service",
    "NotFoundError": "the service has no such path: a wrong base URL or account id",
    "NotSentError": "the service could not be reached: DNS, a refused connection, a proxy",
    "PermissionDeniedError": "wrong credentials, or a user without the right to use MFA",
    "RateLimitError": "too many requests for the account's limit",
    "ReadTimeoutError": "written to the service, and the answer did not come in time",
    "ResponseDecodeError": "the answer says success but cannot be read as one",
    "ServerError": "the service, or a gateway before it, failed",
    "TLSError": "the service's certificate was not trusted, or the TLS handshake failed",
}


def describe_cause(cause: str | None, http_status: int | None) -> str:
    """Return one line, lower case, that says what happened.

    Args:
        cause: the name of an error class, as the journal has it; None where it has none.
        http_status: the status that was answered, which says more than the class alone.
    """
    if cause == "ServerError" and http_status in {502, 504}:
        return "a gateway before the service got no answer from it"
    if cause == "RateLimitError" and http_status is None:
        return "our own limiter: the wait for a permit would have outlasted the call"
    if cause is None:
        return "the journal names no cause"
    return _MEANINGS.get(cause, "a cause that this version does not know")
