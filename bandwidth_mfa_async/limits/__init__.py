"""Rates, lanes and slots: how fast and how wide a client sends, and in whose favour."""

from __future__ import annotations

from ._channel import ChannelLimiter
from ._permit import Limiter, Permit
from ._segments import message_weight, segments
from ._slots import Slots

__all__ = ["ChannelLimiter", "Limiter", "Permit", "Slots", "message_weight", "segments"]
