"""ParakeetContext: loading, sizes, vocabulary, and damaged files."""

from __future__ import annotations

import gc
import io
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from data.parakeet import NUMBERS, WORDS, number, parakeet_model, places, tensors, with_number, with_words
from data.process import resident_bytes

from cyllama import models
from cyllama.errors import CancelledError, ClosedError, InUseError, ModelLoadError
from cyllama.whisper import ParakeetContext, ParakeetContextParams, ParakeetState, WhisperContext

SPACE = "\u2581"


@pytest.fixture(scope="module")
def data() -> bytes:
    return parakeet_model().read_bytes()


@pytest.fixture(scope="module")
def context() -> ParakeetContext:
    return ParakeetContext(parakeet_model())


def load_and_transcribe(data: bytes) -> None:
    """Load a model, and transcribe with it: a model that loads must also work."""
    with ParakeetContext.from_bytes(data) as context, ParakeetState(context) as state:
        state.full(np.zeros(1600, np.float32))


def test_sizes(context: ParakeetContext) -> None:
    assert (context.n_vocab, context.n_audio_ctx, context.model_n_mels, context.model_ftype) == (10, 3200, 16, 0)
    assert (context.model_n_audio_state, context.model_n_audio_head, context.model_n_audio_layer) == (8, 2, 1)
    assert (context.token_blank, context.token_unk, context.token_bos) == (10, 0, 1)


def test_tokenizes_with_longest_words(data: bytes) -> None:
    words = ["<unk>", "<s>", "</s>", SPACE, f"{SPACE}ab", "a", "b", "ab", "\u00e9", "."]
    context = ParakeetContext.from_bytes(with_words(data, words))
    assert context.tokenize("ab a.") == [4, 3, 5, 9]
    assert context.tokenize("\u00e9x") == [3, 8, 0]  # x is unknown
    assert context.token_count("ab ab") == 2
    assert [context.token_to_str(token) for token in (4, 8, 10)] == [f"{SPACE}ab", "\u00e9", "[BLANK]"]
    assert [context.token_to_bytes(token) for token in (4, 8, 10, 0)] == [b" ab", "\u00e9".encode(), b"", b""]
    for bad, error in ((5, TypeError), ("a\0b", ValueError), ("\ud800", UnicodeEncodeError)):
        with pytest.raises(error):
            context.tokenize(bad)
    for bad, error in ((-1, IndexError), (11, IndexError), ("a", TypeError), (True, TypeError)):
        with pytest.raises(error):
            context.token_to_str(bad)


@pytest.mark.parametrize("way", ["path", "bytes", "memoryview", "file", "bytesio", "offset"])
def test_loads_from(data: bytes, tmp_path: Path, way: str) -> None:
    if way == "path":
        context = ParakeetContext(parakeet_model())
    elif way in ("bytes", "memoryview"):
        context = ParakeetContext.from_bytes(data if way == "bytes" else memoryview(data))
    elif way == "bytesio":
        context = ParakeetContext.from_fileobj(io.BytesIO(data))
    else:
        path = tmp_path / "model"
        path.write_bytes((b"x" * 77 if way == "offset" else b"") + data)
        with open(path, "rb") as file:
            file.seek(77 if way == "offset" else 0)
            context = ParakeetContext.from_fileobj(file)
    assert context.n_vocab == 10


def test_rejects_truncated_files(data: bytes) -> None:
    """Truncate at the border of two parts, one byte before and after, and at random places."""
    borders = [0, 3, 4, *range(8, 72, 4), *places(data).values()]
    borders += [end for start, end in tensors(data).values()][:-1]
    lengths = {length + step for length in borders for step in (-1, 0, 1) if 0 <= length + step < len(data)}
    lengths |= {int(length) for length in np.random.default_rng(0).integers(0, len(data), 50)}
    for length in lengths:
        with pytest.raises(ModelLoadError):
            ParakeetContext.from_bytes(data[:length])
    with pytest.raises(ModelLoadError):
        ParakeetContext.from_bytes(data + b"x")


@pytest.mark.parametrize("name", NUMBERS)
def test_header_of_any_value_loads_safely_or_is_rejected(data: bytes, name: str) -> None:
    """Numbers that do not affect the tensors may have other values; ftype 1000 is a version of ftype 0."""
    free = {"n_audio_ctx": range(64, 20_000), "n_max_tokens": range(1, 1001), "ftype": (1000,)}.get(name, ())
    before = resident_bytes()
    for value in (-(2**31), -1, 0, 1, 2, 3, 7, 16, 63, 1000, 32_768, 2**24, 2**31 - 1):
        if value in free or value == number(data, name):
            load_and_transcribe(with_number(data, name, value))
            continue
        with pytest.raises(ModelLoadError):
            ParakeetContext.from_bytes(with_number(data, name, value))
    assert resident_bytes() - before < 100e6


