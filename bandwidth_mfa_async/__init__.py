"""An asyncio client for Bandwidth's multi-factor-authentication API that reports whether a code was sent.

::

    login = CodeTemplate(from_="+19195554321", application_id="...", scope="login")
    async with MFAClient.from_env() as mfa:
        sent = await mfa.generate_messaging_code(login.to("+19195551234"))
        check = await mfa.verify_code(to="+19195551234", code="123456", scope="login")
        if check.valid:
            ...

Other modules: `bandwidth_mfa_async.simulator`, a local simulator of the service; `.testing` and the pytest fixtures
`mfa_simulator`, `mfa_client` and `mfa_environ`; `.webhooks`, delivery receipts; `.telemetry`, events and hooks;
`.worker`, codes through taskiq; `.signin`, sign-in flows and a guard; `.errors`, the error hierarchy. Durations are in
seconds; numbers are E.164.

Names are loaded on first use: the webhooks, the command line's help and the pytest plugin need no HTTP client, and
importing one takes a fifth of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._version import __version__

if TYPE_CHECKING:
    from ._client import MFAClient
    from ._config import Limits, Rate, Resend, RetryPolicy
    from ._credentials import BasicAuth, CredentialChain, OAuth2ClientCredentials
    from ._models import (
        CodeRequest,
        CodeTemplate,
        MessagingCodeResponse,
        ResponseMeta,
        VerifyCodeRequest,
        VerifyCodeResponse,
        VoiceCodeResponse,
        normalize_code,
    )
    from .bulk import BulkSender, BulkSummary, ItemOutcome, JournalReport, SQLiteJournal
    from .errors import (
        APIStatusError,
        AuthenticationError,
        BadRequestError,
        ClientStateError,
        ConfigurationError,
        ConnectTimeoutError,
        DeadlineExceededError,
        Delivery,
        DeliveryUnknownError,
        DisconnectedError,
        GuardRefusedError,
        InvalidRequestError,
        JournalError,
        KeyInFlightError,
        LedgerError,
        MFAError,
        NotFoundError,
        NotSentError,
        PermissionDeniedError,
        RateLimitError,
        ReadTimeoutError,
        RequestError,
        ResponseDecodeError,
        ServerError,
        StoreError,
        TLSError,
        VerificationLockedError,
    )
    from .limits.shared._redis_limits import RedisLimits
    from .stores import MemoryStore, RedisStore, SQLiteStore
    from .telemetry import LoggingHook

__all__ = [
    "APIStatusError",
    "AuthenticationError",
    "BadRequestError",
    "BasicAuth",
    "BulkSender",
    "BulkSummary",
    "ClientStateError",
    "CodeRequest",
    "CodeTemplate",
    "ConfigurationError",
    "ConnectTimeoutError",
    "CredentialChain",
    "DeadlineExceededError",
    "Delivery",
    "DeliveryUnknownError",
    "DisconnectedError",
    "GuardRefusedError",
    "InvalidRequestError",
    "ItemOutcome",
    "JournalError",
    "JournalReport",
    "KeyInFlightError",
    "LedgerError",
    "Limits",
    "LoggingHook",
    "MFAClient",
    "MFAError",
    "MemoryStore",
    "MessagingCodeResponse",
    "NotFoundError",
    "NotSentError",
    "OAuth2ClientCredentials",
    "PermissionDeniedError",
    "Rate",
    "RateLimitError",
    "ReadTimeoutError",
    "RedisLimits",
    "RedisStore",
    "RequestError",
    "Resend",
    "ResponseDecodeError",
    "ResponseMeta",
    "RetryPolicy",
    "SQLiteJournal",
    "SQLiteStore",
    "ServerError",
    "StoreError",
    "TLSError",
    "VerificationLockedError",
    "VerifyCodeRequest",
    "VerifyCodeResponse",
    "VoiceCodeResponse",
    "__version__",
    "normalize_code",
]

_NAMES: Final = {
    "._client": "MFAClient",
    "._config": "Limits Rate Resend RetryPolicy",
    "._credentials": "BasicAuth CredentialChain OAuth2ClientCredentials",
    "._models": (
        "CodeRequest CodeTemplate MessagingCodeResponse ResponseMeta VerifyCodeRequest VerifyCodeResponse "
        "VoiceCodeResponse normalize_code"
    ),
    ".bulk": "BulkSender BulkSummary ItemOutcome JournalReport SQLiteJournal",
    ".errors": (
        "APIStatusError AuthenticationError BadRequestError ClientStateError ConfigurationError "
        "ConnectTimeoutError DeadlineExceededError Delivery DeliveryUnknownError DisconnectedError "
        "GuardRefusedError InvalidRequestError JournalError KeyInFlightError LedgerError MFAError NotFoundError "
        "NotSentError PermissionDeniedError RateLimitError ReadTimeoutError RequestError ResponseDecodeError "
        "ServerError StoreError TLSError VerificationLockedError"
    ),
    ".limits.shared._redis_limits": "RedisLimits",
    ".stores": "MemoryStore RedisStore SQLiteStore",
    ".telemetry": "LoggingHook",
}
_HOMES: Final = {name: home for home, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
