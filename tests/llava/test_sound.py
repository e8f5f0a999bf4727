"""Projectors that hear: sounds as samples and as files, what they become, questions about them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from llava.projectors import projector_file, text_model
from llava.projectors_sounds import SOUNDS
from llava.support import shape

from cyllama.errors import MediaError, UnsupportedError
from cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel
from cyllama.llava import Bitmap, ChunkType, Llava, MtmdContext, get_cap_from_file

RATE = 16000


def tone(seconds: float = 1.0, rate: int = RATE, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = "FLOAT") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sounds")


@pytest.fixture(scope="module")
def ears(folder: Path) -> Iterator[MtmdContext]:
    family = SOUNDS["ultravox"]
    yield MtmdContext(projector_file("ultravox", family, folder), LlamaModel(text_model(family, folder)))


@pytest.fixture(scope="module")
def llava(ears: MtmdContext) -> Iterator[Llava]:
    with Llava(ears.model, ears.path_mmproj, n_ctx=2048, chat_template="chatml") as llava:
        yield llava


def test_what_it_can(ears: MtmdContext) -> None:
    assert (ears.support_vision, ears.support_audio, ears.support_video) == (False, True, False)
    assert ears.audio_sample_rate == RATE
    assert get_cap_from_file(ears.path_mmproj) == {"vision": False, "audio": True}


def test_a_sound_becomes_chunks(ears: MtmdContext) -> None:
    chunks = ears.tokenize("Hear <__media__> it", [Bitmap.from_audio(tone(), "tone")])
    sound = next(chunk for chunk in chunks if chunk.type == ChunkType.AUDIO)
    assert sound.id == "tone" and sound.n_tokens == sound.n_pos > 0 and sound.tokens == []
    rows = ears.encode(sound)
    assert rows.shape == (sound.n_tokens, ears.n_embd) and np.isfinite(rows).all()
    other = ears.tokenize("<__media__>", [Bitmap.from_audio(tone(pitch=880.0))])
    assert not np.allclose(ears.encode(next(c for c in other if c.type == ChunkType.AUDIO)), rows)
    with pytest.raises(ValueError, match="expected a picture"):
        sound.positions()
    with LlamaContext(ears.model, LlamaContextParams(n_ctx=1024)) as ctx:
        assert ears.eval_chunks(ctx, chunks) == chunks.n_pos
        assert ctx.n_outputs == 1


def test_a_stand_in_counts(ears: MtmdContext) -> None:
    real = ears.tokenize("<__media__>", [Bitmap.from_audio(tone(2.0))])
    assert ears.tokenize("<__media__>", [Bitmap.placeholder(n_samples=2 * RATE)]).n_tokens == real.n_tokens


@pytest.mark.parametrize("seconds", [0.001, 0.1, 29.9, 30.1, 65.0])
def test_any_length(ears: MtmdContext, seconds: float) -> None:
    try:
        chunks = ears.tokenize("<__media__>", [Bitmap.from_audio(tone(seconds))])
    except MediaError:
        assert seconds < 0.2
        return
    sounds = [chunk for chunk in chunks if chunk.type == ChunkType.AUDIO]
    assert len(sounds) >= max(1, int(seconds // 30))


def test_files_of_sounds(ears: MtmdContext, tmp_path: Path) -> None:
    stereo = np.stack([tone(rate=44100), tone(rate=44100)], axis=1)
    for kind, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("MP3", None)):
        data = encoded(stereo, 44100, kind, subtype)
        bitmap = Bitmap.from_bytes(ears, data)
        assert bitmap.is_audio and abs(bitmap.nx - RATE) < 3000 and len(bitmap.id) == 64
        path = tmp_path / f"sound.{kind.lower()}"
        path.write_bytes(data)
        np.testing.assert_array_equal(Bitmap.from_file(ears, path).data, bitmap.data)
    assert Bitmap.from_bytes(ears, data, placeholder=True).n_bytes == 0


def test_files_that_lie(ears: MtmdContext) -> None:
    data = bytearray(encoded(tone(), subtype="PCM_16"))
    data[40:44] = (2**31).to_bytes(4, "little")  # bytes of sound
    with pytest.raises(MediaError, match="truncated"):
        Bitmap.from_bytes(ears, bytes(data))
    flac = bytearray(encoded(tone(), kind="FLAC", subtype="PCM_16"))
    flac[21] |= 0x0F  # the number of samples, 36 bits
    flac[22:26] = b"\xff\xff\xff\xff"
    with pytest.raises((ValueError, MediaError)):
        Bitmap.from_bytes(ears, bytes(flac))
    with pytest.raises(MediaError):
        Bitmap.from_bytes(ears, b"RIFF\x24\0\0\0WAVEfmt ")
    with pytest.raises(MediaError):
        Bitmap.from_bytes(ears, b"ID3" + bytes(100))


def test_a_picture_for_a_projector_that_only_hears(ears: MtmdContext, llava: Llava) -> None:
    with pytest.raises(UnsupportedError, match="takes sound only"):
        ears.tokenize("<__media__>", [Bitmap.from_pixels(np.asarray(shape()))])
    with pytest.raises(UnsupportedError, match=r"images\[0\] is a picture, but the projector takes sound only"):
        llava.ask("What?", images=shape())


def test_questions_about_sounds(llava: Llava) -> None:
    assert llava.supports_audio and not llava.supports_images
    first = llava.ask("What do you hear?", audio=tone(), max_tokens=4)
    second = llava.ask("What else?", audio=tone(), max_tokens=4)
    assert first.media_tokens > 0 and first.encoded == 1 and second.encoded == 0
    wave = {"data": base64.b64encode(encoded(tone())).decode(), "format": "wav"}
    for part in ({"type": "input_audio", "input_audio": wave}, {"type": "audio", "audio": tone()}):
        answer = llava.chat([{"role": "user", "content": [part, "What do you hear?"]}], max_tokens=4)
        assert answer.text == first.text and answer.encoded == 0
    assert (
        llava.ask("What do you hear?", audio=[tone(), tone(pitch=880.0)], max_tokens=1).media_tokens
        > first.media_tokens
    )


def test_any_rate_gives_the_same_length(llava: Llava) -> None:
    expected = llava.ask("What?", audio=tone(), max_tokens=1).media_tokens
    for rate in (8000, 44100, 48000):
        samples = tone(rate=rate)
        for form in ((rate, samples), (rate, np.stack([samples, samples])), encoded(samples, rate)):
            assert llava.ask("What?", audio=[form], max_tokens=1).media_tokens == expected


def test_too_long_a_sound(ears: MtmdContext) -> None:
    with Llava(ears.model, ears.path_mmproj, n_ctx=1024, chat_template="chatml", max_seconds=1.5) as llava:
        assert llava.ask("What?", audio=tone(), max_tokens=1).media_tokens > 0
        with pytest.raises(ValueError, match="max_seconds"):
            llava.ask("What?", audio=tone(2.0))
        with pytest.raises(ValueError, match="max_seconds"):
            llava.ask("What?", audio=[tone(), tone(0.9)])
