"""The blocking calls of `LLM`: text, chat, embeddings, tokens, state."""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np
import numpy.typing as npt

from cyllama._cancel import AnyCancel, Cancel
from cyllama._native.files import atomic_path
from cyllama._params import check_names
from cyllama.errors import UnsupportedError
from cyllama.llama._chat_request import CHAT_FIELDS, chat_body, parse_choices, prepare_body
from cyllama.llama._client import EngineClient
from cyllama.llama._engine import EngineResponse
from cyllama.llama._enums import PoolingType
from cyllama.llama._media import MediaInput
from cyllama.llama._message_types import Audio, Images, Messages, Paths, Prompt
from cyllama.llama._request_types import ChatOptions, CompletionOptions, InfillOptions
from cyllama.llama._special_tokens import MARK, ControlTexts
from cyllama.llama._validation import FieldValidator, known_fields, rerank_body, text_or_token_lists, token_list
from cyllama.llama.responses import ChatChunk, ChatCompletion, Completion, CompletionChunk, Infill, RerankResult
from cyllama.llama.streaming import Stream
from cyllama.llama.tools import ToolRounds

__all__ = ["BlockingCalls"]

Vectors = npt.NDArray[np.float32]


class BlockingCalls(EngineClient):
    """The blocking calls of `LLM`."""

    _caps: dict[str, bool]
    _control: ControlTexts
    _loras: list[str]
    _media: MediaInput
    _states: str  # a folder
    _validator: FieldValidator

    @overload
    def complete(
        self,
        prompt: Prompt,
        *,
        stream: Literal[False] = False,
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion: ...
    @overload
    def complete(
        self,
        prompt: Prompt,
        *,
        stream: Literal[True],
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Stream[CompletionChunk, Completion]: ...
    @overload
    def complete(
        self, prompt: Prompt, *, stream: bool, cancel: Cancel | None = None, **options: Unpack[CompletionOptions]
    ) -> Completion | Stream[CompletionChunk, Completion]: ...
    def complete(
        self,
        prompt: Prompt,
        *,
        stream: bool = False,
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion | Stream[CompletionChunk, Completion]:
        """Continue a text.

        Parameters
        ----------
        prompt : str or sequence of int
            A text, or tokens.
        stream : bool
            Return a `Stream` of `CompletionChunk`.
        cancel : Cancel, optional
            Stops the request when it is set, within 50 ms.
        **options
            The fields of `CompletionOptions`: ``max_tokens``, ``temperature``, ``top_k``, ``top_p``, ``min_p``,
            ``stop``, ``seed``, ``grammar``, ``n``, ``lora`` (weights of adapters for this request), ...

        Returns
        -------
        Completion, or Stream of CompletionChunk

        Raises
        ------
        TypeError, ValueError, GrammarError, ContextFullError, EngineError, CancelledError

        Notes
        -----
        Releases the GIL. Source: ``/v1/completions`` of llama-server.
        """
        if not isinstance(prompt, str):
            prompt = token_list(prompt, "prompt")
        body = {"prompt": prompt, **self._checked(options, ("echo", "model", "id_slot"))}
        if stream:
            return self._stream("completions", body, CompletionChunk, cancel, Completion)
        return Completion(self._json("completions", body, cancel))

    __call__ = complete

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        stream: Literal[False] = False,
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...
    @overload
    def chat(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        stream: Literal[True],
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> Stream[ChatChunk, ChatCompletion]: ...
    @overload
    def chat(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        stream: bool,
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | Stream[ChatChunk, ChatCompletion]: ...
    def chat(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        stream: bool = False,
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | Stream[ChatChunk, ChatCompletion]:
        """Generate the next message of a chat.

        Parameters
        ----------
        messages : str or sequence of messages
            Messages in OpenAI's form: ``{"role": "user", "content": "..."}``. A string is one message of the user. The
            content may be a list of texts, images and audio, see `cyllama.media.message_parts.part_media`.
        images, audio : object or list of objects, optional
            Media for the last message, before its text: a path, bytes, a binary file, an array, a Pillow image; audio
            also as ``(sample_rate, array)``.
        stream : bool
            Return a `Stream` of `ChatChunk`.
        run_tools : bool
            Call the functions in `tools` that the model calls, add their results to the messages and repeat, until
            the model calls none of them. A stream contains the chunks of every response.
        max_rounds : int
            The most requests with `run_tools`.
        cancel : Cancel, optional
            Stops the request when it is set, within 50 ms.
        **options
            The fields of `ChatOptions`: those of `complete`, and ``tools`` (Python functions, or tools in OpenAI's
            form), ``tool_choice``, ``response_format`` (a pydantic model, a type, a JSON schema, or OpenAI's form), ...

        Returns
        -------
        ChatCompletion, or Stream of ChatChunk
            With `response_format`, its ``parsed`` is the text as an object. The stream's ``result()`` is the
            ChatCompletion.

        Raises
        ------
        TypeError, ValueError, GrammarError, ContextFullError, EngineError, CancelledError
        UnsupportedError
            The chat template does not support tools, or the model does not accept images or audio.

        Notes
        -----
        Releases the GIL. Source: ``/v1/chat/completions`` of llama-server.
        """
        body = self._chat_body(messages, options, images, audio, cancel)
        if body.get("tools") and not self.supports("tools"):
            raise UnsupportedError(
                "the model's chat template does not support tool calling; load the model with a chat_template that does"
            )
        if max_rounds < 1:
            raise ValueError(f"max_rounds is {max_rounds}, expected 1 or more")
        form = options.get("response_format")
        rounds = ToolRounds(body, options.get("tools") or (), self._control, max_rounds if run_tools else 1)

        def make_result(data: dict[str, Any]) -> ChatCompletion:
            return ChatCompletion(data, () if form is None else parse_choices(data, form))

        def next_request(data: dict[str, Any], stop: AnyCancel) -> EngineResponse | None:
            more = rounds.after(ChatCompletion(data))
            return None if more is None else self._request("chat_completions", {**more, "stream": True}, stop)

        if stream:
            return self._stream("chat_completions", body, ChatChunk, cancel, make_result, next_request)
        data = self._json("chat_completions", body, cancel)
        while more := rounds.after(ChatCompletion(data)):
            data = self._json("chat_completions", more, cancel)
        return make_result(data)

    def infill(
        self, prefix: str, suffix: str, *, cancel: Cancel | None = None, **options: Unpack[InfillOptions]
    ) -> Infill:
        """Generate the text between two texts, with a model that was trained for it.

        Parameters
        ----------
        prefix, suffix : str
        cancel : Cancel, optional
        **options
            The fields of `InfillOptions`.

        Notes
        -----
        Releases the GIL. Source: ``/infill`` of llama-server.
        """
        body = {"input_prefix": prefix, "input_suffix": suffix}
        body |= self._checked(options, ("prompt", "input_extra", "id_slot"))
        return Infill(self._json("infill", body, cancel))

    @overload
    def embed(self, texts: str, *, normalize: bool = True, cancel: Cancel | None = None) -> Vectors: ...
    @overload
    def embed(
        self, texts: Sequence[Prompt], *, normalize: bool = True, cancel: Cancel | None = None
    ) -> Vectors | list[Vectors]: ...
    def embed(
        self, texts: str | Sequence[Prompt], *, normalize: bool = True, cancel: Cancel | None = None
    ) -> Vectors | list[Vectors]:
        """Compute the vectors of texts.

        Parameters
        ----------
        texts : str, or sequence of str or of tokens
        normalize : bool
            Scale each vector to length 1.
        cancel : Cancel, optional

        Returns
        -------
        ndarray of float32
            Shape (n, width); (width,) for one text. With ``pooling_type="none"``, and for chat models, which have no
            other type, a list of arrays of shape (tokens, width); one array for one text.

        Raises
        ------
        UnsupportedError
            The model was not loaded with ``embedding=True``.
        ContextFullError, CancelledError

        Notes
        -----
        Releases the GIL. Source: ``/v1/embeddings`` and ``/embeddings`` of llama-server.
        """
        many = text_or_token_lists(texts)
        if self.pooling_type == PoolingType.NONE:
            body: dict[str, Any] = {"input": many, "embd_normalize": 2 if normalize else -1}
            each = [np.array(row["embedding"], np.float32) for row in self._json("embedding", body, cancel)]
            return each[0] if isinstance(texts, str) else each
        body = {"input": many, "embd_normalize": 2 if normalize else -1, "encoding_format": "base64"}
        rows = self._json("embeddings", body, cancel)["data"]
        found = [np.frombuffer(base64.b64decode(row["embedding"]), np.float32) for row in rows]
        vectors: Vectors = np.stack(found)
        return vectors[0] if isinstance(texts, str) else vectors

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, cancel: Cancel | None = None
    ) -> list[RerankResult]:
        """Order documents by their relevance for a query.

        Parameters
        ----------
        query : str
        documents : sequence of str
        top_n : int, optional
            The most results.
        cancel : Cancel, optional

        Returns
        -------
        list of RerankResult
            ``index`` and ``relevance_score``, the most relevant document first.

        Raises
        ------
        UnsupportedError
            The model was not loaded with ``reranking=True``.

        Notes
        -----
        Releases the GIL. Source: ``/v1/rerank`` of llama-server.
        """
        body = rerank_body(query, documents, top_n)
        return [RerankResult(row) for row in self._json("rerank", body, cancel)["results"]]

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Return the tokens of a text.

        Parameters
        ----------
        text : str
        add_special : bool
            Add the tokens that the model expects at the start and at the end of a text.
        parse_special : bool
            Parse control tokens such as ``<|im_end|>``.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is {text!r:.200}, expected a string")
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return list(self._json("tokenize", body, None)["tokens"])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens.

        Raises
        ------
        IndexError
            A token is not in the vocabulary.
        """
        given = self._validator.tokens(token_list(tokens, "tokens"))
        return str(self._json("detokenize", {"tokens": given}, None)["content"])

    def render(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        **options: Unpack[ChatOptions],
    ) -> str:
        """Return the prompt that the chat template makes of messages; arguments as of `chat`."""
        body = self._chat_body(messages, options, images, audio)
        return str(self._json("apply_template", body, None)["prompt"]).replace(MARK, "")

    def count_tokens(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        **options: Unpack[ChatOptions],
    ) -> int:
        """Return the number of tokens of a chat's prompt; arguments as of `chat`."""
        body = self._chat_body(messages, options, images, audio)
        return int(self._json("chat_tokens", body, None)["input_tokens"])

    def set_loras(self, weights: Mapping[Paths, float] | Mapping[str, float]) -> None:
        """Set the weights of the loaded adapters; those that are not named get 0."""
        self._json("set_lora_adapters", self._lora_scales(weights), None)

    def save_state(self, path: Paths, *, slot: int = 0) -> None:
        """Write the prompt cache of a slot to a file, which is replaced as a whole.

        Raises
        ------
        OSError
            The disk is full, or the path cannot be written.
        """
        with self._state_file(slot) as file:
            action = {"id_slot": str(slot), "action": "save"}
            expected = int(self._json("slot_action", {"filename": file.name}, None, action)["n_written"])
            written = file.stat().st_size
            if written < expected:  # the engine does not check for it
                raise OSError(errno.ENOSPC, f"{written} of {expected} bytes of the state could be written", str(path))
            with atomic_path(path) as temporary:
                shutil.move(file, temporary)  # copies if the path is on another disk

    def load_state(self, path: Paths, *, slot: int = 0) -> None:
        """Read the prompt cache of a slot from a file that `save_state` wrote."""
        with self._state_file(slot) as file:
            file.symlink_to(Path(path).resolve(strict=True))
            self._json("slot_action", {"filename": file.name}, None, {"id_slot": str(slot), "action": "restore"})

    @contextlib.contextmanager
    def _state_file(self, slot: int) -> Iterator[Path]:
        """Name a file in the model's own folder: upstream restricts file names."""
        self._validator.slot(slot, "slot")
        file = Path(self._states) / uuid.uuid4().hex
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)

    def supports(self, what: str) -> bool:
        """Return whether the model and its chat template support a feature.

        Parameters
        ----------
        what : str
            ``"vision"``, ``"audio"``, ``"tools"``, ``"tool_calls"``, ``"parallel_tool_calls"``, ``"system_role"``,
            ``"typed_content"``, ...

        Raises
        ------
        ValueError
            Upstream does not report the feature; the message names those that it reports.
        """
        name = f"supports_{what}"
        if name not in self._caps:
            known = sorted(name.removeprefix("supports_") for name in self._caps)
            raise ValueError(f"what is {what!r}, expected one of {', '.join(known)}")
        return bool(self._caps[name])

    def prepared(self, body: Mapping[str, Any], *, chat: bool = True) -> dict[str, Any]:
        """Return the body of a request of another client in the form for `request`: media are decoded.

        Parameters
        ----------
        body : mapping
        chat : bool
            The body is that of a chat, which is converted too.

        Raises
        ------
        ValueError
            Messages or tools are invalid.
        UnsupportedError, MediaError
            The model does not accept images or audio, or a file is damaged.
        """
        return prepare_body(body, self._control, self._media) if chat else self._media.decode_body(body)

    def _chat_body(
        self,
        messages: Messages,
        options: ChatOptions,
        images: Images | None,
        audio: Audio | None,
        cancel: Cancel | None = None,
    ) -> dict[str, Any]:
        fields = self._checked(options, CHAT_FIELDS) | {"images": images, "audio": audio}
        return chat_body(messages, fields, self._control, self._media, AnyCancel(cancel, self._closing))

    def _checked(self, options: Mapping[str, Any], more: Sequence[str]) -> dict[str, Any]:
        check_names(options, {*known_fields(), *more}, "the request")
        if isinstance(options.get("lora"), Mapping):
            options = {**options, "lora": self._lora_scales(options["lora"])}
        self._validator.check(options)
        return {name: value for name, value in options.items() if value is not None}

    def _lora_scales(self, weights: Mapping[Any, float]) -> list[dict[str, Any]]:
        known = {name: i for i, name in enumerate(self._loras)}
        for path in weights:
            if os.fspath(path) not in known:
                raise ValueError(f"{os.fspath(path)!r} was not loaded; there are {self._loras}")
        return [{"id": known[os.fspath(path)], "scale": float(weight)} for path, weight in weights.items()]
