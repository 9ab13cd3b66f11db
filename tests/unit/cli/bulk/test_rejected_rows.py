"""Which rejected rows need correction: the same ones, whether this process sends them or workers do."""

import pytest

pytest.importorskip("click")
pytest.importorskip("taskiq")

from bandwidth_mfa_async import Delivery
from bandwidth_mfa_async._wire import MESSAGING
from bandwidth_mfa_async._wire._answers import RawResponse, status_error
from bandwidth_mfa_async.bulk import ItemOutcome
from bandwidth_mfa_async.cli.bulk import _job, _run
from bandwidth_mfa_async.worker import JobOutcome


@pytest.mark.parametrize("status", range(300, 600))
def test_both_commands_reject_the_same_rows(status, template):
    error = status_error(MESSAGING, RawResponse(status, {}, b""), 0.0, tuple)
    by_this_process = ItemOutcome(0, "", template.to("+19195550001"), error.delivery, error=error)
    by_workers = JobOutcome(0, "", error.delivery, error=type(error).__name__, status=status)
    assert (_run._rejection_reason(by_this_process) is not None) == _job._needs_correction(by_workers)


@pytest.mark.parametrize(("status", "expected"), [(302, True), (400, True), (422, True), (401, False), (429, False)])
def test_a_row_needs_correction_unless_another_run_sends_it(status, expected):
    outcome = JobOutcome(0, "", Delivery.REJECTED, error="APIStatusError", status=status)
    assert _job._needs_correction(outcome) is expected
