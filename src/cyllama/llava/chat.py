"""Questions about pictures and sounds: `Llava` keeps a model loaded, `describe` asks once."""

from __future__ import annotations

import contextlib
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

from cyllama import models
from cyllama.errors import CancelledError, ContextFullError, InUseError, ModelLoadError, UnsupportedError
from cyllama.llama._context import LlamaContext
from cyllama.llama._model import LlamaModel
from cyllama.llama.params import LlamaContextParams, LlamaModelParams
from cyllama.llava._context import MtmdContext
from cyllama.llava.answers import Answer, AnswerStream
from cyllama.llava.checks import is_projector
from cyllama.llava.embeddings import EmbeddingCache
from cyllama.llava.evaluation import Evaluator, Progress
from cyllama.llava.generation import SamplingOptions, pieces
from cyllama.llava.messages import Message, conversation, question
from cyllama.llava.params import MtmdContextParams
from cyllama.llava.prompts import Prompts, model_template
from cyllama.media.parts import Folders, MediaRules, check_pictures

__all__ = ["Llava", "describe"]

N_CTX = 4096
CACHE_BYTES = 256 << 20
WAIT = 0.05  # seconds between two looks at `cancel` while another thread has the model


class Cancel(Protocol):
    """What stops a call, such as ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether to stop."""


