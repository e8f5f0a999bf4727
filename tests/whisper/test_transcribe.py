"""transcribe() and Whisper: the right words, times in the original sound, every form of sound, options, stopping."""

from __future__ import annotations

import gc
import io
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from data.process import heartbeat, resident_bytes
from data.sounds import JFK, encoded, jfk_float32, jfk_int16
from data.speech import JFK as JFK_TEXT
from data.speech import Speech, word_error_rate, words

import cyllama
from cyllama import models
from cyllama.errors import CancelledError, ClosedError, MediaError, ModelLoadError, UnsupportedError
from cyllama.whisper import Segment, Transcription, Whisper, load_audio, transcribe

TEXT = "And so my fellow Americans ask not what your country can do for you ask what you can do for your country."


def regular(result: Transcription) -> None:
    """What holds for every transcription."""
    before = 0.0
    for i, segment in enumerate(result.segments):
        assert segment.id == i and before <= segment.start <= segment.end <= result.duration + 1e-6
        before = segment.start
        assert segment.text == b"".join(token.raw for token in segment.tokens).decode("utf-8", "replace")
        if segment.words is not None:
            assert segment.text == "".join(word.word for word in segment.words)
            times = [time for word in segment.words for time in (word.start, word.end)]
            assert times == sorted(times)
            assert all(segment.start <= time <= segment.end for time in times)
            assert all(0 <= word.probability <= 1 for word in segment.words)
        assert segment.avg_logprob <= 0 and 0 <= segment.no_speech_prob <= 1
    assert result.text == "".join(segment.text for segment in result.segments).strip()


# ------------------------------------------------------------------------------------------- words


def test_one_call() -> None:
    result = transcribe(JFK)
    assert result.text == TEXT and result.language == "en" and result.duration == 11.0
    assert words(result.text) == words(JFK_TEXT)
    regular(result)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("jfk", 0), ("jfk-mp3", 0), ("moon", 0.05), ("busy-en", 0), ("echo-en", 0.04), ("espeak-door", 0.2), ("espeak-car", 0.2)],
)  # fmt: skip
def test_known_recordings(whisper: Whisper, speeches: dict[str, Speech], name: str, limit: float) -> None:
    result = whisper(speeches[name].path, word_timestamps=True)
    assert word_error_rate(speeches[name].text, result.text) <= limit
    regular(result)


@pytest.mark.parametrize(("name", "limit"), [("busy-fr", 0.2), ("new-user-fr", 0.2), ("no-service-fr", 0.2)])
def test_another_language(base: Whisper, speeches: dict[str, Speech], name: str, limit: float) -> None:
    result = base(speeches[name].path)
    assert result.language == "fr" and result.language_probability > 0.9
    assert result.info.all_language_probs is not None and result.info.all_language_probs[0][0] == "fr"
    assert word_error_rate(speeches[name].text, result.text) <= limit
    regular(result)


def test_translation(base: Whisper, speeches: dict[str, Speech]) -> None:
    result = base(speeches["no-service-fr"].path, task="translate")
    assert result.language == "fr" and result.task == "translate"
    assert {"number", "service"} <= set(words(result.text))


def test_noise(base: Whisper) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 11 * 16_000).astype(np.float32)
    assert word_error_rate(JFK_TEXT, base(jfk_float32() + noise).text) <= 0.1


def test_silence(whisper: Whisper) -> None:
    silence = np.zeros(16_000 * 10, np.float32)
    result = whisper(silence, vad_filter=True)
    assert result.segments == () and result.text == "" and result.duration == 10 and result.info.duration_after_vad == 0
    regular(whisper(silence))


def test_a_fifth_of_a_second(whisper: Whisper) -> None:
    result = whisper(jfk_float32()[8000 : 8000 + 3200])
    regular(result)
    assert result.duration == 0.2 and len(words(result.text)) <= 2


def test_nothing(whisper: Whisper) -> None:
    result = whisper(np.zeros(0, np.float32))
    assert result.segments == () and result.duration == 0 and result.text == ""
    segments, info = whisper.transcribe(encoded(np.zeros((0, 1), np.int16), 16_000, "WAV", "PCM_16"))
    assert list(segments) == [] and info.duration == 0


# ----------------------------------------------------------------------------------- forms of sound


def forms(tmp_path: Path) -> dict[str, Any]:
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
def test_the_same_words_in_every_form(whisper: Whisper, tmp_path: Path, form: str) -> None:
    assert words(whisper(forms(tmp_path)[form]).text) == words(JFK_TEXT)


# -------------------------------------------------------------------------------------------- times


def spaced() -> tuple[np.ndarray, list[tuple[float, float]]]:
    """The same words twice, with silence before, between and after; where they are."""
    speech = jfk_float32()
    silence = np.zeros(16_000 * 8, np.float32)
    return np.concatenate([silence, speech, silence, speech, silence]), [(8.0, 19.0), (27.0, 38.0)]


