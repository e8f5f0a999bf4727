"""`Llama`, a facade over `cyllama.LLM`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

import numpy as np
import numpy.typing as npt

from cyllama import models
from cyllama.compat._argument_types import ChatArguments, CompletionArguments, LoadArgumentsDict, SampleArguments
from cyllama.compat._arguments import DEFAULT_SEED, LoadArguments, loop_fields, request_fields
from cyllama.compat._shapes import chunk_dicts, infill_completion, legacy_logprobs, matching_file
from cyllama.compat._token_loop import TokenLoop
from cyllama.errors import UnsupportedError
from cyllama.llama import LLM, Completion, LlamaModel, LlamaModelParams, json_schema_to_grammar
from cyllama.llama import ChatCompletion as ChatResponse

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

__all__ = ["Llama", "LlamaGrammar", "LogitsProcessorList", "StoppingCriteriaList"]

Tokens = list[int]
Response = dict[str, Any]
Message = Mapping[str, Any]
Processor = Callable[[npt.NDArray[np.intc], npt.NDArray[np.single]], npt.NDArray[np.single]]
Criterion = Callable[[npt.NDArray[np.intc], npt.NDArray[np.single]], bool]


class LlamaGrammar:
    """A grammar in GBNF."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """Return the grammar of a text."""
        return cls(grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """Read a grammar from a file."""
        return cls(Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:
        """Return the grammar of a JSON schema."""
        return cls(json_schema_to_grammar(json_schema))


class LogitsProcessorList(list[Processor]):
    """Functions that change the logits, in order."""


class StoppingCriteriaList(list[Criterion]):
    """Functions that end a text if one of them returns true."""


class Llama:
    """A model with the constructor and the methods of llama-cpp-python.

    Parameters
    ----------
    model_path : str
        A GGUF file, or a name of `cyllama.models`.
    n_gpu_layers, n_ctx, seed, lora_path, chat_format, draft_model, ...
        As of llama-cpp-python. `verbose`, `logits_all` and `last_n_tokens_size` have no effect; see `cyllama.log`.

    Raises
    ------
    TypeError
        An argument does not exist.
    UnsupportedError
        `chat_handler`, `tokenizer` or `lora_base` was given.
    """

    def __init__(self, model_path: str | os.PathLike[str], **arguments: Unpack[LoadArgumentsDict]) -> None:
        self._arguments = LoadArguments(**arguments)
        self.model_path = os.fspath(model_path)
        self._seed = None if self._arguments.seed == DEFAULT_SEED else self._arguments.seed
        self._loop: TokenLoop | None = None
        path, params = models.resolve(model_path), LlamaModelParams(vocab_only=True)
        self._vocabulary = LlamaModel(path, params)  # metadata and tokens without the weights
        if not self._arguments.vocab_only:
            settings: Any = self._arguments.settings()
            self.llm = LLM(path, **settings)

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
        """Continue a text; return a dict in OpenAI's form, or an iterator of them with `stream`."""
        fields: Any = request_fields(locals(), self._seed)
        if stopping_criteria or logits_processor:
            if suffix is not None or logprobs is not None or stream:
                raise UnsupportedError(
                    "logits_processor and stopping_criteria do not go with suffix, logprobs or stream"
                )
            return self._loop_of().complete(
                prompt, fields, echo=echo, processors=logits_processor or [], criteria=stopping_criteria or []
            )
        before = self._text(prompt) if echo else ""
        if suffix is not None:
            data = infill_completion(self.llm.infill(self._text(prompt), suffix, **fields).to_dict())
            data["choices"][0]["text"] = before + data["choices"][0]["text"]
            return iter([data]) if stream else data
        if stream:
            return chunk_dicts(self.llm.complete(prompt, stream=True, **fields), before)
        response: Completion = self.llm.complete(prompt, **fields)
        data = response.to_dict()
        for choice in data["choices"]:
            choice["logprobs"] = legacy_logprobs(choice.get("logprobs"), len(self._text(prompt)))
            choice["text"] = before + choice["text"]
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
        if logits_processor:
            raise UnsupportedError(
                "logits_processor: render the prompt with cyllama.LLM.render and use create_completion"
            )
        if functions and not tools:
            tools = [{"type": "function", "function": dict(function)} for function in functions]
        if function_call is not None and tool_choice is None:
            named = isinstance(function_call, Mapping)
            tool_choice = {"type": "function", "function": function_call} if named else function_call
        form = dict(response_format) if response_format else None
        if form and form.get("type") == "json_object" and "schema" in form:
            form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": form["schema"]}}
        fields = request_fields(locals(), self._seed) | {
            "tools": tools or None,
            "tool_choice": tool_choice,
            "response_format": form,
            "top_logprobs": top_logprobs,
        }
        chosen: Any = {name: value for name, value in fields.items() if value is not None}
        if stream:
            return chunk_dicts(self.llm.chat(messages, stream=True, **chosen))
        response: ChatResponse = self.llm.chat(messages, **chosen)
        return response.to_dict()

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
        many = [input] if isinstance(input, str) else input
        rows = self.llm.embed(many, normalize=False)
        count = sum(len(self.llm.tokenize(text, add_special=True)) for text in many)
        return {
            "object": "list",
            "data": [{"object": "embedding", "embedding": row.tolist(), "index": i} for i, row in enumerate(rows)],
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
        limit = min(self.n_ctx(), self._arguments.n_batch, self._arguments.n_ubatch)
        given = [part[:limit] if truncate and len(part) > limit else text
                 for text, part in zip(many, tokens, strict=True)]  # fmt: skip
        rows = [row.tolist() for row in self.llm.embed(given, normalize=normalize)]
        found = rows[0] if isinstance(input, str) else rows
        return (found, sum(min(limit, len(part)) for part in tokens)) if return_count else found

    # ----------------------------------------------------------------------------------- tokens

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> Tokens:
        """Return the tokens of a text (UTF-8)."""
        tokens: Tokens = self._vocabulary.vocab.tokenize(text, add_bos, special)
        return tokens

    def detokenize(self, tokens: Tokens, prev_tokens: Tokens | None = None, special: bool = False) -> bytes:
        """Return the text of tokens (UTF-8)."""
        vocab = self._vocabulary.vocab
        before = list(prev_tokens or ())
        known = len(vocab.detokenize_bytes(before, False, special))
        text: bytes = vocab.detokenize_bytes([*before, *tokens], False, special)[known:]
        begins = not before and bool(tokens) and tokens[0] == vocab.bos
        return text.removeprefix(b" ") if begins else text  # the tokenizer added the space

    def n_ctx(self) -> int:
        """Return the number of tokens of the context."""
        return int(self.llm.properties.default_generation_settings.n_ctx)

    def n_embd(self) -> int:
        """Return the width of the model's vectors."""
        return int(self.metadata[f"{self.metadata['general.architecture']}.embedding_length"])

    def n_vocab(self) -> int:
        """Return the number of tokens of the vocabulary."""
        return int(self._vocabulary.vocab.n_tokens)

    def token_bos(self) -> int:
        """Return the token that starts a text, -1 if there is none."""
        return _or_minus_one(self._vocabulary.vocab.bos)

    def token_eos(self) -> int:
        """Return the token that ends a text, -1 if there is none."""
        return _or_minus_one(self._vocabulary.vocab.eos)

    def token_nl(self) -> int:
        """Return the token of a new line, -1 if there is none."""
        return _or_minus_one(self._vocabulary.vocab.nl)

    def pooling_type(self) -> int:
        """Return the pooling type, a number of ``LLAMA_POOLING_TYPE``."""
        return int(self.llm.pooling_type)

    def tokenizer(self) -> Llama:
        """Return the object with `tokenize` and `detokenize`: the model itself."""
        return self

    @staticmethod
    def logits_to_logprobs(logits: npt.ArrayLike, axis: int = -1) -> npt.NDArray[np.single]:
        """Return the logarithms of the probabilities of logits."""
        given = np.asarray(logits, np.single)
        shifted = given - given.max(axis, keepdims=True)
        found: npt.NDArray[np.single] = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
        return found

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """Return the number of equal tokens at the start."""
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file."""
        return dict(self._vocabulary.metadata())

    # ---------------------------------------------------------------------------- token by token

    @property
    def n_tokens(self) -> int:
        """The number of evaluated tokens."""
        return len(self._loop_of().tokens)

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The evaluated tokens."""
        return np.array(self._loop_of().tokens, np.intc)

    def reset(self) -> None:
        """Remove the evaluated tokens."""
        self._loop_of().reset()

    def eval(self, tokens: Sequence[int]) -> None:
        """Evaluate the next tokens."""
        self._loop_of().eval(tokens)

    def sample(self, **fields: Unpack[SampleArguments]) -> int:
        """Choose the next token: ``temp``, ``top_k``, ``top_p``, ``min_p``, ``repeat_penalty``, ``grammar``, ..."""
        return self._loop_of().sample(loop_fields(fields, self._seed))

    def generate(
        self,
        tokens: Sequence[int],
        *,
        reset: bool = True,
        stopping_criteria: StoppingCriteriaList | None = None,
        logits_processor: LogitsProcessorList | None = None,
        **fields: Unpack[SampleArguments],
    ) -> Iterator[int]:
        """Generate tokens without a limit; `fields` as of `sample`."""
        loop = self._loop_of()
        if reset:
            loop.reset()
        chosen = loop_fields(fields, self._seed)
        yield from loop.generate(tokens, chosen, logits_processor or [], stopping_criteria or [])

    def save_state(self) -> bytes:
        """Return the state after `eval` or `generate`."""
        return self._loop_of().save()

    def load_state(self, state: bytes) -> None:
        """Restore a state of `save_state`."""
        self._loop_of().load(state)

    def set_cache(self, cache: object) -> None:
        """Do nothing: prompts are always cached, see the option ``cache-ram`` of `cyllama.LLM`."""

    def set_seed(self, seed: int) -> None:
        """Set the seed of the calls without one."""
        self._seed = seed

    # --------------------------------------------------------------------------------- lifetime

    @classmethod
    def from_pretrained(cls, repo_id: str, filename: str, **kwargs: Unpack[LoadArgumentsDict]) -> Self:
        """Load a model of the Hugging Face hub (``pip install huggingface_hub``); `filename` may have wildcards."""
        return cls(models.get(f"hf:{repo_id}/{matching_file(repo_id, filename)}"), **kwargs)

    def close(self) -> None:
        """Free the model."""
        if not self._arguments.vocab_only:
            self.llm.close()
        if self._loop is not None:
            self._loop.close()
        self._vocabulary.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self.model_path, dataclasses.asdict(self._arguments))

    def _loop_of(self) -> TokenLoop:
        """Return the token loop, created on first use: the same file with its own context; the weights are shared."""
        if self._loop is None:
            a = self._arguments
            self._loop = TokenLoop(
                models.resolve(self.model_path), n_ctx=a.n_ctx, n_batch=a.n_batch, n_threads=a.n_threads
            )
        return self._loop

    def _text(self, prompt: str | Tokens) -> str:
        return prompt if isinstance(prompt, str) else self.detokenize(list(prompt)).decode("utf-8", "replace")


def _or_minus_one(token: int | None) -> int:
    return -1 if token is None else token


def _load(model_path: str, arguments: Any) -> Llama:
    return Llama(model_path, **arguments)
