"""Delivery receipts are parsed, or refused with a `WebhookError`."""

from __future__ import annotations

import contextlib
import json
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandwidth_mfa_async import MFAError
from bandwidth_mfa_async.webhooks import DeliveryReceipt, ErrorFamily, WebhookError, parse_delivery_receipt
from tests.conftest import FROM, TO
from tests.support.webhooks import DELIVERED, FAILED, ID, PRINTED, receipt


@pytest.mark.parametrize(
    "form", [dict, json.dumps, lambda body: json.dumps(body).encode()], ids=["dict", "str", "bytes"]
)
def test_a_receipt_is_parsed_from_an_object_text_or_bytes(form):
    """The time is aware, and the error code is None on success."""
    assert parse_delivery_receipt(form(FAILED)) == DeliveryReceipt(
        message_id=ID,
        delivered=False,
        type="message-failed",
        time=datetime(2016, 9, 14, 18, 20, 16, tzinfo=UTC),
        description="forbidden to country",
        platform="NorthAmericaSMS",
        error_code=4432,
    )
    assert parse_delivery_receipt(form(DELIVERED)).delivered is True
    assert parse_delivery_receipt(form(DELIVERED)).error_code is None


def test_the_documented_examples_are_not_json():
    """They contain a trailing comma; without it they are valid."""
    with pytest.raises(WebhookError, match="not JSON"):
        parse_delivery_receipt(PRINTED)
    assert parse_delivery_receipt(PRINTED.replace('p2b2",', 'p2b2"')).message_id == ID


def test_an_array_of_one_receipt_is_parsed():
    """With a changed Dashboard URL, North American receipts have the Messaging API's format: an array, more keys."""
    full = FAILED | {"to": TO, "message": {"id": ID, "owner": FROM, "to": [TO], "from": FROM, "text": "Your code is 1"}}
    found = parse_delivery_receipt(json.dumps([full]))
    assert found == parse_delivery_receipt(FAILED)
    assert TO not in repr(found)


BAD = {
    "empty": b"",
    "not utf-8": b'\xff{"type": "message-delivered"}',
    "utf-16": json.dumps(DELIVERED).encode("utf-16"),
    "html": "<html>",
    "null": "null",
    "number": "7",
    "text": '"message-delivered"',
    "empty array": "[]",
    "two": json.dumps([DELIVERED, FAILED]),
    "array in array": json.dumps([[DELIVERED]]),
    "deep": "[" * 100_000,
    "long number": "9" * 10_000,
    "no type": {"message": {"id": ID}},
    "other type": DELIVERED | {"type": "message-sending"},
    "type in capitals": DELIVERED | {"type": "Message-Delivered"},
    "type is a list": DELIVERED | {"type": ["message-delivered"]},
    "no message": {"type": "message-delivered"},
    "message is text": DELIVERED | {"message": ID},
    "message is null": DELIVERED | {"message": None},
    "no id": DELIVERED | {"message": {}},
    "id is a number": DELIVERED | {"message": {"id": 7}},
    "empty id": DELIVERED | {"message": {"id": ""}},
    "id with a line end": DELIVERED | {"message": {"id": f"{ID}\n"}},
    "id with a space": DELIVERED | {"message": {"id": "a b"}},
    "long id": DELIVERED | {"message": {"id": "a" * 129}},
    "id is not ascii": DELIVERED | {"message": {"id": "é"}},
    "None": None,
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_an_invalid_body_raises_a_webhook_error(body):
    """The error quotes nothing of the body and is not chained to the parser's error, which contains it."""
    with pytest.raises(WebhookError) as caught:
        parse_delivery_receipt(body)
    assert isinstance(caught.value, (ValueError, MFAError))
    assert ID not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.one_of(
        _json,
        st.binary(max_size=60),
        st.fixed_dictionaries(
            {"type": st.sampled_from(["message-delivered", "message-failed"])},
            optional={
                "message": st.fixed_dictionaries({"id": _json | st.just(ID)}),
                "time": _json | st.datetimes().map(str),
                "description": _json,
                "platform": _json,
                "errorCode": _json,
            },
        ),
    )
)
def test_every_value_is_a_receipt_or_a_webhook_error(value):
    """No value raises another error, and every parsed receipt has a repr and a hash."""
    with contextlib.suppress(WebhookError):
        found = parse_delivery_receipt(value)
        assert found.time is None or found.time.tzinfo is not None
        assert hash(found) == hash(pickle.loads(pickle.dumps(found)))
        assert repr(found).encode()
        assert (found.description or "").encode() is not None
        assert found.error_family is None or isinstance(found.error_family, ErrorFamily)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2016-09-14T18:20:16.123Z", datetime(2016, 9, 14, 18, 20, 16, 123_000, tzinfo=UTC)),
        ("2016-09-14T20:20:16+02:00", datetime(2016, 9, 14, 18, 20, 16, tzinfo=UTC)),
        ("2016-09-14T18:20:16", None),
        ("2016-09-14", None),
        ("yesterday", None),
        (1_473_877_216, None),
        (None, None),
    ],
)
def test_an_invalid_time_is_none(value, expected):
    """A receipt without a readable, aware time is still valid."""
    assert receipt(time=value).time == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4432, 4432),
        ("4432", 4432),
        (0, 0),
        (True, None),
        (44.5, None),
        ("44x", None),
        (-1, None),
        (10**12, None),
        ([], None),
    ],
)
def test_an_error_code_is_a_whole_number_or_none(value, expected):
    """It is documented as an integer; another type does not make a receipt invalid."""
    assert receipt(type="message-failed", errorCode=value).error_code == expected


def test_the_repr_of_a_receipt_contains_no_number():
    """The description is the service's text and may contain a number; it is bounded."""
    shown = repr(receipt(description=f"no route to {TO}"))
    assert TO not in shown
    assert "no route to ***" in shown
    assert len(receipt(description="x" * 10_000).description or "") == 500


def test_a_receipt_is_a_value():
    """It is frozen, comparable and picklable."""
    one = receipt()
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.time is not None
    assert one != receipt(time=(one.time + timedelta(seconds=1)).isoformat())
    with pytest.raises(AttributeError):
        one.delivered = False  # type: ignore[misc]
