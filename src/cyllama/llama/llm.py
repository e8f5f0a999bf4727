"""`LLM`: a language model for applications, on llama.cpp's own scheduler."""

from __future__ import annotations

import base64
import difflib
import json
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cyllama import models
from cyllama.errors import CancelledError, ClosedError, InUseError, UnsupportedError
from cyllama.llama._engine import Engine, EngineResponse, engine_fields
from cyllama.llama._enums import PoolingType
from cyllama.llama._gguf import GGUFContext
from cyllama.llama.aio import AsyncStream, in_thread
from cyllama.llama.answers import ChatChunk, ChatCompletion, Completion, CompletionChunk, Record
from cyllama.llama.chat import Messages, chat_body, parsed, token_list
from cyllama.llama.estimate import fitted_context
from cyllama.llama.settings import llm_options, model_arguments
from cyllama.llama.streams import AnyOf, Stream, error_of
from cyllama.llama.tools import call_tool

__all__ = ["LLM", "Stream"]

Paths = str | os.PathLike[str]
Prompt = str | Sequence[int]

# Fields of requests that upstream reads before its schema.
CHAT_FIELDS = (
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "chat_template_kwargs",
    "add_generation_prompt",
    "top_logprobs",
    "reasoning_effort",
    "model",
    "user",
    "id_slot",
)


