"""The map that is bounded in number and age."""

from hypothesis import given
from hypothesis import strategies as st

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async._ttl_map import TTLMap


def test_an_entry_expires():
    clock = ManualClock()
    entries = TTLMap(10, 5.0, clock)
    entries.put("a", 1)
    clock.tick(4.9)
    assert entries.get("a") == 1
    clock.tick(0.2)
    assert entries.get("a") is None
    assert "a" not in entries
    assert len(entries) == 0


def test_putting_a_key_again_renews_it():
    clock = ManualClock()
    entries = TTLMap(2, 5.0, clock)
    entries.put("a", 1)
    entries.put("b", 2)
    clock.tick(4)
    entries.put("a", 3)
    entries.put("c", 4)  # "b" is the oldest now
    assert [entries.get(key) for key in "abc"] == [3, None, 4]
    clock.tick(4)
    assert entries.get("a") == 3


def test_a_moved_entry_keeps_its_expiry():
    clock = ManualClock()
    first, second = TTLMap(10, 5.0, clock), TTLMap(10, 5.0, clock)
    first.put("a", 1)
    clock.tick(3)
    second.put("b", 2)
    first.transfer(second, "a")
    first.transfer(second, "missing")
    assert first.get("a") is None
    assert second.get("a") == 1
    clock.tick(2.5)  # "a" has expired behind "b", which has not
    assert second.get("a") is None
    assert second.get("b") == 2


@given(st.lists(st.tuples(st.integers(0, 8), st.floats(0, 3)), max_size=60), st.integers(1, 4))
def test_it_holds_the_newest_entries_that_have_not_expired(puts, size):
    clock = ManualClock()
    entries = TTLMap(size, 5.0, clock)
    expected = {}
    for key, wait in puts:
        clock.tick(wait)
        entries.put(key, clock.monotonic())
        expected.pop(key, None)
        expected[key] = clock.monotonic()
        expected = dict(list(expected.items())[-size:])
    now = clock.monotonic()
    assert {key: entries.get(key) for key in range(9)} == {
        key: expected[key] if key in expected and expected[key] + 5.0 > now else None for key in range(9)
    }
