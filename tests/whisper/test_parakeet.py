"""Parakeet models through `Whisper`, `transcribe`, the command line and the server: the text of parakeet-cli."""

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
    Transcription,
    Whisper,
    load_audio,
    quantize,
    transcribe,
)
from cyllama.whisper.parakeet import NEUTRAL, SUPPORTED, is_parakeet
from cyllama.whisper.pieces import Part, Piece, limit_pieces

SPACE = "\u2581"
# Words with spaces and punctuation instead of letters.
PUNCTUATED = ["<unk>", "<s>", "</s>", f"{SPACE}one", ".", f"{SPACE}two", ",", "s", f"{SPACE}four", "?"]
NAMES = ["jfk", "busy-en", "espeak-door", "new-user-fr"]
# A value other than the default for each option that Parakeet models do not support.
REFUSED: dict[str, Any] = {
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
def sounds(tmp_path_factory: pytest.TempPathFactory, speeches: dict[str, Speech]) -> dict[str, Path]:
    """The recordings as parakeet-cli is to read them: its own resampler is another one."""
    folder = tmp_path_factory.mktemp("sounds")
    for name in NAMES:
        soundfile.write(folder / f"{name}.wav", load_audio(speeches[name].path), 16_000, subtype="FLOAT")
    return {name: folder / f"{name}.wav" for name in NAMES}


@pytest.fixture(scope="module")
def native(bin_dir: Path, path: Path, sounds: dict[str, Path]) -> dict[str, subprocess.CompletedProcess[str]]:
    """The output of parakeet-cli for each recording: text on stdout, tokens with times on stderr."""
    return {
        name: subprocess.run(
            [bin_dir / "parakeet-cli", "-m", path, "-f", sound, "-t", "1", "-ps", "-np", "-ng"],
            check=True,
            capture_output=True,
            text=True,
        )
        for name, sound in sounds.items()
    }


def native_text(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.strip()


# ---------------------------------------------------------------------------------------- detection


def test_model_files_are_told_apart(path: Path) -> None:
    assert is_parakeet(path.read_bytes()[:128])
    for name in ("tiny.en", "vocab-whisper", "vocab-whisper-en", "silero-vad"):
        assert not is_parakeet(models.get(name).read_bytes()[:128])
    for other in (b"", b"lmgg", bytes(128), b"GGUF" + bytes(124), path.read_bytes()[:71]):
        assert not is_parakeet(other)


def test_a_damaged_header_is_still_a_parakeet_model(path: Path) -> None:
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


def test_a_damaged_file_is_named(path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "broken.bin"
    bad.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelLoadError, match=r"broken\.bin.*truncated"):
        Whisper(bad)


# ------------------------------------------------------------------------------- as parakeet-cli does


@pytest.mark.parametrize("name", NAMES)
def test_text_equals_parakeet_cli(whisper: Whisper, sounds: dict[str, Path], native: dict[str, Any], name: str) -> None:
    text = native_text(native[name])
    assert len(text) > 5
    assert whisper(sounds[name], n_threads=1).text == text
    assert transcribe(sounds[name], parakeet_model(), n_threads=1).text == text
    segments, _ = whisper.transcribe(sounds[name], n_threads=1)
    assert "".join(segment.text for segment in segments) == text


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_times_equal_parakeet_cli(
    whisper: Whisper, sounds: dict[str, Path], native: dict[str, Any], name: str
) -> None:
    wanted = [
        (int(id), float(p), int(t0) / 100, int(t1) / 100)
        for id, p, t0, t1 in TOKEN.findall(native[name].stderr)
        if int(id) > 2  # without control tokens
    ]
    result = whisper(sounds[name], n_threads=1, word_timestamps=True)
    found = [token for segment in result.segments for token in segment.tokens]
    assert [token.id for token in found] == [id for id, _, _, _ in wanted]
    assert [token.probability for token in found] == pytest.approx([p for _, p, _, _ in wanted], abs=1e-4)
    assert [token.start for token in found] == pytest.approx([min(t0, result.duration) for _, _, t0, _ in wanted])
    assert [token.end for token in found] == pytest.approx([min(t1, result.duration) for _, _, _, t1 in wanted])
    (segment,) = result.segments
    assert (segment.start, segment.end) == (found[0].start, found[-1].end)
    assert segment.words and "".join(word.word for word in segment.words) == segment.text
    assert segment.words[0].start == segment.start and segment.words[-1].end == segment.end


def test_command_line(
    path: Path, sounds: dict[str, Path], native: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(sounds[name]) for name in NAMES]
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


def test_server_route(server: Server, sounds: dict[str, Path], native: dict[str, Any]) -> None:
    def post(name: str, **fields: Any) -> requests.Response:
        return requests.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": (f"{name}.wav", sounds[name].read_bytes())},
            data={"model": "parakeet", **fields},
            timeout=60,
        )

    for name in NAMES:
        assert post(name).json()["text"] == native_text(native[name])
    whole = post("jfk", response_format="verbose_json", **{"timestamp_granularities[]": "word"}).json()
    assert whole["language"] == "und" and "".join(word["word"] for word in whole["words"]) == whole["text"]
    assert native_text(native["jfk"]) in post("jfk", response_format="srt").text
    assert "transcript.text.delta" in post("jfk", stream="true").text
    refused = post("jfk", language="en")
    assert refused.status_code == 400 and "language" in refused.json()["error"]["message"]
    assert post("jfk", temperature="0").status_code == 200


def test_weights_in_16_bits(path: Path, bin_dir: Path, tmp_path: Path) -> None:
    """A file as upstream's converter writes it."""
    half = tmp_path / "half.bin"
    half.write_bytes(converted(path.read_bytes()))
    command = [bin_dir / "parakeet-cli", "-m", half, "-f", JFK, "-t", "1", "-np", "-ng"]
    wanted = subprocess.run(command, check=True, capture_output=True, text=True)
    assert Whisper(half)(JFK, n_threads=1).text == native_text(wanted)


# ------------------------------------------------------------------------------------------- options


def test_every_option_is_supported_or_refused() -> None:
    assert SUPPORTED | REFUSED.keys() == {field.name for field in dataclasses.fields(TranscribeOptions)}
    assert not SUPPORTED & REFUSED.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_option_by_name(whisper: Whisper, name: str) -> None:
    options = {name: REFUSED[name]}
    for call in (whisper, whisper.transcribe):
        with pytest.raises(UnsupportedError, match=f"^{name} is "):
            call(JFK, **options)
    with pytest.raises(UnsupportedError, match=f"^{name} is "):
        StreamingTranscriber(whisper, **options)


@pytest.mark.parametrize("name", NEUTRAL)
def test_takes_values_that_the_engine_has_anyway(whisper: Whisper, name: str) -> None:
    assert whisper(JFK, **{name: NEUTRAL[name]}, n_threads=1).text == whisper(JFK, n_threads=1).text


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}, UnsupportedError, "temperature"),
        ({"translate": True}, UnsupportedError, "task"),
        ({"prompt": "a"}, UnsupportedError, "initial_prompt"),
        ({"patience": 1.0}, UnsupportedError, "patience"),
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
def test_refuses_wrong_values(whisper: Whisper, options: dict[str, Any], error: type[Exception], name: str) -> None:
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
def test_refuses_parameters_of_loading(path: Path, options: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        Whisper(path, **options)
    Whisper(path, use_gpu=False, flash_attn=None).close()


def test_refuses_what_needs_a_whisper_model(whisper: Whisper, path: Path, tmp_path: Path) -> None:
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
def test_formats(punctuated: Whisper, format: str) -> None:
    result = punctuated(JFK, word_timestamps=True, n_threads=1)
    assert result.segments[0].text.split()[0] in result.to_text(format)
    assert "NaN" not in result.to_text(format)


# ------------------------------------------------------------------------------------- parts and length


def test_pieces_are_cut_at_quiet_moments() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 100 * 16_000).astype(np.float32)
    samples[25 * 16_000 : 26 * 16_000] = 0
    parts = (Part(0.0, 40.0, 5.0), Part(40.1, 100.0, 60.0))
    pieces = list(limit_pieces([Piece(samples, parts)], 30.0))
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), samples)
    assert all(len(piece.samples) <= 30 * 16_000 for piece in pieces)
    assert 25 <= len(pieces[0].samples) / 16_000 <= 26
    assert pieces[0].start == 5.0 and pieces[-1].end == pytest.approx(60.0 + 59.9)
    for before, after in itertools.pairwise(pieces):
        assert before.end <= after.start + 1e-9
    short = Piece(samples[:16_000], (Part(0.0, 1.0, 0.0),))
    assert list(limit_pieces([short], 30.0)) == [short]


