"""From what a user's input holds to a request and its key, or to the reason why not."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from .._keys import MAX_KEY_LENGTH, Keys, key_digest
from .._models import CodeRequest
from ..errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .._models import CodeTemplate


class Intake:
    """Reads the input of a run.

    Args:
        source: an iterable or an async iterable.
        channel: ``"messaging"`` or ``"voice"``.
        run: the run's name, for default keys.
        key: makes keys; None for default ones.
        template: makes requests of numbers.
    """

    def __init__(
        self,
        source: Any,
        channel: str,
        run: str,
        key: Callable[[CodeRequest], str] | None,
        template: CodeTemplate | None,
    ) -> None:
        self._source = source
        self._voice = channel == "voice"
        self._keys = Keys(channel, run)
        self._key = key
        self._template = template

    async def values(self) -> AsyncIterator[Any]:
        """Give what the input holds; an `InvalidRequestError` it raises is given too, if it can go on after that.

        Raises:
            Exception: whatever else the input raises.
        """
        source: Any = self._source
        if hasattr(source, "__aiter__"):
            asynchronous = source.__aiter__()
            while True:
                try:
                    value = await asynchronous.__anext__()
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError as error:
                    raise _classify_cancellation(error) from error
                except InvalidRequestError as error:
                    value = _raise_if_generator(error, inspect.isasyncgen(asynchronous))
                yield value
        iterator = iter(source)
        while True:
            try:
                value = next(iterator)
            except StopIteration:
                return
            except asyncio.CancelledError as error:
                raise _classify_cancellation(error) from error
            except InvalidRequestError as error:
                value = _raise_if_generator(error, inspect.isgenerator(iterator))
            yield value

    def request(self, value: Any) -> CodeRequest:
        """Return the request that a value stands for.

        Raises:
            InvalidRequestError: none, or one that breaks a rule.
        """
        if isinstance(value, InvalidRequestError):
            raise value
        if isinstance(value, str) and self._template is not None:
            value = self._template.to(value)
        if not isinstance(value, CodeRequest):
            remedy = "; pass template= to send to numbers" if isinstance(value, str) else ""
            raise InvalidRequestError("request", f"must be a CodeRequest, not {type(value).__name__}{remedy}")
        if self._voice and value.callback_url is not None:
            raise InvalidRequestError("callback_url", "is documented for texts only; leave it out of a call")
        return value

    def key(self, request: CodeRequest) -> tuple[str, bytes, bytes | None]:
        """Return a request's key, the key's digest, and a digest of what is sent where the key does not say that.

        Raises:
            InvalidRequestError: the user's function made no usable key.
        """
        if self._key is None:
            digest = self._keys.digest(request)
            return digest.hex(), digest, None
        try:
            key: object = self._key(request)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it raises is about this item only
            # A cancellation too: it is that of a future it asked, as a run is cancelled only where it waits.
            name = type(error).__name__
            raise InvalidRequestError("key", f"the key function raised {name} for this item") from None
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
            raise InvalidRequestError("key", f"must be a str of 1 to {MAX_KEY_LENGTH} characters")
        return key, key_digest(key), self._keys.payload(request)


def _raise_if_generator(error: InvalidRequestError, generator: bool) -> InvalidRequestError:  # noqa: FBT001 - a fact
    if generator:
        error.add_note(
            "the input is a generator, and Python ends a generator that raises; to go on after a bad item "
            "pass the numbers themselves and template=..."
        )
        raise error
    return error


def _classify_cancellation(error: asyncio.CancelledError) -> BaseException:
    """Tell the end of the run from the end of something that the input waited for, which nobody else would hear of."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return error
    return RuntimeError("the input ended before its time: something that it waited for was cancelled")


def unexpected_error(error: Exception) -> InvalidRequestError:
    """Return what is said of an item that raised when it was looked at."""
    return InvalidRequestError("request", f"raised {type(error).__name__} when it was looked at")
