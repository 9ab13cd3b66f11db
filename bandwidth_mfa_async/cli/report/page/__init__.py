"""The report of a bulk run as one self-contained HTML page."""

from __future__ import annotations

from ._page import render

__all__ = ["render"]
