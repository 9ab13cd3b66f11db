"""The service's wire format: encode requests to JSON, decipher responses into values and errors.

Pure functions over a table of operations. The transport moves the bytes and knows nothing of their meaning.
"""

from __future__ import annotations

from ._answers import RawResponse, decipher, header_request_id
from ._json import encode
from ._operations import MESSAGING, OPERATION_OF, OPERATIONS, USER_AGENT, VERIFY, VOICE, Operation
from ._token import TOKEN_BODY, TOKEN_OPERATION, Token, decipher_token

__all__ = [
    "MESSAGING",
    "OPERATIONS",
    "OPERATION_OF",
    "TOKEN_BODY",
    "TOKEN_OPERATION",
    "USER_AGENT",
    "VERIFY",
    "VOICE",
    "Operation",
    "RawResponse",
    "Token",
    "decipher",
    "decipher_token",
    "encode",
    "header_request_id",
]
