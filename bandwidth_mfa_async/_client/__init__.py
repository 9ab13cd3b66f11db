"""The client: runs the steps of a call in order; each step is implemented in a lower layer."""

from __future__ import annotations

from ._client import MFAClient, executor_of

__all__ = ["MFAClient", "executor_of"]
