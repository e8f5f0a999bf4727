"""transcribe() and Whisper: text, times, audio inputs, options, callbacks, cancelling and memory."""

from __future__ import annotations

import gc
import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from data.process import heartbeat, resident_bytes
from data.sounds import JFK, encoded, jfk_float32, jfk_int16
from data.speech import JFK as JFK_TEXT
from data.speech import Speech, word_error_rate, words
from whisper.short import SHORT_CTX, SHORT_SECONDS, SHORT_TEXT

from cyllama import models
from cyllama.errors import CancelledError, ClosedError, MediaError, ModelLoadError, UnsupportedError
from cyllama.whisper import Segment, Transcription, Whisper, load_audio, transcribe

SHORT: dict[str, Any] = {"clip_timestamps": f"0,{SHORT_SECONDS}", "audio_ctx": SHORT_CTX}
TEXT = "And so my fellow Americans ask not what your country can do for you ask what you can do for your country."


def check_invariants(result: Transcription) -> None:
    """Check what every transcription fulfils."""
    before = 0.0
    for i, segment in enumerate(result.segments):
        assert segment.id == i and before <= segment.start <= segment.end <= result.duration + 1e-6
        before = segment.start
        assert segment.text == b"".join(token.raw for token in segment.token_details).decode("utf-8", "replace")
        if segment.words is not None:
            assert segment.text == "".join(word.word for word in segment.words)
            times = [time for word in segment.words for time in (word.start, word.end)]
            assert times == sorted(times)
            assert all(segment.start <= time <= segment.end for time in times)
            assert all(0 <= word.probability <= 1 for word in segment.words)
        assert segment.avg_logprob <= 0 and 0 <= segment.no_speech_prob <= 1
    assert result.text == "".join(segment.text for segment in result.segments).strip()


# -------------------------------------------------------------------------------------------- text


def test_transcribe_returns_text_language_and_duration() -> None:
    result = transcribe(JFK)
    assert result.text == TEXT and result.language == "en" and result.duration == 11.0
    assert words(result.text) == words(JFK_TEXT)
    check_invariants(result)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("jfk", 0), ("jfk-mp3", 0), ("moon", 0.05), ("busy-en", 0), ("echo-en", 0.04), ("espeak-door", 0.2), ("espeak-car", 0.2)],
)  # fmt: skip
def test_word_error_rate_is_low(whisper: Whisper, speeches: dict[str, Speech], name: str, limit: float) -> None:
    result = whisper(speeches[name].path, word_timestamps=True)
    assert word_error_rate(speeches[name].text, result.text) <= limit
    check_invariants(result)


def test_detects_and_transcribes_french(base: Whisper, speeches: dict[str, Speech]) -> None:
    result = base(speeches["busy-fr"].path)
    assert result.language == "fr" and result.language_probability > 0.9
    assert result.info.all_language_probs is not None and result.info.all_language_probs[0][0] == "fr"
    assert word_error_rate(speeches["busy-fr"].text, result.text) <= 0.2
    check_invariants(result)


def test_translates_into_english(base: Whisper, speeches: dict[str, Speech]) -> None:
    result = base(speeches["no-service-fr"].path, task="translate")
    assert result.language == "fr" and result.task == "translate"
    assert {"number", "service"} <= set(words(result.text))


def test_transcribes_noisy_audio(whisper: Whisper) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 11 * 16_000).astype(np.float32)
    assert word_error_rate(JFK_TEXT, whisper(jfk_float32() + noise).text) <= 0.1


def test_silence_has_no_segments_with_vad(whisper: Whisper) -> None:
    silence = np.zeros(16_000 * 10, np.float32)
    result = whisper(silence, vad_filter=True)
    assert result.segments == () and result.text == "" and result.duration == 10 and result.info.duration_after_vad == 0
    check_invariants(whisper(silence))


def test_audio_of_a_fifth_of_a_second(whisper: Whisper) -> None:
    result = whisper(jfk_float32()[8000 : 8000 + 3200])
    check_invariants(result)
    assert result.duration == 0.2 and len(words(result.text)) <= 2


def test_empty_audio_has_no_segments(whisper: Whisper) -> None:
    result = whisper(np.zeros(0, np.float32))
    assert result.segments == () and result.duration == 0 and result.text == ""
    segments, info = whisper.transcribe(encoded(np.zeros((0, 1), np.int16), 16_000, "WAV", "PCM_16"))
    assert list(segments) == [] and info.duration == 0


# ------------------------------------------------------------------------------------- audio inputs


