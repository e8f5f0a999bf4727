"""Responses of a language model, in the shapes of OpenAI's API."""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

__all__ = [
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatDelta",
    "ChatMessage",
    "Completion",
    "CompletionChoice",
    "CompletionChunk",
    "FunctionCall",
    "Infill",
    "PromptTokensDetails",
    "Record",
    "RerankResult",
    "Timings",
    "ToolCall",
    "Usage",
]

SHOWN_FIELDS = 6  # of a record in its repr
SHOWN_CHARACTERS = 60  # of a text


class Record(Mapping[str, Any]):
    """A read-only JSON object: ``response["usage"]`` and ``response.usage`` are the same.

    An attribute that the class declares is None if the response does not have it. Any other missing attribute raises
    AttributeError; a missing item raises KeyError.
    """

    __slots__ = ("_data",)
    _data: dict[str, Any]
    _records: ClassVar[Mapping[str, type[Record]]] = {}  # the classes of nested objects and of the items of lists

    def __init__(self, data: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_data", dict(data))

    def __getitem__(self, name: str) -> Any:
        return _wrap(self._data[name], self._records.get(name, Record))

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    if not TYPE_CHECKING:  # for type checkers, an attribute that no class declares is an error

        def __getattr__(self, name: str) -> Any:
            if name in self._data:
                return self[name]
            declared = _declared(type(self))
            if name in declared:
                return None
            near = difflib.get_close_matches(name, {*self._data, *declared}, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"{type(self).__name__} has no field {name!r}{hint}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is read-only")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._data, *_declared(type(self))})

    def __repr__(self) -> str:
        shown = [f"{name}={reprlib.repr(value)}" for name, value in itertools.islice(self._data.items(), SHOWN_FIELDS)]
        if len(self._data) > SHOWN_FIELDS:
            shown.append("...")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self._data,)

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of plain dicts and lists."""
        return {name: _copied(value) for name, value in self._data.items()}

    def to_json(self) -> str:
        """Return the response as JSON."""
        return json.dumps(self._data, ensure_ascii=False)


@functools.cache
def _declared(kind: type[Record]) -> frozenset[str]:
    names = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    return frozenset(name for name in names if not name.startswith("_"))


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _wrap(value: Any, kind: type[Record]) -> Any:
    if isinstance(value, dict):
        return kind(value)
    if isinstance(value, list):
        return [_wrap(item, kind) for item in value]
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "...")


class PromptTokensDetails(Record):
    """Where the tokens of a prompt came from: ``cached_tokens`` of them from the prompt cache."""

    __slots__ = ()
    cached_tokens: int


class Usage(Record):
    """The number of tokens of a request and its response."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"prompt_tokens_details": PromptTokensDetails}
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None


class Timings(Record):
    """Tokens, milliseconds and tokens per second.

    Attributes
    ----------
    cache_n : int
        Tokens of the prompt that came from the prompt cache.
    prompt_n, prompt_ms, prompt_per_token_ms, prompt_per_second
        The tokens of the prompt that were computed.
    predicted_n, predicted_ms, predicted_per_token_ms, predicted_per_second
        The generated tokens.
    draft_n, draft_n_accepted : int or None
        Drafted and accepted tokens of speculative decoding.
    """

    __slots__ = ()
    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    draft_n: int | None
    draft_n_accepted: int | None


class FunctionCall(Record):
    """The function of a tool call: its name and its arguments as JSON."""

    __slots__ = ()
    name: str
    arguments: str


class ToolCall(Record):
    """A call of a tool; `index` is set in the chunks of a stream."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"function": FunctionCall}
    id: str
    type: str
    function: FunctionCall
    index: int | None


class ChatMessage(Record):
    """The message of a response."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"tool_calls": ToolCall}
    role: str
    content: str | None
    tool_calls: list[ToolCall] | None
    reasoning_content: str | None
    refusal: str | None


class ChatDelta(Record):
    """The part of a message that a chunk adds."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"tool_calls": ToolCall}
    role: str | None
    content: str | None
    tool_calls: list[ToolCall] | None
    reasoning_content: str | None
    refusal: str | None


class CompletionChoice(Record):
    """One text of a `Completion`."""

    __slots__ = ()
    index: int
    text: str
    finish_reason: str | None
    logprobs: Record | None


class ChatChoice(Record):
    """One message of a `ChatCompletion`."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"message": ChatMessage}
    index: int
    message: ChatMessage
    finish_reason: str | None
    logprobs: Record | None
    warning: str | None


