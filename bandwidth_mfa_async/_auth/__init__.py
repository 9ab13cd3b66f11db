"""Provides the Authorization header of a request, and chooses between two kinds of credentials."""

from __future__ import annotations

from ._authorizer import TOKEN_SHARE, TOKEN_WAIT, Authorizer, resolve
from ._credential import Credential, copy_of

__all__ = ["TOKEN_SHARE", "TOKEN_WAIT", "Authorizer", "Credential", "copy_of", "resolve"]
