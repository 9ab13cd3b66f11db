"""What one check of `bandwidth-mfa doctor` found. No I/O."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

Status: TypeAlias = Literal["ok", "warn", "fail", "skip"]


@frozen
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        status: "ok"; "warn" for what may matter; "fail" for what must be mended; "skip" for what was not looked at.
        detail: what was found; never a credential or a number.
        remedy: what to do about it.
    """

    name: str
    status: Status
    detail: str
    remedy: str | None = None
