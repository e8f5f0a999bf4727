"""Pipelines that begin with speech: into a picture, a summary, an answer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cyllama.pipelines.pool import ModelPool
from cyllama.pipelines.prompts import SUMMARIZE, spoken_prompt
from cyllama.pipelines.results import SpokenPicture, Summary, VoiceAnswer
from cyllama.pipelines.steps import LLM_MODEL, SD_MODEL, WHISPER_MODEL, Said, Steps, ask_llm
from cyllama.whisper import AudioStream, Segment, StreamedSegment, StreamingTranscriber, Transcription

__all__ = ["speech_to_image", "summarize_audio", "voice_chat"]

RATE = 16_000
BLOCK_SECONDS = 0.5
SPARE_TOKENS = 16  # of the context, for what the template puts around a text
SUMMARY_TOKENS, ANSWER_TOKENS = 96, 256


def speech_to_image(
    audio: Any,
    *,
    whisper_model: Any = WHISPER_MODEL,
    sd_model: Any = SD_MODEL,
    sample_rate: int | None = None,
    prompt_of: Callable[[str], str] = spoken_prompt,
    whisper_options: Mapping[str, Any] | None = None,
    sd_options: Mapping[str, Any] | None = None,
    on_segment: Callable[[Segment], object] | None = None,
    on_step: Callable[[int, int, float], object] | None = None,
    on_preview: Callable[[Any, int], object] | None = None,
    pool: ModelPool | None = None,
    cancel: Any = None,
) -> SpokenPicture:
    """Draw what somebody says.

    Parameters
    ----------
    audio : path, bytes, binary file object, array, or (sample_rate, array)
        The spoken prompt.
    whisper_model : str, path or Whisper
        Hears the prompt.
    sd_model : str, path or StableDiffusion
        Draws it.
    sample_rate : int, optional
        Of an array, in Hz; 16,000 by default.
    prompt_of : callable
        Makes the prompt of the text that was heard; see `spoken_prompt`.
    whisper_options, sd_options : mapping, optional
        Of `cyllama.whisper.transcribe` and of `cyllama.sd.txt2img`: ``{"language": "de"}``, ``{"steps": 20}``.
    on_segment, on_step, on_preview : callable, optional
        Called with what is heard, and with the steps and the previews of the picture, while it goes on.
    pool : ModelPool, optional
        Where models come from that are given by name; by default `default_pool`.
    cancel : object with ``is_set()``, optional
        Obeyed by each step, and between them.

    Returns
    -------
    SpokenPicture

    Raises
    ------
    ValueError
        Nothing was said.
    Exception
        As of `cyllama.whisper.transcribe`, `cyllama.sd.txt2img` and `ModelPool.use`.

    >>> from cyllama.pipelines import speech_to_image
    >>> speech_to_image("red-circle.wav").image.save("circle.png")                # doctest: +SKIP
    """
    steps = Steps(pool, cancel)
    heard = _transcribed(
        steps, audio, whisper_model, sample_rate, on_segment=on_segment, cancel=cancel, **(whisper_options or {})
    )
    prompt = prompt_of(heard.text)
    if not prompt:
        raise ValueError(f"nothing was said that could be drawn: the text is {heard.text!r}")
    with steps.model("sd", sd_model) as sd, steps("draw"):
        hooks: dict[str, Any] = {"on_step": on_step, "on_preview": on_preview, "cancel": cancel}
        images = sd.txt2img(prompt, progress=False, **hooks, **(sd_options or {}))
    return SpokenPicture(image=images[0], prompt=prompt, transcription=heard, images=images, seconds=steps.seconds())


def summarize_audio(
    audio: Any,
    *,
    whisper_model: Any = WHISPER_MODEL,
    llm_model: Any = LLM_MODEL,
    sample_rate: int | None = None,
    instruction: str = SUMMARIZE,
    whisper_options: Mapping[str, Any] | None = None,
    llm_options: Mapping[str, Any] | None = None,
    on_segment: Callable[[Segment], object] | None = None,
    on_text: Callable[[str], object] | None = None,
    pool: ModelPool | None = None,
    cancel: Any = None,
) -> Summary:
    """Tell in short what a recording says.

    Parameters
    ----------
    audio, whisper_model, sample_rate, whisper_options, on_segment, pool, cancel
        As of `speech_to_image`.
    llm_model : str, path or LLM
        Writes the summary.
    instruction : str
        What it is told, with ``{text}`` for the text. A text that is too long for its context is summarized in parts,
        and then the summaries together.
    llm_options : mapping, optional
        Of `LLM.chat`: ``{"max_tokens": 200, "temperature": 0.7}``.
    on_text : callable, optional
        Called with the summary, piece by piece, while it is written.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        Nothing was said, or `instruction` has no ``{text}``.
    Exception
        As of `cyllama.whisper.transcribe`, `LLM.chat` and `ModelPool.use`.
    """
    if "{text}" not in instruction:
        raise ValueError(f"instruction is {instruction!r}, expected {{text}} in it")
    steps = Steps(pool, cancel)
    heard = _transcribed(
        steps, audio, whisper_model, sample_rate, on_segment=on_segment, cancel=cancel, **(whisper_options or {})
    )
    text = heard.text.strip()
    if not spoken_prompt(text):
        raise ValueError(f"nothing was said that could be summarized: the text is {heard.text!r}")
    fields: dict[str, Any] = {"temperature": 0.0, "max_tokens": SUMMARY_TOKENS, **(llm_options or {})}
    parts: list[str] = []
    with steps.model("llm", llm_model) as llm, steps("summarize"):

        def ask(part: str, hook: Callable[[str], object] | None) -> Said:
            return ask_llm(llm, instruction.replace("{text}", part), fields, hook, cancel)

        pieces = _fitting(llm, [segment.text for segment in heard.segments], instruction, fields["max_tokens"])
        while len(pieces) > 1:
            found = [ask(piece, None).text for piece in pieces]
            parts += found
            shorter = _fitting(llm, found, instruction, fields["max_tokens"])
            if len(shorter) >= len(pieces):
                raise ValueError("the summaries of the parts do not get shorter; take a smaller max_tokens")
            pieces = shorter
        answer = ask(pieces[0], on_text)
    return Summary(
        text=answer.text,
        finish_reason=answer.finish_reason,
        transcription=heard,
        parts=tuple(parts),
        seconds=steps.seconds(),
    )


def voice_chat(
    sound: Any,
    messages: Sequence[Mapping[str, Any]] = (),
    *,
    whisper_model: Any = WHISPER_MODEL,
    llm_model: Any = LLM_MODEL,
    sample_rate: int | None = None,
    whisper_options: Mapping[str, Any] | None = None,
    llm_options: Mapping[str, Any] | None = None,
    on_heard: Callable[[StreamedSegment], object] | None = None,
    on_text: Callable[[str], object] | None = None,
    pool: ModelPool | None = None,
    cancel: Any = None,
) -> VoiceAnswer:
    """Hear one turn of a talk while it is spoken, then answer while it is written.

    Parameters
    ----------
    sound : iterable of arrays, or audio as of `speech_to_image`
        Blocks of sound as they come, such as from a microphone, until the iterator ends: each is transcribed before
        the next is taken. A recording is cut into blocks.
    messages : sequence of mappings
        The talk so far: ``messages`` of the last turn's result.
    whisper_model, whisper_options, pool, cancel
        As of `speech_to_image`; options as of `StreamingTranscriber`.
    llm_model : str, path or LLM
        Answers.
    sample_rate : int, optional
        Of the arrays, in Hz; 16,000 by default.
    llm_options : mapping, optional
        Of `LLM.chat`.
    on_heard : callable, optional
        Called with segments as they are known: provisional ones, which the next may replace, then final ones.
    on_text : callable, optional
        Called with the answer, piece by piece.

    Returns
    -------
    VoiceAnswer

    Raises
    ------
    ValueError
        Nothing was said.
    Exception
        As of `StreamingTranscriber`, `LLM.chat` and `ModelPool.use`.
    """
    steps = Steps(pool, cancel)
    final: list[StreamedSegment] = []
    rate, blocks = _blocks(sound, sample_rate)
    with steps.model("whisper", whisper_model) as whisper, steps("hear"):
        stream = StreamingTranscriber(whisper, sample_rate=rate, **(whisper_options or {}))

        def take(found: Iterable[StreamedSegment]) -> None:
            for segment in found:
                if segment.final:
                    final.append(segment)
                if on_heard is not None:
                    on_heard(segment)

        for block in blocks:
            take(stream.feed(block, cancel=cancel))
        take(stream.flush(cancel=cancel))
    heard = "".join(segment.text for segment in final).strip()
    if not spoken_prompt(heard):
        raise ValueError(f"nothing was said that could be answered: the text is {heard!r}")
    talk: list[dict[str, Any]] = [*map(dict, messages), {"role": "user", "content": heard}]
    fields: dict[str, Any] = {"temperature": 0.0, "max_tokens": ANSWER_TOKENS, **(llm_options or {})}
    with steps.model("llm", llm_model) as llm, steps("answer"):
        answer = ask_llm(llm, talk, fields, on_text, cancel)
    return VoiceAnswer(
        text=answer.text,
        finish_reason=answer.finish_reason,
        heard=heard,
        segments=tuple(final),
        messages=(*talk, {"role": "assistant", "content": answer.text}),
        seconds=steps.seconds(),
    )


def _transcribed(steps: Steps, audio: Any, model: Any, sample_rate: int | None, **options: Any) -> Transcription:
    with steps.model("whisper", model) as whisper, steps("transcribe"):
        found: Transcription = whisper(audio, sample_rate=sample_rate, **options)
    return found


def _fitting(llm: Any, texts: Sequence[str], instruction: str, max_tokens: int) -> list[str]:
    """Join texts to as few as can be that each fit into the context with the instruction and the answer."""
    n_ctx = int(llm.properties.default_generation_settings.n_ctx)
    room = n_ctx - max_tokens - SPARE_TOKENS - llm.count_tokens(instruction.replace("{text}", ""))
    pieces: list[tuple[str, int]] = []
    for text in texts:
        n = len(llm.tokenize(text))
        if n > room:
            raise ValueError(f"a segment has {n} tokens, but the context of {n_ctx} has room for {max(0, room)}")
        if pieces and pieces[-1][1] + n <= room:
            pieces[-1] = (f"{pieces[-1][0].rstrip()} {text.strip()}", pieces[-1][1] + n)
        else:
            pieces.append((text.strip(), n))
    return [text for text, _ in pieces]


def _blocks(sound: Any, sample_rate: int | None) -> tuple[int, Iterator[Any]]:
    """Sample rate and blocks of sound: as they come, or cut from a recording."""
    recording = isinstance(sound, str | bytes | bytearray | memoryview | os.PathLike | np.ndarray)
    pair = isinstance(sound, tuple) and len(sound) == 2 and np.ndim(sound[0]) == 0
    if not (recording or pair or hasattr(sound, "read")):
        with contextlib.suppress(TypeError):
            return sample_rate or RATE, iter(sound)
        raise TypeError(f"sound is {sound!r}, expected a recording or an iterable of arrays")
    stream = AudioStream(sound, sample_rate=sample_rate)
    return RATE, _cut(stream)


def _cut(stream: AudioStream) -> Iterator[Any]:
    start = 0.0
    while start < stream.duration:
        yield stream.read(start, start + BLOCK_SECONDS)
        start += BLOCK_SECONDS