def test_ten_minutes(whisper: Whisper) -> None:
    """Longer audio than the engine takes at once is cut, so that memory does not grow with its length."""
    sound = np.tile(jfk_int16(), 55)[: 600 * 16_000]
    whisper(sound[: 40 * 16_000], n_threads=1)
    before, progress = resident_bytes(), list[float]()
    result = whisper(sound, n_threads=1, on_progress=progress.append)
    assert resident_bytes() - before < 300e6
    assert result.duration == 600.0 and len(result.segments) >= 19
    starts = [segment.start for segment in result.segments]
    assert starts == sorted(starts) and starts[-1] > 560 and result.segments[-1].end <= 600.0
    assert progress == sorted(progress) and len(progress) > 15 and progress[-1] == 1.0


def test_audio_ctx_is_the_length_of_a_part(whisper: Whisper) -> None:
    result = whisper(JFK, audio_ctx=150, n_threads=1)  # 3 s
    assert len(result.segments) >= 4
    assert all(segment.end - segment.start <= 3.0 for segment in result.segments)


def test_context_of_the_part_before(whisper: Whisper) -> None:
    """The first part is the same; without the context, the others are too when they are transcribed alone."""
    sound = jfk_float32()
    apart = whisper(sound, audio_ctx=250, condition_on_previous_text=False, n_threads=1)
    together = whisper(sound, audio_ctx=250, n_threads=1)
    assert apart.segments[0].text == together.segments[0].text
    assert apart.text != together.text