def audio_inputs(tmp_path: Path) -> dict[str, Any]:
    samples = jfk_int16()
    stereo = np.stack([samples, samples], 1)
    wav = encoded(samples, 16_000, "WAV", "PCM_16")
    (tmp_path / "jfk.flac").write_bytes(encoded(samples, 16_000, "FLAC", "PCM_16"))
    return {
        "path": JFK,
        "str": str(JFK),
        "flac": tmp_path / "jfk.flac",
        "ogg": io.BytesIO(encoded(samples, 16_000, "OGG", "VORBIS")),
        "mp3": JFK.with_suffix(".mp3"),
        "bytes": wav,
        "file": io.BytesIO(wav),
        "pair": (16_000, samples),
        "float64": jfk_float32().astype(np.float64),
        "stereo": stereo,
        "channels first": stereo.T,
        "24 bits": encoded(samples, 16_000, "WAV", "PCM_24"),
        "big-endian": samples.astype(">i2"),
        "strided": np.repeat(samples, 3)[::3],
        "48 kHz": (48_000, np.repeat(samples, 3)),
    }


@pytest.mark.parametrize("form", [
    "path", "str", "flac", "ogg", "mp3", "bytes", "file", "pair", "float64", "stereo", "channels first", "24 bits",
    "big-endian", "strided", "48 kHz",
])  # fmt: skip
def test_accepts_audio_input(whisper: Whisper, tmp_path: Path, form: str) -> None:
    assert words(whisper(audio_inputs(tmp_path)[form], **SHORT).text) == words(SHORT_TEXT)


# -------------------------------------------------------------------------------------------- times


