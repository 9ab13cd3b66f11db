"""Encodes requests to JSON and parses JSON responses, with cattrs."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

import cattrs
from attrs import fields, has
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from .._models import CodeRequest, VerifyCodeRequest
from .._redaction import is_id
from ._operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import orjson as _orjson
except ImportError:  # the [speed] extra is not installed
    orjson: Any = None
else:
    orjson = _orjson

_ID_FIELDS: Final = frozenset({"message_id", "call_id"})


def json_name(name: str) -> str:
    """Return the service's name for a field: ``from_`` is ``from``, ``application_id`` is ``applicationId``."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def _strict(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _type: Any) -> Any:
        # cattrs' default hook would turn null into the text 'None' and 7 into '7'.
        if not isinstance(value, kind) or value == "":
            msg = f"must be a non-empty {kind.__name__}"
            raise TypeError(msg)
        if isinstance(value, str):
            value.encode()  # json accepts a lone surrogate, but no journal, ledger or request can hold it
        return value

    return structure


def _id(value: Any, _type: Any) -> str:
    if not is_id(value):
        raise TypeError("must be an id of printable ASCII characters")
    return value


def _unstructure_factory(cls: type, converter: cattrs.Converter) -> Callable[[Any], dict[str, Any]]:
    names: dict[str, Any] = {item.name: override(rename=json_name(item.name)) for item in fields(cls)}
    every: Callable[[Any], dict[str, Any]] = make_dict_unstructure_fn(cls, converter, **names)

    def unstructure(instance: Any) -> dict[str, Any]:
        return {key: value for key, value in every(instance).items() if value is not None}

    return unstructure


def _structure_factory(cls: type, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    wanted = [item for item in fields(cls) if item.name != "meta"]
    names: dict[str, Any] = {item.name: override(rename=json_name(item.name)) for item in wanted}
    names |= {name: override(rename=json_name(name), struct_hook=_id) for name in names.keys() & _ID_FIELDS}
    names["meta"] = override(omit=True)
    every = cast("Callable[[Any, Any], Any]", make_dict_structure_fn(cls, converter, **names))
    # The page of 2020 spells the ids MessageId and CallId. No capture shows that spelling; both are accepted.
    capitals = [
        (json_name(item.name), json_name(item.name)[0].upper() + json_name(item.name)[1:])
        for item in wanted
        if item.name.endswith("_id")
    ]

    def structure(value: Any, kind: Any) -> Any:
        if not _is_object(value):
            raise TypeError("must be a JSON object")
        for name, capital in capitals:
            if name not in value and capital in value:
                value = {**value, name: value[capital]}
        return every(value, kind)

    return structure


def configure_converter(converter: cattrs.Converter) -> None:
    """Register hooks for the service's JSON: its names, no keys for None, no coercion in responses."""

    def unstructure_factory(cls: type) -> Callable[[Any], dict[str, Any]]:
        return _unstructure_factory(cls, converter)

    def structure_factory(cls: type) -> Callable[[Any, Any], Any]:
        return _structure_factory(cls, converter)

    converter.register_structure_hook(str, _strict(str))
    converter.register_structure_hook(bool, _strict(bool))
    converter.register_unstructure_hook_factory(has, unstructure_factory)
    converter.register_structure_hook_factory(has, structure_factory)


def make_converter() -> cattrs.Converter:
    """Return a new converter for the service's JSON."""
    converter = cattrs.Converter(detailed_validation=False)
    configure_converter(converter)
    return converter


_converter = make_converter()
_unstructure = {cls: _converter.get_unstructure_hook(cls) for cls in (CodeRequest, VerifyCodeRequest)}
STRUCTURE_HOOKS = {operation.response: _converter.get_structure_hook(operation.response) for operation in OPERATIONS}
# One shared encoder: json.dumps builds a new one for each call with separators.
_json_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def encode(request: CodeRequest | VerifyCodeRequest) -> bytes:
    """Return a request's JSON body."""
    if isinstance(request, CodeRequest):
        # A validated number is a plus sign and digits, which need no escaping in JSON.
        tail = _encode_without_recipient(
            request.from_,
            request.application_id,
            request.scope,
            request.message,
            request.digits,
            request.callback_url,
        )
        return b'{"to":"%b",%b' % (request.to.encode(), tail)
    return _document(_unstructure[VerifyCodeRequest](request))


@functools.lru_cache(maxsize=256)
def _encode_without_recipient(  # noqa: PLR0913 - the fields of a request
    from_: str,
    application_id: str,
    scope: str | None,
    message: str | None,
    digits: int | None,
    callback_url: str | None,
) -> bytes:
    """Return what follows the recipient in a code request's body; cached, since most requests differ only in `to`."""
    template = CodeRequest("+10", from_, application_id, scope, message, digits, callback_url)
    return _document(_unstructure[CodeRequest](template)).removeprefix(b'{"to":"+10",')


def _document(document: dict[str, Any]) -> bytes:
    if orjson is not None:
        try:
            encoded: bytes = orjson.dumps(document)
        except TypeError:  # a subclass of str or float, such as NumPy's
            pass
        else:
            return encoded
    return _json_text(document).encode()


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object; return an empty one if the body is not a JSON object."""
    document = parse_json(body)
    return document if _is_object(document) else {}


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def parse_json(body: bytes) -> Any:
    """Parse JSON; return None if the body is not JSON."""
    try:
        return json.loads(body) if orjson is None else orjson.loads(body)
    except (ValueError, RecursionError):
        return None
