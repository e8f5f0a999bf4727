"""A chat model for LangChain: ``ChatCyllama(model="smollm2-135m-instruct").invoke("Hello")``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from cyllama.llama import ChatChunk

__all__ = ["ChatCyllama"]


class ChatCyllama(BaseChatModel):
    """A chat model in this process.

    The model is loaded on first use, kept, and shared by all objects with the same `model` and `settings`
    (`cyllama.pipelines.default_pool`).

    Attributes
    ----------
    model : str
        A GGUF file, or a name of `cyllama.models`.
    settings : dict
        Options of `cyllama.LLM`: ``{"n_ctx": 4096}``.
    fields : dict
        Options of each request, as of `LLM.chat`: ``{"temperature": 0, "max_tokens": 100}``. A call may add its own:
        ``model.invoke("Hello", seed=1, response_format=schema)``.
    """

    model: str
    settings: dict[str, Any] = Field(default_factory=dict)
    fields: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "cyllama"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self.model, "settings": self.settings, "fields": self.fields}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a model that may call tools; its chat template must support them."""
        choice = {"any": "required", None: None}.get(tool_choice, tool_choice)
        bound: Runnable[LanguageModelInput, AIMessage] = self.bind(
            tools=[convert_to_openai_tool(tool) for tool in tools],
            **({} if choice is None else {"tool_choice": choice}),
            **kwargs,
        )
        return bound

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._loaded() as llm:
            response = llm.chat(_openai(messages), **self._request(stop, kwargs))
        message = AIMessage(
            content=response.text,
            tool_calls=[
                tool_call(name=call["function"]["name"], args=json.loads(call["function"]["arguments"]), id=call["id"])
                for call in response.tool_calls
            ],
            usage_metadata=_usage(response.usage),
            response_metadata={"finish_reason": response.finish_reason, "model_name": self.model},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = {**self._request(stop, kwargs), "stream_options": {"include_usage": True}}
        with self._loaded() as llm, llm.chat(_openai(messages), stream=True, **request) as stream:
            for part in stream:
                chunk = ChatGenerationChunk(message=_message_chunk(part))
                if run_manager is not None and part.text:
                    run_manager.on_llm_new_token(part.text, chunk=chunk)
                yield chunk

    def _loaded(self) -> Any:
        from cyllama.pipelines import default_pool

        return default_pool().use("llm", self.model, **self.settings)

    def _request(self, stop: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.fields, **given, **({} if stop is None else {"stop": stop})}


def _openai(messages: list[BaseMessage]) -> Any:
    return convert_to_openai_messages(messages)


def _usage(usage: Mapping[str, Any]) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
    )


def _message_chunk(part: ChatChunk) -> AIMessageChunk:
    """Return a chunk in LangChain's form."""
    calls = [
        tool_call_chunk(
            name=call["function"].get("name"),
            args=call["function"].get("arguments"),
            id=call.get("id"),
            index=call["index"],
        )
        for choice in part.get("choices", ())
        for call in choice["delta"].get("tool_calls") or ()
    ]
    usage = part.get("usage")
    return AIMessageChunk(
        content=part.text, tool_call_chunks=calls, usage_metadata=None if usage is None else _usage(usage)
    )
