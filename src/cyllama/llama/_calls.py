"""The blocking calls of `LLM`: text, chat, state, and what the model supports."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack, overload

from cyllama._cancel import AnyCancel, Cancel
from cyllama._params import check_names
from cyllama.llama._chat_engine import ChatEngine
from cyllama.llama._chat_request import CHAT_FIELDS, chat_body, parse_choices
from cyllama.llama._completion import COMPLETION_FIELDS, CompletionChunks, completion_request
from cyllama.llama._engine import EngineResponse
from cyllama.llama._media import MediaInput
from cyllama.llama._message_types import Audio, Images, LoraScale, Messages, Paths, Prompt
from cyllama.llama._request_types import ChatOptions, CompletionOptions, InfillOptions
from cyllama.llama._slots import with_slot
from cyllama.llama._special_tokens import MARK, ControlTexts
from cyllama.llama._states import SlotStates
from cyllama.llama._validation import effective_fields, request_fields
from cyllama.llama.responses import ChatChunk, ChatCompletion, Completion, CompletionChunk, Infill
from cyllama.llama.streaming import Stream
from cyllama.llama.tools import ToolRounds

__all__ = ["BlockingCalls"]


class BlockingCalls(SlotStates, ChatEngine):
    """The blocking calls of `LLM`."""

    _defaults: dict[str, Any]  # fields of each request that does not set them

    _control: ControlTexts
    _loras: list[str]
    _media: MediaInput

    @overload
    def complete(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        stream: Literal[False] = False,
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion: ...
    @overload
    def complete(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        stream: Literal[True],
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Stream[CompletionChunk, Completion]: ...
    @overload
    def complete(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        stream: bool,
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion | Stream[CompletionChunk, Completion]: ...
    def complete(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        stream: bool = False,
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion | Stream[CompletionChunk, Completion]:
        """Continue a text.

        Parameters
        ----------
        prompt : str, sequence of int, or list of them
            A text, tokens (with texts between them, as in ``[1, "text", 2]``), or several prompts, whose choices are
            in the order of the prompts.
        stream : bool
            Return a `Stream` of `CompletionChunk`.
        cancel : Cancel, optional
            Stops the request when it is set, within 50 ms.
        **options
            The fields of `CompletionOptions`: ``max_tokens``, ``temperature``, ``top_k``, ``top_p``, ``min_p``,
            ``stop``, ``seed``, ``grammar``, ``n``, ``best_of``, ``echo``, ``suffix``, ``lora`` (weights of adapters
            for this request), ...

        Returns
        -------
        Completion, or Stream of CompletionChunk

        Raises
        ------
        TypeError, ValueError, GrammarError, ContextFullError, EngineError, CancelledError

        Notes
        -----
        Releases the GIL. Source: ``/completion`` and, with ``suffix``, ``/infill`` of llama-server.
        """
        fields = self._checked(options, COMPLETION_FIELDS)
        request = completion_request(prompt, fields, self._head, self)
        body = self._media.decode_body(request.body(), AnyCancel(cancel, self._closing))
        if stream:
            make_chunks = functools.partial(CompletionChunks, request)
            return self._stream(request.route, body, CompletionChunk, cancel, Completion, make_chunks)
        found = self._json(request.route, body, cancel)
        return Completion(request.response(found if isinstance(found, list) else [found]))

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
        body = with_slot(self._chat_body(messages, options, images, audio, cancel))
        if max_rounds < 1:
            raise ValueError(f"max_rounds is {max_rounds}, expected 1 or more")
        if run_tools:
            self._check_rounds(body)
        form = options.get("response_format")
        rounds = ToolRounds(body, options.get("tools") or (), self._control, max_rounds if run_tools else 1)

        def make_result(data: dict[str, Any]) -> ChatCompletion:
            return ChatCompletion(data, () if form is None else parse_choices(data, form))

        def next_request(data: dict[str, Any], stop: AnyCancel) -> EngineResponse | None:
            more = rounds.after(ChatCompletion(data))
            return None if more is None else self._request("chat_completions", {**more, "stream": True}, stop)

        if stream:
            return self._chat_stream(body, cancel, make_result, next_request)
        data = self._chat_data(body, cancel)
        while more := rounds.after(ChatCompletion(data)):
            data = self._chat_data(more, cancel)
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

    def set_loras(self, weights: Mapping[Paths, float] | Mapping[str, float] | Sequence[LoraScale]) -> None:
        """Set the weights of the loaded adapters, for requests without ``lora``; those that are not named get 0.

        Parameters
        ----------
        weights : mapping or sequence of LoraScale
            Weights by path, or ``{"id": number, "scale": weight}`` with the positions in `loras`.

        Raises
        ------
        TypeError, ValueError
            An adapter was not loaded, or a weight is not a number.
        """
        scales = self._lora_scales(weights) if isinstance(weights, Mapping) else list(weights)
        self._validator.check({"lora": scales})
        self._json("set_lora_adapters", scales, None)

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
        check_names(options, {*request_fields(), *more}, "the request")
        if isinstance(options.get("lora"), Mapping):
            options = {**options, "lora": self._lora_scales(options["lora"])}
        self._validator.check(options)
        return {**self._defaults, **effective_fields(options)}

    def _lora_scales(self, weights: Mapping[Any, float]) -> list[dict[str, Any]]:
        known = {name: i for i, name in enumerate(self._loras)}
        for path in weights:
            if os.fspath(path) not in known:
                raise ValueError(f"{os.fspath(path)!r} was not loaded; there are {self._loras}")
        return [{"id": known[os.fspath(path)], "scale": float(weight)} for path, weight in weights.items()]
