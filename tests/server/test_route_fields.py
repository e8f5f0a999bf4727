"""The description of the routes: it is OpenAPI, it is true, and requests are checked with it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from server.running import Server, running_server

from cyllama._json_check import check_value
from cyllama.errors import SchemaError
from cyllama.server.fields.field import Field, RouteFields
from cyllama.server.routes._text_table import text_table
from cyllama.server.routes.automatic1111 import SDAPI_FIELDS

CHAT = "/v1/chat/completions"
REQUIRED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/chat/completions/input_tokens": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/completion": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/responses/input_tokens": {"input": "Hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hi"}]},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/apply-template": {"messages": [{"role": "user", "content": "Hi"}]},
    "/tokenize": {"content": "Hi"},
    "/detokenize": {"tokens": [1]},
    "/v1/embeddings": {"input": "Hi"},
    "/embedding": {"input": "Hi"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
}
# routes that have no table of their own
OTHERS: dict[str, dict[str, Any]] = {
    "/sdapi/v1/txt2img": {"prompt": "x", "hr_scale": 2, "restore_faces": False},
    "/sdapi/v1/img2img": {"init_images": ["x"]},
    "/sdapi/v1/options": {"sd_model_checkpoint": "x"},
    "/sdapi/v1/extra-single-image": {"image": "x"},
    "/sdapi/v1/extra-batch-images": {"imageList": [{"data": "x"}]},
    "/sdapi/v1/png-info": {"image": "x"},
    "/internal/progress": {"id_task": "x"},
}
MODELS = {"/v1/embeddings": "minilm", "/embedding": "minilm", "/v1/rerank": "reranker"}


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return server.get("/openapi.json").json()


def test_description_has_every_route(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    assert {route.paths[0] for route in text_table()} == set(REQUIRED)
    assert set(document["paths"]) == {*REQUIRED, *OTHERS} and set(SDAPI_FIELDS) == set(OTHERS)
    bodies = REQUIRED | OTHERS
    for path, operations in document["paths"].items():
        schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["additionalProperties"] is False and schema["properties"], path
        for name, field in schema["properties"].items():
            assert field["description"].endswith((".", "`")), (path, name)
        resolved = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator.check_schema(resolved)
        jsonschema.validate(bodies[path], resolved)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**bodies[path], "unknown": 1}, resolved)


def test_page_lists_every_field(server: Server, document: Any) -> None:
    response = server.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    parser = Words()
    parser.feed(response.text)
    for path, operations in document["paths"].items():
        assert f"POST {path}" in parser.words
        names = operations["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
        assert set(names) <= set(parser.words)
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", response.text)


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


@pytest.mark.parametrize("path", REQUIRED)
def test_every_route_refuses_by_name(server: Server, key: dict[str, str], document: Any, path: str) -> None:
    """A value of a wrong type is refused for each field of each route, and so is each missing field."""
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = {"model": MODELS.get(path, "tiny"), **REQUIRED[path]}
    refused = set()
    for name, field in schema["properties"].items():
        valid = jsonschema.Draft202012Validator({**field, "components": document["components"]}).is_valid
        wrong = [value for value in VALUES if not valid(value)]
        if name == "model" or not wrong:
            continue
        response = server.post(path, {**body, name: wrong[0]}, headers=key)
        error = response.json()["error"]
        assert response.status_code == 400, (name, response.text)
        assert re.split(r"[.\[]", error["param"])[0] == name and error["type"] == "invalid_request_error"
        refused.add(name)
    ignored = {name for name, f in schema["properties"].items() if f["description"].startswith("Accepted and ignored")}
    assert {*refused, *ignored, "model"} == set(schema["properties"])
    for name in schema["required"]:
        error = server.post(path, {k: v for k, v in body.items() if k != name}, headers=key).json()["error"]
        assert error["param"] == name and "missing" in error["message"]
    error = server.post(path, {**body, "unknwon": 1}, headers=key).json()["error"]
    assert error["param"] == "unknwon"


VALUES = ({"": [{"": 1.5}]}, "?", 0.5, True, [[]])


def test_null_means_not_given() -> None:
    route = RouteFields("x", [Field("a", {"type": "integer"}, "A."), Field("b", {}, "B.", ignored=True)])
    assert route.check({"a": None, "b": 5}) == {}
    assert route.check({"a": 3}) == {"a": 3}


# ------------------------------------------------------------------------------------------- server


def test_unknown_paths_are_not_found(server: Server, key: dict[str, str]) -> None:
    for path in ("/v1/nothing", "/v1/chat/completion", "/x"):
        response = server.post(path, {}, headers=key)
        assert response.status_code == 404 and path in response.json()["error"]["message"]
    assert server.post("/health", {}, headers=key).status_code == 405
    assert server.get(CHAT, headers=key).status_code == 405


def test_models_have_their_sizes(server: Server, key: dict[str, str]) -> None:
    assert server.post("/tokenize", {"model": "smol", "content": "x"}, headers=key).status_code == 200  # loads it
    found = {model["id"]: model for model in server.get("/v1/models", headers=key).json()["data"]}
    assert found["smol"]["meta"]["n_ctx"] == 8192 and found["smol"]["meta"]["n_vocab"] == 49152
    assert found["speech"]["meta"] is None


def test_properties_have_a_versioned_path(server: Server, key: dict[str, str]) -> None:
    assert server.get("/v1/props?model=smol", headers=key).json()["total_slots"] == 8


def test_waiting_streams_send_comments(endless: Path) -> None:
    """All slots are busy; a request that waits gets comments, then its response."""
    work = {"prompt": "a", "n_predict": -1, "ignore_eos": True, "stream": True}
    body = {"prompt": "a", "max_tokens": 2, "stream": True, "sse_ping_interval": 1}
    with running_server("--config", endless) as server:
        busy = [requests.post(server.url + "/completion", json=work, stream=True, timeout=60) for _ in range(2)]
        try:
            parts = [response.iter_content(1) for response in busy]
            assert all(next(part) for part in parts)
            with requests.post(server.url + "/v1/completions", json=body, stream=True, timeout=60) as waiting:
                lines = waiting.iter_lines()
                assert waiting.status_code == 200 and next(lines) == b":"
                busy.pop().close()
                events = [line for line in lines if line.startswith(b"data: ")]
        finally:
            for response in busy:
                response.close()
    assert events[-1] == b"data: [DONE]" and len(events) >= 3


def test_preflight_allows_headers_of_clients() -> None:
    from server.test_access import client_of

    with client_of("--cors", "https://good.example") as client:
        headers = {
            "Origin": "https://good.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang, x-stainless-os",
        }
        response = client.options(CHAT, headers=headers)
        assert response.status_code == 200
        assert "x-stainless-lang" in response.headers["access-control-allow-headers"]


# ---------------------------------------------------------------------------------------- the check


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "integer"}, 3, 3.5),
        ({"type": "integer"}, 3.0, True),
        ({"type": ["string", "null"]}, None, 5),
        ({"type": "boolean"}, False, 0),
        ({"enum": [1, "a"]}, "a", True),
        ({"const": 0}, 0, False),
        ({"minimum": 0, "maximum": 1}, 1, 1.01),
        ({"exclusiveMinimum": 0}, 0.1, 0),
        ({"exclusiveMaximum": 1}, 0.9, 1),
        ({"multipleOf": 0.5}, 1.5, 0.75),
        ({"minLength": 2, "maxLength": 3}, "ab", "abcd"),
        ({"pattern": "^a+$"}, "aa", "ab"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [1], []),
        ({"items": {"type": "integer"}}, [1, 2], [1, "2"]),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", 1], ["a", "b"]),
        ({"uniqueItems": True}, [1, 2], [1, 1]),
        ({"required": ["a"]}, {"a": 1}, {}),
        ({"properties": {"a": {"type": "string"}}}, {"a": "x"}, {"a": 1}),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"a": 1}, {"b": 1}),
        ({"patternProperties": {"^x": {"type": "integer"}}}, {"x1": 1}, {"x1": "1"}),
        ({"propertyNames": {"maxLength": 2}}, {"ab": 1}, {"abc": 1}),
        ({"minProperties": 1}, {"a": 1}, {}),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 6, 4),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, 3, 6),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 2, 4),
        ({"not": {"type": "string"}}, 1, "a"),
        ({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}, [1], ["a"]),
        ({"format": "date"}, "2024-02-29", "2023-02-29"),
        ({"format": "date-time"}, "2024-02-29T10:00:00+01:00", "2024-02-29"),
        ({"format": "uuid"}, "12345678-1234-1234-1234-123456789012", "1234"),
        ({"format": "ipv4"}, "127.0.0.1", "256.0.0.1"),
        ({"format": "ipv6"}, "::1", "1"),
        ({"format": "email"}, "a@b.c", "a b@c"),
        ({"format": "hostname"}, "a-b.c", "-a"),
        ({"format": "uri"}, "http://a/b", "a/b"),
        ({"format": "duration"}, "P1DT2H", "P"),
        ({"format": "time"}, "10:00:00", "25:00:00"),
    ],
)
def test_check_agrees_with_jsonschema(schema: dict[str, Any], right: Any, wrong: Any) -> None:
    check_value(schema, right)
    with pytest.raises(SchemaError):
        check_value(schema, wrong)
    if "format" not in schema:
        validator = jsonschema.Draft202012Validator(schema)
        assert validator.is_valid(right) and not validator.is_valid(wrong)


def test_check_of_callers_schemas_is_bounded() -> None:
    """Expressions do not run, and neither alternatives of alternatives nor depth take more than a moment."""
    check_value({"anyOf": [{"pattern": "^(a+)+$"}, {"type": "string"}]}, "a" * 40 + "!", trusted=False)
    named = {"patternProperties": {"^(a+)+$": {"type": "integer"}}, "additionalProperties": False}
    check_value(named, {"a" * 40 + "!": "x"}, trusted=False)
    doubled = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
    with pytest.raises(SchemaError):
        check_value({"$ref": "#/$defs/d0", "$defs": {**doubled, "d60": {"type": "integer"}}}, 1, trusted=False)
    check_value({"uniqueItems": True}, [{"a": [i]} for i in range(50_000)])
    with pytest.raises(SchemaError):
        check_value({"uniqueItems": True}, [{"a": [1.0]}, {"a": [1]}])
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(SchemaError):
        check_value({"items": {"$ref": "#"}}, deep)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"properties": 5}}, [{"a": 1}]),
        ({"required": 5}, {}),
        ({"enum": 5}, 1),
        ({"anyOf": 5}, 1),
        ({"$ref": "#/missing"}, 1),
        ({"maxItems": "a"}, [1]),
        ({"minLength": None}, "a"),
        ({"multipleOf": 0}, 1),
        ({"multipleOf": 0.5}, 10**400),
    ],
)
def test_check_names_invalid_schemas_of_callers(schema: dict[str, Any], value: Any) -> None:
    with pytest.raises(SchemaError):
        check_value(schema, value, trusted=False)


def test_check_reads_lists_of_items_of_older_drafts() -> None:
    schema = {"items": [{"type": "integer"}], "additionalItems": {"type": "string"}}
    check_value(schema, [1, "a"])
    for wrong in (["a"], [1, 2]):
        with pytest.raises(SchemaError):
            check_value(schema, wrong)


def test_check_names_the_place() -> None:
    schema = {"properties": {"a": {"items": {"anyOf": [{"type": "string"}, {"properties": {"b": {"minimum": 2}}}]}}}}
    with pytest.raises(SchemaError) as caught:
        check_value(schema, {"a": ["x", {"b": 1}]})
    assert caught.value.path == "a[1].b" and "1" in str(caught.value)
    with pytest.raises(SchemaError):
        check_value({"$ref": "#"}, 1)
