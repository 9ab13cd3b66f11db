"""The three operations of the service: names, paths, response classes and channels."""

from __future__ import annotations

from typing import Any, Final, Generic, Literal, TypeVar

from attrs import frozen

from .._models import CodeRequest, MessagingCodeResponse, VerifyCodeRequest, VerifyCodeResponse, VoiceCodeResponse
from .._version import __version__

USER_AGENT: Final = f"bandwidth-mfa-async/{__version__}"
Request = TypeVar("Request", CodeRequest, VerifyCodeRequest)
Response = TypeVar("Response", MessagingCodeResponse, VoiceCodeResponse, VerifyCodeResponse)


@frozen
class Operation(Generic[Request, Response]):
    """An operation of the service.

    Attributes:
        name: the client method, used in errors and events.
        path: what follows ``/accounts/{accountId}/``.
        response: the class of a successful response.
        channel: the channel whose rate limit applies; None for a verify, which sends nothing.
    """

    name: str
    path: str
    response: type[Response]
    channel: Literal["messaging", "voice"] | None

    @property
    def sends(self) -> bool:
        """Whether a success reaches a person, so that a repeated request may reach them twice."""
        return self.channel is not None


# https://dev.bandwidth.com/apis/multi-factor-auth - unchanged since 2020-05-29
MESSAGING: Final = Operation[CodeRequest, MessagingCodeResponse](
    "generate_messaging_code", "code/messaging", MessagingCodeResponse, "messaging"
)
VOICE: Final = Operation[CodeRequest, VoiceCodeResponse](
    "generate_voice_code", "code/voice", VoiceCodeResponse, "voice"
)
VERIFY: Final = Operation[VerifyCodeRequest, VerifyCodeResponse]("verify_code", "code/verify", VerifyCodeResponse, None)
OPERATIONS: Final = (MESSAGING, VOICE, VERIFY)
OPERATION_OF: Final[dict[str, Operation[CodeRequest, Any]]] = {"messaging": MESSAGING, "voice": VOICE}
"""The operation that sends a code, by channel."""
