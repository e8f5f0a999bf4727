"""Parakeet models with `Whisper`, `transcribe`, the command line and the server, compared with parakeet-cli."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile
from data.parakeet import converted, parakeet_model, with_words
from data.process import resident_bytes
from data.sounds import JFK, jfk_float32, jfk_int16
from data.speech import Speech
from server.running import Server, running_server

from cyllama import models
from cyllama.cli import main
from cyllama.errors import CancelledError, InUseError, ModelLoadError, UnsupportedError
from cyllama.whisper import (
    Segment,
    StreamingTranscriber,
    TranscribeOptions,
    Whisper,
    load_audio,
    quantize,
    transcribe,
)
from cyllama.whisper._chunking import Chunk, Span, limit_chunks
from cyllama.whisper._parakeet_decoder import NEUTRAL, SUPPORTED, is_parakeet

SPACE = "\u2581"
# A vocabulary with spaces and punctuation instead of letters.
PUNCTUATED = ["<unk>", "<s>", "</s>", f"{SPACE}one", ".", f"{SPACE}two", ",", "s", f"{SPACE}four", "?"]
NAMES = ["jfk", "busy-en", "espeak-door", "new-user-fr"]
# A value other than the default for each option that Parakeet models do not support.
UNSUPPORTED: dict[str, Any] = {
    "language": "en",
    "task": "translate",
    "initial_prompt": "a name",
    "hotwords": "a name",
    "carry_initial_prompt": True,
    "max_context": 10,
    "temperature": 0.2,
    "best_of": 2,
    "beam_size": 5,
    "length_penalty": 1.0,
    "no_speech_threshold": 0.5,
    "logprob_threshold": -1.0,
    "entropy_threshold": 2.0,
    "max_initial_timestamp": 1.0,
    "max_new_tokens": 10,
    "suppress_blank": False,
    "suppress_tokens": [-1],
    "suppress_regex": "[0-9]",
    "grammar": 'root ::= "a"',
    "grammar_rule": "other",
    "grammar_penalty": 10.0,
    "speaker_turns": True,
}
TOKEN = re.compile(r"^  \[ *\d+\] id= *(\d+) .* p=([\d.]+) .* t0= *(\d+) t1= *(\d+) ", re.MULTILINE)


@pytest.fixture(scope="module")
def path() -> Path:
    return parakeet_model()


@pytest.fixture(scope="module")
def whisper(path: Path) -> Whisper:
    return Whisper(path)


@pytest.fixture(scope="module")
def punctuated(path: Path) -> Whisper:
    return Whisper(with_words(path.read_bytes(), PUNCTUATED))


@pytest.fixture(scope="module")
def wav_files(tmp_path_factory: pytest.TempPathFactory, speeches: dict[str, Speech]) -> dict[str, Path]:
    """The recordings at 16,000 Hz: parakeet-cli has another resampler."""
    folder = tmp_path_factory.mktemp("wav")
    for name in NAMES:
        soundfile.write(folder / f"{name}.wav", load_audio(speeches[name].path), 16_000, subtype="FLOAT")
    return {name: folder / f"{name}.wav" for name in NAMES}


@pytest.fixture(scope="module")
def native(bin_dir: Path, path: Path, wav_files: dict[str, Path]) -> dict[str, subprocess.CompletedProcess[str]]:
    """The output of parakeet-cli for each recording: text on stdout, tokens and times on stderr."""
    return {
        name: subprocess.run(
            [bin_dir / "parakeet-cli", "-m", path, "-f", audio, "-t", "1", "-ps", "-np", "-ng"],
            check=True,
            capture_output=True,
            text=True,
        )
        for name, audio in wav_files.items()
    }


def native_text(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.strip()


# ---------------------------------------------------------------------------------------- detection


def test_is_parakeet_detects_the_architecture(path: Path) -> None:
    assert is_parakeet(path.read_bytes()[:128])
    for name in ("tiny.en", "vocab-whisper", "vocab-whisper-en", "silero-vad"):
        assert not is_parakeet(models.get(name).read_bytes()[:128])
    for other in (b"", b"lmgg", bytes(128), b"GGUF" + bytes(124), path.read_bytes()[:71]):
        assert not is_parakeet(other)


def test_is_parakeet_detects_damaged_headers(path: Path) -> None:
    head = path.read_bytes()[:128]
    for at in range(4, 72):
        assert is_parakeet(head[:at] + bytes([head[at] ^ 0x55]) + head[at + 1 :])


@pytest.mark.parametrize("way", ["path", "str", "bytes", "memoryview", "file", "bytesio"])
def test_loads_from(path: Path, way: str) -> None:
    data = path.read_bytes()
    model: Any = {"path": path, "str": str(path), "bytes": data, "memoryview": memoryview(data)}.get(way)
    if way == "file":
        with open(path, "rb") as file:
            whisper = Whisper(file)
    else:
        whisper = Whisper(model or io.BytesIO(data))
    with whisper:
        assert whisper.architecture == "parakeet" and not whisper.is_multilingual and whisper.languages == {}
    with Whisper("tiny.en") as other:
        assert other.architecture == "whisper"


def test_load_error_names_the_file(path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "broken.bin"
    bad.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelLoadError, match=r"broken\.bin.*truncated"):
        Whisper(bad)


# ------------------------------------------------------------------- comparison with parakeet-cli


@pytest.mark.parametrize("name", NAMES)
def test_text_equals_parakeet_cli(
    whisper: Whisper, wav_files: dict[str, Path], native: dict[str, Any], name: str
) -> None:
    text = native_text(native[name])
    assert len(text) > 5
    assert whisper(wav_files[name], n_threads=1).text == text
    assert transcribe(wav_files[name], parakeet_model(), n_threads=1).text == text
    segments, _ = whisper.transcribe(wav_files[name], n_threads=1)
    assert "".join(segment.text for segment in segments) == text


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_times_equal_parakeet_cli(
    whisper: Whisper, wav_files: dict[str, Path], native: dict[str, Any], name: str
) -> None:
    wanted = [
        (int(id), float(p), int(t0) / 100, int(t1) / 100)
        for id, p, t0, t1 in TOKEN.findall(native[name].stderr)
        if int(id) > 2  # without control tokens
    ]
    result = whisper(wav_files[name], n_threads=1, word_timestamps=True)
    found = [token for segment in result.segments for token in segment.token_details]
    assert [token.id for token in found] == [id for id, _, _, _ in wanted]
    assert [token.probability for token in found] == pytest.approx([p for _, p, _, _ in wanted], abs=1e-4)
    assert [token.start for token in found] == pytest.approx([min(t0, result.duration) for _, _, t0, _ in wanted])
    assert [token.end for token in found] == pytest.approx([min(t1, result.duration) for _, _, _, t1 in wanted])
    (segment,) = result.segments
    assert (segment.start, segment.end) == (found[0].start, found[-1].end)
    assert segment.words and "".join(word.word for word in segment.words) == segment.text
    assert segment.words[0].start == segment.start and segment.words[-1].end == segment.end


def test_command_line(
    path: Path, wav_files: dict[str, Path], native: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(wav_files[name]) for name in NAMES]
    options = ["--n-threads", "1", "--format", "txt,srt,json", "--output-dir", str(tmp_path)]
    assert main(["transcribe", *files, "--model", str(path), *options]) == 0
    shown = capsys.readouterr().out
    for name in NAMES:
        assert (tmp_path / f"{name}.txt").read_text().strip() == native_text(native[name])
        assert native_text(native[name]) in (tmp_path / f"{name}.srt").read_text()
        assert native_text(native[name]) in shown
    assert main(["transcribe", files[0], "--model", str(path), "--beam-size", "5"]) == 1
    assert "beam_size" in capsys.readouterr().err


@pytest.fixture(scope="module")
def server(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("server") / "models.toml"
    file.write_text(f'[models.parakeet]\nkind = "whisper"\nmodel = "{path}"\n')
    with running_server("--config", str(file)) as found:
        yield found


def test_server_route(server: Server, wav_files: dict[str, Path], native: dict[str, Any]) -> None:
    def post(name: str, **fields: Any) -> requests.Response:
        return requests.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": (f"{name}.wav", wav_files[name].read_bytes())},
            data={"model": "parakeet", **fields},
            timeout=60,
        )

    for name in NAMES:
        assert post(name).json()["text"] == native_text(native[name])
    whole = post("jfk", response_format="verbose_json", **{"timestamp_granularities[]": "word"}).json()
    assert whole["language"] == "und" and "".join(word["word"] for word in whole["words"]) == whole["text"]
    assert native_text(native["jfk"]) in post("jfk", response_format="srt").text
    assert "transcript.text.delta" in post("jfk", stream="true").text
    rejected = post("jfk", language="en")
    assert rejected.status_code == 400 and "language" in rejected.json()["error"]["message"]
    assert post("jfk", temperature="0").status_code == 200


def test_converted_model_equals_parakeet_cli(path: Path, bin_dir: Path, tmp_path: Path) -> None:
    """The file has 16-bit weights, as upstream's converter writes it."""
    half = tmp_path / "half.bin"
    half.write_bytes(converted(path.read_bytes()))
    command = [bin_dir / "parakeet-cli", "-m", half, "-f", JFK, "-t", "1", "-np", "-ng"]
    wanted = subprocess.run(command, check=True, capture_output=True, text=True)
    assert Whisper(half)(JFK, n_threads=1).text == native_text(wanted)