@pytest.mark.parametrize("part", ["filters", "window", "durations", "words", "tensors"])
def test_rejects_wrong_counts(data: bytes, part: str) -> None:
    at = places(data)[part]
    for value in (-1, 2**31 - 1, 1 << 20):
        with pytest.raises(ModelLoadError):
            ParakeetContext.from_bytes(data[:at] + struct.pack("<i", value) + data[at + 4 :])


def test_rejects_damaged_tensors(data: bytes) -> None:
    found = tensors(data)
    start, end = found["encoder.layers.0.self_attn.linear_q.weight"]
    without, twice = data[:start] + data[end:], data[:end] + data[start:]
    renamed = data.replace(b"linear_q.weight", b"linear_Q.weight")
    shape = data[: start + 12] + struct.pack("<2i", 4, 16) + data[start + 20 :]
    dims = data[:start] + struct.pack("<i", 5) + data[start + 4 :]
    kinds = [data[: start + 8] + struct.pack("<i", kind) + data[start + 12 :] for kind in (-1, 1, 26, 10**6)]
    for bad in (without, twice, renamed, shape, dims, *kinds):
        with pytest.raises(ModelLoadError):
            ParakeetContext.from_bytes(bad)


def test_flipped_bytes_never_crash(data: bytes) -> None:
    """Damaged weights load, with other text; everything else is rejected or harmless."""
    random = np.random.default_rng(0)
    head = places(data)["tensors"]
    loaded = rejected = 0
    for at in [*range(4, 72), *random.integers(72, head, 30), *random.integers(head, len(data), 60)]:
        broken = bytearray(data)
        broken[at] ^= int(random.integers(1, 256))
        try:
            load_and_transcribe(bytes(broken))
            loaded += 1
        except ModelLoadError:
            rejected += 1
    assert loaded > 20 and rejected > 20


def test_weights_without_values_never_crash(data: bytes) -> None:
    """Weights that are not finite load, and make logits that are not finite."""
    for value in (np.nan, np.inf, -np.inf, 3e38):
        broken = bytearray(data)
        for name, (_, end) in tensors(data).items():
            if name.startswith("joint"):
                broken[end - 4 : end] = struct.pack("<f", value)
        load_and_transcribe(bytes(broken))


def test_rejects_other_files(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    for bad in (b"", b"lmg", b"GGUF" + bytes(1000), data[:4] + np.random.default_rng(1).bytes(10_000)):
        path.write_bytes(bad)
        with pytest.raises(ModelLoadError, match=r"model\.bin"):
            ParakeetContext(path)
    for name in ("silero-vad", "vocab-whisper"):
        with pytest.raises(ModelLoadError):
            ParakeetContext(models.get(name))
    with pytest.raises(ModelLoadError):
        WhisperContext(parakeet_model())


def test_rejects_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ParakeetContext(tmp_path / "none.bin")
    with pytest.raises(IsADirectoryError):
        ParakeetContext(tmp_path)
    with pytest.raises(TypeError):
        ParakeetContext()
    with pytest.raises(TypeError, match="binary"):
        ParakeetContext.from_fileobj(io.StringIO("text"))
    with pytest.raises(TypeError, match="did you mean 'use_gpu'"):
        ParakeetContextParams(usegpu=True)
    with pytest.raises(ValueError, match="gpu_device"):
        ParakeetContext(parakeet_model(), ParakeetContextParams(gpu_device=-1))
    with pytest.raises(TypeError, match="ParakeetContextParams"):
        ParakeetContext(parakeet_model(), {"use_gpu": True})


def test_rejected_files_do_not_leak(data: bytes) -> None:
    def fail(times: int) -> int:
        for _ in range(times):
            with pytest.raises(ModelLoadError):
                ParakeetContext.from_bytes(data[:-1])
        gc.collect()
        return resident_bytes()

    before = fail(10)
    assert fail(50) - before < 2e6


def test_closed_models_and_states_do_not_leak(data: bytes) -> None:
    def use(times: int) -> int:
        for _ in range(times):
            load_and_transcribe(data)
        gc.collect()
        return resident_bytes()

    before = use(5)
    assert use(20) - before < 4e6


def test_cancelled_before_loading() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        ParakeetContext(parakeet_model(), cancel=stop)


def test_context_is_closed_after_its_states() -> None:
    context = ParakeetContext(parakeet_model())
    state = ParakeetState(context)
    with pytest.raises(InUseError):
        context.close()
    state.close()
    state.close()
    with pytest.raises(ClosedError):
        state.full()
    context.close()
    for use in (ParakeetState, lambda closed: closed.n_audio_ctx, lambda closed: closed.tokenize("a")):
        with pytest.raises(ClosedError):
            use(context)
    state = ParakeetState(ParakeetContext(parakeet_model()))
    gc.collect()
    state.full(np.zeros(16_000, np.float32))


def test_vocabulary_is_that_of_the_generator(context: ParakeetContext) -> None:
    assert tuple(context.token_to_str(token) for token in range(10)) == WORDS
