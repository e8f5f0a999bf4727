"""One intent in the form of each text protocol, over HTTP and in process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.running import Server

from cyllama import LLM
from cyllama.errors import CyllamaError

__all__ = ["TOOLS", "Ask", "Call", "Found", "HttpRoute", "InProcess", "Refused"]

CITY = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}, "required": ["city"]}
COUNT = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"]}
TOOLS: Mapping[str, Any] = {"weather": CITY, "count": COUNT}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """An intent."""

    text: str = "Hello"
    model: str = "tools"
    max_tokens: int | None = 16
    temperature: float | None = 0
    stop: Any = None
    schema: Mapping[str, Any] | None = None
    tools: bool = False
    choice: str | None = None  # auto, none, required, or the name of a tool
    stream: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    name: str
    arguments: str


@dataclass(frozen=True)
class Found:
    """The parts of a response."""

    text: str
    ended: str  # stop, length or tool_calls
    prompt_tokens: int
    generated_tokens: int
    calls: list[Call]
    model: str


@dataclass(frozen=True)
class Refused(Exception):
    status: int
    message: str
    param: str | None
    type: str


# ------------------------------------------------------------------------------------------- bodies


def chat_body(ask: Ask) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": ask.text}]}
    body |= given(max_tokens=ask.max_tokens, temperature=ask.temperature, stop=ask.stop)
    if ask.schema:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": ask.schema}}
    if ask.tools:
        body["tools"] = [
            {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in TOOLS.items()
        ]
    if ask.choice:
        named = {"type": "function", "function": {"name": ask.choice}}
        body["tool_choice"] = named if ask.choice in TOOLS else ask.choice
        body["parallel_tool_calls"] = False
    if ask.stream:
        body["stream_options"] = {"include_usage": True}
    return body


def completion_body(ask: Ask) -> dict[str, Any]:
    body = {"prompt": ask.text} | given(max_tokens=ask.max_tokens, temperature=ask.temperature, stop=ask.stop)
    if ask.schema:
        body["json_schema"] = ask.schema
    if ask.tools:
        body["tools"] = chat_body(ask)["tools"]
    return body | ({"stream_options": {"include_usage": True}} if ask.stream else {})


def responses_body(ask: Ask) -> dict[str, Any]:
    body = {"input": ask.text} | given(max_output_tokens=ask.max_tokens, temperature=ask.temperature, stop=ask.stop)
    if ask.schema:
        body["text"] = {"format": {"type": "json_schema", "name": "x", "schema": ask.schema}}
    if ask.tools:
        body["tools"] = [{"type": "function", "name": name, "parameters": schema} for name, schema in TOOLS.items()]
    if ask.choice:
        body["tool_choice"] = {"type": "function", "name": ask.choice} if ask.choice in TOOLS else ask.choice
        body["parallel_tool_calls"] = False
    return body


def messages_body(ask: Ask) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": ask.text}]}
    stop = [ask.stop] if isinstance(ask.stop, str) else ask.stop
    body |= given(max_tokens=ask.max_tokens, temperature=ask.temperature, stop_sequences=stop)
    if ask.schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": ask.schema}}
    if ask.tools:
        body["tools"] = [{"name": name, "input_schema": schema} for name, schema in TOOLS.items()]
    if ask.choice:
        kinds = {"auto": "auto", "none": "none", "required": "any"}
        is_tool = ask.choice in TOOLS
        body["tool_choice"] = {"type": "tool", "name": ask.choice} if is_tool else {"type": kinds[ask.choice]}
        body["tool_choice"] |= {} if ask.choice == "none" else {"disable_parallel_tool_use": True}
    return body


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# ---------------------------------------------------------------------------------------- responses


def read_chat(data: Mapping[str, Any]) -> Found:
    choice, usage = data["choices"][0], data["usage"]
    message = choice["message"]
    calls = [Call(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ()]
    return Found(message.get("content") or "", choice["finish_reason"], usage["prompt_tokens"],
                 usage["completion_tokens"], calls, data["model"])  # fmt: skip


def read_completion(data: Mapping[str, Any]) -> Found:
    choice, usage = data["choices"][0], data["usage"]
    return Found(choice["text"], choice["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"], [],
                 data["model"])  # fmt: skip


def read_response(data: Mapping[str, Any]) -> Found:
    texts = [part["text"] for item in data["output"] if item["type"] == "message" for part in item["content"]]
    calls = [Call(item["name"], item["arguments"]) for item in data["output"] if item["type"] == "function_call"]
    ended = "length" if data["status"] == "incomplete" else "tool_calls" if calls else "stop"
    usage = data["usage"]
    return Found("".join(texts), ended, usage["input_tokens"], usage["output_tokens"], calls, data["model"])


def read_message(data: Mapping[str, Any]) -> Found:
    blocks, usage = data["content"], data["usage"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [Call(b["name"], json.dumps(b["input"])) for b in blocks if b["type"] == "tool_use"]
    reasons = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    return Found(text, reasons[data["stop_reason"]], prompt, usage["output_tokens"], calls, data["model"])


# ------------------------------------------------------------------------------------------ streams


def join_chat(events: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"content": "", "tool_calls": []}
    found: dict[str, Any] = {"finish_reason": None, "message": message}
    usage = [event["usage"] for event in events if event.get("usage")]
    assert len(usage) == 1
    for event in events:
        for choice in event["choices"]:
            message["content"] += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls") or ():
                if call.get("id"):
                    message["tool_calls"].append({"function": {"name": call["function"]["name"], "arguments": ""}})
                message["tool_calls"][-1]["function"]["arguments"] += call["function"].get("arguments") or ""
            found["finish_reason"] = choice["finish_reason"] or found["finish_reason"]
    return {"choices": [found], "usage": usage[0], "model": events[0]["model"]}


def join_completion(events: list[dict[str, Any]]) -> dict[str, Any]:
    choices = [choice for event in events for choice in event["choices"]]
    (usage,) = [event["usage"] for event in events if event.get("usage")]
    text = "".join(choice["text"] for choice in choices)
    choice = {"text": text, "finish_reason": choices[-1]["finish_reason"]}
    return {"choices": [choice], "usage": usage, "model": events[0]["model"]}


def join_responses(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created" and events[0]["response"]["output"] == []
    final = events[-1]["response"]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == read_response(final).text
    return final  # type: ignore[no-any-return]


def join_messages(events: list[dict[str, Any]]) -> dict[str, Any]:
    message = dict(events[0]["message"])
    blocks: list[dict[str, Any]] = []
    for event in events[1:]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            blocks[-1]["text"] = blocks[-1].get("text", "") + delta.get("text", "")
            blocks[-1]["json"] += delta.get("partial_json", "")
        elif event["type"] == "message_delta":
            message |= {**event["delta"], "usage": event["usage"]}
    assert events[-1]["type"] == "message_stop"
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["json"])
    return {**message, "content": blocks}


# ------------------------------------------------------------------------------------------- routes


@dataclass(frozen=True)
class HttpRoute:
    """A route of the server."""

    path: str
    make: Callable[[Ask], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], Found]
    join: Callable[[list[dict[str, Any]]], dict[str, Any]]
    count_path: str | None = None

    def body(self, ask: Ask) -> dict[str, Any]:
        return {"model": ask.model, **self.make(ask), **ask.more} | ({"stream": True} if ask.stream else {})

    def run(self, server: Server, key: dict[str, str], ask: Ask) -> Found:
        body = self.body(ask)
        if ask.stream:
            return self.read(self.join(server.events(self.path, body, headers=key)))
        return self.read(self.post(server, key, self.path, body))

    def count(self, server: Server, key: dict[str, str], ask: Ask) -> int:
        body = self.body(ask)
        if self.count_path is None:
            tokens = {"model": ask.model, "content": ask.text, "add_special": True}
            return len(self.post(server, key, "/tokenize", tokens)["tokens"])
        return int(self.post(server, key, self.count_path, body)["input_tokens"])

    def post(self, server: Server, key: dict[str, str], path: str, body: Any) -> Any:
        response = server.post(path, body, headers=key)
        data = response.json()
        if response.status_code != 200:
            error = data["error"]
            raise Refused(response.status_code, error["message"], error["param"], error["type"])
        return data


@dataclass(frozen=True)
class InProcess:
    """A method of `LLM`."""

    method: str  # chat or complete

    def run(self, llm: LLM, ask: Ask) -> Found:
        is_chat = self.method == "chat"
        body = (chat_body if is_chat else completion_body)(ask) | dict(ask.more)
        first = body.pop("messages" if is_chat else "prompt")
        call: Any = llm.chat if is_chat else llm.complete
        try:
            if ask.stream:
                with call(first, stream=True, **body) as chunks:
                    response = chunks.result()
            else:
                response = call(first, **body)
        except (CyllamaError, TypeError, ValueError) as error:
            message = str(error)
            raise Refused(400, message, message.split()[0], type(error).__name__) from error
        return (read_chat if is_chat else read_completion)(response.to_dict())

    def count(self, llm: LLM, ask: Ask) -> int:
        if self.method == "complete":
            return len(llm.tokenize(ask.text, add_special=True))
        body = chat_body(ask)
        return llm.count_tokens(body.pop("messages"), **body)


HTTP: dict[str, HttpRoute] = {
    "chat": HttpRoute("/v1/chat/completions", chat_body, read_chat, join_chat, "/v1/chat/completions/input_tokens"),
    "completions": HttpRoute("/v1/completions", completion_body, read_completion, join_completion),
    "responses": HttpRoute(
        "/v1/responses", responses_body, read_response, join_responses, "/v1/responses/input_tokens"
    ),
    "messages": HttpRoute("/v1/messages", messages_body, read_message, join_messages, "/v1/messages/count_tokens"),
}
LOCAL = {"LLM.chat": InProcess("chat"), "LLM.complete": InProcess("complete")}
__all__ += ["HTTP", "LOCAL"]