# ------------------------------------------------------------------------------------------- options


def test_every_option_is_supported_or_rejected() -> None:
    assert SUPPORTED | UNSUPPORTED.keys() == {field.name for field in dataclasses.fields(TranscribeOptions)}
    assert not SUPPORTED & UNSUPPORTED.keys()


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_rejects_unsupported_option(whisper: Whisper, name: str) -> None:
    options = {name: UNSUPPORTED[name]}
    for call in (whisper, whisper.transcribe):
        with pytest.raises(UnsupportedError, match=f"^{name} is "):
            call(JFK, **options)
    with pytest.raises(UnsupportedError, match=f"^{name} is "):
        StreamingTranscriber(whisper, **options)


@pytest.mark.parametrize("name", NEUTRAL)
def test_accepts_values_equal_to_the_behaviour(whisper: Whisper, name: str) -> None:
    assert whisper(JFK, **{name: NEUTRAL[name]}, n_threads=1).text == whisper(JFK, n_threads=1).text


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}, UnsupportedError, "temperature"),
        ({"translate": True}, UnsupportedError, "task"),
        ({"prompt": "a"}, UnsupportedError, "initial_prompt"),
        ({"patience": 2.0}, UnsupportedError, "patience"),
        ({"beem_size": 5}, TypeError, "beem_size"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"n_threads": "two"}, TypeError, "n_threads"),
        ({"audio_ctx": 49}, ValueError, "audio_ctx"),
        ({"audio_ctx": 1601}, ValueError, "audio_ctx"),
        ({"audio_ctx": "all"}, TypeError, "audio_ctx"),
        ({"max_segment_chars": -1}, ValueError, "max_segment_chars"),
        ({"max_segment_chars": 1.5}, TypeError, "max_segment_chars"),
    ],
    ids=str,
)
def test_rejects_invalid_value(whisper: Whisper, options: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        whisper(JFK, **options)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"dtw": True}, UnsupportedError, "dtw"),
        ({"flash_attn": True}, UnsupportedError, "flash_attn"),
        ({"dtw_n_top": 2}, UnsupportedError, "dtw_n_top"),
        ({"use_gpuu": True}, TypeError, "use_gpu"),
        ({"gpu_device": -1}, ValueError, "gpu_device"),
    ],
)
def test_rejects_unsupported_loading_parameter(
    path: Path, options: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        Whisper(path, **options)
    Whisper(path, use_gpu=False, flash_attn=None).close()


def test_rejects_functions_for_whisper_models(whisper: Whisper, path: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="detect_language"):
        whisper.detect_language(JFK)
    with pytest.raises(UnsupportedError, match="Parakeet"):
        quantize(path, tmp_path / "small.bin")


# ---------------------------------------------------------------------------------- segments and words


def test_segments_are_sentences(punctuated: Whisper) -> None:
    result = punctuated(JFK, word_timestamps=True, n_threads=1)
    whole = punctuated(JFK, without_timestamps=True, n_threads=1)
    assert len(result.segments) > 1 and len(whole.segments) == 1 and result.text == whole.text
    assert (whole.segments[0].start, whole.segments[0].end) == (0.0, 11.0)
    for segment, following in zip(result.segments, result.segments[1:], strict=False):
        assert segment.text[-1] in ".?" and following.text.startswith(" ")
        assert segment.end <= following.start + 0.16 and segment.id + 1 == following.id
    times = [time for word in result.words for time in (word.start, word.end)]
    assert all(0.0 <= time <= 11.0 for time in times)
    assert "".join(word.word for word in result.words).strip() == result.text
    assert all(0 < word.probability <= 1 for word in result.words)
    assert all(segment.words is None for segment in whole.segments)


def test_segments_of_limited_length(punctuated: Whisper) -> None:
    whole = punctuated(JFK, n_threads=1)
    short = punctuated(JFK, max_segment_chars=12, n_threads=1)
    shorter = punctuated(JFK, max_segment_chars=4, split_on_word=False, n_threads=1)
    assert whole.text == short.text == shorter.text
    assert len(whole.segments) < len(short.segments) < len(shorter.segments)
    for segment in short.segments:
        assert len(segment.text.strip()) <= 12 or " " not in segment.text.strip()
    assert not any(segment.text.startswith(".") for segment in short.segments[1:])


@pytest.mark.parametrize("format", ["txt", "srt", "vtt", "tsv", "csv", "json", "json-full", "lrc"])
def test_all_formats_have_the_text(punctuated: Whisper, format: str) -> None:
    result = punctuated(JFK, word_timestamps=True, n_threads=1)
    assert result.segments[0].text.split()[0] in result.to_text(format)
    assert "NaN" not in result.to_text(format)


# ------------------------------------------------------------------------------------- chunks


def test_limit_chunks_cuts_at_quiet_moments() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 100 * 16_000).astype(np.float32)
    samples[25 * 16_000 : 26 * 16_000] = 0
    spans = (Span(0.0, 40.0, 5.0), Span(40.1, 100.0, 60.0))
    chunks = list(limit_chunks([Chunk(samples, spans)], 30.0))
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), samples)
    assert all(len(chunk.samples) <= 30 * 16_000 for chunk in chunks)
    assert 25 <= len(chunks[0].samples) / 16_000 <= 26
    assert chunks[0].start == 5.0 and chunks[-1].end == pytest.approx(60.0 + 59.9)
    for before, after in itertools.pairwise(chunks):
        assert before.end <= after.start + 1e-9
    short = Chunk(samples[:16_000], (Span(0.0, 1.0, 0.0),))
    assert list(limit_chunks([short], 30.0)) == [short]


