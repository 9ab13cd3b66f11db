"""The client: the order of the steps of a call, and nothing else."""

from __future__ import annotations

from ._client import MFAClient, executor_of

__all__ = ["MFAClient", "executor_of"]