def speech_between_silences() -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Return the same speech twice, with silence before, between and after, and its ranges in seconds."""
    speech = jfk_float32()
    silence = np.zeros(16_000 * 8, np.float32)
    return np.concatenate([silence, speech, silence, speech, silence]), [(8.0, 19.0), (27.0, 38.0)]


@pytest.mark.parametrize("options", [{"vad_filter": True}, {"batch_size": 2}, {"batch_size": 3, "beam_size": 2}])
def test_times_with_vad_are_times_of_the_audio(whisper: Whisper, options: dict[str, Any]) -> None:
    audio, places = speech_between_silences()
    result = whisper(audio, word_timestamps=True, **options)
    check_invariants(result)
    assert words(result.text) == 2 * words(JFK_TEXT)
    assert 15 < result.info.duration_after_vad < 25
    for word in result.words:
        assert any(start - 0.3 <= word.start <= word.end <= end + 0.3 for start, end in places), word
    starts = [word.start for word in result.words if word.word.strip().strip(",.").lower() == "americans"]
    assert len(starts) == 2 and starts[1] - starts[0] == pytest.approx(19.0, abs=0.5)


def test_rejects_unknown_alignment_heads() -> None:
    with pytest.raises(ValueError, match="dtw_aheads_preset"):
        Whisper("tiny.en", dtw="tinny")


def test_clips_are_transcribed_with_times_of_the_audio(whisper: Whisper) -> None:
    result = whisper(JFK, clip_timestamps="0,7.8,8", word_timestamps=True)
    check_invariants(result)
    assert words(result.text)[:5] == words("And so my fellow Americans") and "country" in words(result.text)[-1]
    assert result.segments[0].end <= 7.8 and result.segments[-1].start >= 8.0 and result.duration == 11.0


def test_long_audio_is_split_into_chunks(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyllama.whisper._chunking.CHUNK_SECONDS", 30.0)
    monkeypatch.setattr("cyllama.whisper._chunking.CUT_SECONDS", 12.0)
    gap = np.zeros(16_000, np.float32)
    result = whisper(np.tile(np.concatenate([jfk_float32(), gap]), 4), word_timestamps=True)
    check_invariants(result)
    assert result.text.lower().count("fellow americans") == 4 and result.duration == 48.0
    assert len({segment.seek for segment in result.segments}) == 2


# ------------------------------------------------------------------------------------------ options


def test_options_have_effect(whisper: Whisper) -> None:
    def run(**options: Any) -> Transcription:
        return whisper(JFK, **{**SHORT, "temperature": 0.0, "max_new_tokens": 12, **options})

    def certainty(**options: Any) -> float:
        return run(**options).segments[0].avg_logprob

    plain = run()
    assert plain.text == SHORT_TEXT.strip()
    assert "fellow" not in run(suppress_tokens=[5891]).text
    assert "Americans" not in run(suppress_regex=" Americans").text
    assert len(run(max_new_tokens=2).text.split()) <= 2
    lower = run(grammar='root ::= " " [a-z ]+', grammar_penalty=100.0).text
    assert lower and lower == lower.lower()
    assert run(condition_on_previous_text=False).text == run(n_threads=1).text == plain.text
    prompts: list[dict[str, Any]] = [
        {},
        {"hotwords": "Americans"},
        {"initial_prompt": "A speech"},
        {"hotwords": "Americans", "initial_prompt": "A speech"},
        {"initial_prompt": [843, 523]},
    ]
    assert len({certainty(**prompt) for prompt in prompts}) == len(prompts)


def test_options_change_the_segments(whisper: Whisper) -> None:
    plain = whisper(JFK).segments[0].avg_logprob
    assert whisper(JFK, beam_size=5).segments[0].avg_logprob != plain
    limited = whisper(JFK, max_segment_chars=16, word_timestamps=True)
    check_invariants(limited)
    assert len(limited.segments) > 5
    assert len(whisper(JFK, without_timestamps=True).segments) == 1


def test_prompt_without_context_is_before_every_window(whisper: Whisper) -> None:
    """The context of the second window is the prompt, as if the window were the first."""
    long = np.tile(jfk_float32(), 4)
    options: Any = {"initial_prompt": "no capital letters at all", "condition_on_previous_text": False,
                    "without_timestamps": True, "temperature": 0.0}  # fmt: skip
    first, second = whisper(long, **options).segments
    (alone,) = whisper(long[30 * 16_000 :], **options).segments
    assert first.text.startswith(" and so my fellow") and first.text.count("country") >= 5
    assert second.text == alone.text and second.avg_logprob == pytest.approx(alone.avg_logprob, abs=5e-3)


def test_times_without_timestamps_follow_the_windows(whisper: Whisper) -> None:
    result = whisper(np.tile(jfk_float32(), 4), without_timestamps=True, temperature=0.0)
    assert [(segment.start, segment.end) for segment in result.segments] == [(0.0, 30.0), (30.0, 44.0)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"langage": "en"}, TypeError),
        ({"language": "elvish"}, ValueError),
        ({"language": "de"}, ValueError),
        ({"task": "translate"}, ValueError),
        ({"patience": 2.0}, UnsupportedError),
        ({"beam_size": 99}, ValueError),
        ({"clip_timestamps": "30,40"}, ValueError),
        ({"sample_rate": 0}, ValueError),
        ({"vad_filter": True, "vad_parameters": {"threshold": 7.0}}, ValueError),
        ({"vad_filter": True, "vad_parameters": {"model": "nowhere.bin"}}, FileNotFoundError),
        ({"suppress_tokens": [10**6]}, IndexError),
        ({"temperature": "hot"}, TypeError),
        ({"temperature": object()}, TypeError),
        ({"temperature": (0.0, "0.2")}, TypeError),
        ({"initial_prompt": 3}, TypeError),
        ({"initial_prompt": ["a", "text"]}, TypeError),
    ],
)
def test_rejects_invalid_option(whisper: Whisper, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        whisper(jfk_int16(), **options)


@pytest.mark.parametrize(
    ("audio", "error"),
    [
        (b"this is no audio at all", MediaError),
        (b"", MediaError),
        (np.array([0.0, np.nan], np.float32), ValueError),
        (np.array([0.0, np.inf], np.float32), ValueError),
        (np.zeros(9, np.int64), TypeError),
        (np.zeros(9, bool), TypeError),
        ((0, np.zeros(9, np.float32)), ValueError),
        ("/nowhere/talk.wav", FileNotFoundError),
        (None, TypeError),
    ],
)
def test_rejects_invalid_audio(whisper: Whisper, audio: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        whisper(audio)


@pytest.mark.parametrize(
    ("model", "error"),
    [("tinny.en", FileNotFoundError), (b"no model", ModelLoadError), (5, TypeError), (None, TypeError), ("silero-vad", ModelLoadError),
     ("smollm2-135m-instruct", ModelLoadError)],
)  # fmt: skip
def test_rejects_invalid_model(model: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Whisper(model)


def test_loads_model_from_bytes_and_file_object() -> None:
    data = models.get("tiny.en").read_bytes()
    for model in (data, io.BytesIO(data)):
        with Whisper(model, flash_attn=False, use_gpu=False) as whisper:
            assert whisper(JFK, **SHORT).text == SHORT_TEXT.strip()


def test_repr_names_model_and_architecture(whisper: Whisper) -> None:
    assert repr(whisper) == "Whisper('tiny.en', whisper)"
    segments, _ = whisper.transcribe(JFK)
    assert repr(segments) == "SegmentIterator(not started)"
    segments.close()
    assert repr(segments) == "SegmentIterator(closed)" and list(segments) == []


# ---------------------------------------------------------------------- iterating and cancelling


def test_transcribes_while_iterating(whisper: Whisper) -> None:
    long = np.tile(jfk_float32(), 30)
    before = threading.active_count()
    segments, info = whisper.transcribe(long)
    assert info.duration == 330 and threading.active_count() == before  # no thread yet
    first = next(segments)
    assert isinstance(first, Segment) and first.start < 1
    started = time.monotonic()
    segments.close()
    assert threading.active_count() == before and time.monotonic() - started < 5
    segments, _ = whisper.transcribe(JFK)
    assert "".join(segment.text for segment in segments).strip() == TEXT
    assert threading.active_count() == before and next(segments, None) is None


def test_dropping_the_iterator_stops_the_transcription(whisper: Whisper) -> None:
    before = threading.active_count()
    segments, _ = whisper.transcribe(np.tile(jfk_float32(), 30))
    next(segments)
    assert threading.active_count() == before + 1
    del segments
    gc.collect()
    assert threading.active_count() == before


def test_iterator_raises_the_exception_of_the_transcription(whisper: Whisper) -> None:
    audio = jfk_float32().copy()
    audio[-1] = np.nan
    with pytest.raises(ValueError, match="nan"):
        list(whisper.transcribe(audio)[0])
    stop = threading.Event()
    segments, _ = whisper.transcribe(np.tile(jfk_float32(), 20), cancel=stop)
    next(segments)
    stop.set()
    with pytest.raises(CancelledError):
        list(segments)


def test_callbacks_get_segments_and_progress(whisper: Whisper) -> None:
    seen: list[Segment] = []
    progress: list[float] = []
    result = whisper(JFK, on_segment=seen.append, on_progress=progress.append)
    assert tuple(seen) == result.segments
    assert progress == sorted(progress) and progress[-1] == 1.0

    def fail(_: object) -> None:
        raise ZeroDivisionError

    for callbacks in ({"on_segment": fail}, {"on_progress": fail}):
        for batch_size in (1, 2):
            with pytest.raises(ZeroDivisionError):
                whisper(JFK, batch_size=batch_size, **callbacks)  # type: ignore[arg-type]
    with pytest.raises(CancelledError):
        whisper(JFK, on_progress=lambda part: False)


@pytest.mark.parametrize("options", [{}, {"vad_filter": True}, {"batch_size": 2}], ids=["plain", "vad", "batch"])
@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.5])
def test_cancel(whisper: Whisper, seconds: float, options: dict[str, Any]) -> None:
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    with pytest.raises(CancelledError):
        whisper(np.tile(jfk_float32(), 60), cancel=stop, **options)
    timer.join()
    assert whisper(JFK, **SHORT).text == SHORT_TEXT.strip()


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}], ids=["plain", "batch"])
def test_ctrl_c(whisper: Whisper, options: dict[str, Any]) -> None:
    timer = threading.Timer(0.8, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        whisper(np.tile(jfk_float32(), 60), **options)
    timer.join()
    assert whisper(JFK, **SHORT).text == SHORT_TEXT.strip()


def test_many_threads_share_one_model(whisper: Whisper) -> None:
    with heartbeat() as heart, ThreadPoolExecutor(4) as workers:
        found = list(workers.map(lambda _: whisper(JFK, **SHORT).text, range(8)))
    assert found == [SHORT_TEXT.strip()] * 8 and heart.beats > 10


def test_rejects_use_after_close() -> None:
    whisper = Whisper("tiny.en")
    assert whisper.languages == {"en": "english"} and not whisper.is_multilingual
    whisper.close()
    whisper.close()
    for use in (lambda: whisper(JFK), lambda: whisper.transcribe(JFK)):
        with pytest.raises(ClosedError):
            use()


def test_detect_language(base: Whisper, whisper: Whisper, speeches: dict[str, Speech]) -> None:
    found = base.detect_language(speeches["busy-fr"].path)
    code, probability, every = found
    assert code == found.language == "fr" and len(every) == 99
    assert every[0] == ("fr", probability) and found.all_probabilities == every
    with pytest.raises(ValueError, match="English only"):
        whisper.detect_language(JFK)


# ------------------------------------------------------------------------------------------- memory


def test_memory_does_not_grow_with_calls(whisper: Whisper) -> None:
    def run(times: int) -> int:
        for _ in range(times):
            whisper(JFK, word_timestamps=True, **SHORT)
        gc.collect()
        return resident_bytes()

    def lowest() -> int:  # memory that was freed may come back to the system a moment later
        return min(run(4) for _ in range(5))

    before = lowest()
    assert lowest() - before < 2_000_000


def test_memory_does_not_grow_with_length(whisper: Whisper, tmp_path: Path) -> None:
    """25 minutes of samples would take 96 MB; a chunk of the file has at most 10 minutes."""
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC") as file:
        for _ in range(25):
            file.write(np.zeros(16_000 * 60, np.int16))
        file.write(jfk_int16())
    whisper(path, vad_filter=True, clip_timestamps="900")
    before = resident_bytes()
    result = whisper(path, vad_filter=True)
    assert words(result.text) == words(JFK_TEXT) and result.segments[0].start > 1499
    assert resident_bytes() - before < 60e6


def test_accepts_the_samples_of_load_audio(whisper: Whisper) -> None:
    assert whisper(load_audio(JFK)).text == transcribe(JFK, model=whisper).text == TEXT
