"""Names, seals and visitors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandwidth_mfa_async import InvalidRequestError, StoreError
from bandwidth_mfa_async.signin._identity import (
    new_id,
    new_scope,
    public_name,
    request_digest,
    seal,
    secret_names,
    unseal,
    visitor_key,
)

KEYS = (b"k" * 16, b"l" * 16)


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_a_seal_opens_with_its_key_only(key: str, value: dict[str, str]) -> None:
    sealed = seal(key, value)
    assert unseal(key, sealed) == value
    assert seal(key, value) != sealed
    with pytest.raises(StoreError, match="damaged"):
        unseal(key + "x", sealed)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "A" * 100])
def test_a_damaged_seal_is_a_store_error(text: str) -> None:
    with pytest.raises(StoreError, match="damaged"):
        unseal("key", text)


def test_a_changed_seal_is_a_store_error() -> None:
    sealed = seal("key", {"n": "+19195551234"})
    with pytest.raises(StoreError):
        unseal("key", ("B" if sealed[20] == "A" else "A").join((sealed[:20], sealed[21:])))


def test_names_differ_by_all_that_they_name() -> None:
    names = [
        public_name("f", "9900000", "login", "id"),
        public_name("f", "9900000", "login2", "id"),
        public_name("f", "9900000logi", "n", "id"),
        public_name("i", "9900000", "login", "id"),
        *secret_names("n", KEYS, "+19195551234"),
        *secret_names("n", KEYS, "+19195551235"),
        *secret_names("p", KEYS, "+19195551234"),
    ]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "9195551234" in name]
    assert request_digest("k", "+1") != request_digest("k2", "+1") != request_digest("k2", "+2")


def test_ids_and_scopes_are_unguessable() -> None:
    assert len({new_id() for _ in range(100)}) == 100
    assert len(new_id()) >= 32
    scopes = {new_scope("login") for _ in range(100)}
    assert len(scopes) == 100
    assert {len(scope) for scope in scopes} == {18}
    assert len(new_scope("x" * 25)) == 25


@pytest.mark.parametrize(
    ("visitor", "key"),
    [
        ("198.51.100.7", "198.51.100.7"),
        (" 198.51.100.7 ", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::ff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("198.51.100.7:54321", "198.51.100.7"),
        ("[2001:db8:1:2::ff]:54321", "2001:db8:1:2::/64"),
        ("[::ffff:198.51.100.7]", "198.51.100.7"),
        ("2001:db8:1:2::54321", "2001:db8:1:2::54321"),
        ("a device id", "a device id"),
    ],
)
def test_visitors(visitor: str, key: str) -> None:
    assert visitor_key(visitor) == key


@pytest.mark.parametrize(
    ("visitor", "key"),
    [
        ("1.2.3.4:5678", "1.2.3.4"),
        (" 1.2.3.4: ", "1.2.3.4"),
        ("[::1]:443", "::/64"),
        ("[2001:db8::5]", "2001:db8::/64"),
        ("[fe80::1%eth0]:80", "fe80::/64"),
        ("[::ffff:1.2.3.4]:443", "1.2.3.4"),
        ("::FFFF:1.2.3.4", "1.2.3.4"),
        ("2001:db8::5:443", "2001:db8::/64"),
        ("session 5:17", "session 5:17"),
    ],
)
def test_a_port_of_a_visitor_does_not_count(visitor: str, key: str) -> None:
    assert visitor_key(visitor) == key


@pytest.mark.parametrize("visitor", ["1.2.3.4, 5.6.7.8", "1.2.3.4:5,6.7.8.9:1", "[nonsense]:80", "999.1.1.1:80"])
def test_what_is_not_one_address_is_refused(visitor: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        visitor_key(visitor)
    assert caught.value.field == "visitor"
    assert visitor not in str(caught.value)
