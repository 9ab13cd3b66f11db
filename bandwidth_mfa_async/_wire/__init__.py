"""The service's JSON and HTTP statuses as values and errors: pure functions over a table of operations."""

from __future__ import annotations

from ._answers import (
    MESSAGING,
    OPERATIONS,
    TOKEN_BODY,
    TOKEN_OPERATION,
    USER_AGENT,
    VERIFY,
    VOICE,
    Answer,
    Operation,
    Token,
    decipher,
    decipher_token,
    encode,
)

__all__ = [
    "MESSAGING",
    "OPERATIONS",
    "TOKEN_BODY",
    "TOKEN_OPERATION",
    "USER_AGENT",
    "VERIFY",
    "VOICE",
    "Answer",
    "Operation",
    "Token",
    "decipher",
    "decipher_token",
    "encode",
]
