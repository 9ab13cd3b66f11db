"""A report on a bulk run as one HTML page that needs nothing else."""

from __future__ import annotations

from ._page import render

__all__ = ["render"]
