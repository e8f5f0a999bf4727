"""`Llama`, a facade over `cyllama.LLM`."""

from __future__ import annotations

import dataclasses
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from cyllama.compat._argument_types import ChatArguments, CompletionArguments, LoadArgumentsDict
from cyllama.compat._arguments import LoadArguments, request_fields
from cyllama.compat._chats import (
    ChatShape,
    chunks_of_completion,
    joined_chunks,
    named_tool,
    plain_messages,
    response_form,
    tools_of,
)
from cyllama.compat._hub import download
from cyllama.compat._shapes import CompletionShape, Response, infill_response
from cyllama.compat._state import LlamaState
from cyllama.compat._states import LogitsProcessorList, StoppingCriteriaList, TokenCalls
from cyllama.compat._text_parts import Row, text_parts
from cyllama.compat._vocabulary import Tokens
from cyllama.compat.llama_chat_format import MTMDChatHandler, chat_style
from cyllama.compat.llama_grammar import LlamaGrammar
from cyllama.compat.llama_tokenizer import LlamaTokenizer
from cyllama.errors import UnsupportedError
from cyllama.llama import LLM, json_schema_to_grammar

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

__all__ = ["Llama", "LlamaState", "LogitsProcessorList", "StoppingCriteriaList"]

Message = Mapping[str, Any]
PROMPT_FIELDS = ("tools", "tool_choice", "response_format")  # those that the template gets


