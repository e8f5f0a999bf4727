"""`Llama`, on top of `cyllama.LLM`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama import models
from cyllama.compat._arguments import DEFAULT_SEED, LoadArguments, loop_fields, request_fields
from cyllama.compat._shapes import filled, old_logprobs, plain_parts, the_file
from cyllama.errors import UnsupportedError
from cyllama.llama import LlamaModel, LlamaModelParams, json_schema_to_grammar
from cyllama.llama.llm import LLM
from cyllama.llama.token_loop import TokenLoop

__all__ = ["Llama", "LlamaGrammar", "LogitsProcessorList", "StoppingCriteriaList"]

Tokens = list[int]
Processor = Callable[[npt.NDArray[np.intc], npt.NDArray[np.single]], npt.NDArray[np.single]]
Criterion = Callable[[npt.NDArray[np.intc], npt.NDArray[np.single]], bool]


class LlamaGrammar:
    """A grammar in GBNF."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """A grammar from its text."""
        return cls(grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """A grammar from a file."""
        return cls(Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:
        """A grammar of the JSON that a schema allows."""
        return cls(json_schema_to_grammar(json_schema))


class LogitsProcessorList(list[Processor]):
    """Functions that change the logits, one after the other."""


class StoppingCriteriaList(list[Criterion]):
    """Functions that end a text: one is enough."""


class Llama:
    """A model with the constructor and the methods of llama-cpp-python.

    Parameters
    ----------
    model_path : str
        A GGUF file, or a name of `cyllama.models`.
    n_gpu_layers, n_ctx, seed, lora_path, chat_format, draft_model, ...
        As of llama-cpp-python. `verbose` says nothing here: `cyllama.log` does. `logits_all` and `last_n_tokens_size`
        are not needed and change nothing.

    Raises
    ------
    TypeError
        There is no such argument.
    UnsupportedError
        `chat_handler`, `tokenizer` or `lora_base` was given.
    """

    def __init__(self, model_path: str | os.PathLike[str], **arguments: Any) -> None:
        self._arguments = LoadArguments(**arguments)
        self.model_path = os.fspath(model_path)
        self._seed = None if self._arguments.seed == DEFAULT_SEED else self._arguments.seed
        self._loop: TokenLoop | None = None
        path, params = models.resolve(model_path), LlamaModelParams(vocab_only=True)
        self._vocabulary = LlamaModel(path, params)  # names and tokens, not the weights
        if not self._arguments.vocab_only:
            self.llm = LLM(path, **self._arguments.settings())

    # ------------------------------------------------------------------------------------- text

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
    ) -> Any:
        """Continue a text; a dict as OpenAI's, or an iterator of them with `stream`."""
        fields = request_fields(locals(), self._seed)
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
            data = filled(self.llm.infill(self._text(prompt), suffix, **fields).to_dict())
            data["choices"][0]["text"] = before + data["choices"][0]["text"]
            return iter([data]) if stream else data
        answer = self.llm.complete(prompt, stream=stream, **fields)
        if stream:
            return plain_parts(answer, before)
        data = answer.to_dict()
        for choice in data["choices"]:
            choice["logprobs"] = old_logprobs(choice.get("logprobs"), len(self._text(prompt)))
            choice["text"] = before + choice["text"]
        return data

    __call__ = create_completion

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
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
    ) -> Any:
        """Answer in a chat; a dict as OpenAI's, or an iterator of them with `stream`."""
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
        answer = self.llm.chat(messages, stream=stream, **{k: v for k, v in fields.items() if v is not None})
        return plain_parts(answer) if stream else answer.to_dict()

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """`create_chat_completion` with the types of the package ``openai``."""
        from openai.types.chat import ChatCompletion, ChatCompletionChunk

        found = self.create_chat_completion(*args, **kwargs)
        if kwargs.get("stream"):
            return (ChatCompletionChunk(**part) for part in found)
        return ChatCompletion(**found)

    # ---------------------------------------------------------------------------------- vectors

    def create_embedding(self, input: str | list[str], model: str | None = None) -> dict[str, Any]:
        """Vectors as OpenAI gives them, of the length that the model gives them."""
        many = [input] if isinstance(input, str) else input
        rows = self.llm.embed(many, normalize=False)
        count = sum(len(self.llm.tokenize(text, add_special=True)) for text in many)
        return {
            "object": "list",
            "data": [{"object": "embedding", "embedding": row.tolist(), "index": i} for i, row in enumerate(rows)],
            "model": self.model_path if model is None else model,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }

    def embed(self, input: str | list[str], normalize: bool = False, truncate: bool = True,
              return_count: bool = False) -> Any:  # fmt: skip
        """Vectors as lists; a text with more tokens than a batch holds is cut with `truncate`, else refused."""
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
        """Tokens of a text (UTF-8)."""
        tokens: Tokens = self._vocabulary.vocab.tokenize(text, add_bos, special)
        return tokens

    def detokenize(self, tokens: Tokens, prev_tokens: Tokens | None = None, special: bool = False) -> bytes:
        """The text of tokens (UTF-8)."""
        vocab = self._vocabulary.vocab
        before = list(prev_tokens or ())
        known = len(vocab.detokenize_bytes(before, False, special))
        text: bytes = vocab.detokenize_bytes([*before, *tokens], False, special)[known:]
        begins = not before and bool(tokens) and tokens[0] == vocab.bos
        return text.removeprefix(b" ") if begins else text  # the space that the tokenizer itself put there

    def n_ctx(self) -> int:
        """Tokens of context."""
        return int(self.llm.properties.default_generation_settings.n_ctx)

    def n_embd(self) -> int:
        """Width of the model."""
        return int(self.metadata[f"{self.metadata['general.architecture']}.embedding_length"])

    def n_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return int(self._vocabulary.vocab.n_tokens)

    def token_bos(self) -> int:
        """The token that begins a text, -1 if there is none."""
        return _or_none(self._vocabulary.vocab.bos)

    def token_eos(self) -> int:
        """The token that ends a text, -1 if there is none."""
        return _or_none(self._vocabulary.vocab.eos)

    def token_nl(self) -> int:
        """The token of a new line, -1 if there is none."""
        return _or_none(self._vocabulary.vocab.nl)

    def pooling_type(self) -> int:
        """How the vectors of tokens become one: a number of ``LLAMA_POOLING_TYPE``."""
        return int(self.llm.pooling_type)

    def tokenizer(self) -> Llama:
        """What has `tokenize` and `detokenize`: the model itself."""
        return self

    @staticmethod
    def logits_to_logprobs(logits: npt.ArrayLike, axis: int = -1) -> npt.NDArray[np.single]:
        """Logarithms of the probabilities that logits stand for."""
        given = np.asarray(logits, np.single)
        shifted = given - given.max(axis, keepdims=True)
        found: npt.NDArray[np.single] = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
        return found

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """How many tokens at the beginning are the same."""
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of the model."""
        return dict(self._vocabulary.metadata())

    # ---------------------------------------------------------------------------- token by token

    @property
    def n_tokens(self) -> int:
        """Tokens that were evaluated."""
        return len(self._loop_of().tokens)

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """These tokens."""
        return np.array(self._loop_of().tokens, np.intc)

    def reset(self) -> None:
        """Forget what was evaluated."""
        self._loop_of().reset()

    def eval(self, tokens: Sequence[int]) -> None:
        """Evaluate tokens after those before."""
        self._loop_of().eval(tokens)

    def sample(self, **fields: Any) -> int:
        """Choose the next token: ``temp``, ``top_k``, ``top_p``, ``min_p``, ``repeat_penalty``, ``grammar``, ..."""
        return self._loop_of().sample(loop_fields(fields, self._seed))

    def generate(
        self,
        tokens: Sequence[int],
        *,
        reset: bool = True,
        stopping_criteria: StoppingCriteriaList | None = None,
        logits_processor: LogitsProcessorList | None = None,
        **fields: Any,
    ) -> Iterator[int]:
        """The tokens that follow, without an end of its own; `fields` as of `sample`."""
        loop = self._loop_of()
        if reset:
            loop.reset()
        chosen = loop_fields(fields, self._seed)
        yield from loop.generate(tokens, chosen, logits_processor or [], stopping_criteria or [])

    def save_state(self) -> bytes:
        """What was evaluated, with `eval` or `generate`."""
        return self._loop_of().save()

    def load_state(self, state: bytes) -> None:
        """Go back to what `save_state` gave."""
        self._loop_of().load(state)

    def set_cache(self, cache: Any) -> None:
        """Nothing: prompts are always cached, see the option ``cache-ram`` of `cyllama.LLM`."""

    def set_seed(self, seed: int) -> None:
        """The seed of calls that give none."""
        self._seed = seed

    # --------------------------------------------------------------------------------- lifetime

    @classmethod
    def from_pretrained(cls, repo_id: str, filename: str, **kwargs: Any) -> Llama:
        """A model of the Hugging Face hub; `filename` may have wildcards. Needs ``pip install huggingface_hub``."""
        return cls(models.get(f"hf:{repo_id}/{the_file(repo_id, filename)}"), **kwargs)

    def close(self) -> None:
        """Free the model."""
        if not self._arguments.vocab_only:
            self.llm.close()
        if self._loop is not None:
            self._loop.close()
        self._vocabulary.close()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.model_path, dataclasses.asdict(self._arguments))

    def _loop_of(self) -> TokenLoop:
        """The same file with a context of its own, made when it is first needed: its weights are shared memory."""
        if self._loop is None:
            a = self._arguments
            self._loop = TokenLoop(
                models.resolve(self.model_path), n_ctx=a.n_ctx, n_batch=a.n_batch, n_threads=a.n_threads
            )
        return self._loop

    def _text(self, prompt: str | Tokens) -> str:
        return prompt if isinstance(prompt, str) else self.detokenize(list(prompt)).decode("utf-8", "replace")


def _or_none(token: int | None) -> int:
    return -1 if token is None else token


def _again(model_path: str, arguments: Mapping[str, Any]) -> Llama:
    return Llama(model_path, **arguments)
