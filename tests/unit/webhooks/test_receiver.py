"""The arguments of a receiver are checked when it is made."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async import ConfigurationError
from bandwidth_mfa_async.webhooks import receipt_asgi_app, receipt_handler


@pytest.mark.parametrize(
    "options",
    [
        {"auth": ("a", "b")},
        {"realm": 'a"b'},
        {"realm": "a\r\nb"},
        {"remember": 0},
        {"remember_for": 0},
        {"callback_timeout": 0},
        {"max_in_progress": 0},
    ],
)
@pytest.mark.parametrize("make", [receipt_handler, receipt_asgi_app])
def test_invalid_receiver_options_are_refused(make, options):
    """At construction, not at the first receipt."""
    with pytest.raises(ConfigurationError):
        make(print, **options)


@pytest.mark.parametrize("make", [receipt_handler, receipt_asgi_app])
def test_a_callback_must_be_callable_and_options_known(make):
    """The error names the missing or unknown argument."""
    with pytest.raises(ConfigurationError, match="on_receipt"):
        make(None)
    with pytest.raises(TypeError, match="relm"):
        make(print, relm="x")
