"""The OpenAPI document describes every path of the control API, and what it answers."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.simulator._control import CONTROL_PATH
from tests.integration.simulator.conftest import SEND, TO

TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def violations(schema: dict[str, Any], value: Any, schemas: dict[str, Any], where: str = "body") -> list[str]:
    """Check a value against the part of JSON Schema that the document uses; objects may have no undescribed key."""
    if "$ref" in schema:
        return violations(schemas[schema["$ref"].rpartition("/")[2]], value, schemas, where)
    for word in ("oneOf", "anyOf"):
        if word in schema and all(violations(each, value, schemas) for each in schema[word]):
            return [f"{where} matches none of {word}"]
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(
        isinstance(value, TYPES[name]) and (name == "boolean") >= isinstance(value, bool) for name in names
    ):
        return [f"{where} is not {names}"]
    if ("enum" in schema and value not in schema["enum"]) or ("const" in schema and value != schema["const"]):
        return [f"{where} is not one of the values"]
    found: list[str] = []
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value]
        for name, each in value.items():
            if name in properties:
                found += violations(properties[name], each, schemas, f"{where}.{name}")
            elif properties:
                found.append(f"{where}.{name} is not described")
    if isinstance(value, list):
        for index, each in enumerate(value):
            found += violations(schema.get("items", {}), each, schemas, f"{where}[{index}]")
    return found


@pytest.fixture
async def document(api) -> dict[str, Any]:
    status, body = await api.control("GET", "/openapi.json")
    assert (status, body["openapi"]) == (200, "3.1.0")
    return body


async def test_every_path_and_method_is_described_and_no_other(sim, document):
    routes = {**sim._control._routes, **sim._control.pages}
    served = {
        path.removeprefix(CONTROL_PATH): {method.lower() for method in handlers}
        for path, handlers in routes.items()
        if path.startswith(CONTROL_PATH) and "/page/" not in path
    }
    described = {path: set(methods) for path, methods in document["paths"].items()}
    assert described == served


async def test_the_server_address_is_relative_to_the_document(document):
    assert document["servers"][0]["url"] == "."
    assert document["security"] == [{}, {"token": []}]


async def test_answers_are_as_described(api, sim, document):
    """A message with each kind of state, requests, faults and limits, and one error of each kind."""
    schemas = document["components"]["schemas"]
    await api.send(callbackUrl="http://example.com/")
    await api.post("voice", SEND)
    await api.verify(sim.last_code(TO))
    sim.faults.script(Fault(drop="after_read"))
    with pytest.raises(aiohttp.ClientError):
        await api.send()
    await api.post("token", {})
    sim.faults.chance(Fault(status=503, body={"a": 1}, headers={"A": "b"}, delay=float("inf")), 0.5, "voice", TO)
    identifier = sim.inbox[0].message_id
    asked = [
        ("GET", "/ready", {}, 200),
        ("GET", "/messages", {}, 200),
        ("GET", "/messages", {"params": {"limit": "x"}}, 400),
        ("GET", "/messages/latest", {"params": {"to": TO}}, 200),
        ("GET", "/messages/latest", {"params": {"to": TO, "after": sim.inbox[-1].message_id}}, 404),
        ("GET", "/messages/latest", {}, 400),
        ("POST", "/receipts", {"json": {"messageId": identifier}}, 409),
        ("POST", "/receipts", {"json": {"messageId": "no"}}, 404),
        ("POST", "/receipts", {"data": b"{}"}, 415),
        ("POST", "/receipts", {"json": []}, 400),
        ("GET", "/requests", {}, 200),
        ("GET", "/account", {}, 200),
        ("GET", "/limits", {}, 200),
        ("PUT", "/limits", {"json": {"messaging": {"rate": 2}}}, 200),
        ("PUT", "/limits", {"json": {"messaging": 2}}, 400),
        ("GET", "/faults", {}, 200),
        ("POST", "/faults", {"json": {"script": [{"truncate": True}]}}, 200),
        ("POST", "/faults", {"json": {}}, 400),
        ("POST", "/faults", {"data": b"x" * 300_000, "headers": {"Content-Type": "application/json"}}, 413),
        ("DELETE", "/faults", {"params": {"id": "99"}}, 404),
        ("DELETE", "/faults", {"params": {"id": "x"}}, 400),
        ("DELETE", "/faults", {}, 204),
        ("GET", "/messages", {"headers": {"Host": "evil.example"}}, 403),
        ("DELETE", "/messages", {}, 204),
        ("DELETE", "/requests", {}, 204),
    ]
    for method, path, options, expected in asked:
        status, body = await api.control(method, path, **options)
        assert status == expected, (method, path, body)
        responses = document["paths"][path][method.lower()]["responses"]
        described = responses[str(status)]
        if "$ref" in described:
            described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
        if status == 204:
            assert "content" not in described
            continue
        schema = described["content"]["application/json"]["schema"]
        assert violations(schema, body, schemas) == [], (method, path)


async def test_the_described_requests_are_accepted(api, document):
    """Each fault of the document's schema can be added; the token's answer is described."""
    properties = document["components"]["schemas"]["Fault"]["properties"]
    assert set(properties) == {attribute.name for attribute in Fault.__attrs_attrs__}
    async with (
        Simulator(control_token="t") as guarded,
        api.session.get(guarded.control_url + "/messages") as response,
    ):
        assert response.status == 401
        body = await response.json()
    assert violations(document["components"]["schemas"]["Error"], body, document["components"]["schemas"]) == []
