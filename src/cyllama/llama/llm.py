"""`LLM`: a language model for applications, on llama.cpp's own scheduler."""

from __future__ import annotations

import base64
import contextlib
import difflib
import errno
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cyllama import models
from cyllama._native.files import atomic_path
from cyllama.errors import CancelledError, ClosedError, EngineError, GrammarError, InUseError, UnsupportedError
from cyllama.llama._engine import Engine, EngineResponse
from cyllama.llama._enums import PoolingType
from cyllama.llama.aio import AsyncCalls
from cyllama.llama.answers import ChatChunk, ChatCompletion, Completion, CompletionChunk, Record
from cyllama.llama.chat import CHAT_FIELDS, Messages, chat_body, encoded, for_upstream, parsed
from cyllama.llama.estimate import fitted_context
from cyllama.llama.fields import FieldChecks, known_fields
from cyllama.llama.grammars import fault_of
from cyllama.llama.inputs import rerank_body, texts_or_tokens, token_list
from cyllama.llama.media_in import MediaInput
from cyllama.llama.plain_text import MARK, ControlTexts
from cyllama.llama.settings import adapter_arguments, draft_arguments, llm_options, model_arguments
from cyllama.llama.streams import AnyOf, Following, RawAnswer, Stream, Whole, error_of, thrown
from cyllama.llama.tools import ToolRounds
from cyllama.media.parts import Folders, MediaRules

__all__ = ["LLM", "Stream"]

Paths = str | os.PathLike[str]
Prompt = str | Sequence[int]


