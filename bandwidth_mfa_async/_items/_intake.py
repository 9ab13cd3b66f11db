"""Turns values of the user's input into requests and idempotency keys, or into errors."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from .._keys import MAX_KEY_LENGTH, Keys, key_digest
from .._models import CodeRequest, CodeTemplate
from ..errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator


def check_input(source: object, key: object, template: object) -> None:
    """Check the input of a run and the arguments that say how to read it.

    Args:
        source: an iterable or an async iterable.
        key: a function, or None.
        template: a `CodeTemplate`, or None.

    Raises:
        ConfigurationError: one of them is something else.
    """
    if template is not None and not isinstance(template, CodeTemplate):
        raise ConfigurationError("template: must be a CodeTemplate")
    if key is not None and not callable(key):
        raise ConfigurationError("key: must be a function of a CodeRequest")
    if isinstance(source, (str, bytes)) or not (hasattr(source, "__iter__") or hasattr(source, "__aiter__")):
        raise ConfigurationError("requests: must be an iterable or an async iterable of CodeRequests")


class Intake:
    """Read the input of a run.

    Args:
        source: an iterable or an async iterable.
        channel: ``"messaging"`` or ``"voice"``.
        run: the run's name, for default keys.
        key: returns the key of a request; None for default keys.
        template: makes requests from numbers.
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

    async def values(self) -> AsyncGenerator[Any]:
        """Iterate over the input; an `InvalidRequestError` that it raises is yielded too, if it can continue after it.

        Close this generator in the task that reads it: it also closes the user's async generator, whose
        connections and task groups belong to that task.

        Raises:
            Exception: any other exception of the input.
        """
        if hasattr(self._source, "__aiter__"):
            values = _async_values(self._source.__aiter__())
            try:
                async for value in values:
                    yield value
            finally:
                await values.aclose()
        else:
            for value in _values(iter(self._source)):
                yield value

    def request(self, value: Any) -> CodeRequest:
        """Return the request for a value.

        Raises:
            InvalidRequestError: the value is not a request or number, or breaks a rule.
        """
        if isinstance(value, InvalidRequestError):
            raise value
        if isinstance(value, str) and self._template is not None:
            value = self._template.to(value)
        if not isinstance(value, CodeRequest):
            remedy = "; pass template= to send to numbers" if isinstance(value, str) else ""
            raise InvalidRequestError("request", f"must be a CodeRequest, not {type(value).__name__}{remedy}")
        if self._voice and value.callback_url is not None:
            raise InvalidRequestError("callback_url", "is documented for texts only; remove it from a call")
        return value

    def key(self, request: CodeRequest) -> tuple[str, bytes, bytes | None]:
        """Return a request's key, the key's digest, and for a custom key also the payload's digest.

        Raises:
            InvalidRequestError: the user's key function raised, or did not return a usable key.
        """
        if self._key is None:
            digest = self._keys.digest(request)
            return digest.hex(), digest, None
        try:
            key: object = self._key(request)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - any error concerns this item only
            # A CancelledError comes from a future that the function read: a run is cancelled only where it awaits.
            name = type(error).__name__
            raise InvalidRequestError("key", f"the key function raised {name} for this item") from None
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
            raise InvalidRequestError("key", f"must be a str of 1 to {MAX_KEY_LENGTH} characters")
        return key, key_digest(key), self._keys.payload(request)


async def _async_values(source: Any) -> AsyncGenerator[Any]:
    try:
        while True:
            try:
                value = await source.__anext__()
            except StopAsyncIteration:
                return
            except asyncio.CancelledError as error:
                raise _classify_cancellation(error) from error
            except InvalidRequestError as error:
                value = _raise_if_generator(error, inspect.isasyncgen(source))
            yield value
    finally:
        await _close(source)


def _values(source: Any) -> Generator[Any]:
    while True:
        try:
            value = next(source)
        except StopIteration:
            return
        except asyncio.CancelledError as error:
            raise _classify_cancellation(error) from error
        except InvalidRequestError as error:
            value = _raise_if_generator(error, inspect.isgenerator(source))
        yield value


async def _close(source: Any) -> None:
    """Close the user's async generator."""
    if inspect.isasyncgen(source):
        try:
            await source.aclose()
        except* GeneratorExit:  # a task group in it wraps what `aclose` raises in it
            pass


def _raise_if_generator(error: InvalidRequestError, is_generator: bool) -> InvalidRequestError:  # noqa: FBT001 - not an option
    if is_generator:
        error.add_note(
            "the input is a generator, and Python ends a generator that raises; to continue after an invalid item "
            "pass the numbers themselves and template=..."
        )
        raise error
    return error


def _classify_cancellation(error: asyncio.CancelledError) -> BaseException:
    """Return the cancellation if the run itself is cancelled; else an error, because the input was cut off."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return error
    return RuntimeError("the input ended early: something that it awaited was cancelled")


def unexpected_error(error: Exception) -> InvalidRequestError:
    """Return the error of an item that raised an unexpected exception while it was validated."""
    return InvalidRequestError("request", f"raised {type(error).__name__} while it was validated")
