"""Memory of the scan of a large input."""

from __future__ import annotations

import io
import itertools
import tracemalloc

from bandwidth_mfa_async import CodeTemplate
from bandwidth_mfa_async.cli.bulk._input_scan import scan
from bandwidth_mfa_async.cli.bulk._rows import RowReader
from bandwidth_mfa_async.cli.bulk._source import Source
from tests.conftest import APPLICATION, FROM

TEMPLATE = CodeTemplate(FROM, APPLICATION)


def test_memory_does_not_grow_with_the_number_of_rows() -> None:
    """Ten times the rows have the same peak: a counted row is not kept."""

    class Rows(io.RawIOBase):
        def __init__(self, count: int) -> None:
            self._lines = (b"+1919%07d\n" % n for n in range(count))

        def read(self, size: int = -1) -> bytes:
            return b"".join(itertools.islice(self._lines, size // 13))

    def peak(count: int) -> int:
        tracemalloc.start()
        found = scan(RowReader(Source(Rows(count), "x"), TEMPLATE, "csv"), channel="messaging")
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.valid == count
        return top

    peak(100)
    assert peak(200_000) <= 1.1 * peak(20_000)