@pytest.mark.parametrize("options", [{"vad_filter": True}, {"batch_size": 2}, {"batch_size": 3, "beam_size": 2}])
def test_times_with_vad_are_those_of_the_original(whisper: Whisper, options: dict[str, Any]) -> None:
    sound, places = spaced()
    result = whisper(sound, word_timestamps=True, **options)
    regular(result)
    assert words(result.text) == 2 * words(JFK_TEXT)
    assert 15 < result.info.duration_after_vad < 25
    for word in result.words:
        assert any(start - 0.3 <= word.start <= word.end <= end + 0.3 for start, end in places), word
    starts = [word.start for word in result.words if word.word.strip().strip(",.").lower() == "americans"]
    assert len(starts) == 2 and starts[1] - starts[0] == pytest.approx(19.0, abs=0.5)


def test_dtw_words(speeches: dict[str, Speech]) -> None:
    with Whisper("tiny.en", dtw=True) as aligned:
        result = aligned(JFK, word_timestamps=True)
    regular(result)
    ask = [word.start for word in result.words if word.word.strip(" ,.").lower() == "ask"]
    assert ask[0] == pytest.approx(3.4, abs=0.7) and ask[1] == pytest.approx(8.2, abs=0.7)
    with pytest.raises(ValueError, match="dtw_aheads_preset"):
        Whisper("tiny.en", dtw="tinny")


def test_clips(whisper: Whisper) -> None:
    result = whisper(JFK, clip_timestamps="0,7.8,8", word_timestamps=True)
    regular(result)
    assert words(result.text)[:5] == words("And so my fellow Americans") and "country" in words(result.text)[-1]
    assert result.segments[0].end <= 7.8 and result.segments[-1].start >= 8.0 and result.duration == 11.0


def test_a_long_sound_in_pieces(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyllama.whisper.pieces.PIECE_SECONDS", 30.0)
    monkeypatch.setattr("cyllama.whisper.pieces.CUT_SECONDS", 12.0)
    gap = np.zeros(16_000, np.float32)
    result = whisper(np.tile(np.concatenate([jfk_float32(), gap]), 6), word_timestamps=True)
    regular(result)
    assert result.text.lower().count("fellow americans") == 6 and result.duration == 72.0
    assert len({segment.seek for segment in result.segments}) == 3


# ------------------------------------------------------------------------------------------ options


def test_options_have_effect(whisper: Whisper) -> None:
    def certain(**options: Any) -> float:
        return whisper(JFK, **options).segments[0].avg_logprob

    assert certain(beam_size=5) != certain()
    assert "country" not in whisper(JFK, suppress_tokens=[1499]).text
    assert "Americans" not in whisper(JFK, suppress_regex=" Americans").text
    short = whisper(JFK, max_segment_chars=16, word_timestamps=True)
    regular(short)
    assert len(short.segments) > 5
    assert len(whisper(JFK, without_timestamps=True).segments) == 1
    assert len(whisper(JFK, max_new_tokens=4, temperature=0.0).text.split()) <= 4
    grammar = whisper(JFK, grammar='root ::= " " [a-z ]+', grammar_penalty=100.0).text
    assert grammar == grammar.lower()
    assert whisper(JFK, condition_on_previous_text=False).text == TEXT
    prompts: list[dict[str, Any]] = [
        {},
        {"hotwords": "Americans"},
        {"initial_prompt": "A speech"},
        {"hotwords": "Americans", "initial_prompt": "A speech"},
        {"initial_prompt": [843, 523]},
    ]
    assert len({certain(**prompt) for prompt in prompts}) == len(prompts)
    assert whisper(JFK, n_threads=1).text == TEXT


def test_a_prompt_alone_before_every_window(whisper: Whisper) -> None:
    """Without the text of the window before, the prompt still is in each."""
    long = np.tile(jfk_float32(), 4)
    lower = whisper(long, initial_prompt="no capital letters at all", condition_on_previous_text=False)
    regular(lower)
    assert lower.text.lower().count("country") == 8


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
def test_options_that_are_refused(whisper: Whisper, options: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        whisper(jfk_int16(), **options)
    assert whisper(JFK).text == TEXT


@pytest.mark.parametrize(
    ("audio", "error"),
    [
        (b"this is no sound at all", MediaError),
        (b"", MediaError),
        (JFK.read_bytes()[:60_000], MediaError),
        (np.array([0.0, np.nan], np.float32), ValueError),
        (np.array([0.0, np.inf], np.float32), ValueError),
        (np.zeros(9, np.int64), TypeError),
        (np.zeros(9, bool), TypeError),
        ((0, np.zeros(9, np.float32)), ValueError),
        ("/nowhere/talk.wav", FileNotFoundError),
        (None, TypeError),
    ],
)
def test_sound_that_is_refused(whisper: Whisper, audio: Any, error: Any) -> None:
    with pytest.raises(error):
        whisper(audio)
    assert whisper(JFK).text == TEXT


@pytest.mark.parametrize(
    ("model", "error"),
    [("tinny.en", FileNotFoundError), (b"no model", ModelLoadError), (5, TypeError), (None, TypeError), ("silero-vad", ModelLoadError),
     ("smollm2-135m-instruct", ModelLoadError)],
)  # fmt: skip
def test_models_that_are_refused(model: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Whisper(model)


def test_models_from_memory_and_files() -> None:
    data = models.get("tiny.en").read_bytes()
    for model in (data, io.BytesIO(data)):
        with Whisper(model) as whisper:
            assert whisper(JFK).text == TEXT
    with Whisper(data, flash_attn=False, use_gpu=False) as whisper:
        assert words(whisper(JFK).text) == words(JFK_TEXT)


# ---------------------------------------------------------------------------- laziness and stopping


def test_segments_come_when_they_are_asked_for(whisper: Whisper) -> None:
    long = np.tile(jfk_float32(), 30)
    before = threading.active_count()
    segments, info = whisper.transcribe(long)
    assert info.duration == 330 and threading.active_count() == before  # nothing runs yet
    first = next(segments)
    assert isinstance(first, Segment) and first.start == 0
    time.sleep(0.5)
    started = time.monotonic()
    segments.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before and time.monotonic() - started < 5
    del segments
    lazily, _ = whisper.transcribe(JFK)
    assert "".join(segment.text for segment in lazily).strip() == TEXT


def test_the_lazy_form_raises_where_it_is_read(whisper: Whisper) -> None:
    sound = jfk_float32().copy()
    sound[-1] = np.nan
    with pytest.raises(ValueError, match="nan"):
        list(whisper.transcribe(sound)[0])
    stop = threading.Event()
    segments, _ = whisper.transcribe(np.tile(jfk_float32(), 20), cancel=stop)
    next(segments)
    stop.set()
    with pytest.raises(CancelledError):
        list(segments)


def test_callbacks(whisper: Whisper) -> None:
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


@pytest.mark.parametrize("options", [{}, {"vad_filter": True}, {"batch_size": 2}])
@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.5])
def test_cancel(whisper: Whisper, seconds: float, options: dict[str, Any]) -> None:
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    with pytest.raises(CancelledError):
        whisper(np.tile(jfk_float32(), 60), cancel=stop, **options)
    timer.join()
    assert whisper(JFK).text == TEXT


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}])
def test_ctrl_c(whisper: Whisper, options: dict[str, Any]) -> None:
    timer = threading.Timer(0.8, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        whisper(np.tile(jfk_float32(), 60), **options)
    timer.join()
    assert whisper(JFK).text == TEXT


def test_many_threads_share_one_model(whisper: Whisper) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(whisper(JFK).text)) for _ in range(4)]
    with heartbeat() as heart:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [TEXT] * 4 and heart.beats > 100


