"""A simulator, a folder, and a function that runs `bulk`."""

from tests.support.bulk_fixtures import bulk, folder, simulator

__all__ = ["bulk", "folder", "simulator"]
