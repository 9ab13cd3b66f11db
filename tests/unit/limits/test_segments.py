"""Segments: the published sizes, the GSM alphabet and templates."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async.limits import message_weight, segments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # https://support.bandwidth.com/hc/en-us/articles/360010235373
        ("", 1),
        ("Hello - good morning", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("a" * 459, 3),
        ("a" * 460, 4),
        ("ж" * 70, 1),
        ("ж" * 71, 2),
        ("ж" * 134, 2),
        ("ж" * 135, 3),
        # One character outside the alphabet turns the whole text into UCS-2.
        ("a" * 69 + "…", 1),
        ("a" * 70 + "…", 2),
        # Characters of the extension table take two units.
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("[" + "a" * 158, 1),
        ("[" + "a" * 159, 2),
        ("@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà" + "a" * 100, 1),
        # Emoji are two UTF-16 units.
        ("🍔" * 35, 1),
        ("🍔" * 36, 2),
        # A quote as word processors write it, and a backtick, are not in the alphabet.
        ("\u2019" + "a" * 70, 2),
        ("`" + "a" * 70, 2),
        ("ç" + "a" * 70, 2),
        ("Ç" + "a" * 70, 1),
    ],
)
def test_published_sizes(text, expected):
    """A segment holds 160/153 units of GSM-7 or 70/67 units of UCS-2."""
    assert segments(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 152 + "€" + "a" * 151, 2),  # the escape would be cut off: 152, then 2 + 151
        ("a" * 152 + "€" + "a" * 152, 3),
        ("a" * 151 + "€" + "a" * 153, 2),
        ("ж" * 66 + "🍔" + "ж" * 65, 2),
        ("ж" * 66 + "🍔" + "ж" * 66, 3),
    ],
)
def test_no_character_is_split(text, expected):
    """An escape sequence or a surrogate pair that does not fit moves to the next segment."""
    assert segments(text) == expected


def test_templates_are_filled_in():
    """The code, the scope (2FA by default) and the name count with their actual length."""
    assert message_weight("{CODE}" + "a" * 152, None, 8, None) == 1
    assert message_weight("{CODE}" + "a" * 153, None, 8, None) == 2
    assert message_weight("{SCOPE}{CODE}" + "a" * 151, None, 6, None) == 1
    assert message_weight("{SCOPE}{CODE}" + "a" * 151, "login", 6, None) == 2
    assert message_weight("{NAME}{CODE}" + "a" * 154, None, None, None) == 1
    assert message_weight("{NAME}{CODE}" + "a" * 154, None, None, "Acme") == 2
    assert message_weight("{CODE}" + "a" * 100, "логин", 6, "Äß") == 1, "a scope that is not shown does not count"
    assert message_weight("{SCOPE} {CODE}" + "a" * 100, "логин", 6, None) == 2
    assert message_weight("Your {NAME} {SCOPE} code is {CODE}", None, 6, None) == 1
    assert message_weight(None, None, None, None) == 1


def test_templates_are_counted_once():
    """A bulk run counts its template once, not once per recipient."""
    message_weight.cache_clear()
    for _ in range(100):
        message_weight("{CODE} is your code", "launch", 6, None)
    assert message_weight.cache_info().misses == 1