def test_closing() -> None:
    whisper = Whisper("tiny.en")
    assert whisper.languages == {"en": "english"} and not whisper.is_multilingual
    whisper.close()
    whisper.close()
    for use in (lambda: whisper(JFK), lambda: whisper.transcribe(JFK)):
        with pytest.raises(ClosedError):
            use()


def test_language_of_a_recording(base: Whisper, whisper: Whisper, speeches: dict[str, Speech]) -> None:
    code, probability, every = base.detect_language(speeches["busy-fr"].path)
    assert code == "fr" and probability == every[0][1] and len(every) == 99 and every[0][0] == "fr"
    with pytest.raises(ValueError, match="English only"):
        whisper.detect_language(JFK)


# ------------------------------------------------------------------------------------------- memory


def test_memory_stays(whisper: Whisper) -> None:
    sound = jfk_float32()[:48_000]

    def run(times: int) -> int:
        for _ in range(times):
            whisper(sound, word_timestamps=True)
        gc.collect()
        return resident_bytes()

    tenth = run(10)
    assert run(40) - tenth < 2_000_000


def test_memory_does_not_grow_with_length(whisper: Whisper, tmp_path: Path) -> None:
    """An hour of silence with a few words at its end, from a file, takes no more than some minutes do."""
    path = tmp_path / "hour.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC") as file:
        for _ in range(59):
            file.write(np.zeros(16_000 * 60, np.int16))
        file.write(jfk_int16())
    whisper(path, vad_filter=True, clip_timestamps="3000")
    before = resident_bytes()
    result = whisper(path, vad_filter=True)
    assert words(result.text) == words(JFK_TEXT) and result.segments[0].start > 3539
    assert resident_bytes() - before < 60e6


def test_load_audio_is_what_is_heard(whisper: Whisper) -> None:
    assert whisper(load_audio(JFK)).text == cyllama.whisper.transcribe(JFK, model=whisper).text
