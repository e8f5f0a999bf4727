"""Responses in LangChain's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call_chunk
from langchain_core.output_parsers.openai_tools import parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from cyllama.llama import ChatChunk, ChatCompletion

__all__ = ["chat_result", "generation_chunk"]


def chat_result(response: ChatCompletion, model: str) -> ChatResult:
    """Return all choices of a response."""
    data = response.to_dict()
    usage = _usage(data["usage"])
    generations = [_generation(choice, data, model) for choice in data["choices"]]
    for generation in generations[:1]:  # the tokens of all choices
        generation.message.usage_metadata = usage  # type: ignore[attr-defined]
    return ChatResult(generations=generations, llm_output={"model_name": model, "token_usage": data["usage"]})


def generation_chunk(part: ChatChunk, model: str) -> ChatGenerationChunk:
    """Return a chunk of a stream."""
    data = part.to_dict()
    choice: dict[str, Any] = next(iter(data["choices"]), {})
    delta, info = choice.get("delta", {}), _info(choice, model) if choice.get("finish_reason") else _logprobs(choice)
    calls = [
        tool_call_chunk(
            name=call["function"].get("name"),
            args=call["function"].get("arguments"),
            id=call.get("id"),
            index=call["index"],
        )
        for call in delta.get("tool_calls") or ()
    ]
    usage = data.get("usage")
    message = AIMessageChunk(
        content=delta.get("content") or "",
        additional_kwargs=_reasoning(delta),
        tool_call_chunks=calls,
        usage_metadata=None if usage is None else _usage(usage),
    )
    return ChatGenerationChunk(message=message, generation_info=info or None)


def _generation(choice: Mapping[str, Any], data: Mapping[str, Any], model: str) -> ChatGeneration:
    """Return a choice; a call that is cut off or that is not JSON is an invalid call."""
    message, info = choice["message"], _info(choice, model)
    calls, invalid = [], []
    given = message.get("tool_calls") or []
    for i, call in enumerate(given):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        error = (
            "the call was cut off by max_tokens" if info["finish_reason"] == "length" and i == len(given) - 1 else ""
        )
        try:
            parsed = None if error else parse_tool_call(dict(call))
        except OutputParserException as failed:
            parsed, error = None, str(failed)
        if parsed is None or not isinstance(parsed["args"], dict):
            error = error or "the arguments are not a JSON object"
            invalid.append(invalid_tool_call(name=name, args=arguments, id=call.get("id"), error=error))
        else:
            calls.append(parsed)
    made = AIMessage(
        content=message.get("content") or "",
        additional_kwargs=_reasoning(message),
        tool_calls=calls,
        invalid_tool_calls=invalid,
        response_metadata={**info, "id": data.get("id")},
    )
    return ChatGeneration(message=made, generation_info=info)


def _info(choice: Mapping[str, Any], model: str) -> dict[str, Any]:
    return {
        "finish_reason": choice["finish_reason"],
        "model_name": model,
        "model_provider": "cyllama",
        **_logprobs(choice),
    }


def _logprobs(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}


def _reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"reasoning_content": message["reasoning_content"]} if message.get("reasoning_content") else {}


def _usage(usage: Mapping[str, Any]) -> UsageMetadata:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    found = UsageMetadata(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
    )
    if cached is not None:
        found["input_token_details"] = InputTokenDetails(cache_read=cached)
    return found
