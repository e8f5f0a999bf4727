"""Functions as tools: schemas from signatures and docstrings, calls with arguments of a model."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import pytest

from cyllama.llama.tools import call_tool, schema_of, tool_dicts


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
def test_docstrings(function: Callable[..., str]) -> None:
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
def test_types(kind: Any, schema: dict[str, Any]) -> None:
    assert schema_of(kind) == schema


def test_what_cannot_be_a_tool() -> None:
    def several(*numbers: int) -> None: ...

    def odd(value: complex) -> None: ...

    with pytest.raises(TypeError, match=r"several\(\) has the parameter \*numbers"):
        tool_dicts([several])
    with pytest.raises(TypeError, match=r"odd\(value\)"):
        tool_dicts([odd])
    with pytest.raises(TypeError, match="expected a function or a mapping"):
        tool_dicts([3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="two tools"):
        tool_dicts([numpydoc, numpydoc])
    with pytest.raises(ValueError, match="has the name 'a b'"):
        tool_dicts([{"type": "function", "function": {"name": "a b"}}])


def test_calls() -> None:
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
