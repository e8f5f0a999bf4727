"""Chats in the form of llama-cpp-python: old function calls, and the deltas of its streams."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cyllama.compat._shapes import usage_of
from cyllama.compat._text_parts import Ending, Part

__all__ = [
    "ChatShape",
    "chunks_of_completion",
    "joined_chunks",
    "named_tool",
    "plain_messages",
    "response_form",
    "tools_of",
]

Response = dict[str, Any]
Tool = Mapping[str, Any]


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return messages whose old function calls and results are calls and results of tools."""
    found = []
    for i, message in enumerate(messages):
        made = dict(message)
        call = made.pop("function_call", None)
        if call and not made.get("tool_calls"):
            made["tool_calls"] = [{"id": f"call_{i}", "type": "function", "function": dict(call)}]
        if made.get("role") == "function":
            made |= {"role": "tool", "tool_call_id": f"call_{i - 1}"}
        found.append(made)
    return found


def tools_of(
    functions: Sequence[Mapping[str, Any]] | None,
    function_call: str | Mapping[str, Any] | None,
    tools: Sequence[Any] | None,
    tool_choice: str | Mapping[str, Any] | None,
) -> tuple[list[Any], str | Mapping[str, Any] | None]:
    """Return the tools and the choice, of old or of new arguments.

    Raises
    ------
    ValueError
        Both are given, or a tool is chosen without tools.
    """
    if functions and tools:
        raise ValueError("functions and tools are both given, expected one of them")
    if function_call is not None and tool_choice is not None:
        raise ValueError("function_call and tool_choice are both given, expected one of them")
    if isinstance(function_call, Mapping):
        function_call = {"type": "function", "function": {"name": function_call.get("name")}}
    found = [{"type": "function", "function": dict(function)} for function in functions or ()] or list(tools or ())
    choice = function_call if tool_choice is None else tool_choice
    if choice not in (None, "auto", "none") and not found:
        raise ValueError(f"tool_choice is {choice!r}, but there are no tools")
    return found, choice


def named_tool(tools: Sequence[Any], choice: str | Mapping[str, Any] | None) -> Tool | None:
    """Return the function that must be called; None if there may be another one, or none.

    Raises
    ------
    ValueError
        No tool has the chosen name.
    """
    functions = [tool["function"] for tool in tools if isinstance(tool, Mapping)]
    if choice == "required" and len(functions) == 1:
        return functions[0]  # type: ignore[no-any-return]
    if not isinstance(choice, Mapping):
        return None
    name = (choice.get("function") or choice).get("name")
    for function in functions:
        if function.get("name") == name:
            return function  # type: ignore[no-any-return]
    raise ValueError(f"tool_choice is {name!r}, expected one of {[function.get('name') for function in functions]}")


def response_form(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a response format in OpenAI's form: llama-cpp-python puts a schema into ``json_object``."""
    form = dict(given) if given else None
    if form and form.get("type") == "json_object" and "schema" in form:
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form["schema"]}}
    return form


@dataclass
class ChatShape:
    """The form of the responses to one call.

    Attributes
    ----------
    model : str
        The name of the model in the responses.
    call : str, optional
        The function whose arguments the text is.
    """

    model: str
    call: str | None = None
    _calls: dict[int, tuple[str, str]] = field(default_factory=dict)  # ids and names of the calls of a stream

    def response(self, data: Response) -> Response:
        """Return a response of `cyllama.LLM`."""
        for choice in data["choices"]:
            message = choice["message"]
            if self.call is not None:
                calls = [self._tool_call(0, data["id"], message.get("content") or "")]
                message |= {"content": None, "tool_calls": calls}
                choice["finish_reason"] = _reason(choice["finish_reason"])
            calls = message.get("tool_calls") or []
            for call in calls:
                call.pop("index", None)
            if len(calls) == 1:
                message["function_call"] = dict(calls[0]["function"])
            message["content"] = message.get("content") or (None if calls else "")
            choice["logprobs"] = _logprobs(choice.get("logprobs"))
        return {**data, "model": self.model}

    def chunks(self, stream: Iterable[Response]) -> Iterator[Response]:
        """Yield the chunks: first a delta with the role alone, then deltas with what is added, then an empty one."""
        first = True
        for data in stream:
            for choice in data["choices"]:
                delta = {name: value for name, value in choice["delta"].items() if value is not None}
                role, ends = delta.pop("role", None), choice["finish_reason"] is not None
                if first:
                    yield self._chunk(data, {"role": role or "assistant"}, None, None)
                    first = False
                delta = self._delta(delta, data["id"])
                if delta or ends or choice.get("logprobs"):
                    reason = choice["finish_reason"] if self.call is None else _reason(choice["finish_reason"])
                    yield self._chunk(data, delta, choice.get("logprobs"), reason)

    def _chunk(self, data: Response, delta: Response, logprobs: Any, reason: str | None) -> Response:
        choice = {"index": 0, "delta": delta, "logprobs": _logprobs(logprobs), "finish_reason": reason}
        return {**data, "model": self.model, "choices": [choice]}

    def _delta(self, delta: Response, chat_id: str) -> Response:
        """Return a delta whose parts of calls have the id and the name of the call, as those of llama-cpp-python."""
        if self.call is not None and "content" in delta:
            delta["tool_calls"] = [self._tool_call(0, chat_id, delta.pop("content"))]
        for call in delta.get("tool_calls") or ():
            function = call.setdefault("function", {})
            known = self._calls.get(call["index"], ("", ""))
            made = (call.get("id") or known[0], function.get("name") or known[1])
            self._calls[call["index"]] = made
            call |= {"id": made[0], "type": "function"}
            function |= {"name": made[1], "arguments": function.get("arguments") or ""}
            delta["function_call"] = dict(function)
        return delta

    def _tool_call(self, index: int, chat_id: str, arguments: str) -> Response:
        function = {"name": self.call, "arguments": arguments}
        return {"index": index, "id": f"call_{index}_{self.call}_{chat_id}", "type": "function", "function": function}


def chunks_of_completion(
    head: Mapping[str, Any], parts: Generator[Part, None, Ending], n_prompt: int, with_logprobs: bool
) -> Iterator[Response]:
    """Yield chunks of a chat for parts of a text; the last one has the usage."""
    data = {**head, "object": "chat.completion.chunk"}
    while True:
        try:
            text, rows = next(parts)
        except StopIteration as stop:
            usage = usage_of(n_prompt, stop.value.completion_tokens)
            yield {**data, "choices": [{"delta": {}, "finish_reason": stop.value.finish_reason}], "usage": usage}
            return
        logprobs = {"content": rows} if with_logprobs else None
        yield {**data, "choices": [{"delta": {"content": text}, "logprobs": logprobs, "finish_reason": None}]}


def joined_chunks(chunks: Iterable[Response]) -> Response:
    """Return chunks of `chunks_of_completion` as one response."""
    text, rows, last = "", list[Any](), Response()
    for last in chunks:
        (choice,) = last["choices"]
        text += choice["delta"].get("content", "")
        rows += (choice.get("logprobs") or {}).get("content", ())
    message = {"role": "assistant", "content": text}
    made = {"index": 0, "message": message, "logprobs": {"content": rows} if rows else None}
    made["finish_reason"] = last["choices"][0]["finish_reason"]
    return {**last, "object": "chat.completion", "choices": [made]}


def _reason(reason: str | None) -> str | None:
    return "tool_calls" if reason == "stop" else reason


def _logprobs(given: Mapping[str, Any] | None) -> Response | None:
    return None if given is None else {**given, "refusal": None}
