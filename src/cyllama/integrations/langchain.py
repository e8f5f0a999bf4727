"""A chat model for LangChain: ``ChatCyllama(model="smollm2-135m-instruct").invoke("Hello")``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field

from cyllama.errors import CancelledError
from cyllama.integrations._langchain_results import chat_result, generation_chunk
from cyllama.integrations._structured_output import bind_schema
from cyllama.llama import LLM

__all__ = ["ChatCyllama"]

STANDARD = ("temperature", "max_tokens", "stop")


class ChatCyllama(BaseChatModel):
    """A chat model in this process.

    The model is loaded on first use, kept, and shared by all objects with the same `model` and `settings`
    (`cyllama.pipelines.default_pool`).

    Attributes
    ----------
    model : str
        A GGUF file, or a name of `cyllama.models`. A call may name another one: ``chat.invoke("Hello", model=name)``.
    settings : dict
        Options of `cyllama.LLM`: ``{"n_ctx": 4096}``.
    temperature : float, optional
    max_tokens : int, optional
    stop : list of str, optional
    timeout : float, optional
        Seconds after which a request is stopped with TimeoutError.
    streaming : bool
        Stream the response even if the caller does not.
    fields : dict
        Other options of each request, as of `LLM.chat`: ``{"top_k": 20, "logprobs": True}``. A call may add its own:
        ``chat.invoke("Hello", seed=1, response_format=schema)``.
    max_retries : int
        No effect: a local model has no transient errors.

    Raises
    ------
    pydantic.ValidationError
        An argument does not exist.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    settings: dict[str, Any] = Field(default_factory=dict)
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    timeout: float | None = None
    streaming: bool = False
    fields: dict[str, Any] = Field(default_factory=dict)
    max_retries: int = 0

    @property
    def _llm_type(self) -> str:
        return "cyllama"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        names = ("model", "settings", "temperature", "max_tokens", "stop", "fields")
        return {name: getattr(self, name) for name in names}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a model that may call tools; its chat template must support them.

        Parameters
        ----------
        tools : sequence
            Functions, classes of pydantic, tools of LangChain, and tools in OpenAI's form.
        tool_choice : str, bool or mapping, optional
            ``"auto"``, ``"none"``, ``"any"``, ``"required"``, the name of a tool, True (any), or OpenAI's form.
        strict : bool, optional
            With True, the schemas of the tools allow no further properties and require all. Arguments always follow
            the schema.
        **kwargs
            Options of each request, such as ``parallel_tool_calls=False``.
        """
        choice = tool_choice
        if isinstance(choice, bool):
            choice = "any" if choice else None
        if choice == "any":
            choice = "required"
        bound: Runnable[LanguageModelInput, AIMessage] = self.bind(
            tools=[convert_to_openai_tool(tool, strict=strict) for tool in tools],
            **({} if choice is None else {"tool_choice": choice}),
            **kwargs,
        )
        return bound

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return a model whose responses are objects of a schema.

        Parameters
        ----------
        schema : dict or type
            A class of pydantic, a TypedDict, a JSON schema, or a tool in OpenAI's form.
        include_raw : bool
            Return a dict with ``raw``, ``parsed`` and ``parsing_error``.
        method : str
            ``"json_schema"``: the text follows the schema. ``"function_calling"``: a tool call does; the chat template
            must support tools. ``"json_mode"``: the text is JSON, and the prompt has to describe it.
        strict : bool, optional
            As of `bind_tools`.
        **kwargs
            Options of each request.
        """
        return bind_schema(self, schema, include_raw=include_raw, method=method, strict=strict, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_model_name"] = kwargs.get("model", self.model)
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(messages, stop, kwargs)
        with _timed(call.deadline), self._loaded(call) as llm:
            return chat_result(llm.chat(call.messages, cancel=call.deadline, **call.fields), call.model)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(messages, stop, kwargs)
        with _timed(call.deadline):
            async with self._aloaded(call) as llm:
                response = await llm.achat(call.messages, cancel=call.deadline, **call.fields)
                return chat_result(response, call.model)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs, stream=True)
        with (
            _timed(call.deadline),
            self._loaded(call) as llm,
            llm.chat(call.messages, stream=True, cancel=call.deadline, **call.fields) as stream,
        ):
            for part in stream:
                chunk = generation_chunk(part, call.model)
                if run_manager is not None and part.text:
                    run_manager.on_llm_new_token(part.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs, stream=True)
        with _timed(call.deadline):
            async with self._aloaded(call) as llm:
                stream = await llm.achat(call.messages, stream=True, cancel=call.deadline, **call.fields)
                async with stream:
                    async for part in stream:
                        chunk = generation_chunk(part, call.model)
                        if run_manager is not None and part.text:
                            await run_manager.on_llm_new_token(part.text, chunk=chunk)
                        yield chunk

    def _loaded(self, call: _Call) -> contextlib.AbstractContextManager[LLM]:
        from cyllama.pipelines import default_pool

        return default_pool().use("llm", call.model, cancel=call.deadline, **self.settings)

    @contextlib.asynccontextmanager
    async def _aloaded(self, call: _Call) -> AsyncIterator[LLM]:
        loaded = self._loaded(call)
        llm = await asyncio.to_thread(loaded.__enter__)
        try:
            yield llm
        finally:
            loaded.__exit__(None, None, None)

    def _call(
        self, messages: list[BaseMessage], stop: list[str] | None, given: Mapping[str, Any], *, stream: bool = False
    ) -> _Call:
        """Return the model, the messages and the fields of a request."""
        own = {name: getattr(self, name) for name in STANDARD}
        fields = {name: value for name, value in own.items() if value is not None} | self.fields | dict(given)
        fields |= {} if stop is None else {"stop": stop}
        model, timeout = str(fields.pop("model", self.model)), fields.pop("timeout", self.timeout)
        if stream:
            if (fields.get("n") or 1) > 1:
                raise ValueError(f"n is {fields['n']}, expected 1: a stream has one generation")
            fields["stream_options"] = {"include_usage": True}
        return _Call(
            model, convert_to_openai_messages(messages), fields, None if timeout is None else _Deadline(timeout)
        )


class _Deadline:
    """A time after which a request is stopped."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def is_set(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() > self._end


class _Call(NamedTuple):
    model: str
    messages: Any
    fields: dict[str, Any]
    deadline: _Deadline | None


@contextlib.contextmanager
def _timed(deadline: _Deadline | None) -> Iterator[None]:
    """Raise TimeoutError for a request that its deadline stopped."""
    try:
        yield
    except CancelledError as error:
        if deadline is None or not deadline.is_set():
            raise
        raise TimeoutError(f"the request took longer than timeout={deadline.seconds} seconds") from error
