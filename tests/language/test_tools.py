"""Functions as tools: schemas from signatures and docstrings, calls with a model's arguments."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import functools
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import jsonschema
import numpy as np
import pytest
from pydantic import BaseModel, Field

from cyllama import LLM
from cyllama.llama._json_schema import as_type, schema_of
from cyllama.llama.tools import call_tool, tool_dicts


def numpydoc(city: str, days: int = 1) -> str:
    """Tell the weather.

    Parameters
    ----------
    city : str
        Name of the city.
    days : int
        How many days.

    Returns
    -------
    str
    """
    return f"{city} {days}"


def google(city: str, days: int = 1) -> str:
    """Tell the weather.

    Args:
        city: Name of the city.
        days (int): How many days.

    Returns:
        Text.
    """
    return f"{city} {days}"


def sphinx(city: str, days: int = 1) -> str:
    """Tell the weather.

    :param city: Name of the city.
    :param int days: How many days.
    """
    return f"{city} {days}"


@pytest.mark.parametrize("function", [numpydoc, google, sphinx])
def test_reads_descriptions_of_docstrings(function: Callable[..., str]) -> None:
    (tool,) = tool_dicts([function])
    assert tool == {
        "type": "function",
        "function": {
            "name": function.__name__,
            "description": "Tell the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name of the city."},
                    "days": {"type": "integer", "description": "How many days."},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Place(TypedDict):
    name: str


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (float | None, {"anyOf": [{"type": "number"}, {"type": "null"}]}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (list, {"type": "array", "items": {}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        ),
        (datetime.date, {"type": "string", "format": "date"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Colour, {"enum": ["red", "blue"]}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (Any, {}),
        (
            Point,
            {
                "type": "object",
                "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                "required": ["x"],
                "additionalProperties": False,
            },
        ),
        (
            Place,
            {
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
                "additionalProperties": False,
            },
        ),
    ],
)
def test_converts_types_to_schemas(kind: Any, schema: dict[str, Any]) -> None:
    assert schema_of(kind) == schema


class Street(BaseModel):
    name: str


class Address(BaseModel):
    street: Street


@dataclasses.dataclass
class Node:
    name: str
    children: list[Node] = dataclasses.field(default_factory=list)


def test_converts_nested_types() -> None:
    """Every reference can be followed from the whole schema."""
    for kind, value in (
        (list[Address], [{"street": {"name": "x"}}]),
        (Node, {"name": "a", "children": [{"name": "b", "children": []}]}),
    ):
        schema = schema_of(kind)
        jsonschema.validate(value, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate([{"street": {"name": 1}}], schema)

    def post(to: Address, also: Address | None = None) -> None: ...

    parameters = tool_dicts([post])[0]["function"]["parameters"]
    jsonschema.validate({"to": {"street": {"name": "x"}}, "also": None}, parameters)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"to": {"street": 1}}, parameters)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Colour, "red", Colour.RED),
        (list[Colour], ["blue"], [Colour.BLUE]),
        (Point, {"x": 1}, Point(1.0)),
        (dict[str, Point], {"a": {"x": 1, "y": 2}}, {"a": Point(1, 2)}),
        (tuple[int, Point], [1, {"x": 2}], (1, Point(2))),
        (set[int], [1, 1], {1}),
        (Point | None, None, None),
        (int | Colour, "red", Colour.RED),
        (Annotated[float, "x"], 1, 1.0),
        (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
        (Place, {"name": "x"}, {"name": "x"}),
        (Node, {"name": "a", "children": [{"name": "b"}]}, Node("a", [Node("b")])),
        (Address, {"street": {"name": "x"}}, Address(street=Street(name="x"))),
        (Any, {"x": 1}, {"x": 1}),
    ],
)
def test_converts_json_to_objects(kind: Any, value: Any, expected: Any) -> None:
    assert as_type(kind, value) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [(int, "1"), (int, True), (Colour, "green"), (Literal["a"], "b"), (int | None, "x"), (Point, {"z": 1})],
)
def test_rejects_json_of_another_type(kind: Any, value: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        as_type(kind, value)


def test_describes_parameters() -> None:
    def tell(
        city: Annotated[str, "Name of the city."], days: Annotated[int, Field(description="How many days.")]
    ) -> None: ...

    properties = tool_dicts([tell])[0]["function"]["parameters"]["properties"]
    assert properties["city"] == {"type": "string", "description": "Name of the city."}
    assert properties["days"] == {"type": "integer", "description": "How many days."}


class Teller:
    """Tells."""

    def __call__(self, city: str, colour: Colour = Colour.RED) -> str:
        return f"{city} {colour.name}"

    def method(self, days: int) -> int:
        """Counts."""
        return days


def test_accepts_methods_objects_and_partials() -> None:
    teller = Teller()
    tools = [teller, teller.method, functools.partial(numpydoc, days=3)]
    described = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tool_dicts(tools)}
    assert set(described) == {"Teller", "method", "numpydoc"}
    assert described["Teller"]["properties"]["colour"] == {"enum": ["red", "blue"]}
    assert described["method"]["required"] == ["days"]
    assert call_tool(tools, "Teller", '{"city": "Rome", "colour": "blue"}') == "Rome BLUE"
    assert call_tool(tools, "method", '{"days": 2}') == "2"
    assert call_tool(tools, "numpydoc", '{"city": "Rome"}') == "Rome 3"


def test_converts_results() -> None:
    for value, text in (
        (Point(1, 2), '{"x": 1, "y": 2}'),
        (Street(name="ä"), '{"name": "ä"}'),
        ({1}, "[1]"),
        (None, "null"),
        (Colour.RED, '"red"'),
        (np.arange(2), "[0, 1]"),
    ):
        assert call_tool([Giver(value)], "Giver", "{}") == text

    async def later() -> str:
        await asyncio.sleep(0)
        return "done"

    assert call_tool([later], "later", "") == "done"

    async def call() -> str:
        return call_tool([later], "later", "")

    assert asyncio.run(call()) == "done"  # in a running event loop


class Giver:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


def test_rejects_invalid_tools() -> None:
    def several(*numbers: int) -> None: ...

    def odd(value: complex) -> None: ...

    with pytest.raises(TypeError, match=r"several\(\) has the parameter \*numbers"):
        tool_dicts([several])
    with pytest.raises(TypeError, match=r"odd\(value\)"):
        tool_dicts([odd])
    with pytest.raises(TypeError, match="expected a function or a mapping"):
        tool_dicts([3])  # type: ignore[list-item]
    for tools in (numpydoc, {"a": 1}, "text", 3):
        with pytest.raises(TypeError, match="expected a list of functions"):
            tool_dicts(tools)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has the name None"):
        tool_dicts([{"type": "function", "function": "f"}])
    with pytest.raises(ValueError, match="two tools"):
        tool_dicts([numpydoc, numpydoc])
    with pytest.raises(ValueError, match="has the name 'a b'"):
        tool_dicts([{"type": "function", "function": {"name": "a b"}}])


def test_calls_tools_with_json() -> None:
    assert call_tool([numpydoc], "numpydoc", '{"city": "Rome", "days": 2}') == "Rome 2"
    for name, arguments, text in (
        ("nothing", "{}", "there is no tool 'nothing'"),
        ("numpydoc", "{}", "missing a required argument: 'city'"),
        ("numpydoc", '{"town": 1}', "missing a required argument"),
        ("numpydoc", "not JSON", "JSONDecodeError"),
    ):
        assert text in json.loads(call_tool([numpydoc], name, arguments))["error"]

    def failing() -> None:
        raise RuntimeError("no network")

    assert json.loads(call_tool([failing], "failing", "")) == {"error": "RuntimeError: no network"}


def test_schema_does_not_apply_to_a_required_call(tool_llm: LLM) -> None:
    schema = {"type": "object", "properties": {"never": {"const": "called"}}, "required": ["never"]}
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    for choice in ("required", "add"):
        options = {"tools": [tool], "tool_choice": choice, "response_format": schema, "max_tokens": 64, "seed": 1}
        response = tool_llm.chat("Add.", **options)
        assert {call.function.name for call in response.tool_calls} == {"add"} and not response.text
        assert tool_llm.chat("Add.", stream=True, **options).result().tool_calls