def test_clips(whisper: Whisper) -> None:
    result = whisper(JFK, clip_timestamps="2,5,7,9", n_threads=1)
    assert len(result.segments) == 2
    assert all(2 <= token.start <= 9 and not 5 < token.start < 7 for s in result.segments for token in s.tokens)
    part = whisper(jfk_float32()[2 * 16_000 : 5 * 16_000], n_threads=1)
    assert result.segments[0].text == part.segments[0].text


def test_voice_activity_detection(whisper: Whisper) -> None:
    quiet = np.zeros(10 * 16_000, np.float32)
    sound = np.concatenate([quiet, jfk_float32(), quiet])
    result = whisper(sound, vad_filter=True, word_timestamps=True, n_threads=1)
    assert result.info.duration_after_vad < 12 < result.duration
    assert result.words and all(9.5 <= word.start <= word.end <= 21.5 for word in result.words)
    assert whisper(quiet, vad_filter=True).text == ""


def test_parts_at_the_same_time(whisper: Whisper) -> None:
    sound = np.tile(jfk_float32(), 4)
    result = whisper(sound, batch_size=3, n_threads=1)
    alone = whisper(sound, batch_size=2, n_threads=1)
    assert result.text == alone.text and result.segments[-1].end > 35


def test_empty_and_short_audio(whisper: Whisper) -> None:
    assert whisper(np.zeros(0, np.float32)).segments == ()
    for n in (1, 100, 400, 2000):
        assert isinstance(whisper(np.full(n, 0.1, np.float32)), Transcription)


# ------------------------------------------------------------------------- streaming, cancelling, threads


def test_live_audio(punctuated: Whisper) -> None:
    stream = StreamingTranscriber(punctuated, step=2.0, n_threads=1)
    sound = np.tile(jfk_float32(), 3)
    found = [part for i in range(0, len(sound), 8000) for part in stream.feed(sound[i : i + 8000])]
    found += stream.flush()
    final = [part.segment for part in found if part.final]
    assert any(not part.final for part in found) and len(final) > 3
    assert [segment.id for segment in final] == list(range(len(final)))
    assert all(a.start <= b.start for a, b in itertools.pairwise(final)) and final[-1].end <= 33.0


def test_iterating_stops_the_engine(punctuated: Whisper) -> None:
    segments, info = punctuated.transcribe(np.tile(jfk_float32(), 20), n_threads=1)
    assert info.language == "und" and info.duration == 220.0
    assert isinstance(next(segments), Segment)
    segments.close()  # type: ignore[attr-defined]


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


def test_many_threads(whisper: Whisper, sounds: dict[str, Path], native: dict[str, Any]) -> None:
    with ThreadPoolExecutor(4) as workers:
        found = list(workers.map(lambda name: whisper(sounds[name], n_threads=1).text, NAMES * 3))
    assert found == [native_text(native[name]) for name in NAMES] * 3


def test_closing_during_a_call_is_refused(path: Path) -> None:
    whisper = Whisper(path)
    refused: list[int] = []

    def close(segment: Segment) -> None:
        with pytest.raises(InUseError):
            whisper.close()
        refused.append(1)

    whisper(JFK, on_segment=close)
    assert refused
    whisper.close()
    with pytest.raises(ValueError, match="closed"):
        whisper(JFK)


@pytest.mark.parametrize("end", ["", "del thing", "raise SystemExit(0)"])
def test_a_model_left_open_at_exit(path: Path, end: str) -> None:
    code = f"from cyllama.whisper import Whisper\nthing = Whisper({str(path)!r})\nthing({str(JFK)!r})\n{end}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
