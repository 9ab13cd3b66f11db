"""The error tree: its shape, its data, and that it survives pickling and task queues."""

from __future__ import annotations

import inspect
import json
import pickle

import pytest

from bandwidth_mfa_async import errors
from bandwidth_mfa_async.errors import (
    APIStatusError,
    Delivery,
    InvalidRequestError,
    MFAError,
    RateLimitError,
    RequestError,
)

EVERY = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, MFAError)]
REQUEST_ERRORS = [cls for cls in EVERY if issubclass(cls, RequestError)]


def filled(cls: type[MFAError]) -> MFAError:
    if issubclass(cls, RequestError):
        values: list[object] = ["boom", "verify_code", Delivery.UNKNOWN, 3, 1.5, "r-1", 2.0, "attempts"]
        if issubclass(cls, APIStatusError):
            values += [503, "said no"]
        if issubclass(cls, RateLimitError):
            values.append(True)
        return cls(*values)  # type: ignore[arg-type]
    return cls("to", "must be good") if cls is InvalidRequestError else cls("what happened and what to do")


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling_and_rebuilding_from_args(cls: type[MFAError]) -> None:
    """Both ways in which task queues rebuild an error give the same data, text and notes."""
    error = filled(cls)
    error.add_note("gave up after 3 attempts in 1.5 s")
    unpickled, rebuilt = pickle.loads(pickle.dumps(error)), type(error)(*error.args)
    assert type(unpickled) is type(error)
    for copy in (unpickled, rebuilt):
        assert copy.args == error.args
        assert (str(copy), repr(copy)) == (str(error), repr(error))
    assert vars(unpickled) == vars(error)
    assert {**vars(rebuilt), "__notes__": error.__notes__} == vars(error)


@pytest.mark.parametrize("cls", REQUEST_ERRORS, ids=lambda cls: cls.__name__)
def test_args_survive_a_json_round_trip(cls: type[RequestError]) -> None:
    """A queue that uses JSON passes the value of a delivery, which is accepted like the member."""
    error = filled(cls)
    copy = cls(*json.loads(json.dumps(error.args)))
    assert vars(copy) == vars(error)
    assert isinstance(copy, RequestError)
    assert copy.delivery is Delivery.UNKNOWN


@pytest.mark.parametrize("cls", REQUEST_ERRORS, ids=lambda cls: cls.__name__)
def test_updates_reach_args(cls: type[RequestError]) -> None:
    """The client completes an error after it is created; a rebuilt one has the completed data."""
    error = cls()
    error._update(attempts=7, elapsed=3.25, delivery=Delivery.UNKNOWN, retry_stopped_by="budget")
    assert vars(type(error)(*error.args)) == vars(error)


def test_errors_extend_the_matching_builtin_errors() -> None:
    """Existing handlers of the built-in classes catch ours."""
    parents = {
        "NotSentError": ConnectionError,
        "ConnectTimeoutError": TimeoutError,
        "TLSError": errors.NotSentError,
        "ReadTimeoutError": TimeoutError,
        "DisconnectedError": ConnectionError,
        "ResponseDecodeError": errors.DeliveryUnknownError,
        "DeadlineExceededError": TimeoutError,
        "InvalidRequestError": ValueError,
        "ClientStateError": RuntimeError,
        "VerificationLockedError": errors.RateLimitError,
        "RateLimitError": errors.APIStatusError,
        "ServerError": errors.APIStatusError,
    }
    for name, parent in parents.items():
        assert issubclass(getattr(errors, name), parent)
    assert not issubclass(errors.DeadlineExceededError, errors.NotSentError)


def test_the_module_docstring_lists_every_class() -> None:
    """The tree in the module docstring is complete."""
    assert [cls.__name__ for cls in EVERY if cls.__name__ not in (errors.__doc__ or "")] == []


def test_default_deliveries_are_conservative() -> None:
    """An error without arguments has the most careful delivery that its class allows."""
    assert {cls.__name__: cls().delivery.value for cls in REQUEST_ERRORS} == {
        "APIStatusError": "rejected",
        "AuthenticationError": "rejected",
        "BadRequestError": "rejected",
        "ConnectTimeoutError": "not_sent",
        "DeadlineExceededError": "not_sent",
        "DeliveryUnknownError": "unknown",
        "DisconnectedError": "unknown",
        "GuardRefusedError": "not_sent",
        "KeyInFlightError": "unknown",
        "NotFoundError": "rejected",
        "NotSentError": "not_sent",
        "PermissionDeniedError": "rejected",
        "RateLimitError": "rejected",
        "ReadTimeoutError": "unknown",
        "RequestError": "unknown",
        "ResponseDecodeError": "unknown",
        "ServerError": "rejected",
        "StoreError": "not_sent",
        "TLSError": "not_sent",
        "VerificationLockedError": "rejected",
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.NotSentError(), True),
        (errors.TLSError(), True),
        (errors.DeadlineExceededError(), True),
        (errors.StoreError(), True),
        (errors.NotSentError(retry_stopped_by="not_after"), False),
        (RateLimitError(), True),
        (RateLimitError(local=True, delivery=Delivery.NOT_SENT), True),
        (RateLimitError(delivery=Delivery.UNKNOWN), False),
        (errors.ServerError(status=503), True),
        (errors.ServerError(status=502, delivery=Delivery.UNKNOWN), False),
        (errors.BadRequestError(status=400), False),
        (errors.BadRequestError(status=400, delivery=Delivery.NOT_SENT), True),
        (errors.AuthenticationError(status=401), False),
        (APIStatusError(status=302), False),
        (APIStatusError(status=408), False),
        (errors.ReadTimeoutError(), False),
        (errors.DeadlineExceededError(delivery=Delivery.UNKNOWN), False),
        (errors.KeyInFlightError(), True),
    ],
    ids=repr,
)
def test_a_call_is_retryable_if_it_cannot_repeat_a_text(error: RequestError, expected: bool) -> None:
    """The rule for task queues, which retry whole calls; it survives pickling."""
    assert error.retryable is expected
    assert pickle.loads(pickle.dumps(error)).retryable is expected


def test_an_invalid_request_names_field_and_rule() -> None:
    """Both are attributes, and the text contains nothing else."""
    error = InvalidRequestError("to", "must be E.164")
    assert (error.field, error.rule, str(error)) == ("to", "must be E.164", "to: must be E.164")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (12.5, "12.5 s"), (3600.0, "3600 s"), (86400, "86400 s")]
)
def test_a_long_wait_is_written_out(seconds: float, text: str) -> None:
    """No exponent, however long the wait is."""
    assert f"retry after {text}" in str(errors.RateLimitError(retry_after=seconds))
