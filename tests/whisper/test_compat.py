"""The README programs of faster-whisper and openai-whisper, with the import changed."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from data.sounds import JFK, jfk_float32

import cyllama.compat.openai_whisper as whisper
from cyllama import models
from cyllama.compat.faster_whisper import BatchedInferencePipeline, WhisperModel, _quantized, decode_audio
from cyllama.errors import DownloadError, UnsupportedError
from cyllama.media.mel import mel_filters
from cyllama.whisper import Whisper, WhisperContext
from cyllama.whisper.model_names import HUB_MODELS

WORDS = "what you can do for your country"


@pytest.fixture(scope="module")
def model() -> WhisperModel:
    return WhisperModel("tiny.en", device="cpu", compute_type="int8", cpu_threads=2, num_workers=1)


@pytest.fixture(scope="module")
def base() -> whisper.WhisperModel:
    return whisper.load_model("base", device="cpu")


# ----------------------------------------------------------------------------------- faster-whisper


def test_transcribes_as_faster_whisper(model: WhisperModel) -> None:
    segments, info = model.transcribe(str(JFK), beam_size=5, word_timestamps=True)
    assert (info.language, info.duration) == ("en", 11.0) and 0 <= info.language_probability <= 1
    found = list(segments)
    assert WORDS in "".join(segment.text for segment in found)
    for number, segment in enumerate(found, 1):
        assert segment.id == number and segment.end > segment.start
        assert segment.tokens and all(type(token) is int for token in segment.tokens)
        assert segment.words and "".join(word.word for word in segment.words) == segment.text
    assert model.supported_languages == ["en"] and not model.is_multilingual


def test_filters_silence_and_batches_as_faster_whisper(model: WhisperModel) -> None:
    segments, info = model.transcribe(
        str(JFK), vad_filter=True, vad_parameters={"min_silence_duration_ms": 500}, condition_on_previous_text=False
    )
    assert WORDS in "".join(segment.text for segment in segments)
    assert info.vad_options is not None and info.vad_options.speech_pad_ms == 400
    segments, _ = BatchedInferencePipeline(model=model).transcribe(str(JFK), batch_size=16)
    assert WORDS in "".join(segment.text for segment in segments)


def test_int8_is_quantized(model: WhisperModel) -> None:
    q8_0 = 7  # GGML_FTYPE_MOSTLY_Q8_0
    context = model._whisper._context
    assert isinstance(context, WhisperContext) and context.model_ftype % 1000 == q8_0
    assert _quantized(models.get("tiny.en"), "float16") == models.get("tiny.en")
    once = _quantized(models.get("tiny.en"), "int8")
    assert _quantized(once, "int8") == once  # it is quantized already


def test_decode_audio_as_faster_whisper() -> None:
    np.testing.assert_array_equal(decode_audio(str(JFK)), jfk_float32())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"device": "tpu"}, ValueError), ({"compute_type": "bfloat16"}, UnsupportedError),
        ({"num_workers": 0}, ValueError), ({"files": {}}, UnsupportedError), ({"devise": "cpu"}, TypeError),
    ],
)  # fmt: skip
def test_rejects_arguments_without_an_effect(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        WhisperModel("tiny.en", **arguments)  # type: ignore[arg-type]


def test_thresholds_of_none_are_off(model: WhisperModel) -> None:
    segments, info = model.transcribe(
        str(JFK), log_prob_threshold=None, no_speech_threshold=None, compression_ratio_threshold=None, beam_size=1
    )
    segments.close()  # type: ignore[attr-defined]
    options = info.transcription_options
    assert options is not None
    assert (options.logprob_threshold, options.no_speech_threshold, options.entropy_threshold) == (-1e6, 1e6, 0.0)


# ----------------------------------------------------------------------------------- openai-whisper


def test_transcribes_as_openai_whisper(base: whisper.WhisperModel, capsys: pytest.CaptureFixture[str]) -> None:
    result = base.transcribe(str(JFK), fp16=False, verbose=True, word_timestamps=True)
    assert WORDS in result["text"] and result["language"] == "en"
    assert all(type(token) is int for token in result["segments"][0]["tokens"]) and result["segments"][0]["words"]
    assert capsys.readouterr().out.startswith("[00:00.")


def test_decodes_as_openai_whisper(base: whisper.WhisperModel) -> None:
    audio = whisper.pad_or_trim(whisper.load_audio(str(JFK)))
    assert audio.shape == (480_000,)
    mel = whisper.log_mel_spectrogram(audio, n_mels=base.dims.n_mels).to(base.device)
    assert mel.shape == (80, 3000)
    _, probabilities = base.detect_language(mel)
    assert max(probabilities, key=probabilities.get) == "en"  # type: ignore[arg-type]
    result = whisper.decode(base, mel, whisper.DecodingOptions(language="en"))
    assert WORDS in result.text and result.tokens
    with pytest.raises(UnsupportedError, match="log_mel_spectrogram"):
        whisper.decode(base, np.asarray(mel))  # type: ignore[arg-type]


def test_mel_filters_are_those_of_the_model() -> None:
    data = models.get("vocab-whisper").read_bytes()
    n_mels, bins = struct.unpack_from("<2i", data, 48)
    filters = np.frombuffer(data, "<f4", n_mels * bins, 56).reshape(n_mels, bins)
    np.testing.assert_allclose(mel_filters(80), filters, atol=1e-7)


# ---------------------------------------------------------------------------------------- model names


@pytest.mark.parametrize("name", ["small", "large-v3", "turbo", "distil-large-v3"])
def test_names_are_files_of_the_hub(name: str) -> None:
    with pytest.raises(DownloadError, match="cannot be reached") as caught:  # tests have no hub
        Whisper(name)
    assert HUB_MODELS[name] in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="large-v9"):
        Whisper("large-v9")
