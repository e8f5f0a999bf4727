"""WhisperContext: loading, sizes, vocabulary, languages, and damaged files."""

from __future__ import annotations

import gc
import io
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from data.process import heartbeat, resident_bytes
from whisper.short import transcribe_short

from cyllama import models
from cyllama.errors import CancelledError, ClosedError, InUseError, ModelLoadError, UnsupportedError
from cyllama.whisper import (
    WhisperContext,
    WhisperContextParams,
    WhisperState,
    WhisperVad,
    bench_memcpy,
    languages,
)


def test_sizes(tiny_en: WhisperContext) -> None:
    assert not tiny_en.is_multilingual and tiny_en.model_type == "tiny" and tiny_en.model_type_id == 1
    assert (tiny_en.n_vocab, tiny_en.n_text_ctx, tiny_en.n_audio_ctx) == (51864, 448, 1500)
    assert (tiny_en.model_n_audio_state, tiny_en.model_n_audio_head, tiny_en.model_n_audio_layer) == (384, 6, 4)
    assert (tiny_en.model_n_text_state, tiny_en.model_n_text_head, tiny_en.model_n_text_layer) == (384, 6, 4)
    assert tiny_en.model_n_mels == 80 and tiny_en.model_ftype == 1
    assert tiny_en.languages == {"en": "english"}


def test_special_tokens(tiny_en: WhisperContext) -> None:
    assert tiny_en.token_eot == 50256 and tiny_en.token_sot == 50257
    assert tiny_en.token_translate == 50357 and tiny_en.token_transcribe == 50358
    assert tiny_en.token_solm == 50359 and tiny_en.token_prev == 50360 and tiny_en.token_nosp == 50361
    assert tiny_en.token_not == 50362 and tiny_en.token_beg == 50363
    assert tiny_en.token_to_str(tiny_en.token_beg) == "[_BEG_]"


def test_tokenizes_text(tiny_en: WhisperContext) -> None:
    tokens = tiny_en.tokenize(" And so my fellow Americans")
    assert tokens == [843, 523, 616, 5891, 3399] and tiny_en.token_count(" And so my fellow Americans") == 5
    assert "".join(map(tiny_en.token_to_str, tokens)) == " And so my fellow Americans"
    assert tiny_en.tokenize("") == []
    text = "naïve 你好 🙂's\t\n  x1y2"
    assert b"".join(map(tiny_en.token_to_bytes, tiny_en.tokenize(text))) == text.encode()
    assert len(tiny_en.tokenize("word " * 50_000)) > 50_000
    for bad, error in ((5, TypeError), (b"x", TypeError), ("a\0b", ValueError), ("\ud800", UnicodeEncodeError)):
        with pytest.raises(error):
            tiny_en.tokenize(bad)
    for bad, error in ((-1, IndexError), (51864, IndexError), ("a", TypeError), (True, TypeError)):
        with pytest.raises(error):
            tiny_en.token_to_str(bad)


def test_languages(tiny_en: WhisperContext) -> None:
    found = languages()
    assert len(found) == 100 and found["de"] == "german" and next(iter(found)) == "en"
    assert tiny_en.language_code("English") == "en"
    with pytest.raises(ValueError, match="English only"):
        tiny_en.language_code("de")
    with pytest.raises(ValueError, match="did you mean 'german'"):
        tiny_en.language_code("germann")
    with pytest.raises(TypeError):
        tiny_en.token_lang(5)


def feed(writer: int, data: bytes) -> None:
    with os.fdopen(writer, "wb") as file:
        file.write(data)


