"""Chats about images and audio: `Llava` keeps a model loaded, `describe` loads it for one request."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from cyllama._cancel import Cancel
from cyllama.errors import ClosedError
from cyllama.llama.llm import LLM
from cyllama.llama.responses import ChatChunk, ChatCompletion
from cyllama.llama.streaming import Stream
from cyllama.media.message_parts import Folders, check_images

if TYPE_CHECKING:
    from cyllama.llama._message_types import Audio, Images, Messages
    from cyllama.llama._request_types import ChatOptions, DescribeOptions

__all__ = ["Llava", "describe"]

N_CTX = 4096
Path = str | os.PathLike[str]


class Llava:
    """A multimodal language model, loaded once for many requests.

    Parameters
    ----------
    model : str or path
        The language model: a name of `cyllama.models`, or a GGUF file.
    mmproj : str or path
        Its projector: a name, or a GGUF file.
    n_ctx : int
        Context size in tokens: of a request with its media and its response.
    n_batch : int, optional
        Largest number of tokens that the language model decodes together.
    n_threads : int, optional
        Default: the thread budget of the process.
    chat_template : str, optional
        A Jinja template, or the name of one of llama.cpp's; default: the model's.
    image_min_tokens, image_max_tokens : int, optional
        Tokens of an image, for models with dynamic resolution.
    allow_paths, allow_urls
        The files and URLs in messages that are opened, see `MediaRules`. Paths passed to `ask` are always opened.
    media_limits : mapping, optional
        The other fields of `MediaRules`: ``{"max_pixels": 4_000_000}``.
    use_gpu : bool, optional
        False computes on the CPU; default: a GPU if there is one.
    on_progress : callable, optional
        Called with the fraction loaded, 0 to 1; False cancels.
    cancel : Cancel, optional
        Stops loading.

    Raises
    ------
    FileNotFoundError
        There is no such file, and no model of this name.
    ModelLoadError
        A file is not a model or not a projector, or they do not belong together.
    CancelledError

    Notes
    -----
    `Llava` is an `LLM` with ``mmproj=``, one slot, and greedy sampling by default. A second request about an image does
    not encode the image again: the prompt cache keeps the beginning of the prompt, and embeddings of images and audio
    are kept (64 MiB).

    Thread safety: many threads may call it; requests wait for the slot. The GIL is released while it loads and
    computes.

    >>> from cyllama.llava import Llava
    >>> with Llava("model.gguf", "mmproj.gguf") as llava:      # doctest: +SKIP
    ...     print(llava.ask("What is this?", images="cat.jpg"))
    ...     print(llava.ask("What colour is it?", images="cat.jpg").timings.prompt_ms)
    """

    def __init__(
        self,
        model: Path,
        mmproj: Path,
        *,
        n_ctx: int = N_CTX,
        n_batch: int | None = None,
        n_threads: int | None = None,
        chat_template: str | None = None,
        image_min_tokens: int | None = None,
        image_max_tokens: int | None = None,
        allow_paths: bool | Folders = False,
        allow_urls: bool | str | Sequence[str] = False,
        media_limits: Mapping[str, Any] | None = None,
        use_gpu: bool | None = None,
        on_progress: Callable[[float], object] | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        options: dict[str, Any] = {"image-min-tokens": image_min_tokens, "image-max-tokens": image_max_tokens}
        if use_gpu is False:
            options["no-mmproj-offload"] = True
        self._llm = LLM(
            model,
            mmproj=mmproj,
            n_ctx=n_ctx,
            n_parallel=1,
            n_batch=n_batch,
            n_threads=n_threads,
            n_gpu_layers=0 if use_gpu is False else None,
            chat_template=chat_template,
            options={name: value for name, value in options.items() if value is not None},
            allow_paths=allow_paths,
            allow_urls=allow_urls,
            media_limits=media_limits,
            on_progress=on_progress,
            cancel=cancel,
        )

    @property
    def llm(self) -> LLM:
        """The model; closed with this object."""
        return self._llm

    @property
    def supports_images(self) -> bool:
        """Whether the model accepts images."""
        return self._llm.supports("vision")

    @property
    def supports_audio(self) -> bool:
        """Whether the model accepts audio."""
        return self._llm.supports("audio")

    @overload
    def ask(
        self,
        prompt: str | Sequence[Any],
        images: Images | None = None,
        audio: Audio | None = None,
        *,
        system: str | None = None,
        stream: Literal[False] = False,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...
    @overload
    def ask(
        self,
        prompt: str | Sequence[Any],
        images: Images | None = None,
        audio: Audio | None = None,
        *,
        system: str | None = None,
        stream: Literal[True],
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> Stream[ChatChunk, ChatCompletion]: ...
    @overload
    def ask(
        self,
        prompt: str | Sequence[Any],
        images: Images | None = None,
        audio: Audio | None = None,
        *,
        system: str | None = None,
        stream: bool,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | Stream[ChatChunk, ChatCompletion]: ...
    def ask(
        self,
        prompt: str | Sequence[Any],
        images: Images | None = None,
        audio: Audio | None = None,
        *,
        system: str | None = None,
        stream: bool = False,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | Stream[ChatChunk, ChatCompletion]:
        """Ask one question about images, audio, or both.

        Parameters
        ----------
        prompt : str or list of parts
            A list is text and images in order: ``["What is in ", image, "?"]``. A part is a string, an image, or a
            mapping as of :meth:`chat`.
        images : image or list of images, optional
            Placed before the text: Pillow images, paths, bytes of a file, file objects, arrays of pixels.
        audio : audio or list of audio, optional
            Placed before the text: paths, bytes of a file, file objects, arrays of samples at 16,000 Hz,
            ``(sample_rate, array)``.
        system : str, optional
            The system message.
        stream, cancel, **options
            As of :meth:`chat`.

        Returns
        -------
        ChatCompletion, or Stream of ChatChunk with ``stream=True``

        Raises
        ------
        TypeError, ValueError
            An argument is invalid, an image has no pixels or too many.
        MediaError
            A file is not an image, not audio, damaged or animated.
        UnsupportedError
            The projector does not accept images, or audio.
        ContextFullError
            The request is larger than the context.
        CancelledError
            Raised within about 0.1 seconds, also during encoding.
        """
        messages = _question(prompt, system)
        return self._chat(messages, images, audio, stream, cancel, options)

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[False] = False,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...
    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[True],
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> Stream[ChatChunk, ChatCompletion]: ...
    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: bool,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | Stream[ChatChunk, ChatCompletion]: ...
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: bool = False,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | Stream[ChatChunk, ChatCompletion]:
        """Continue a conversation.

        Parameters
        ----------
        messages : list of mappings
            With ``role`` and ``content``: a string, or a list of parts. A part is ``{"type": "text", "text": ...}``,
            ``{"type": "image", "image": ...}``, ``{"type": "image_url", "image_url": {"url": "data:..."}}``,
            ``{"type": "audio", "audio": ...}``, ``{"type": "input_audio", "input_audio": {"data": base64}}``, a string
            or an image. Paths and URLs in it are opened if ``allow_paths`` and ``allow_urls`` of the constructor
            permit them.
        stream : bool
            Return a stream of `ChatChunk`.
        cancel : Cancel, optional
        **options
            As of `LLM.chat`: ``max_tokens``, ``top_k``, ``top_p``, ``seed``, ``stop``, ``response_format``, ...;
            ``temperature`` is 0 by default, which selects the most likely token each time.

        Returns
        -------
        ChatCompletion, or Stream of ChatChunk with ``stream=True``

        Raises
        ------
        As of :meth:`ask`.
        """
        return self._chat(messages, None, None, stream, cancel, options)

    def count_tokens(
        self,
        prompt: str | Sequence[Any],
        images: Images | None = None,
        audio: Audio | None = None,
        *,
        system: str | None = None,
    ) -> int:
        """Return the number of tokens of a request with its media; arguments as of :meth:`ask`."""
        return self._llm.count_tokens(_question(prompt, system), images=images, audio=audio)

    def close(self) -> None:
        """Stop running requests and free the model; requests of other threads raise ClosedError."""
        self._llm.close()

    def __enter__(self) -> Self:
        self._llm.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        try:
            accepts = ["images"] * self.supports_images + ["audio"] * self.supports_audio
        except ClosedError:
            return "<Llava (closed)>"
        return f"<Llava {self._llm!r} {' and '.join(accepts)}>"

    def _chat(
        self,
        messages: Messages,
        images: Images | None,
        audio: Audio | None,
        stream: bool,
        cancel: Cancel | None,
        options: ChatOptions,
    ) -> ChatCompletion | Stream[ChatChunk, ChatCompletion]:
        options.setdefault("temperature", 0.0)
        response: ChatCompletion | Stream[ChatChunk, ChatCompletion] = self._llm.chat(
            messages, images=images, audio=audio, stream=stream, cancel=cancel, **options
        )
        return response


def describe(
    image: Images,
    prompt: str | Sequence[Any] = "What is in this image?",
    *,
    model: Path,
    mmproj: Path,
    n_ctx: int = N_CTX,
    use_gpu: bool | None = None,
    cancel: Cancel | None = None,
    **options: Unpack[DescribeOptions],
) -> ChatCompletion:
    """Load a model and ask one question about an image, or several.

    Parameters
    ----------
    image : image or list of images
        As of :meth:`Llava.ask`.
    prompt : str or list of parts
    model, mmproj, n_ctx, use_gpu
        As of `Llava`; for several requests keep a `Llava`.
    cancel, **options
        As of :meth:`Llava.chat`.

    Returns
    -------
    ChatCompletion

    Raises
    ------
    As of `Llava` and `Llava.ask`.
    """
    check_images(image)
    with Llava(model, mmproj, n_ctx=n_ctx, use_gpu=use_gpu, cancel=cancel) as llava:
        response: ChatCompletion = llava.ask(prompt, image, cancel=cancel, **options)
        return response


def _question(prompt: str | Sequence[Any], system: str | None) -> list[dict[str, Any]]:
    """Return a question as messages."""
    if not isinstance(prompt, str | list | tuple):
        raise TypeError(f"prompt is {prompt!r:.200}, expected a str or a list of parts")
    if system is not None and not isinstance(system, str):
        raise TypeError(f"system is {system!r:.200}, expected a str or None")
    found = [] if system is None else [{"role": "system", "content": system}]
    return [*found, {"role": "user", "content": prompt if isinstance(prompt, str) else list(prompt)}]