class LLM(AsyncCalls):
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
    allow_paths, allow_urls, media_limits
        What messages may have opened: see `MediaRules`, of which `media_limits` is a mapping of the other fields.
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
    ...     print(llm.chat("Please tell me the capital of France.").text)
    """

    def __init__(
        self,
        model: Paths,
        *,
        draft_model: Paths | None = None,
        loras: Sequence[Paths | tuple[Paths, float]] = (),
        options: Mapping[str, Any] | None = None,
        allow_unsafe: bool = False,
        allow_paths: bool | Folders = False,
        allow_urls: bool | str | Sequence[str] = False,
        media_limits: Mapping[str, Any] | None = None,
        check_memory: bool = True,
        on_progress: Callable[[float], object] | None = None,
        cancel: Any = None,
        **settings: Any,
    ) -> None:
        rules = MediaRules(allow_paths=allow_paths, allow_urls=allow_urls, **(media_limits or {}))
        path = self._path = models.resolve(model)
        chosen = llm_options(settings)
        arguments = model_arguments(path, chosen, options, allow_unsafe=allow_unsafe)
        arguments += draft_arguments(draft_model)
        arguments += adapter_arguments(loras)
        if check_memory:
            shorter = fitted_context(arguments, given=chosen.n_ctx is not None or "--ctx-size" in arguments)
            arguments += [] if shorter is None else ["--ctx-size", str(shorter)]
        self._loras = [os.fspath(item[0] if isinstance(item, tuple) else item) for item in loras]
        self._open: weakref.WeakSet[Stream[Any] | RawAnswer] = weakref.WeakSet()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._states = tempfile.mkdtemp(prefix="cyllama-")
        self._remove_states = weakref.finalize(self, _remove_folder, self._states, os.getpid())
        arguments += ["--slot-save-path", self._states + os.sep]
        try:
            self._engine = Engine(arguments, progress=on_progress, cancel=cancel)
        except BaseException:
            self._remove_states()
            raise
        properties = self._json("props", None, None)
        takes = {kind: bool(properties["modalities"][kind]) for kind in ("vision", "audio")}
        self._media = MediaInput(rules, **takes)
        self._caps = {**properties["chat_template_caps"], **{f"supports_{kind}": does for kind, does in takes.items()}}
        self._control = ControlTexts(self._engine.control_texts())
        (meta,) = self._json("models", None, None)["data"]
        slots, count = self.properties.total_slots, len(self._loras)
        self._checks = FieldChecks(n_vocab=meta["meta"]["n_vocab"], n_slots=slots, n_loras=count)

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
            ``lora`` (weights of adapters, as of `set_loras`, for this request), ...: every field of
            ``/v1/completions`` of llama-server.

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
        if stream:
            return self._stream("completions", body, CompletionChunk, cancel, Completion)
        return Completion(self._json("completions", body, cancel))

    __call__ = complete

    def chat(
        self,
        messages: Messages,
        *,
        images: Any = None,
        audio: Any = None,
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
            As of OpenAI: ``{"role": "user", "content": "..."}``; a text is one message of the user. A content may be a
            list of texts, pictures and sounds, see `cyllama.media.parts.part_media`.
        images, audio : object or list of objects, optional
            For the last message, before its text: a path, bytes, a binary file, an array; a Pillow image; of a sound
            also ``(sample_rate, array)``.
        stream : bool
            Give `ChatChunk` after `ChatChunk` instead.
        run_tools : bool
            Call the functions among `tools` as the model asks, tell it what they gave, and go on until it answers, or
            asks for a tool that is no function. A stream gives the parts of every answer, one after the other.
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
            With `response_format` its ``parsed`` is the answer as an object. The stream's ``result()`` is the
            ChatCompletion.
        """
        body = self._chat_body(messages, {**fields, "images": images, "audio": audio}, cancel)
        if body.get("tools") and not self.supports("tools"):
            raise UnsupportedError(
                "the model's chat template knows no tools; give LLM a chat_template that does, if it was trained so"
            )
        if max_rounds < 1:
            raise ValueError(f"max_rounds is {max_rounds}, expected 1 or more")
        wanted = fields.get("response_format")
        rounds = ToolRounds(body, fields.get("tools") or (), self._control, max_rounds if run_tools else 1)

        def whole(data: dict[str, Any]) -> ChatCompletion:
            return ChatCompletion(data, () if wanted is None else parsed(data, wanted))

        def following(data: dict[str, Any], stop: AnyOf) -> EngineResponse | None:
            more = rounds.after(ChatCompletion(data))
            return None if more is None else self._request("chat_completions", {**more, "stream": True}, stop)

        if stream:
            return self._stream("chat_completions", body, ChatChunk, cancel, whole, following)
        data = self._json("chat_completions", body, cancel)
        while more := rounds.after(ChatCompletion(data)):
            data = self._json("chat_completions", more, cancel)
        return whole(data)

    def infill(self, prefix: str, suffix: str, *, cancel: Any = None, **fields: Any) -> Record:
        """Fill the gap between two texts, with a model that was trained for it; fields as of `complete`."""
        body = {"input_prefix": prefix, "input_suffix": suffix}
        body |= self._checked(fields, ("prompt", "input_extra", "id_slot"))
        return Record(self._json("infill", body, cancel))

    # ---------------------------------------------------------------------------------- vectors

    def embed(self, texts: str | Sequence[Prompt], *, normalize: bool = True, cancel: Any = None) -> Any:
        """Make vectors of texts.

        Parameters
        ----------
        texts : str, or sequence of str or of tokens
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
        many = texts_or_tokens(texts)
        if self.pooling_type == PoolingType.NONE:
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
        body = rerank_body(query, documents, top_n)
        return [Record(row) for row in self._json("rerank", body, cancel)["results"]]

    # ----------------------------------------------------------------------------------- tokens

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Tokens of a text."""
        if not isinstance(text, str):
            raise TypeError(f"text is {text!r:.200}, expected a text")
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return list(self._json("tokenize", body, None)["tokens"])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        given = self._checks.tokens(token_list(tokens, "tokens"))
        return str(self._json("detokenize", {"tokens": given}, None)["content"])

    def render(self, messages: Messages, **fields: Any) -> str:
        """The prompt that the chat template makes of messages; fields as of `chat`."""
        body = self._chat_body(messages, fields)
        return str(self._json("apply_template", body, None)["prompt"]).replace(MARK, "")

    def count_tokens(self, messages: Messages, **fields: Any) -> int:
        """How many tokens the prompt of a chat has; fields as of `chat`."""
        body = self._chat_body(messages, fields)
        return int(self._json("chat_tokens", body, None)["input_tokens"])

    # ------------------------------------------------------------------------------------ state

    def save_state(self, path: Paths, *, slot: int = 0) -> None:
        """Write what a slot has computed, to go on later without computing it again; a file is written whole."""
        with self._state_file(slot) as file:
            action = {"id_slot": str(slot), "action": "save"}
            wanted = int(self._json("slot_action", {"filename": file.name}, None, action)["n_written"])
            written = file.stat().st_size
            if written < wanted:  # the engine does not check for it
                raise OSError(errno.ENOSPC, f"{written} of {wanted} bytes of the state could be written", str(path))
            with atomic_path(path) as temporary:
                shutil.move(file, temporary)  # a copy, if the path is on another disk

    def load_state(self, path: Paths, *, slot: int = 0) -> None:
        """Read what `save_state` wrote."""
        with self._state_file(slot) as file:
            file.symlink_to(Path(path).resolve(strict=True))
            self._json("slot_action", {"filename": file.name}, None, {"id_slot": str(slot), "action": "restore"})

    @contextlib.contextmanager
    def _state_file(self, slot: int) -> Iterator[Path]:
        """A name of our own, whatever the caller's file is called: upstream takes few."""
        self._checks.slot(slot, "slot")
        file = Path(self._states) / uuid.uuid4().hex
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)

    def set_loras(self, weights: Mapping[Paths, float]) -> None:
        """Set the weights of the loaded adapters; those that are not named get 0."""
        self._json("set_lora_adapters", self._scales(weights), None)

    def _scales(self, weights: Mapping[Paths, float]) -> list[dict[str, Any]]:
        known = {name: i for i, name in enumerate(self._loras)}
        for path in weights:
            if os.fspath(path) not in known:
                raise ValueError(f"{os.fspath(path)!r} was not loaded; there are {self._loras}")
        return [{"id": known[os.fspath(path)], "scale": float(weight)} for path, weight in weights.items()]

    def supports(self, what: str) -> bool:
        """Whether the model or its chat template can do something.

        Parameters
        ----------
        what : str
            ``"vision"``, ``"audio"``, ``"tools"``, ``"tool_calls"``, ``"parallel_tool_calls"``, ``"system_role"``,
            ``"typed_content"``, ...

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

    def request(
        self, route: str, body: bytes = b"", params: Mapping[str, str] | None = None, *, cancel: Any = None
    ) -> RawAnswer:
        """Pass a request on to a handler of upstream as it is, for servers; arguments as of ``Engine.request``.

        Returns
        -------
        RawAnswer
            The status and the bytes; errors that a handler answers are not raised.
        """
        stop = AnyOf(cancel, self._closing)
        found = RawAnswer(self._exchange(route, body, params, stop), stop)
        self._open.add(found)
        return found

    def prepared(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a chat request that came from elsewhere, as `request` should pass it on.

        Raises
        ------
        ValueError
            Messages or tools are not what they have to be.
        UnsupportedError, MediaError
            The model takes no pictures or no sound, or one is damaged.
        """
        return for_upstream(body, self._control, self._media)

    @property
    def failure(self) -> str | None:
        """Why the scheduler has ended, if it has: the model answers nothing any more then."""
        found: str | None = self._engine.failure
        return found

    @property
    def pooling_type(self) -> PoolingType:
        """How the vectors of tokens become one."""
        return self._engine.pooling_type

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
        if self._engine.closed:
            raise ClosedError("the LLM is closed")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LLM {Path(self._path).stem}{' (closed)' if self._engine.closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError("an LLM cannot be pickled, it holds native memory: load it again where it is needed")

    # ------------------------------------------------------------------------------------ inside

    def _chat_body(self, messages: Messages, fields: Mapping[str, Any], cancel: Any = None) -> dict[str, Any]:
        stop = AnyOf(cancel, self._closing)
        return chat_body(messages, self._checked(fields, CHAT_FIELDS), self._control, self._media, stop)

    def _checked(self, fields: Mapping[str, Any], more: Sequence[str]) -> dict[str, Any]:
        for name in fields:
            if name not in known_fields() and name not in more:
                near = difflib.get_close_matches(name, [*known_fields(), *more], 1)
                raise TypeError(f"there is no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if isinstance(fields.get("lora"), Mapping):
            fields = {**fields, "lora": self._scales(fields["lora"])}
        self._checks.check(fields)
        return {name: value for name, value in fields.items() if value is not None}

    def _request(self, route: str, body: Any, cancel: Any, params: Mapping[str, str] | None = None) -> EngineResponse:
        response = self._exchange(route, encoded(body), params, AnyOf(cancel, self._closing))
        if response.status != 200:
            with response:
                refused = error_of(json.loads(response.data)["error"])
            grammar = body.get("grammar") if isinstance(refused, GrammarError) else None
            raise (fault_of(grammar, self._path) if grammar else None) or refused
        return response

    def _exchange(self, route: str, raw: bytes, params: Mapping[str, str] | None, cancel: AnyOf) -> EngineResponse:
        try:
            response: EngineResponse = self._engine.request(route, raw, params, cancel=cancel)
        except CancelledError:
            if self._closing.is_set():
                raise ClosedError("the model was closed meanwhile") from None
            raise
        except EngineError as error:
            raise (error if error.aborted else thrown(error)) from None
        return response

    def _json(self, route: str, body: Any, cancel: Any, params: Mapping[str, str] | None = None) -> Any:
        with self._request(route, body, cancel, params) as response:
            return json.loads(response.data)

    def _stream(self, route: str, body: dict[str, Any], part: type[Record], cancel: Any, whole: Whole,
                following: Following | None = None) -> Stream[Any]:  # fmt: skip
        response = self._request(route, {**body, "stream": True}, cancel)
        found = Stream(response, part, AnyOf(cancel, self._closing), whole=whole, following=following)
        self._open.add(found)
        return found


def _remove_folder(path: str, owner: int) -> None:
    """Remove what a process has made; its forks leave it alone."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