class Llama(TokenCalls):
    """A model with the constructor and the methods of llama-cpp-python.

    Parameters
    ----------
    model_path : str
        A GGUF file, or a name of `cyllama.models`.
    n_gpu_layers, n_ctx, seed, lora_path, chat_format, chat_handler, draft_model, ...
        As of llama-cpp-python.

    Raises
    ------
    TypeError
        An argument does not exist.
    ValueError
        A value is invalid, such as the name of an unknown chat format.
    UnsupportedError
        `tokenizer`, `lora_base`, or a draft model in Python was given.
    """

    def __init__(self, model_path: str | os.PathLike[str], **arguments: Unpack[LoadArgumentsDict]) -> None:
        self._arguments = LoadArguments(**arguments)
        self._seed = self._arguments.chosen_seed
        super().__init__(model_path)
        self.chat_format = self._arguments.format_name
        self.chat_handler = self._arguments.chat_handler
        self._style = chat_style(self.chat_format, self.metadata)
        settings: Any = self._arguments.settings(self._style)
        self._llm = None if self._arguments.vocab_only else LLM(self._file, **settings)

    # ------------------------------------------------------------------------------------- text

    @overload
    def create_completion(
        self, prompt: str | Tokens, *, stream: Literal[False] = False, **arguments: Unpack[CompletionArguments]
    ) -> Response: ...
    @overload
    def create_completion(
        self, prompt: str | Tokens, *, stream: Literal[True], **arguments: Unpack[CompletionArguments]
    ) -> Iterator[Response]: ...
    @overload
    def create_completion(
        self, prompt: str | Tokens, *, stream: bool, **arguments: Unpack[CompletionArguments]
    ) -> Response | Iterator[Response]: ...
    def create_completion(
        self,
        prompt: str | Tokens,
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | Sequence[str] | None = (),
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        logits_processor: LogitsProcessorList | None = None,
        grammar: LlamaGrammar | None = None,
        logit_bias: Mapping[int, float] | None = None,
    ) -> Response | Iterator[Response]:
        """Continue a text; return a dict in OpenAI's form, or an iterator of them with `stream`.

        The stream of llama-cpp-python lacks the prompt with `echo`; here it is the first chunk.
        """
        fields = request_fields(locals(), self._seed, self._arguments.last_n_tokens_size)
        given = [] if logprobs is None or not echo else self._prompt_rows(prompt, logprobs)
        text = self._text(prompt)
        before, start = (text, 0) if echo else ("", len(text))
        shape = CompletionShape(model or self.model_path, before, given, logprobs, start)
        if stopping_criteria or logits_processor:
            if suffix is not None:
                raise UnsupportedError("logits_processor and stopping_criteria do not support suffix")
            tokens = self._prompt_tokens(prompt)
            parts = text_parts(
                self._loop_of(), tokens, fields, n_probs=logprobs,
                processors=logits_processor or (), criteria=stopping_criteria or (),
            )  # fmt: skip
            return shape.streamed(parts) if stream else shape.joined(parts, len(tokens))
        if suffix is not None:
            if logprobs is not None:
                raise UnsupportedError("suffix does not support logprobs")
            data = infill_response(self.llm.infill(text, suffix, **fields).to_dict(), shape)
            return iter([data]) if stream else data
        if logprobs is not None:
            fields["logprobs"] = max(logprobs, 1)
        self._restore_prefix(self._prompt_tokens(prompt))
        if stream:
            return self._kept(shape.chunks(self.llm.complete(prompt, stream=True, **fields)))
        data = shape.response(self.llm.complete(prompt, **fields))
        self._keep_state()
        return data

    __call__ = create_completion

    @overload
    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: Literal[False] = False, **arguments: Unpack[ChatArguments]
    ) -> Response: ...
    @overload
    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: Literal[True], **arguments: Unpack[ChatArguments]
    ) -> Iterator[Response]: ...
    @overload
    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: bool, **arguments: Unpack[ChatArguments]
    ) -> Response | Iterator[Response]: ...
    def create_chat_completion(
        self,
        messages: Sequence[Message],
        functions: Sequence[Mapping[str, Any]] | None = None,
        function_call: str | Mapping[str, Any] | None = None,
        tools: Sequence[Any] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | Sequence[str] | None = (),
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: LogitsProcessorList | None = None,
        grammar: LlamaGrammar | None = None,
        logit_bias: Mapping[int, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
    ) -> Response | Iterator[Response]:
        """Generate the next message; return a dict in OpenAI's form, or an iterator of them with `stream`."""
        given = {name: value for name, value in locals().items() if name != "self"}
        if self.chat_handler is not None and not isinstance(self.chat_handler, MTMDChatHandler):
            return self.chat_handler(llama=self, **given)  # type: ignore[no-any-return]
        return self._chat(given)

    def _chat(self, given: dict[str, Any]) -> Response | Iterator[Response]:
        fields = request_fields(given, self._seed, self._arguments.last_n_tokens_size)
        if given["top_logprobs"] is not None and not given["logprobs"]:
            raise ValueError("top_logprobs needs logprobs=True")
        if self._style is not None and self._style.stop is not None:
            fields["stop"] = [*fields["stop"], self._style.stop]
        messages = plain_messages(given["messages"])
        tools, choice = tools_of(*(given[name] for name in ("functions", "function_call", "tools", "tool_choice")))
        form, shape = response_form(given["response_format"]), ChatShape(given["model"] or self.model_path)
        if given["logits_processor"]:
            if tools:
                raise UnsupportedError("logits_processor does not support tools")
            return self._chat_in_loop(messages, fields, form, shape, given)
        if tools and not self.llm.supports("tools"):
            tool = named_tool(tools, choice)
            if tool is not None:  # its arguments need no support of the template
                schema = {"name": tool["name"], "schema": tool.get("parameters") or {"type": "object"}}
                form, shape.call = {"type": "json_schema", "json_schema": schema}, tool["name"]
            if tool is not None or choice == "none":
                tools, choice = [], None
        more: dict[str, Any] = {
            "tools": tools or None,
            "tool_choice": choice if tools else None,
            "response_format": form,
        }
        if tools and isinstance(choice, Mapping):
            more["parallel_tool_calls"] = False  # one call of the named tool
        more |= {"logprobs": given["logprobs"] or None, "top_logprobs": given["top_logprobs"]}
        fields |= {name: value for name, value in more.items() if value is not None}
        prompt = {} if self._cache is None else {name: fields[name] for name in PROMPT_FIELDS if name in fields}
        self._restore_prefix(() if self._cache is None else self._prompt_tokens(self.llm.render(messages, **prompt)))
        if given["stream"]:
            stream = self.llm.chat(messages, stream=True, **fields)
            return self._kept(shape.chunks(chunk.to_dict() for chunk in stream))
        data = shape.response(self.llm.chat(messages, **fields).to_dict())
        self._keep_state()
        return data

    def _chat_in_loop(
        self,
        messages: list[dict[str, Any]],
        fields: dict[str, Any],
        form: Mapping[str, Any] | None,
        shape: ChatShape,
        given: Mapping[str, Any],
    ) -> Response | Iterator[Response]:
        """Generate a message token by token, for `logits_processor`."""
        if form is not None and form["type"] != "text":
            if fields.get("grammar"):
                raise ValueError("grammar and response_format are both given, expected one of them")
            schema = form["json_schema"]["schema"] if "json_schema" in form else {"type": "object"}
            fields["grammar"] = json_schema_to_grammar(schema)
        prompt = self.llm.render(messages)
        tokens = self.tokenize(prompt.encode(), add_bos=not self._starts_with_bos(prompt), special=True)
        n_probs = (given["top_logprobs"] or 0) if given["logprobs"] else None
        parts = text_parts(self._loop_of(), tokens, fields, n_probs=n_probs, processors=given["logits_processor"])
        head = {"id": f"chatcmpl-{uuid.uuid4()}", "created": int(time.time())}
        chunks = chunks_of_completion(head, parts, len(tokens), n_probs is not None)
        return shape.chunks(chunks) if given["stream"] else shape.response(joined_chunks(chunks))

    def create_chat_completion_openai_v1(
        self, messages: Sequence[Message], *, stream: bool = False, **arguments: Unpack[ChatArguments]
    ) -> ChatCompletion | Iterator[ChatCompletionChunk]:
        """Generate the next message; return the types of the package ``openai``."""
        from openai.types.chat import ChatCompletion, ChatCompletionChunk

        if stream:
            return (ChatCompletionChunk(**c) for c in self.create_chat_completion(messages, stream=True, **arguments))
        return ChatCompletion(**self.create_chat_completion(messages, **arguments))

    # ---------------------------------------------------------------------------------- vectors

    def create_embedding(self, input: str | list[str], model: str | None = None) -> dict[str, Any]:
        """Return the vectors of texts in OpenAI's form, not normalized."""
        rows, count = self.embed([input] if isinstance(input, str) else input, return_count=True)
        return {
            "object": "list",
            "data": [{"object": "embedding", "embedding": row, "index": i} for i, row in enumerate(rows)],
            "model": self.model_path if model is None else model,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }

    @overload
    def embed(
        self, input: str, normalize: bool = False, truncate: bool = True, return_count: Literal[False] = False
    ) -> list[float] | list[list[float]]: ...
    @overload
    def embed(
        self, input: list[str], normalize: bool = False, truncate: bool = True, return_count: Literal[False] = False
    ) -> list[list[float]] | list[list[list[float]]]: ...
    @overload
    def embed(
        self, input: str | list[str], normalize: bool = False, truncate: bool = True, *, return_count: Literal[True]
    ) -> tuple[list[Any], int]: ...
    def embed(
        self, input: str | list[str], normalize: bool = False, truncate: bool = True, return_count: bool = False
    ) -> list[Any] | tuple[list[Any], int]:
        """Return the vectors of texts as lists; one list per token if the model has no pooling.

        A text with more tokens than a batch is cut with `truncate`, otherwise rejected.
        """
        many = [input] if isinstance(input, str) else list(input)
        tokens = [self.tokenize(text.encode()) for text in many]
        a = self._arguments
        limit = min(a.n_ctx or self.n_ctx(), a.n_batch, a.n_ubatch)
        given = [part[:limit] if truncate and len(part) > limit else text
                 for text, part in zip(many, tokens, strict=True)]  # fmt: skip
        rows = [row.tolist() for row in self.llm.embed(given, normalize=normalize)]
        found = rows[0] if isinstance(input, str) else rows
        return (found, sum(min(limit, len(part)) for part in tokens)) if return_count else found

    # ----------------------------------------------------------------------------------- tokens

    def pooling_type(self) -> int:
        """Return the pooling type, a number of ``LLAMA_POOLING_TYPE``."""
        return int(self.llm.pooling_type)

    def tokenizer(self) -> LlamaTokenizer:
        """Return the tokenizer of the model."""
        return LlamaTokenizer(self)

    def _starts_with_bos(self, text: str) -> bool:
        bos = self.token_bos()
        return bos >= 0 and text.startswith(self._vocabulary.vocab.get_text(bos))

    def _prompt_rows(self, prompt: str | Tokens, n_probs: int) -> list[Row]:
        """Return the logprobs of a prompt's tokens; the first one has none, and a BOS token is left out."""
        tokens = self._prompt_tokens(prompt)
        (choice,) = self.llm.complete(tokens, echo=True, logprobs=max(n_probs, 1), max_tokens=0).to_dict()["choices"]
        rows: list[Row] = choice["logprobs"]["content"]
        if tokens[0] == self._vocabulary.vocab.bos:
            del rows[0]
        return [{**rows[0], "logprob": None}, *rows[1:]] if rows else []

    # --------------------------------------------------------------------------------- lifetime

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str,
        additional_files: Sequence[str] | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        local_dir_use_symlinks: bool | str = "auto",
        cache_dir: str | os.PathLike[str] | None = None,
        **kwargs: Unpack[LoadArgumentsDict],
    ) -> Self:
        """Load a model of the Hugging Face hub (``pip install huggingface_hub``); names of files may have wildcards."""
        path = download(repo_id, filename, *(additional_files or ()), local_dir=local_dir, cache_dir=cache_dir)
        return cls(path, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self.model_path, dataclasses.asdict(self._arguments))


def _load(model_path: str, arguments: Any) -> Llama:
    return Llama(model_path, **arguments)