class Llava:
    """A language model with eyes or ears, loaded once for many questions.

    Parameters
    ----------
    model : str, path or LlamaModel
        The language model: a name of `cyllama.models`, a GGUF file, or one that is loaded and stays yours.
    mmproj : str or path
        Its projector: a name or a GGUF file.
    n_ctx : int, optional
        Tokens of a question with its pictures and its answer; default: 4,096, or less where the model knows less.
    n_batch : int, optional
        Most tokens that the language model takes at once.
    n_threads : int, optional
        Default: the thread budget of the process.
    chat_template : str, optional
        A Jinja template or the name of one of llama.cpp's own; default: the model's, as llama-mtmd-cli takes it.
    cache_bytes : int
        Memory for embeddings of pictures and sounds that were seen: a second question about one does not encode it
        again.
    image_min_tokens, image_max_tokens : int, optional
        Tokens of a picture, of models with dynamic resolution.
    allow_paths : bool, path or sequence of paths
        Whether paths that stand in messages are opened: all, or those inside of these folders.
    allow_urls : bool, str or sequence of str
        Whether addresses that stand in messages are: all, or those of these hosts.
    max_pixels, max_total_pixels : int, optional
        Of one picture, and of all of a question; larger ones are refused.
    max_bytes : int, optional
        Of a file.
    max_seconds : float, optional
        Of all sound of a question.
    use_gpu : bool, optional
        Compute on a GPU where there is one.
    on_progress : callable, optional
        Called with 0.0 to 1.0 while loading; False cancels.
    cancel : object with ``is_set()``, optional
        Stops the loading.

    Raises
    ------
    FileNotFoundError
        No such file, and no such name.
    ModelLoadError
        No model or no projector, or they do not belong together.
    UnsupportedError
        The model has no chat template, and none is given.
    CancelledError

    Notes
    -----
    Thread safety: may be called from many threads; calls queue. The GIL is released while it loads and computes.

    >>> from cyllama.llava import Llava
    >>> with Llava("model.gguf", "mmproj.gguf") as llava:      # doctest: +SKIP
    ...     print(llava.ask("What is this?", images="cat.jpg"))
    ...     print(llava.ask("What colour is it?", images="cat.jpg").timings.encode)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LlamaModel,
        mmproj: str | os.PathLike[str],
        *,
        n_ctx: int | None = None,
        n_batch: int | None = None,
        n_threads: int | None = None,
        chat_template: str | None = None,
        cache_bytes: int = CACHE_BYTES,
        image_min_tokens: int | None = None,
        image_max_tokens: int | None = None,
        allow_paths: bool | Folders = False,
        allow_urls: bool | str | Sequence[str] = False,
        max_pixels: int | None = None,
        max_total_pixels: int | None = None,
        max_bytes: int | None = None,
        max_seconds: float | None = None,
        use_gpu: bool | None = None,
        on_progress: Callable[[float], object] | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        limits: dict[str, Any] = {
            "max_pixels": max_pixels,
            "max_total_pixels": max_total_pixels,
            "max_bytes": max_bytes,
            "max_seconds": max_seconds,
        }
        given = {name: value for name, value in limits.items() if value is not None}
        self._rules = MediaRules(allow_paths=allow_paths, allow_urls=allow_urls, **given)
        self._cache = EmbeddingCache(cache_bytes)
        self._turn_lock = threading.Lock()
        self._owner = 0
        projector = models.resolve(mmproj)
        projector_params = MtmdContextParams(
            n_threads=n_threads,
            use_gpu=use_gpu,
            image_min_tokens=image_min_tokens,
            image_max_tokens=image_max_tokens,
            progress_callback=_half(on_progress, 0.5),
        )
        with contextlib.ExitStack() as opened:
            if isinstance(model, LlamaModel):
                self._model = model  # the caller closes it
            else:
                self._model = opened.enter_context(_load(model, use_gpu, _half(on_progress, 0.0), cancel))
            template = opened.enter_context(model_template(self._model, chat_template))
            self._mtmd: MtmdContext = opened.enter_context(
                MtmdContext(projector, self._model, projector_params, cancel=cancel)
            )
            self._context: LlamaContext = opened.enter_context(self._make_context(n_ctx, n_batch, n_threads))
            self._opened = opened.pop_all()
        self._prompts = Prompts(self._mtmd, template, self._rules)
        self._evaluator = Evaluator(self._mtmd, self._context, self._cache)

    def _make_context(self, n_ctx: int | None, n_batch: int | None, n_threads: int | None) -> LlamaContext:
        known = self._model.n_ctx_train
        if n_ctx is None:
            n_ctx = min(N_CTX, known) if known > 0 else N_CTX
        params = LlamaContextParams(n_ctx=n_ctx, n_batch=n_batch, n_threads=n_threads, n_threads_batch=n_threads)
        if self._mtmd.decode_use_non_causal():  # a picture is computed at once
            params.n_batch = params.n_ubatch = n_batch or n_ctx
        if not self._mtmd.model_can_chat(context := LlamaContext(self._model, params)):
            context.close()
            raise UnsupportedError("the pair of model and projector speaks, but does not answer questions")
        return context

    @property
    def model(self) -> LlamaModel:
        """The language model."""
        return self._model

    @property
    def mtmd(self) -> MtmdContext:
        """The projector; not to be used while a call runs."""
        return self._mtmd

    @property
    def supports_images(self) -> bool:
        """Whether it takes pictures."""
        return self._mtmd.support_vision

    @property
    def supports_audio(self) -> bool:
        """Whether it takes sound."""
        return self._mtmd.support_audio

    @property
    def cache(self) -> EmbeddingCache:
        """The embeddings that are kept."""
        return self._cache

    def ask(
        self,
        prompt: str | Sequence[Any],
        images: Any = None,
        audio: Any = None,
        *,
        system: str | None = None,
        stream: bool = False,
        **options: Any,
    ) -> Any:
        """Ask a question.

        Parameters
        ----------
        prompt : str or list of parts
            With a list, pictures stand between texts, in order: ``["What is in ", picture, "?"]``. A part is a text, a
            picture, or a mapping as of :meth:`chat`.
        images : picture or list of pictures, optional
            A Pillow image of any mode, a path, the bytes of a file, a file object or an array; before the text.
        audio : sound or list of sounds, optional
            A path, the bytes of a file, a file object, (sample rate, array), or an array at the model's rate.
        system : str, optional
            What the model is told first.
        stream : bool
            Give the pieces of the answer as they come.
        **options
            As of :meth:`chat`.

        Returns
        -------
        Answer, or AnswerStream with ``stream=True``

        Raises
        ------
        TypeError, ValueError
            An argument is wrong, a picture is too large or has no pixels.
        MediaError
            No picture, no sound, a damaged or an animated one.
        UnsupportedError
            A sound for a model that only sees, or a picture for one that only hears.
        ContextFullError
            The question is larger than the context.
        CancelledError
            Within about 0.1 seconds, in the encoder too.
        """
        messages = question(prompt, images, audio, system, self._rules, options.get("cancel"))
        return self._run(messages, stream, options)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: bool = False,
        **options: Any,
    ) -> Any:
        """Go on with a conversation.

        Parameters
        ----------
        messages : list of mappings
            With ``role`` (system, user or assistant) and ``content``: a text or a list of parts. A part is
            ``{"type": "text", "text": ...}``, ``{"type": "image", "image": ...}``,
            ``{"type": "image_url", "image_url": {"url": "data:..."}}``, ``{"type": "audio", "audio": ...}`` or
            ``{"type": "input_audio", "input_audio": {"data": base64, "format": ...}}``, or a text or picture itself.
            Paths and addresses in them are opened as ``allow_paths`` and ``allow_urls`` of the constructor say.
        stream : bool
        max_tokens : int, optional
            Most tokens of the answer; default: what the context has room for.
        temperature : float
            0, the default, takes the likeliest token each time.
        top_k, top_p, min_p, typical_p, repeat_penalty, frequency_penalty, presence_penalty, seed
            Of sampling; used with a temperature above 0, penalties always.
        stop : str or list of str, optional
            Texts at which the answer ends; they are not part of it.
        on_progress : callable, optional
            Called with (tokens of the prompt that are done, tokens in all); False cancels.
        on_text : callable, optional
            Called with each piece of the answer.
        cancel : object with ``is_set()``, optional

        Returns
        -------
        Answer, or AnswerStream with ``stream=True``

        Raises
        ------
        As of :meth:`ask`.
        """
        return self._run(conversation(messages, self._rules, options.get("cancel")), stream, options)

    def count_tokens(self, prompt: str | Sequence[Any], images: Any = None, audio: Any = None) -> int:
        """Tokens that a question would have with its pictures and sounds, as `ask` takes them."""
        with self._turn(None):
            return self._prompts.chunks(question(prompt, images, audio, None, self._rules))[0].n_tokens

    def close(self) -> None:
        """Free the projector and the context, and the model unless it was given.

        Raises
        ------
        InUseError
            A call is running.
        """
        if self._owner:
            raise InUseError("Llava cannot be closed while a call is running on it; close its stream first")
        self._cache.clear()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Llava {self._mtmd!r}>"

    def _run(self, messages: list[Message], stream: bool, options: dict[str, Any]) -> Any:
        on_progress, on_text, cancel = (options.pop(name, None) for name in ("on_progress", "on_text", "cancel"))
        for name, function in (("on_progress", on_progress), ("on_text", on_text)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} is {function!r}, expected a callable")
        sampling = SamplingOptions.of(options)
        run = self._answers(messages, sampling, on_progress, cancel)
        if stream:
            return AnswerStream(run if on_text is None else _told(run, on_text))
        answer = None
        for item in run:
            if isinstance(item, Answer):
                answer = item
            elif on_text is not None and item:
                on_text(item)
        return answer

    def _answers(
        self, messages: list[Message], sampling: SamplingOptions, on_progress: Progress | None, cancel: Cancel | None
    ) -> Iterator[str | Answer]:
        """The pieces of the answer, then the answer."""
        with self._turn(cancel):
            start = time.perf_counter()
            chunks, pictures = self._prompts.chunks(messages)
            n_ctx = self._context.n_ctx()
            if chunks.n_tokens >= n_ctx:
                raise ContextFullError(
                    f"the question has {chunks.n_tokens} tokens, those of its pictures and sounds among them, but the "
                    f"context has room for {n_ctx} with the answer (n_ctx)",
                    engine="llava",
                )
            prepared = time.perf_counter() - start
            state = self._evaluator.run(chunks, pictures, on_progress, cancel)
            chunks.close()
            yield from pieces(self._context, state, sampling, prepared, cancel)

    @contextlib.contextmanager
    def _turn(self, cancel: Cancel | None) -> Iterator[None]:
        """Wait until no other thread uses the model."""
        if self._owner == threading.get_ident():
            raise InUseError("the model was called while another call of this thread runs; close its stream first")
        while not self._turn_lock.acquire(timeout=WAIT):
            if cancel is not None and cancel.is_set():
                raise CancelledError("cancelled while another call of the model ran")
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = 0
            self._turn_lock.release()


def describe(
    image: Any,
    prompt: str = "What is in this picture?",
    *,
    model: str | os.PathLike[str] | LlamaModel,
    mmproj: str | os.PathLike[str],
    **options: Any,
) -> Answer:
    """Ask one question about one picture or several.

    Parameters
    ----------
    image : picture or list of pictures
    prompt : str
    model, mmproj
        As of `Llava`; for several questions keep one of these.
    **options
        Of `Llava` and of `Llava.chat`.

    Returns
    -------
    Answer

    Raises
    ------
    As of `Llava` and `Llava.ask`.
    """
    check_pictures(image)
    if options.get("stream"):
        raise TypeError("describe() gives the whole answer, or pieces to on_text; keep a Llava to have a stream")
    of_loading = inspect.signature(Llava).parameters.keys() - {"on_progress", "cancel"}
    loading = {name: options.pop(name) for name in of_loading if name in options}
    with Llava(model, mmproj, cancel=options.get("cancel"), **loading) as llava:
        answer: Answer = llava.ask(prompt, image, **options)
    return answer


def _half(on_progress: Callable[[float], object] | None, start: float) -> Callable[[float], bool] | None:
    """The progress of one of two files."""
    if on_progress is None:
        return None
    if not callable(on_progress):
        raise TypeError(f"on_progress is {on_progress!r}, expected a callable")
    return lambda part: on_progress(start + part / 2) is not False


def _load(
    model: str | os.PathLike[str],
    use_gpu: bool | None,
    on_progress: Callable[[float], bool] | None,
    cancel: Cancel | None,
) -> LlamaModel:
    path = models.resolve(model)
    if is_projector(path):
        raise ModelLoadError(f"{path} is a projector (mmproj), expected a language model", engine="llava")
    params = LlamaModelParams(progress_callback=on_progress, n_gpu_layers=0 if use_gpu is False else None)
    return LlamaModel(path, params, cancel=cancel)


def _told(run: Iterator[str | Answer], on_text: Callable[[str], object]) -> Iterator[str | Answer]:
    """The same, and a listener hears the texts."""
    for item in run:
        if isinstance(item, str) and item:
            on_text(item)
        yield item
