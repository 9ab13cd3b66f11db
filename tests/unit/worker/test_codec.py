"""Records of items as the ledger stores them."""

from __future__ import annotations

from bandwidth_mfa_async.worker.ledger._codec import unpack_records


def test_only_a_line_feed_ends_a_record() -> None:
    """An id that an earlier version stored with another line separator does not hide the job's outcomes."""
    found = unpack_records("0,2,a\u2028b,,,1\n1,2,c\x85d\x1ce,,,2\n")
    assert [(index, result.provider_id, result.attempts) for index, result in found.items()] == [
        (0, "a\u2028b", 1),
        (1, "c\x85d\x1ce", 2),
    ]
    assert unpack_records("") == {}
