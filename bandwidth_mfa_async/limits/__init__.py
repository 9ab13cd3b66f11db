"""Rates, lanes and slots: how fast and how wide a client sends, and in whose favour."""

from __future__ import annotations

from ._channel_limiter import ChannelLimiter
from ._permit import Limiter, Permit
from ._priority_semaphore import PrioritySemaphore
from ._segments import message_weight, segments

__all__ = ["ChannelLimiter", "Limiter", "Permit", "PrioritySemaphore", "message_weight", "segments"]
