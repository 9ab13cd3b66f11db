"""The service's JSON and HTTP statuses as values and errors: pure functions over a table of operations."""

from __future__ import annotations

from ._answers import RawResponse, decipher
from ._json import encode
from ._operations import MESSAGING, OPERATIONS, USER_AGENT, VERIFY, VOICE, Operation
from ._token import TOKEN_BODY, TOKEN_OPERATION, Token, decipher_token

__all__ = [
    "MESSAGING",
    "OPERATIONS",
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
]