@pytest.mark.parametrize("way", ["path", "str", "bytes", "memoryview", "file", "bytesio", "offset", "pipe"])
def test_loads_from(tiny_en_path: Path, tmp_path: Path, way: str) -> None:
    data = tiny_en_path.read_bytes()
    if way in ("path", "str"):
        context = WhisperContext(tiny_en_path if way == "path" else str(tiny_en_path))
    elif way in ("bytes", "memoryview"):
        context = WhisperContext.from_bytes(data if way == "bytes" else memoryview(data))
    elif way == "bytesio":
        context = WhisperContext.from_fileobj(io.BytesIO(data))
    elif way == "pipe":
        reader, writer = os.pipe()
        feeder = threading.Thread(target=feed, args=(writer, data))
        feeder.start()
        with os.fdopen(reader, "rb") as file:
            context = WhisperContext.from_fileobj(file)
        feeder.join()
    else:
        name = tmp_path / "model"
        name.write_bytes((b"x" * 77 if way == "offset" else b"") + data)
        with open(name, "rb") as file:
            file.seek(77 if way == "offset" else 0)
            context = WhisperContext.from_fileobj(file)
    del data
    assert context.n_vocab == 51864
    with context, WhisperState(context) as state:
        transcribe_short(state, np.zeros(16_000, np.float32))


def damaged_models(tiny_en_path: Path) -> dict[str, bytes]:
    data = tiny_en_path.read_bytes()
    sizes = bytearray(data)
    sizes[4 + 4 * 4 : 8 + 4 * 4] = struct.pack("<i", 10**9)  # n_audio_layer
    mels = bytearray(data)
    mels[48:52] = struct.pack("<i", 2**31 - 1)
    return {
        "empty": b"",
        "short": data[:3],
        "header only": data[:48],
        "truncated in the vocabulary": data[:200_000],
        "truncated in a tensor": data[:20_000_000],
        "one byte less": data[:-1],
        "a byte more": data + b"x",
        "random": np.random.default_rng(0).bytes(100_000),
        "random after the magic": data[:4] + np.random.default_rng(1).bytes(100_000),
        "absurd sizes": bytes(sizes),
        "absurd filters": bytes(mels),
        "a GGUF file": b"GGUF" + bytes(1000),
        "a VAD model": models.get("silero-vad").read_bytes(),
    }