def test_long_audio_is_split_into_chunks(whisper: Whisper) -> None:
    """Memory does not grow with the length of the audio."""
    audio = np.tile(jfk_int16(), 55)[: 600 * 16_000]
    whisper(audio[: 40 * 16_000], n_threads=1)
    before, progress = resident_bytes(), list[float]()
    result = whisper(audio, n_threads=1, on_progress=progress.append)
    assert resident_bytes() - before < 300e6
    assert result.duration == 600.0 and len(result.segments) >= 19
    starts = [segment.start for segment in result.segments]
    assert starts == sorted(starts) and starts[-1] > 560 and result.segments[-1].end <= 600.0
    assert progress == sorted(progress) and len(progress) > 15 and progress[-1] == 1.0


def test_audio_ctx_limits_the_chunks(whisper: Whisper) -> None:
    result = whisper(JFK, audio_ctx=150, n_threads=1)  # 3 s
    assert len(result.segments) >= 4
    assert all(segment.end - segment.start <= 3.0 for segment in result.segments)


def test_context_of_the_previous_chunk_changes_the_text(whisper: Whisper) -> None:
    audio = jfk_float32()
    apart = whisper(audio, audio_ctx=250, condition_on_previous_text=False, n_threads=1)
    together = whisper(audio, audio_ctx=250, n_threads=1)
    assert apart.segments[0].text == together.segments[0].text
    assert apart.text != together.text


