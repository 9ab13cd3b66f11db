"""Rate limits, concurrency limits and priority lanes."""

from __future__ import annotations

from ._channel_limiter import ChannelLimiter
from ._permit import Limiter, Permit
from ._priority_semaphore import PrioritySemaphore
from ._segments import message_weight, segments

__all__ = ["ChannelLimiter", "Limiter", "Permit", "PrioritySemaphore", "message_weight", "segments"]
