"""Handling of a posted receipt, independent of the web framework: credentials, deduplication, callback."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from attrs import frozen

from .._clock import SystemClock
from .._credentials import BasicAuth
from .._frames import clears_locals
from .._ttl_map import TTLMap
from ..errors import ConfigurationError
from ..telemetry import LOGGER_NAME
from ._errors import OtherEventError, WebhookError
from ._receipt import DeliveryReceipt, parse_delivery_receipt

if TYPE_CHECKING:
    from .._clock import Clock

OnReceipt: TypeAlias = Callable[[DeliveryReceipt], Any]
"""Callback for receipts: a `DeliveryTracker`, a function or a coroutine function."""

_logger = logging.getLogger(f"{LOGGER_NAME}.webhooks")

MAX_BODY: Final = 64 * 1024
"""Maximum size of a body in bytes; a documented receipt has about 200."""

# North American receipts are retried for 24 hours: https://dev.bandwidth.com/docs/mfa/webhooks
_DEFAULT_REMEMBER_FOR: Final = 25 * 3600.0
_DEFAULT_REMEMBER: Final = 10_000
_DEFAULT_CALLBACK_TIMEOUT: Final = 30.0
_DEFAULT_MAX_IN_PROGRESS: Final = 1_000
_MAX_OTHER_TYPES: Final = 20
_DEFAULT_REALM: Final = "delivery receipts"


class ReceiverOptions(TypedDict, total=False):
    """Options of the receivers; all are optional.

    Keys:
        auth: `BasicAuth` credentials that the sender must present. A request without credentials gets a 401 challenge
            first, as Bandwidth describes it for other callbacks (guides/callbacks). It is not documented whether the
            sender of MFA receipts answers a challenge. The default, None, accepts every receipt.
        realm: realm of the challenge; default ``"delivery receipts"``.
        remember: maximum number of handled receipts to remember for deduplication; default 10,000.
        remember_for: seconds for which to remember them; default 25 hours, because North American receipts are retried
            for 24 hours.
        callback_timeout: seconds after which an awaitable callback is cancelled and the sender gets a 500; default 30.
        max_in_progress: maximum number of requests that wait for a callback; above it the sender gets a 503; default
            1,000.
        clock: clock for `remember_for`; real time by default.
    """

    auth: BasicAuth | None
    realm: str
    remember: int
    remember_for: float
    callback_timeout: float
    max_in_progress: int
    clock: Clock | None


@frozen
class Reply:
    """A response: status, body and extra headers."""

    status: int
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()


TOO_LARGE: Final = Reply(413, f"a receipt must have at most {MAX_BODY} bytes\n")
UNREADABLE: Final = Reply(400, "the body cannot be read\n")
_METHOD_NOT_ALLOWED: Final = Reply(405, "send receipts with POST\n", (("Allow", "POST"),))
_HANDLED: Final = Reply(204)
_BUSY: Final = Reply(503, "too many receipts are being handled; post it again\n", (("Retry-After", "30"),))
_FAILED: Final = Reply(500, "the receipt was not handled; post it again\n")


class Receiver:
    """Checks posted receipts and passes each one to the callback once.

    Args:
        on_receipt: called with each receipt; an awaitable result is awaited. If it raises, the sender gets a 500, and
            the callback is called again when the sender retries.
        options: the `ReceiverOptions`.

    Raises:
        ConfigurationError: an option is invalid.
    """

    @clears_locals
    def __init__(self, on_receipt: OnReceipt, options: ReceiverOptions) -> None:
        if not callable(on_receipt):
            raise ConfigurationError("on_receipt: must be callable with a DeliveryReceipt, like a DeliveryTracker")
        unknown = options.keys() - ReceiverOptions.__optional_keys__
        if unknown:
            raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
        auth = options.get("auth")
        if auth is not None and not isinstance(auth, BasicAuth):
            raise ConfigurationError("auth: must be BasicAuth(username, password), or None")
        realm = options.get("realm", _DEFAULT_REALM)
        if not realm.isascii() or not realm.isprintable() or '"' in realm or "\\" in realm:
            raise ConfigurationError("realm: must be printable ASCII without quotes and backslashes")
        self._on_receipt = on_receipt
        self._expected = None if auth is None else auth.header.partition(" ")[2].encode()
        self._challenge = Reply(401, "", (("WWW-Authenticate", f'Basic realm="{realm}"'),))
        size, seconds = options.get("remember", _DEFAULT_REMEMBER), options.get("remember_for", _DEFAULT_REMEMBER_FOR)
        if size < 1 or not seconds > 0:
            raise ConfigurationError("remember and remember_for: must be above 0")
        # Message ids and types of the latest handled receipts.
        self._handled: TTLMap[tuple[str, str], None] = TTLMap(size, seconds, options.get("clock") or SystemClock())
        self._callback_timeout = options.get("callback_timeout", _DEFAULT_CALLBACK_TIMEOUT)
        self._max_waiting = options.get("max_in_progress", _DEFAULT_MAX_IN_PROGRESS)
        if not self._callback_timeout > 0 or self._max_waiting < 1:
            raise ConfigurationError("callback_timeout and max_in_progress: must be above 0")
        self._in_progress: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._waiting = 0
        self._other_types: set[str] = set()

    def check_head(self, method: str, authorization: str | None, length: int | None) -> Reply | None:
        """Check everything but the body of a request; return the response if it is refused, else None.

        Args:
            method: HTTP method.
            authorization: value of the Authorization header; None if absent.
            length: Content-Length in bytes; None if absent or invalid.
        """
        if method != "POST":
            return _METHOD_NOT_ALLOWED
        if self._expected is not None:
            scheme, _, presented = (authorization or "").partition(" ")
            is_valid = hmac.compare_digest(presented.strip().encode("utf-8", "surrogateescape"), self._expected)
            if scheme.lower() != "basic" or not is_valid:
                if authorization is not None:
                    _logger.warning("refused a delivery receipt: wrong credentials")
                return self._challenge
        return TOO_LARGE if length is not None and length > MAX_BODY else None

    async def receive(self, body: bytes) -> Reply:
        """Handle the body of a request and return the response.

        Args:
            body: the complete body.
        """
        try:
            receipt = parse_delivery_receipt(body)
        except OtherEventError as error:
            self._log_other(error.type)
            return _HANDLED
        except WebhookError as error:
            _logger.warning("refused a delivery receipt: %s", error)
            return Reply(400, f"{error}\n")
        del body  # crash reporters show local variables
        # A callback that does not return must not collect an endless number of requests.
        if self._waiting >= self._max_waiting:
            _logger.warning("refused a delivery receipt: %d wait for the callback", self._waiting)
            return _BUSY
        self._waiting += 1
        try:
            return await self._handle_once(receipt)
        finally:
            self._waiting -= 1

    def _log_other(self, kind: str) -> None:
        """Log the first event of each type; the number of types is bounded, because a sender chooses them."""
        if kind not in self._other_types and len(self._other_types) < _MAX_OTHER_TYPES:
            self._other_types.add(kind)
            _logger.warning(
                "answered events of type %s with 204 and ignored them: they are not delivery receipts", kind
            )

    async def _handle_once(self, receipt: DeliveryReceipt) -> Reply:
        key = (receipt.message_id, receipt.type)
        # A duplicate that arrives while the callback runs waits for it, and calls it again if it failed.
        while (first := self._in_progress.get(key)) is not None:
            await asyncio.wait([first])
        if key in self._handled:
            return _HANDLED
        done = self._in_progress[key] = asyncio.get_running_loop().create_future()
        try:
            result = self._on_receipt(receipt)
            if inspect.isawaitable(result):
                async with asyncio.timeout(self._callback_timeout):
                    await result
        except Exception as error:  # noqa: BLE001 - the sender should retry after any error
            # Log neither the error's text nor its traceback: both may contain the callback's data.
            _logger.error(  # noqa: TRY400
                "the callback for the delivery receipt of message %s failed: %s at %s",
                receipt.message_id,
                type(error).__name__,
                _location(error),
            )
            return _FAILED
        else:
            self._handled.put(key, None)
            return _HANDLED
        finally:
            del self._in_progress[key]
            done.set_result(None)


def _location(error: BaseException) -> str:
    """Return the file and the line that raised an error."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "?" if traceback is None else f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