def test_clips_are_transcribed_alone(whisper: Whisper) -> None:
    result = whisper(JFK, clip_timestamps="2,5,7,9", n_threads=1)
    assert len(result.segments) == 2
    assert all(2 <= token.start <= 9 and not 5 < token.start < 7 for s in result.segments for token in s.token_details)
    part = whisper(jfk_float32()[2 * 16_000 : 5 * 16_000], n_threads=1)
    assert result.segments[0].text == part.segments[0].text


def test_vad_filter_keeps_times_of_the_audio(whisper: Whisper) -> None:
    quiet = np.zeros(10 * 16_000, np.float32)
    audio = np.concatenate([quiet, jfk_float32(), quiet])
    result = whisper(audio, vad_filter=True, word_timestamps=True, n_threads=1)
    assert result.info.duration_after_vad < 12 < result.duration
    assert result.words and all(9.5 <= word.start <= word.end <= 21.5 for word in result.words)
    assert whisper(quiet, vad_filter=True).text == ""


def test_batch_size_does_not_change_the_text(whisper: Whisper) -> None:
    audio = np.tile(jfk_float32(), 4)
    result = whisper(audio, batch_size=3, n_threads=1)
    alone = whisper(audio, batch_size=2, n_threads=1)
    assert result.text == alone.text and result.segments[-1].end > 35