class LLM:
    """A loaded language model that serves many requests at once.

    Parameters
    ----------
    model : str or path
        A GGUF file, or a name of `cyllama.models`.
    draft_model : str or path, optional
        A small model of the same vocabulary for speculative decoding, or ``"ngram"``: from the text itself.
    loras : sequence of path or of (path, weight)
        Adapters; `set_loras` and requests may change their weights.
    options : mapping, optional
        Any option of ``llama-server`` by its name: ``{"cache-ram": 2048, "mlock": True}``.
    allow_unsafe : bool
        Let through options that download, start programs or write files.
    check_memory : bool
        Refuse a model that needs more memory than is free, before it is loaded; and without `n_ctx` make the context
        as long as memory allows, if the model was trained for a longer one.
    on_progress : callable, optional
        Called with the part that is loaded; False cancels.
    cancel : object with ``is_set()``, optional
        Stops the loading.
    **settings
        The fields of `LLMOptions`: ``n_ctx``, ``n_parallel``, ``n_gpu_layers``, ``flash_attn``, ``cache_type_k``, ...

    Raises
    ------
    TypeError
        There is no such option; the nearest is named.
    ValueError
        A value does not fit, in upstream's words.
    FileNotFoundError, ModelLoadError, OutOfMemoryError, CancelledError

    Notes
    -----
    Thread safety: may be called from many threads; requests share the slots and queue for them. The GIL is released
    while it loads and computes. Source: ``server_context``, tools/server.

    >>> from cyllama import LLM
    >>> with LLM("smollm2-135m-instruct") as llm:        # doctest: +SKIP
    ...     print(llm.chat("What is the capital of France?").text)
    """

    def __init__(
        self,
        model: Paths,
        *,
        draft_model: Paths | None = None,
        loras: Sequence[Paths | tuple[Paths, float]] = (),
        options: Mapping[str, Any] | None = None,
        allow_unsafe: bool = False,
        check_memory: bool = True,
        on_progress: Callable[[float], object] | None = None,
        cancel: Any = None,
        **settings: Any,
    ) -> None:
        path = models.resolve(model)
        chosen = llm_options(settings)
        arguments = model_arguments(path, chosen, options, allow_unsafe=allow_unsafe)
        arguments += _draft(draft_model)
        arguments += _adapters(loras)
        if check_memory:
            shorter = fitted_context(arguments, given=chosen.n_ctx is not None or "--ctx-size" in arguments)
            arguments += [] if shorter is None else ["--ctx-size", str(shorter)]
        self._loras = [os.fspath(item[0] if isinstance(item, tuple) else item) for item in loras]
        self._open: weakref.WeakSet[Stream[Any]] = weakref.WeakSet()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._states = tempfile.mkdtemp(prefix="cyllama-")
        self._remove_states = weakref.finalize(self, shutil.rmtree, self._states, ignore_errors=True)
        arguments += ["--slot-save-path", self._states + os.sep]
        try:
            self._engine = Engine(arguments, progress=on_progress, cancel=cancel)
        except BaseException:
            self._remove_states()
            raise
        self._caps: dict[str, bool] = dict(self._json("props", None, None)["chat_template_caps"])
        every: Any = engine_fields()
        self._fields = {name for info in every for name in info["names"]}

    # ------------------------------------------------------------------------------------- text

    def complete(self, prompt: Prompt, *, stream: bool = False, cancel: Any = None, **fields: Any) -> Any:
        """Continue a text.

        Parameters
        ----------
        prompt : str or sequence of int
            Text, or tokens.
        stream : bool
            Give `CompletionChunk` after `CompletionChunk` instead.
        cancel : object with ``is_set()``, optional
        **fields
            ``max_tokens``, ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``stop``, ``seed``, ``grammar``, ``n``,
            ...: every field of ``/v1/completions`` of llama-server.

        Returns
        -------
        Completion, or Stream of CompletionChunk

        Raises
        ------
        TypeError, ValueError, GrammarError, ContextFullError, EngineError, CancelledError
        """
        if not isinstance(prompt, str):
            prompt = token_list(prompt, "prompt")
        body = {"prompt": prompt, **self._checked(fields, ("prompt", "echo", "model", "id_slot"))}
        return self._answer("completions", body, stream, Completion, CompletionChunk, cancel)

    __call__ = complete

    def chat(
        self,
        messages: Messages,
        *,
        stream: bool = False,
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Any = None,
        **fields: Any,
    ) -> Any:
        """Answer in a chat.

        Parameters
        ----------
        messages : str or sequence of mappings
            As of OpenAI: ``{"role": "user", "content": "..."}``; a text is one message of the user.
        stream : bool
            Give `ChatChunk` after `ChatChunk` instead.
        run_tools : bool
            Call the functions among `tools` as the model asks, tell it what they gave, and go on until it answers.
        max_rounds : int
            How often at most.
        cancel : object with ``is_set()``, optional
        **fields
            As of `complete`; also ``tools`` (OpenAI's descriptions, or Python functions), ``tool_choice``,
            ``response_format`` (a pydantic model, a type, a JSON schema, or OpenAI's form), ...: every field of
            ``/v1/chat/completions`` of llama-server.

        Returns
        -------
        ChatCompletion, or Stream of ChatChunk
            With `response_format` its ``parsed`` is the answer as an object.
        """
        body = chat_body(messages, self._checked(fields, CHAT_FIELDS))
        if body.get("tools") and not self.supports("tools"):
            raise UnsupportedError(
                "the model's chat template knows no tools; give LLM a chat_template that does, if it was trained so"
            )
        if stream:
            if run_tools:
                raise ValueError("stream and run_tools do not go together")
            return self._answer("chat_completions", body, True, ChatCompletion, ChatChunk, cancel)
        for _ in range(max_rounds if run_tools else 1):
            data = self._json("chat_completions", body, cancel)
            found = ChatCompletion(data)
            if not (run_tools and found.tool_calls):
                break
            said = data["choices"][0]["message"]
            body["messages"] = [*body["messages"], said, *self._called(found, fields["tools"])]
        wanted = fields.get("response_format")
        return (
            found if wanted is None or found.finish_reason != "stop" else found.with_parsed(parsed(found.text, wanted))
        )

    @staticmethod
    def _called(answer: ChatCompletion, tools: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                "role": "tool",
                "tool_call_id": call["id"],
                "content": call_tool(tools, call["function"]["name"], call["function"]["arguments"]),
            }
            for call in answer.tool_calls
        ]

    def infill(self, prefix: str, suffix: str, *, cancel: Any = None, **fields: Any) -> Record:
        """Fill the gap between two texts, with a model that was trained for it; fields as of `complete`."""
        body = {"input_prefix": prefix, "input_suffix": suffix}
        body |= self._checked(fields, ("prompt", "input_extra", "id_slot"))
        return Record(self._json("infill", body, cancel))

    async def acomplete(self, prompt: Prompt, *, stream: bool = False, cancel: Any = None, **fields: Any) -> Any:
        """`complete` for asyncio; a cancelled task frees its slot."""
        found = await in_thread(self.complete, prompt, stream=stream, cancel=cancel, **fields)
        return AsyncStream(found) if stream else found

    async def achat(self, messages: Messages, *, stream: bool = False, cancel: Any = None, **fields: Any) -> Any:
        """`chat` for asyncio; a cancelled task frees its slot."""
        found = await in_thread(self.chat, messages, stream=stream, cancel=cancel, **fields)
        return AsyncStream(found) if stream else found

    async def ainfill(self, prefix: str, suffix: str, *, cancel: Any = None, **fields: Any) -> Record:
        """`infill` for asyncio."""
        return await in_thread(self.infill, prefix, suffix, cancel=cancel, **fields)

    # ---------------------------------------------------------------------------------- vectors

    async def aembed(self, texts: str | Sequence[str], *, normalize: bool = True, cancel: Any = None) -> Any:
        """`embed` for asyncio."""
        return await in_thread(self.embed, texts, normalize=normalize, cancel=cancel)

    async def arerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, cancel: Any = None
    ) -> Any:
        """`rerank` for asyncio."""
        return await in_thread(self.rerank, query, documents, top_n=top_n, cancel=cancel)

    def embed(self, texts: str | Sequence[str], *, normalize: bool = True, cancel: Any = None) -> Any:
        """Make vectors of texts.

        Parameters
        ----------
        texts : str or sequence of str
        normalize : bool
            To length 1.
        cancel : object with ``is_set()``, optional

        Returns
        -------
        ndarray of float32
            Shape (n, width); (width,) for one text. With ``pooling_type="none"`` (and for models that have no other,
            which are those for chats) a list of arrays of shape (tokens, width); an array for one text.

        Raises
        ------
        UnsupportedError
            The model was not loaded with ``embedding=True``.
        """
        many = [texts] if isinstance(texts, str) else list(texts)
        if not many or not all(isinstance(text, str) for text in many):
            raise (TypeError if many else ValueError)(f"texts is {texts!r}, expected a text or several")
        if self._engine.pooling_type == PoolingType.NONE:
            body: dict[str, Any] = {"input": many, "embd_normalize": 2 if normalize else -1}
            each = [np.array(row["embedding"], np.float32) for row in self._json("embedding", body, cancel)]
            return each[0] if isinstance(texts, str) else each
        body = {"input": many, "embd_normalize": 2 if normalize else -1, "encoding_format": "base64"}
        rows = self._json("embeddings", body, cancel)["data"]
        found = [np.frombuffer(base64.b64decode(row["embedding"]), np.float32) for row in rows]
        vectors: npt.NDArray[np.float32] = np.stack(found)
        return vectors[0] if isinstance(texts, str) else vectors

    def rerank(self, query: str, documents: Sequence[str], *, top_n: int | None = None, cancel: Any = None) -> Any:
        """Order documents by how well they answer a query; the model must be loaded with ``reranking=True``.

        Returns
        -------
        list of Record
            ``index`` and ``relevance_score``, the best first.
        """
        body: dict[str, Any] = {"query": query, "documents": list(documents)}
        if top_n is not None:
            body["top_n"] = top_n
        return [Record(row) for row in self._json("rerank", body, cancel)["results"]]

    # ----------------------------------------------------------------------------------- tokens

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Tokens of a text."""
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return list(self._json("tokenize", body, None)["tokens"])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return str(self._json("detokenize", {"tokens": token_list(tokens, "tokens")}, None)["content"])

    def render(self, messages: Messages, **fields: Any) -> str:
        """The prompt that the chat template makes of messages; fields as of `chat`."""
        body = chat_body(messages, self._checked(fields, CHAT_FIELDS))
        return str(self._json("apply_template", body, None)["prompt"])

    def count_tokens(self, messages: Messages, **fields: Any) -> int:
        """How many tokens the prompt of a chat has; fields as of `chat`."""
        body = chat_body(messages, self._checked(fields, CHAT_FIELDS))
        return int(self._json("chat_tokens", body, None)["input_tokens"])

    # ------------------------------------------------------------------------------------ state

    def save_state(self, path: Paths, *, slot: int = 0) -> None:
        """Write what a slot has computed, to go on later without computing it again."""
        self._check_slot(slot)
        name = Path(path).name
        self._json("slot_action", {"filename": name}, None, {"id_slot": str(slot), "action": "save"})
        os.replace(Path(self._states) / name, path)

    def load_state(self, path: Paths, *, slot: int = 0) -> None:
        """Read what `save_state` wrote."""
        self._check_slot(slot)
        name = Path(path).name
        link = Path(self._states) / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(path).resolve(strict=True))
        try:
            self._json("slot_action", {"filename": name}, None, {"id_slot": str(slot), "action": "restore"})
        finally:
            link.unlink(missing_ok=True)

    def _check_slot(self, slot: int) -> None:
        count = self.properties.total_slots
        if not 0 <= slot < count:
            raise ValueError(f"slot is {slot}, expected 0 to {count - 1}")

    def set_loras(self, weights: Mapping[Paths, float]) -> None:
        """Set the weights of the loaded adapters; those that are not named get 0."""
        known = {name: i for i, name in enumerate(self._loras)}
        for path in weights:
            if os.fspath(path) not in known:
                raise ValueError(f"{os.fspath(path)!r} was not loaded; there are {self._loras}")
        body = [{"id": known[os.fspath(path)], "scale": float(weight)} for path, weight in weights.items()]
        self._json("set_lora_adapters", body, None)

    def supports(self, what: str) -> bool:
        """Whether the chat template can do something.

        Parameters
        ----------
        what : str
            ``"tools"``, ``"tool_calls"``, ``"parallel_tool_calls"``, ``"system_role"``, ``"typed_content"``, ...

        Raises
        ------
        ValueError
            Upstream does not tell; the message names what it tells.
        """
        name = f"supports_{what}"
        if name not in self._caps:
            known = sorted(name.removeprefix("supports_") for name in self._caps)
            raise ValueError(f"what is {what!r}, expected one of {', '.join(known)}")
        return bool(self._caps[name])

    @property
    def metrics(self) -> list[Record]:
        """The slots and what they do."""
        return [Record(slot) for slot in self._json("slots", None, None)]

    @property
    def properties(self) -> Record:
        """What was loaded: settings, the chat template and what it can do, the model's path."""
        return Record(self._json("props", None, None))

    def close(self) -> None:
        """End what is running, and free the model; requests of other threads raise ClosedError."""
        self._closing.set()
        with self._lock:
            while not self._engine.closed:
                try:
                    for stream in list(self._open):
                        stream.cut()
                    self._engine.close()
                except InUseError:  # other threads notice within 50 ms
                    time.sleep(0.005)
            self._remove_states()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------ inside

    def _checked(self, fields: Mapping[str, Any], more: Sequence[str]) -> dict[str, Any]:
        for name in fields:
            if name not in self._fields and name not in more:
                near = difflib.get_close_matches(name, [*self._fields, *more], 1)
                raise TypeError(f"there is no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return {name: value for name, value in fields.items() if value is not None}

    def _request(self, route: str, body: Any, cancel: Any, params: Mapping[str, str] | None = None) -> EngineResponse:
        try:
            raw = b"" if body is None else json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the request has text that is no Unicode: {error.object[error.start : error.end]!r}"
            ) from None
        except (TypeError, ValueError) as error:
            raise type(error)(f"the request cannot be written as JSON: {error}") from None
        try:
            response: EngineResponse = self._engine.request(route, raw, params, cancel=AnyOf(cancel, self._closing))
        except CancelledError:
            if self._closing.is_set():
                raise ClosedError("the model was closed meanwhile") from None
            raise
        if response.status != 200:
            with response:
                raise error_of(json.loads(response.data)["error"])
        return response

    def _json(self, route: str, body: Any, cancel: Any, params: Mapping[str, str] | None = None) -> Any:
        with self._request(route, body, cancel, params) as response:
            return json.loads(response.data)

    def _answer(
        self, route: str, body: dict[str, Any], stream: bool, whole: type[Record], part: type[Record], cancel: Any
    ) -> Any:
        if not stream:
            return whole(self._json(route, body, cancel))
        stop = AnyOf(cancel, self._closing)
        found = Stream(self._request(route, {**body, "stream": True}, cancel), part, stop)
        self._open.add(found)
        return found


def _draft(draft_model: Paths | None) -> list[str]:
    if draft_model is None:
        return []
    if draft_model == "ngram":
        return ["--spec-type", "ngram-simple"]
    path = models.resolve(draft_model)
    with GGUFContext.from_file(path) as file:
        architecture = file.get("general.architecture")
        known = architecture == "dflash" or any(info.name.endswith("nextn.eh_proj.weight") for info in file.tensors())
    # of those upstream knows the kind; with any other model it drafts nothing unless it is told how
    kind = [] if known else ["--spec-type", "draft-eagle3" if architecture == "eagle3" else "draft-simple"]
    return ["--model-draft", os.fspath(path), *kind]


def _adapters(loras: Sequence[Paths | tuple[Paths, float]]) -> list[str]:
    parts = []
    for item in loras:
        path, weight = item if isinstance(item, tuple) else (item, 1.0)
        parts.append(f"{os.fspath(models.resolve(path))}:{weight}")
    return ["--lora-scaled", ",".join(parts)] if parts else []
