"""The project's table of faults: every row has its test, cold and warm, on both loops, and shows all four columns."""

from __future__ import annotations

import importlib
import inspect
import pathlib
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest

from tests.conftest import pytest_asyncio_loop_factories
from tests.integration.faults.answers import FAULTS, NEVER, ODD_SUCCESSES
from tests.integration.faults.test_proxies import REFUSED
from tests.integration.faults.watch import MATRIX, Watch
from tests.support.virtual_time import VirtualTimeLoop, virtual_uvloop

# The rows in the order of the table, and the test of each in tests/integration/faults; some have more than one.
ROWS: dict[int, tuple[str, str]] = {
    1: ("connection refused", "test_connections::test_nobody_listens"),
    2: ("connect timeout", "test_connections::test_a_full_accept_queue"),
    3: ("wait for the pool", "test_connections::test_a_full_pool"),
    4: ("DNS fails", "test_connections::test_a_name_that_is_not_resolved"),
    5: ("DNS gives an empty list", "test_connections::test_a_name_that_is_not_resolved"),
    6: ("DNS hangs", "test_connections::test_a_resolver_that_hangs"),
    7: ("one of two addresses is dead", "test_connections::test_one_address_of_two_is_dead"),
    8: ("a certificate that cannot be trusted", "test_connections::test_a_certificate_that_cannot_be_trusted"),
    9: ("a handshake that fails or hangs", "test_connections::test_a_handshake_that_fails"),
    10: ("cut right after accept", "test_answers::test_a_fault_has_one_meaning"),
    11: ("cut after the head, with a large body", "test_connections::test_a_large_body_that_is_not_read"),
    12: ("cut after the request", "test_answers::test_a_fault_has_one_meaning"),
    13: ("a kept connection dies as it is used", "test_answers::test_a_fault_has_one_meaning"),
    14: ("half a head", "test_answers::test_an_answer_that_does_not_come_is_unknown"),
    15: ("half a body", "test_answers::test_an_answer_that_does_not_come_is_unknown"),
    16: ("wrong lengths", "test_answers::test_a_fault_has_one_meaning"),
    17: ("not HTTP", "test_answers::test_a_fault_has_one_meaning"),
    18: ("no length", "test_answers::test_an_odd_success_is_one"),
    19: ("a gzip bomb", "test_answers::test_a_fault_has_one_meaning"),
    20: ("bad gzip", "test_answers::test_a_fault_has_one_meaning"),
    21: ("10 MB", "test_answers::test_a_fault_has_one_meaning"),
    22: ("a 200 without an id", "test_answers::test_a_fault_has_one_meaning"),
    23: ("odd JSON", "test_answers::test_what_json_readers_differ_on"),
    24: ("204", "test_answers::test_a_fault_has_one_meaning"),
    25: ("1xx", "test_answers::test_an_odd_success_is_one"),
    26: ("redirects", "test_answers::test_a_redirect_is_not_followed"),
    27: ("408", "test_answers::test_a_fault_has_one_meaning"),
    28: ("4xx", "test_answers::test_a_fault_has_one_meaning"),
    29: ("429 and Retry-After", "test_answers::test_retry_after_is_a_floor"),
    30: ("500, 502, 504", "test_answers::test_a_fault_has_one_meaning"),
    31: ("501, 505, 511", "test_answers::test_a_fault_has_one_meaning"),
    32: ("a byte now and then", "test_answers::test_an_answer_that_does_not_come_is_unknown"),
    33: ("no answer", "test_answers::test_an_answer_that_does_not_come_is_unknown"),
    34: ("the server stops reading", "test_connections::test_a_large_body_that_is_not_read"),
    35: ("headers too large", "test_answers::test_a_fault_has_one_meaning"),
    36: ("an answer nobody asked for", "test_answers::test_an_unasked_answer_is_nobodys"),
    37: ("a proxy that makes no connection", "test_proxies::test_a_proxy_that_makes_no_connection"),
    38: ("a proxy for plain http", "test_proxies::test_a_setting_that_is_refused"),
    39: ("proxies of the environment", "test_proxies::test_proxies_of_the_environment_are_not_used"),
    40: ("cancellation", "test_lives::test_cancelled_at_every_wait"),
    41: ("the session is closed under a call", "test_lives::test_a_session_closed_by_its_owner"),
    42: ("use after close", "test_lives::test_use_after_close"),
    43: ("the loop ends first", "test_lives::test_a_loop_that_ends_first"),
    44: ("another loop, thread or process", "test_lives::test_another_loop"),
    45: ("the wall clock jumps", "test_lives::test_the_wall_clock_jumps"),
    46: ("SIGTERM in a bulk run", "test_runs::test_a_signal_stops_a_run"),
    47: ("kill -9 in a bulk run", "test_runs::test_a_run_that_was_killed"),
    48: ("a torn journal", "test_runs::test_a_run_that_was_killed"),
    49: ("a full disk", "test_runs::test_a_full_disk"),
    50: ("a number twice", "test_runs::test_a_number_twice"),
    51: ("odd CSV", "test_runs::test_a_bad_row_ends_nothing"),
    52: ("a quote that is not closed", "test_runs::test_a_file_that_cannot_be_read"),
    53: ("ten million rows", "test_runs::test_a_file_without_end"),
    54: ("line breaks in headers", "test_proxies::test_a_setting_that_is_refused"),
    55: ("a path in an id", "test_proxies::test_a_setting_that_is_refused"),
    56: ("secrets in errors", "test_secrets::test_no_error_shows_a_secret"),
}
COLUMNS = ("outcome", "ledger", "pool", "elapsed")


