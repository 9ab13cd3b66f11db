"""The type of the fixture `make_client`, for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from bandwidth_mfa_async import MFAClient

MakeClient: TypeAlias = Callable[..., MFAClient]
"""Makes clients of the test's fault server, with any of `MFAClient`'s options; they are closed at the test's end."""
