"""A callback that records receipts."""

from tests.support.webhooks import callback

__all__ = ["callback"]