KINDS = (
    "empty", "short", "header only", "truncated in the vocabulary", "truncated in a tensor", "one byte less",
    "a byte more", "random", "random after the magic", "absurd sizes", "absurd filters", "a GGUF file",
    "a VAD model",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_rejects_damaged_model(tiny_en_path: Path, tmp_path: Path, kind: str) -> None:
    data = damaged_models(tiny_en_path)[kind]
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(ModelLoadError, match=r"model\.bin"):
        WhisperContext(path)
    with pytest.raises(ModelLoadError):
        WhisperContext.from_bytes(data)


def test_damaged_header_and_vocabulary_never_crash(tiny_en_path: Path) -> None:
    """Most damaged bytes are rejected; the others make a model that can be closed."""
    random = np.random.default_rng(0)
    rejected = 0
    vocabulary, whole = models.get("vocab-whisper-en").read_bytes(), tiny_en_path.read_bytes()
    places = [(vocabulary, at) for at in [*range(4, 56), *random.integers(64_000, 500_000, 30)]]
    for data, at in [*places, *((whole, at) for at in range(4, 56, 4))]:
        broken = bytearray(data)
        broken[at] ^= int(random.integers(1, 256))
        try:
            WhisperContext.from_bytes(broken).close()
        except ModelLoadError:
            rejected += 1
    assert rejected > 40


def test_rejected_models_do_not_leak(tiny_en_path: Path) -> None:
    data = tiny_en_path.read_bytes()[:-1]

    def fail(times: int) -> int:
        for _ in range(times):
            with pytest.raises(ModelLoadError):
                WhisperContext.from_bytes(data)
        gc.collect()
        return resident_bytes()

    before = fail(5)
    assert fail(20) - before < 2e6


def test_rejects_invalid_model_argument(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WhisperContext(tmp_path / "none.bin")
    with pytest.raises(IsADirectoryError):
        WhisperContext(tmp_path)
    with pytest.raises(TypeError):
        WhisperContext(5)
    with pytest.raises(TypeError):
        WhisperContext()
    with pytest.raises(ValueError, match="null"):
        WhisperContext("a\0b")
    with pytest.raises(TypeError):
        WhisperContext.from_bytes("text")
    with pytest.raises(TypeError, match="binary"):
        WhisperContext.from_fileobj(io.StringIO("text"))
    with pytest.raises(TypeError):
        WhisperContext.from_fileobj(None)


def test_model_without_weights_only_tokenizes() -> None:
    context = WhisperContext(models.get("vocab-whisper"))
    assert context.tokenize(" hello") and not context.has_weights
    with pytest.raises(UnsupportedError, match="no weights"):
        WhisperState(context)


def test_rejects_invalid_parameters(tiny_en_path: Path) -> None:
    with pytest.raises(TypeError, match="did you mean 'use_gpu'"):
        WhisperContextParams(usegpu=True)
    for values, error in (
        ({"gpu_device": -1}, ValueError),
        ({"use_gpu": "yes"}, TypeError),
        ({"dtw_token_timestamps": True}, ValueError),
        ({"dtw_token_timestamps": True, "dtw_aheads_preset": "tinny"}, ValueError),
        ({"dtw_token_timestamps": True, "dtw_aheads_preset": "custom", "dtw_aheads": [(9, 0)]}, ValueError),
        ({"dtw_token_timestamps": True, "dtw_aheads_preset": "n_top_most", "dtw_n_top": 9}, ValueError),
        ({"dtw_n_top": 2}, ValueError),
    ):
        with pytest.raises(error):
            WhisperContext(tiny_en_path, WhisperContextParams(**values))
    with pytest.raises(TypeError):
        WhisperContext(tiny_en_path, {"use_gpu": True})


def test_cancel_before_and_during_loading(tiny_en_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        WhisperContext(tiny_en_path, cancel=stop)

    class SecondCall:
        """An event that is set at the second call of `is_set`."""

        calls = 0

        def is_set(self) -> bool:
            self.calls += 1
            return self.calls > 1

    data = models.get("base").read_bytes()
    with pytest.raises(CancelledError):
        WhisperContext.from_bytes(data, cancel=SecondCall())


def test_context_is_closed_after_its_states(tiny_en_path: Path) -> None:
    context = WhisperContext(tiny_en_path)
    state = WhisperState(context)
    with pytest.raises(InUseError):
        context.close()
    state.close()
    state.close()
    with pytest.raises(ClosedError):
        state.full(np.zeros(16_000, np.float32))
    context.close()
    for use in (WhisperState, lambda closed: closed.n_text_ctx, lambda closed: closed.tokenize("a")):
        with pytest.raises(ClosedError):
            use(context)
    state = WhisperState(WhisperContext(tiny_en_path))
    gc.collect()
    state.full(np.zeros(16_000, np.float32))


def test_loading_releases_the_gil() -> None:
    path = models.get("base")
    with heartbeat() as heart:
        WhisperContext(path).close()
    assert heart.beats > 5


def test_rejects_damaged_vad_model(tiny_en_path: Path, tmp_path: Path) -> None:
    data = models.get("silero-vad").read_bytes()
    for bad in (b"", data[:-1], data + b"x", data[:100], tiny_en_path.read_bytes(), b"GGUF" + bytes(99)):
        path = tmp_path / "vad.bin"
        path.write_bytes(bad)
        with pytest.raises(ModelLoadError):
            WhisperVad(path)
    assert WhisperVad.from_bytes(data).detect_speech(np.zeros(5120, np.float32)).shape == (10,)
    with open(models.get("silero-vad"), "rb") as file:
        WhisperVad.from_fileobj(file).close()


def test_bench_memcpy_returns_a_table() -> None:
    assert "memcpy" in bench_memcpy(1)
    with pytest.raises(ValueError):
        bench_memcpy(0)
