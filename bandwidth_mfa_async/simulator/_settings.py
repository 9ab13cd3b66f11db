"""The settings of the simulated account, with their validation."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ._errors import InvalidOptionError
from ._server_limiter import AccountLimits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from attrs import Attribute


def _non_empty(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        msg = f"{attribute.name} must be text and not empty"
        raise InvalidOptionError(msg)


def _no_colon(instance: object, attribute: Attribute[Any], value: object) -> None:
    _non_empty(instance, attribute, value)
    if ":" in str(value):
        msg = f"{attribute.name} must not contain ':', which separates name and password in Basic credentials"
        raise InvalidOptionError(msg)


def _path_segment(instance: object, attribute: Attribute[Any], value: object) -> None:
    _non_empty(instance, attribute, value)
    if any(char in "/?#% " for char in str(value)):
        msg = f"{attribute.name} must not contain '/', '?', '#', '%' or spaces, because it is part of a path"
        raise InvalidOptionError(msg)


def _limits(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, AccountLimits):
        msg = f"{attribute.name} must be AccountLimits, or None for no limit"
        raise InvalidOptionError(msg)


def _positive_seconds(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        msg = f"{attribute.name} must be a number of seconds above 0"
        raise InvalidOptionError(msg)


def _token_status(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value not in {401, 403}:
        msg = f"{attribute.name} must be 401 or 403"
        raise InvalidOptionError(msg)


@frozen(kw_only=True)
class Settings:
    """The account, its credentials, and the behaviour where the real service is not known; see `Simulator`."""

    account_id: str = field(validator=_path_segment)
    username: str = field(validator=_no_colon)
    password: str = field(validator=_non_empty, repr=False)
    client_id: str = field(validator=_no_colon)
    client_secret: str = field(validator=_non_empty, repr=False)
    accept_basic: bool
    accept_bearer: bool
    token_lifetime: float = field(validator=_positive_seconds)
    bad_token_status: int = field(validator=_token_status)
    application_name: str
    applications: Collection[str] | None
    require_message: bool
    legacy_response_keys: bool
    lockout_retry_after: bool
    messaging_limits: AccountLimits | None = field(validator=_limits)
    voice_limits: AccountLimits | None = field(validator=_limits)


class MadeUp:
    """Makes up secrets, or takes those that were made up earlier.

    Args:
        earlier: the earlier ones by name.
    """

    def __init__(self, earlier: Mapping[str, str]) -> None:
        self._earlier = earlier
        self.values: dict[str, str] = {}
        """The secrets that were made up, by name."""

    def __call__(self, name: str, size: int) -> str:
        """Return a secret of `size` random bytes, as text."""
        self.values[name] = self._earlier.get(name) or secrets.token_urlsafe(size)
        return self.values[name]


def check_sizes(port: int, inbox_limit: int | None, request_log_limit: int, max_body: int) -> None:
    """Validate the port and the size limits.

    Raises:
        InvalidOptionError: a value is out of range.
    """
    if not 0 <= port <= 65535:
        raise InvalidOptionError("port must be from 0 to 65535")
    if inbox_limit is not None and inbox_limit < 1:
        raise InvalidOptionError("inbox_limit must be at least 1, or None")
    if request_log_limit < 0 or max_body < 1:
        raise InvalidOptionError("request_log_limit must be at least 0, and max_body at least 1 byte")
