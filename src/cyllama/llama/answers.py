"""What a language model answers, in the shapes that OpenAI gave such answers."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["ChatChunk", "ChatCompletion", "Completion", "CompletionChunk", "Events", "Record"]


class Record(Mapping[str, Any]):
    """An answer: items and attributes are the same, ``answer["usage"]`` and ``answer.usage``; it cannot be changed."""

    __slots__ = ("_data",)
    _data: dict[str, Any]

    def __init__(self, data: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_data", dict(data))

    def __getitem__(self, name: str) -> Any:
        return _wrapped(self._data[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __getattr__(self, name: str) -> Any:
        if name in self._data:
            return self[name]
        near = difflib.get_close_matches(name, self._data, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"the answer has no {name!r}{hint}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an answer cannot be changed")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._data})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._data!r})"

    def __copy__(self) -> Record:
        return self

    def __deepcopy__(self, memo: Any) -> Record:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data,)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain copy that JSON can carry."""
        return copy.deepcopy(self._data)

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self._data, ensure_ascii=False)


def _wrapped(value: Any) -> Any:
    if isinstance(value, dict):
        return Record(value)
    if isinstance(value, list):
        return [_wrapped(item) for item in value]
    return value


def _reason(data: Mapping[str, Any]) -> str | None:
    return data["choices"][0].get("finish_reason") if data["choices"] else None


class Completion(Record):
    """A text that was continued.

    Attributes
    ----------
    text : str
    finish_reason : str
        ``"stop"`` (the model ended, or a stop text came) or ``"length"``.
    choices : list of Record
        All texts, if several were asked for.
    usage : Record
        ``prompt_tokens``, ``completion_tokens``, ``total_tokens``.
    timings : Record
        Milliseconds and tokens per second; ``draft_n`` and ``draft_n_accepted`` with speculative decoding.
    """

    __slots__ = ()

    @property
    def text(self) -> str:
        """The (first) text."""
        return str(self._data["choices"][0]["text"])

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return str(self._data["choices"][0]["finish_reason"])

    def __str__(self) -> str:
        return self.text


class ChatCompletion(Record):
    """An answer in a chat.

    Attributes
    ----------
    text : str
        What is said; empty if the answer is a call of tools.
    message : Record
        ``role``, ``content``, ``tool_calls``, ``reasoning_content``.
    finish_reason : str
        ``"stop"``, ``"length"`` or ``"tool_calls"``.
    parsed : object
        The answer as `response_format` asked for it; None if it asked for nothing, or the answer was cut off.
    parsed_choices : list of object
        The same for each of `choices`.
    choices, usage, timings
        As of `Completion`.
    """

    __slots__ = ("_parsed",)
    _parsed: Sequence[Any]

    def __init__(self, data: Mapping[str, Any], parsed: Sequence[Any] = ()) -> None:
        super().__init__(data)
        object.__setattr__(self, "_parsed", tuple(parsed) or (None,) * len(data["choices"]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data, self._parsed)

    @property
    def parsed(self) -> Any:
        """The (first) answer as an object."""
        return self._parsed[0]

    @property
    def parsed_choices(self) -> list[Any]:
        """Each answer as an object."""
        return list(self._parsed)

    @property
    def message(self) -> Record:
        """The (first) message."""
        return Record(self._data["choices"][0]["message"])

    @property
    def text(self) -> str:
        """What the message says."""
        return str(self._data["choices"][0]["message"].get("content") or "")

    @property
    def reasoning(self) -> str | None:
        """What the model thought before, if it does."""
        value = self._data["choices"][0]["message"].get("reasoning_content")
        return None if value is None else str(value)

    @property
    def tool_calls(self) -> list[Record]:
        """Calls of tools; each has ``id`` and ``function`` with ``name`` and ``arguments`` (JSON)."""
        return [Record(call) for call in self._data["choices"][0]["message"].get("tool_calls") or ()]

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return str(self._data["choices"][0]["finish_reason"])

    def __str__(self) -> str:
        return self.text


class CompletionChunk(Record):
    """A part of a streamed `Completion`."""

    __slots__ = ()

    @property
    def finish_reason(self) -> str | None:
        """Why the text ended, in its last part; None before."""
        return _reason(self._data)

    @property
    def text(self) -> str:
        """The text of this part."""
        choices = self._data["choices"]
        return str(choices[0]["text"]) if choices else ""

    def __str__(self) -> str:
        return self.text


class ChatChunk(Record):
    """A part of a streamed `ChatCompletion`."""

    __slots__ = ()

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, in its last part; None before."""
        return _reason(self._data)

    @property
    def reasoning(self) -> str:
        """What this part tells of the model's thoughts."""
        choices = self._data["choices"]
        return str(choices[0]["delta"].get("reasoning_content") or "") if choices else ""

    @property
    def text(self) -> str:
        """The text of this part."""
        choices = self._data["choices"]
        return str(choices[0]["delta"].get("content") or "") if choices else ""

    def __str__(self) -> str:
        return self.text


class Events:
    """Server-sent events out of parts that may begin and end anywhere in them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, part: bytes) -> list[dict[str, Any]]:
        """The JSON of the events that are complete now."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ") and line != b"data: [DONE]"]
