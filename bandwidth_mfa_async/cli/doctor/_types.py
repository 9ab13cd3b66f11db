"""The result of one check of the command `doctor`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

Status: TypeAlias = Literal["ok", "warn", "fail", "skip"]


@frozen
class Finding:
    """The result of one check.

    Attributes:
        name: the check's name.
        status: "ok"; "warn" for a possible problem; "fail" for an error to fix; "skip" for a check that was not made.
        detail: what was found; contains no credential and no phone number.
        remedy: what to do; None if nothing.
    """

    name: str
    status: Status
    detail: str
    remedy: str | None = None