class ChatChunkChoice(Record):
    """One delta of a `ChatChunk`."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"delta": ChatDelta}
    index: int
    delta: ChatDelta
    finish_reason: str | None
    logprobs: Record | None
    warning: str | None


class _Response(Record):
    """The fields that every response of the text API may have."""

    __slots__ = ()
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str | None
    id_slot: int | None  # the slot that computed it; in a stream, that of the last chunk

    @property
    def text(self) -> str:
        """The (first) text."""
        raise NotImplementedError

    @property
    def finish_reason(self) -> str | None:
        """Why the (first) text ended: ``"stop"``, ``"length"``, ``"tool_calls"``; None before the end."""
        choices = self._data.get("choices")
        return choices[0].get("finish_reason") if choices else None

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}(text={_shown(self.text)}, finish_reason={self.finish_reason!r})"


class Completion(_Response):
    """The continuation of a text.

    Attributes
    ----------
    text : str
    finish_reason : str
        ``"stop"`` (the model ended the text, or a stop text was generated) or ``"length"``.
    choices : list of CompletionChoice
        All texts, with ``n`` greater than 1.
    usage : Usage
    timings : Timings
    """

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"choices": CompletionChoice, "usage": Usage, "timings": Timings}
    choices: list[CompletionChoice]
    usage: Usage
    timings: Timings

    @property
    def text(self) -> str:
        """The (first) text."""
        return str(self._data["choices"][0]["text"])


class ChatCompletion(_Response):
    """The response of a chat.

    Attributes
    ----------
    text : str
        The message's text; empty if the response is a call of tools.
    message : ChatMessage
    reasoning : str or None
    tool_calls : list of ToolCall
    finish_reason : str
        ``"stop"``, ``"length"`` or ``"tool_calls"``.
    parsed : object
        The text as an object of `response_format`; None without one, or if the text was cut off.
    parsed_choices : list of object
        The same for each of `choices`.
    choices : list of ChatChoice
        All messages, with ``n`` greater than 1.
    usage : Usage
    timings : Timings
    """

    __slots__ = ("_parsed",)
    _parsed: Sequence[Any]
    _records: ClassVar[Mapping[str, type[Record]]] = {"choices": ChatChoice, "usage": Usage, "timings": Timings}
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings

    def __init__(self, data: Mapping[str, Any], parsed: Sequence[Any] = ()) -> None:
        super().__init__(data)
        object.__setattr__(self, "_parsed", tuple(parsed) or (None,) * len(data["choices"]))

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self._data, self._parsed)

    @property
    def parsed(self) -> Any:
        """The (first) text as an object of `response_format`; None without one, or if it was cut off.

        Raises
        ------
        ValueError, TypeError, KeyError
            The text does not have the format: a grammar cannot enforce every rule of a schema.
        """
        return self._parsed_choice(0)

    @property
    def parsed_choices(self) -> list[Any]:
        """Each text as an object of `response_format`; errors as of `parsed`."""
        return [self._parsed_choice(i) for i in range(len(self._parsed))]

    def _parsed_choice(self, i: int) -> Any:
        value = self._parsed[i]
        if isinstance(value, Exception):
            raise value
        return value

    @property
    def message(self) -> ChatMessage:
        """The (first) message."""
        return ChatMessage(self._data["choices"][0]["message"])

    @property
    def text(self) -> str:
        """The text of the (first) message."""
        return str(self._data["choices"][0]["message"].get("content") or "")

    @property
    def reasoning(self) -> str | None:
        """The reasoning before the text, of models that have one."""
        value = self._data["choices"][0]["message"].get("reasoning_content")
        return None if value is None else str(value)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls of the (first) message."""
        return [ToolCall(call) for call in self._data["choices"][0]["message"].get("tool_calls") or ()]

    def __repr__(self) -> str:
        calls = [call.function.name for call in self.tool_calls]
        shown = f"tool_calls={calls}" if calls else f"text={_shown(self.text)}"
        return f"ChatCompletion({shown}, finish_reason={self.finish_reason!r})"

    def _repr_markdown_(self) -> str:
        """Return the message as Markdown, for notebooks."""
        parts = ["\n".join(f"> {line}" for line in (self.reasoning or "").splitlines()), self.text]
        parts += [f"`{call.function.name}({call.function.arguments})`" for call in self.tool_calls]
        return "\n\n".join(part for part in parts if part)


class CompletionChunk(_Response):
    """A chunk of a streamed `Completion`."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = Completion._records
    choices: list[CompletionChoice]
    usage: Usage | None
    timings: Timings | None

    @property
    def text(self) -> str:
        """The text of this chunk."""
        choices = self._data["choices"]
        return str(choices[0]["text"]) if choices else ""


class ChatChunk(_Response):
    """A chunk of a streamed `ChatCompletion`."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"choices": ChatChunkChoice, "usage": Usage, "timings": Timings}
    choices: list[ChatChunkChoice]
    usage: Usage | None
    timings: Timings | None

    @property
    def reasoning(self) -> str:
        """The reasoning of this chunk."""
        return self._delta("reasoning_content")

    @property
    def text(self) -> str:
        """The text of this chunk."""
        return self._delta("content")

    def _delta(self, name: Literal["content", "reasoning_content"]) -> str:
        choices = self._data["choices"]
        return str(choices[0]["delta"].get(name) or "") if choices else ""


class Infill(Record):
    """The text between a prefix and a suffix.

    Attributes
    ----------
    text, content : str
    stop_type : str
        ``"eos"``, ``"word"`` or ``"limit"``.
    tokens_evaluated, tokens_predicted : int
        Tokens of the prompt and generated tokens.
    """

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {"timings": Timings}
    content: str
    model: str
    stop_type: str
    stopping_word: str
    tokens_evaluated: int
    tokens_predicted: int
    tokens_cached: int
    id_slot: int
    truncated: bool
    timings: Timings

    @property
    def text(self) -> str:
        """The text."""
        return str(self._data["content"])

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Infill(text={_shown(self.text)}, stop_type={self._data.get('stop_type')!r})"


class RerankResult(Record):
    """The score of a document: `index` is its place in the request."""

    __slots__ = ()
    index: int
    relevance_score: float
