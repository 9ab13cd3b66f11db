"""A journal, and a function that runs `report`."""

from tests.support.report_fixtures import invoke, launch

__all__ = ["invoke", "launch"]
