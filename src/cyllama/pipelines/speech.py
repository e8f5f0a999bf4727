"""Pipelines for speech: generate an image, summarize, chat."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cyllama._cancel import Cancel
from cyllama.pipelines._runner import Reply, Steps, generate_images, stream_reply
from cyllama.pipelines.images import check_instruction
from cyllama.pipelines.model_pool import ModelPool
from cyllama.pipelines.prompts import SUMMARY_INSTRUCTION, prompt_from_speech
from cyllama.pipelines.results import SpeechToImageResult, Summary, VoiceChatTurn
from cyllama.whisper import AudioStream, Segment, StreamedSegment, StreamingTranscriber, Transcription

if TYPE_CHECKING:
    from cyllama.llama.llm import LLM
    from cyllama.pipelines._types import (
        AudioInput,
        DiffusionModel,
        LLMModel,
        OnPreview,
        OnStep,
        OnText,
        Options,
        WhisperModel,
    )

__all__ = ["speech_to_image", "summarize_audio", "voice_chat"]

SAMPLE_RATE = 16_000
BLOCK_SECONDS = 0.5
TEMPLATE_TOKENS = 16  # of the context, reserved for the chat template
SUMMARY_TOKENS, REPLY_TOKENS = 96, 256

Block = npt.NDArray[Any]


def speech_to_image(
    audio: AudioInput,
    *,
    whisper_model: WhisperModel,
    sd_model: DiffusionModel,
    sample_rate: int | None = None,
    make_prompt: Callable[[str], str] = prompt_from_speech,
    whisper_options: Options | None = None,
    sd_options: Options | None = None,
    on_segment: Callable[[Segment], object] | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    pool: ModelPool | None = None,
    cancel: Cancel | None = None,
) -> SpeechToImageResult:
    """Generate an image of a spoken prompt.

    Parameters
    ----------
    audio : path, bytes, binary file object, array, or (sample_rate, array)
        The spoken prompt.
    whisper_model : str, path or Whisper
        The model that transcribes the audio.
    sd_model : str, path or StableDiffusion
        The model that generates the image.
    sample_rate : int, optional
        Sample rate of an array in Hz; 16,000 by default.
    make_prompt : callable
        Makes the prompt of the transcription; by default `prompt_from_speech`.
    whisper_options, sd_options : mapping, optional
        Options of `cyllama.whisper.transcribe` and of `cyllama.sd.txt2img`: ``{"language": "de"}``, ``{"steps": 20}``.
    on_segment : callable, optional
        Called with each segment of the transcription.
    on_step, on_preview : callable, optional
        Called with (step, total, seconds for each step), and with (image, step).
    pool : ModelPool, optional
        The pool for models that are given by name; by default `default_pool`.
    cancel : object with ``is_set()``, optional
        Checked during each step and between steps.

    Returns
    -------
    SpeechToImageResult

    Raises
    ------
    ValueError
        The transcription is empty.
    Exception
        See `cyllama.whisper.transcribe`, `cyllama.sd.txt2img` and `ModelPool.use`.

    >>> from cyllama.pipelines import speech_to_image
    >>> made = speech_to_image("red-circle.wav", whisper_model="tiny.en", sd_model="tiny-shapes")  # doctest: +SKIP
    >>> made.image.save("circle.png")                                                              # doctest: +SKIP
    """
    steps = Steps(pool, cancel)
    transcription = _transcribe(steps, audio, whisper_model, sample_rate, whisper_options, on_segment, cancel)
    prompt = make_prompt(transcription.text)
    if not prompt:
        raise _no_speech(transcription.text)
    with steps.model("sd", sd_model) as sd, steps("generate"):
        images = generate_images(sd, prompt, sd_options, on_step, on_preview, cancel)
    return SpeechToImageResult(
        image=images[0], prompt=prompt, transcription=transcription, images=images, seconds=steps.seconds()
    )


def summarize_audio(
    audio: AudioInput,
    *,
    whisper_model: WhisperModel,
    llm_model: LLMModel,
    sample_rate: int | None = None,
    instruction: str = SUMMARY_INSTRUCTION,
    whisper_options: Options | None = None,
    llm_options: Options | None = None,
    on_segment: Callable[[Segment], object] | None = None,
    on_text: OnText | None = None,
    pool: ModelPool | None = None,
    cancel: Cancel | None = None,
) -> Summary:
    """Transcribe a recording and summarize the text.

    A text that is longer than the context of the language model is summarized in parts; then the summaries of the
    parts are summarized together.

    Parameters
    ----------
    audio, whisper_model, sample_rate, whisper_options, on_segment, pool, cancel
        See `speech_to_image`.
    llm_model : str, path or LLM
        The model that writes the summary.
    instruction : str
        The instruction for the language model; ``{text}`` is replaced by the text.
    llm_options : mapping, optional
        Options of `LLM.chat`: ``{"max_tokens": 200, "temperature": 0.7}``.
    on_text : callable, optional
        Called with each part of the summary while it is written.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        The transcription is empty, or `instruction` has no ``{text}``.
    Exception
        See `cyllama.whisper.transcribe`, `LLM.chat` and `ModelPool.use`.
    """
    check_instruction(instruction)
    steps = Steps(pool, cancel)
    transcription = _transcribe(steps, audio, whisper_model, sample_rate, whisper_options, on_segment, cancel)
    if not prompt_from_speech(transcription.text):
        raise _no_speech(transcription.text)
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": SUMMARY_TOKENS, **(llm_options or {})}
    parts: list[str] = []
    with steps.model("llm", llm_model) as llm, steps("summarize"):

        def summarize(text: str, hook: OnText | None) -> Reply:
            return stream_reply(llm, instruction.replace("{text}", text), options, hook, cancel)

        segments = [segment.text for segment in transcription.segments]
        texts = _fit_texts(llm, segments, instruction, options["max_tokens"])
        while len(texts) > 1:
            summaries = [summarize(text, None).text for text in texts]
            parts += summaries
            shorter = _fit_texts(llm, summaries, instruction, options["max_tokens"])
            if len(shorter) >= len(texts):
                raise ValueError(
                    f"max_tokens is {options['max_tokens']}, expected a smaller one: the summaries do not get shorter"
                )
            texts = shorter
        reply = summarize(texts[0], on_text)
    return Summary(
        text=reply.text,
        finish_reason=reply.finish_reason,
        transcription=transcription,
        parts=tuple(parts),
        seconds=steps.seconds(),
    )


def voice_chat(
    audio: AudioInput | Iterable[Block],
    messages: Sequence[Mapping[str, Any]] = (),
    *,
    whisper_model: WhisperModel,
    llm_model: LLMModel,
    sample_rate: int | None = None,
    whisper_options: Options | None = None,
    llm_options: Options | None = None,
    on_segment: Callable[[StreamedSegment], object] | None = None,
    on_text: OnText | None = None,
    pool: ModelPool | None = None,
    cancel: Cancel | None = None,
) -> VoiceChatTurn:
    """Transcribe a spoken message while it is recorded, and stream the reply of a language model.

    Parameters
    ----------
    audio : iterable of arrays, or audio as in `speech_to_image`
        Blocks of samples, such as from a microphone; each is transcribed before the next is taken, and the message
        ends with the iterator. A recording is split into blocks.
    messages : sequence of mappings
        The previous messages: ``messages`` of the last turn.
    whisper_model, whisper_options, pool, cancel
        See `speech_to_image`; the options are those of `StreamingTranscriber`.
    llm_model : str, path or LLM
        The model that replies.
    sample_rate : int, optional
        Sample rate of arrays in Hz; 16,000 by default.
    llm_options : mapping, optional
        Options of `LLM.chat`.
    on_segment : callable, optional
        Called with segments as they are transcribed: provisional ones, which the next call may replace, then final
        ones.
    on_text : callable, optional
        Called with each part of the reply while it is written.

    Returns
    -------
    VoiceChatTurn

    Raises
    ------
    ValueError
        The transcription is empty.
    Exception
        See `StreamingTranscriber`, `LLM.chat` and `ModelPool.use`.
    """
    steps = Steps(pool, cancel)
    final: list[StreamedSegment] = []
    rate, blocks = _split_audio(audio, sample_rate)
    with steps.model("whisper", whisper_model) as whisper, steps("transcribe"):
        extra: dict[str, Any] = dict(whisper_options or {})
        stream = StreamingTranscriber(whisper, sample_rate=rate, **extra)

        def report(segments: Iterable[StreamedSegment]) -> None:
            for segment in segments:
                if segment.final:
                    final.append(segment)
                if on_segment is not None:
                    on_segment(segment)

        for block in blocks:
            report(stream.feed(block, cancel=cancel))
        report(stream.flush(cancel=cancel))
    transcript = "".join(segment.text for segment in final).strip()
    if not prompt_from_speech(transcript):
        raise _no_speech(transcript)
    conversation: list[dict[str, Any]] = [*map(dict, messages), {"role": "user", "content": transcript}]
    options: Options = {"temperature": 0.0, "max_tokens": REPLY_TOKENS, **(llm_options or {})}
    with steps.model("llm", llm_model) as llm, steps("reply"):
        reply = stream_reply(llm, conversation, options, on_text, cancel)
    return VoiceChatTurn(
        text=reply.text,
        finish_reason=reply.finish_reason,
        transcript=transcript,
        segments=tuple(final),
        messages=(*conversation, {"role": "assistant", "content": reply.text}),
        seconds=steps.seconds(),
    )


def _transcribe(
    steps: Steps,
    audio: AudioInput,
    model: WhisperModel,
    sample_rate: int | None,
    options: Options | None,
    on_segment: Callable[[Segment], object] | None,
    cancel: Cancel | None,
) -> Transcription:
    with steps.model("whisper", model) as whisper, steps("transcribe"):
        result: Transcription = whisper(
            audio, sample_rate=sample_rate, on_segment=on_segment, cancel=cancel, **(options or {})
        )
    return result


def _no_speech(text: str) -> ValueError:
    return ValueError(f"the transcription is {text!r}, expected speech")


def _fit_texts(llm: LLM, texts: Sequence[str], instruction: str, max_tokens: int) -> list[str]:
    """Join texts so that each result fits into the context together with the instruction and the reply."""
    n_ctx = int(llm.properties.default_generation_settings.n_ctx)
    limit = n_ctx - max_tokens - TEMPLATE_TOKENS - llm.count_tokens(instruction.replace("{text}", ""))
    joined: list[tuple[str, int]] = []
    for text in texts:
        n = len(llm.tokenize(text))
        if n > limit:
            raise ValueError(f"a segment has {n} tokens, expected at most {max(0, limit)} for a context of {n_ctx}")
        if joined and joined[-1][1] + n <= limit:
            joined[-1] = (f"{joined[-1][0].rstrip()} {text.strip()}", joined[-1][1] + n)
        else:
            joined.append((text.strip(), n))
    return [text for text, _ in joined]


def _split_audio(audio: AudioInput | Iterable[Block], sample_rate: int | None) -> tuple[int, Iterator[Block]]:
    """Return the sample rate and the blocks of a stream or of a recording."""
    is_recording = isinstance(audio, str | bytes | bytearray | memoryview | os.PathLike | np.ndarray)
    is_pair = isinstance(audio, tuple) and len(audio) == 2 and np.ndim(audio[0]) == 0
    if not (is_recording or is_pair or hasattr(audio, "read")):
        blocks: Any = audio
        with contextlib.suppress(TypeError):
            return sample_rate or SAMPLE_RATE, iter(blocks)
        raise TypeError(f"audio is {audio!r}, expected a recording or an iterable of arrays")
    return SAMPLE_RATE, AudioStream(audio, sample_rate=sample_rate).blocks(seconds=BLOCK_SECONDS)