def test_empty_and_short_audio(whisper: Whisper) -> None:
    assert whisper(np.zeros(0, np.float32)).segments == ()
    for n in (1, 100, 400, 2000):
        result = whisper(np.full(n, 0.1, np.float32))
        assert result.duration == n / 16_000 and all(segment.end <= result.duration for segment in result.segments)


# ------------------------------------------------------------------------- streaming, cancelling, threads


def test_streaming_returns_provisional_and_final_segments(punctuated: Whisper) -> None:
    stream = StreamingTranscriber(punctuated, step=2.0, n_threads=1)
    audio = np.tile(jfk_float32(), 3)
    found = [part for i in range(0, len(audio), 8000) for part in stream.feed(audio[i : i + 8000])]
    found += stream.flush()
    final = [part.segment for part in found if part.final]
    assert any(not part.final for part in found) and len(final) > 3
    assert [segment.id for segment in final] == list(range(len(final)))
    assert all(a.start <= b.start for a, b in itertools.pairwise(final)) and final[-1].end <= 33.0


def test_closing_the_iterator_stops_the_transcription(punctuated: Whisper) -> None:
    segments, info = punctuated.transcribe(np.tile(jfk_float32(), 20), n_threads=1)
    assert info.language == "und" and info.duration == 220.0
    assert isinstance(next(segments), Segment)
    segments.close()


@pytest.mark.parametrize("how", ["segment", "progress", "before"])
def test_cancel(whisper: Whisper, how: str) -> None:
    stop, seen = threading.Event(), list[Segment]()
    callbacks: dict[str, Any] = {"on_segment": seen.append}
    if how == "segment":
        callbacks["on_segment"] = lambda segment: (seen.append(segment), stop.set())
    elif how == "progress":
        callbacks["on_progress"] = lambda part: part < 0.2
    else:
        stop.set()
    with pytest.raises(CancelledError):
        whisper(np.tile(jfk_float32(), 20), cancel=stop, n_threads=1, **callbacks)
    assert len(seen) == {"segment": 1, "progress": 2, "before": 0}[how]
    assert whisper(JFK).text


def test_exception_of_a_callback_is_raised(whisper: Whisper) -> None:
    with pytest.raises(LookupError):
        whisper(JFK, on_segment=lambda segment: {}[segment.text])


def test_many_threads(whisper: Whisper, wav_files: dict[str, Path], native: dict[str, Any]) -> None:
    with ThreadPoolExecutor(4) as workers:
        found = list(workers.map(lambda name: whisper(wav_files[name], n_threads=1).text, NAMES * 3))
    assert found == [native_text(native[name]) for name in NAMES] * 3


def test_rejects_closing_during_a_call(path: Path) -> None:
    whisper = Whisper(path)
    rejected: list[int] = []

    def close(segment: Segment) -> None:
        with pytest.raises(InUseError):
            whisper.close()
        rejected.append(1)

    whisper(JFK, on_segment=close)
    assert rejected
    whisper.close()
    with pytest.raises(ValueError, match="closed"):
        whisper(JFK)


@pytest.mark.parametrize("end", ["", "del thing", "raise SystemExit(0)"])
def test_open_model_at_exit(path: Path, end: str) -> None:
    code = f"from cyllama.whisper import Whisper\nthing = Whisper({str(path)!r})\nthing({str(JFK)!r})\n{end}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
