"""Audio projectors: samples and files as bitmaps and chunks, and audio in chats."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from llava.projectors import projector_file, text_model
from llava.projectors_audio import AUDIO
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
    return tmp_path_factory.mktemp("audio")


@pytest.fixture(scope="module")
def mtmd_audio(folder: Path) -> Iterator[MtmdContext]:
    family = AUDIO["ultravox"]
    yield MtmdContext(projector_file("ultravox", family, folder), LlamaModel(text_model(family, folder)))


@pytest.fixture(scope="module")
def llava(mtmd_audio: MtmdContext) -> Iterator[Llava]:
    with Llava(mtmd_audio.model.path_model, mtmd_audio.path_mmproj, n_ctx=2048, chat_template="chatml") as llava:
        yield llava


def test_reports_capabilities(mtmd_audio: MtmdContext) -> None:
    assert (mtmd_audio.support_vision, mtmd_audio.support_audio, mtmd_audio.support_video) == (False, True, False)
    assert mtmd_audio.audio_sample_rate == RATE
    assert get_cap_from_file(mtmd_audio.path_mmproj) == {"vision": False, "audio": True}


def test_audio_becomes_chunks(mtmd_audio: MtmdContext) -> None:
    chunks = mtmd_audio.tokenize("Play <__media__> now", [Bitmap.from_audio(tone(), "tone")])
    audio = next(chunk for chunk in chunks if chunk.type == ChunkType.AUDIO)
    assert audio.id == "tone" and audio.n_tokens == audio.n_pos > 0 and audio.tokens == []
    rows = mtmd_audio.encode(audio)
    assert rows.shape == (audio.n_tokens, mtmd_audio.n_embd) and np.isfinite(rows).all()
    other = mtmd_audio.tokenize("<__media__>", [Bitmap.from_audio(tone(pitch=880.0))])
    assert not np.allclose(mtmd_audio.encode(next(c for c in other if c.type == ChunkType.AUDIO)), rows)
    with pytest.raises(ValueError):
        audio.positions()
    with LlamaContext(mtmd_audio.model, LlamaContextParams(n_ctx=1024)) as ctx:
        assert mtmd_audio.eval_chunks(ctx, chunks) == chunks.n_pos
        assert ctx.n_outputs == 1


def test_placeholder_has_the_same_tokens(mtmd_audio: MtmdContext) -> None:
    real = mtmd_audio.tokenize("<__media__>", [Bitmap.from_audio(tone(2.0))])
    assert mtmd_audio.tokenize("<__media__>", [Bitmap.placeholder(n_samples=2 * RATE)]).n_tokens == real.n_tokens


@pytest.mark.parametrize("seconds", [0.001, 0.1, 29.9, 30.1, 65.0])
def test_splits_long_audio(mtmd_audio: MtmdContext, seconds: float) -> None:
    try:
        chunks = mtmd_audio.tokenize("<__media__>", [Bitmap.from_audio(tone(seconds))])
    except MediaError:
        assert seconds < 0.2
        return
    found = [chunk for chunk in chunks if chunk.type == ChunkType.AUDIO]
    assert len(found) >= max(1, int(seconds // 30))


def test_reads_audio_files(mtmd_audio: MtmdContext, tmp_path: Path) -> None:
    stereo = np.stack([tone(rate=44100), tone(rate=44100)], axis=1)
    for kind, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("MP3", None)):
        data = encoded(stereo, 44100, kind, subtype)
        bitmap = Bitmap.from_bytes(mtmd_audio, data)
        assert bitmap.is_audio and abs(bitmap.nx - RATE) < 3000 and len(bitmap.id) == 64
        path = tmp_path / f"audio.{kind.lower()}"
        path.write_bytes(data)
        np.testing.assert_array_equal(Bitmap.from_file(mtmd_audio, path).data, bitmap.data)
    assert Bitmap.from_bytes(mtmd_audio, data, placeholder=True).n_bytes == 0


def test_rejects_wrong_headers(mtmd_audio: MtmdContext) -> None:
    data = bytearray(encoded(tone(), subtype="PCM_16"))
    data[40:44] = (2**31).to_bytes(4, "little")  # bytes of audio
    with pytest.raises(MediaError, match="truncated"):
        Bitmap.from_bytes(mtmd_audio, bytes(data))
    flac = bytearray(encoded(tone(), kind="FLAC", subtype="PCM_16"))
    flac[21] |= 0x0F  # the number of samples, 36 bits
    flac[22:26] = b"\xff\xff\xff\xff"
    with pytest.raises((ValueError, MediaError)):
        Bitmap.from_bytes(mtmd_audio, bytes(flac))
    with pytest.raises(MediaError):
        Bitmap.from_bytes(mtmd_audio, b"RIFF\x24\0\0\0WAVEfmt ")
    with pytest.raises(MediaError):
        Bitmap.from_bytes(mtmd_audio, b"ID3" + bytes(100))


def test_rejects_image_without_image_projector(mtmd_audio: MtmdContext, llava: Llava) -> None:
    with pytest.raises(UnsupportedError):
        mtmd_audio.tokenize("<__media__>", [Bitmap.from_pixels(np.asarray(shape()))])
    with pytest.raises(UnsupportedError, match=r"images\[0\]"):
        llava.ask("What?", images=shape())


def test_chat_accepts_audio_in_several_forms(llava: Llava) -> None:
    assert llava.supports_audio and not llava.supports_images
    first = llava.ask("What is this?", audio=tone(), max_tokens=4)
    wave = {"data": base64.b64encode(encoded(tone())).decode(), "format": "wav"}
    for part in ({"type": "input_audio", "input_audio": wave}, {"type": "audio", "audio": tone()}):
        response = llava.chat([{"role": "user", "content": [part, "What is this?"]}], max_tokens=4)
        assert response.text == first.text


def test_tokens_depend_on_duration_only(llava: Llava) -> None:
    expected = llava.count_tokens("What?", audio=tone())
    assert expected > llava.count_tokens("What?")
    for rate in (8000, 44100, 48000):
        samples = tone(rate=rate)
        for form in ((rate, samples), (rate, np.stack([samples, samples])), encoded(samples, rate)):
            assert llava.count_tokens("What?", audio=[form]) == expected
    assert llava.count_tokens("What?", audio=[tone(), tone(pitch=880.0)]) > expected