def row_tests() -> dict[str, FunctionType]:
    """Return every test in tests/integration/faults, each of which is held to what this table asks of a row."""
    found: dict[str, FunctionType] = {}
    for file in sorted((pathlib.Path(__file__).parent / "faults").glob("test_*.py")):
        module = importlib.import_module(f".faults.{file.stem}", __package__)
        assert list(module.pytestmark[: len(MATRIX)]) == MATRIX, f"{file.name} is not cold and warm on both loops"
        for name, test in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_"):
                found[f"{file.stem}::{name}"] = test
    return found


def test_no_row_is_missing() -> None:
    """56 rows, each names a test that is there, and there is no test that is no row's."""
    assert sorted(ROWS) == list(range(1, 57))
    more = {"test_answers::test_a_retry_after_that_is_too_long_is_raised_at_once"}  # of row 29
    assert {test for _, test in ROWS.values()} | more == set(row_tests())


@pytest.mark.parametrize("test", row_tests())
def test_a_row_has_its_four_columns_cold_and_warm_on_both_loops(test: str) -> None:
    """It runs in a loop, cold and warm, and ends in `Watch.shows`, which takes all four; or it fails at its end."""
    function = row_tests()[test]
    assert inspect.iscoroutinefunction(function), "a test that is not async runs on no loop"
    assert {"warm", "watch"} <= set(inspect.signature(function).parameters)
    calls = set(function.__code__.co_names) | {
        name for part in function.__code__.co_consts if hasattr(part, "co_names") for name in part.co_names
    }
    assert calls & {"shows", "compare"}
    assert not [mark for mark in getattr(function, "pytestmark", []) if mark.name in {"skip", "skipif", "xfail"}]


def test_the_columns_and_loops_are_all_there() -> None:
    """None of the columns can be left out of a comparison, and what is marked runs on asyncio and on uvloop."""
    for method in (Watch.shows, Watch.compare):
        columns = list(inspect.signature(method).parameters.values())[1:]
        assert tuple(column.name for column in columns) == COLUMNS
        assert all(column.kind is column.KEYWORD_ONLY and column.default is column.empty for column in columns)
    warm = next(mark for mark in MATRIX if mark.name == "parametrize")
    assert warm.args == ("warm", [False, True])
    marks = {mark.name: mark for mark in MATRIX}
    item: Any = SimpleNamespace(get_closest_marker=marks.get)
    loops = pytest_asyncio_loop_factories(None, item)  # type: ignore[arg-type]
    assert list(loops.values()) == [VirtualTimeLoop, virtual_uvloop]


def test_the_tables_rows_are_what_they_say() -> None:
    """The rows that are cases of a table are there under their numbers."""
    here = {fault.row for fault in FAULTS}
    assert {row for row, (_, test) in ROWS.items() if test.endswith("one_meaning")} <= here
    assert {14, 15, 18, 25, 32, 33} <= {row[0] for row in NEVER}
    assert {18, 22, 23, 25} <= {row[0] for row in ODD_SUCCESSES}
    assert {38, 54, 55} == {int(name[:2]) for name in REFUSED}
