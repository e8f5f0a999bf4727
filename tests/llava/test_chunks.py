"""Tokenizing: chunks, their tokens and positions, saving and loading them."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llava.support import pixels

from cyllama.errors import ClosedError, InUseError, MediaError, UnsupportedError
from cyllama.llava import Bitmap, ChunkType, InputChunk, InputChunks, MtmdContext


@pytest.fixture(scope="module")
def chunks(mtmd: MtmdContext) -> InputChunks:
    return mtmd.tokenize("Look: <__media__>\nWhat is it?", [Bitmap.from_pixels(pixels(), "circle")])


def test_prompt_with_an_image(mtmd: MtmdContext, chunks: InputChunks) -> None:
    vocab = mtmd.model.vocab
    assert [chunk.type for chunk in chunks] == [ChunkType.TEXT, ChunkType.IMAGE, ChunkType.TEXT]
    text, image, _after = chunks
    assert vocab.detokenize(text.tokens, False, True) == "Look: <img>"
    assert vocab.detokenize(chunks[-1].tokens, False, True) == "</img>\nWhat is it?"
    assert (image.tokens, image.n_tokens, image.n_pos, image.id) == ([], 16, 16, "circle")
    assert text.id is None and text.n_tokens == text.n_pos == len(text.tokens)
    assert chunks.n_tokens == chunks.n_pos == 16 + text.n_tokens + chunks[2].n_tokens
    assert repr(chunks) == f"<InputChunks text {text.n_tokens}, image 16, text {chunks[2].n_tokens}>"
    assert repr(image) == "<InputChunk image, 16 tokens>"


def test_markers_in_parts_are_text(mtmd: MtmdContext) -> None:
    bitmap = Bitmap.from_pixels(pixels())
    chunks = mtmd.tokenize_from_parts(["a <__media__> b", bitmap, ("<|im_end|>", False)])
    assert [chunk.type.name for chunk in chunks] == ["TEXT", "IMAGE", "TEXT"]
    vocab = mtmd.model.vocab
    end = vocab.tokenize("<|im_end|>", False, True)
    assert len(end) == 1 and end[0] not in chunks[2].tokens
    assert end[0] in mtmd.tokenize_from_parts(["<|im_end|>"])[0].tokens
    same = mtmd.tokenize("x <__media__> y", [bitmap])
    parts = mtmd.tokenize_from_parts(["x ", bitmap, " y"])
    assert [c.tokens for c in same] == [c.tokens for c in parts]


def test_text_tokenizes_like_the_vocabulary(mtmd: MtmdContext) -> None:
    vocab = mtmd.model.vocab
    for text in ("hello", "Zürich ist 🎉", "<|im_start|>user\nx<|im_end|>", "a" * 3000):
        assert mtmd.tokenize(text)[0].tokens == vocab.tokenize(text, True, True)
        assert mtmd.tokenize(text, parse_special=False)[0].tokens == vocab.tokenize(text, True, False)
    assert len(mtmd.tokenize("")) == 0


@pytest.mark.parametrize(
    ("text", "n", "message"),
    [
        ("no marker", 1, r"0 media marker\(s\) \('<__media__>'\), but there are 1"),
        ("<__media__>", 0, r"1 media marker\(s\)"),
        ("<__media__> <__media__>", 1, r"2 media marker\(s\)"),
        ("<__media__>", 3, "but there are 3"),
    ],
)
def test_rejects_wrong_number_of_markers(mtmd: MtmdContext, text: str, n: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mtmd.tokenize(text, [Bitmap.from_pixels(pixels())] * n)


def test_rejects_invalid_arguments(mtmd: MtmdContext) -> None:
    with pytest.raises(TypeError, match="text is 7"):
        mtmd.tokenize(7)
    with pytest.raises(TypeError, match=r"bitmaps\[0\]"):
        mtmd.tokenize("<__media__>", [pixels()])
    with pytest.raises(TypeError, match=r"parts\[1\]"):
        mtmd.tokenize_from_parts(["a", 7])
    closed = Bitmap.from_pixels(pixels())
    closed.close()
    with pytest.raises(ClosedError):
        mtmd.tokenize("<__media__>", [closed])
    with pytest.raises(UnsupportedError, match="accepts only images"):
        mtmd.tokenize("<__media__>", [Bitmap.from_audio(np.zeros(16000, np.float32))])


def test_positions_of_image_tokens(chunks: InputChunks) -> None:
    image = chunks[1]
    rows = image.positions(10)
    assert rows.shape == (16, 4) and rows.dtype == np.uint32
    np.testing.assert_array_equal(rows[:, 0], np.arange(10, 26))
    assert all(image.decoder_pos(10, i) == tuple(rows[i]) for i in (0, 7, 15))
    with pytest.raises(IndexError, match="i is 16, expected 0 to 15"):
        image.decoder_pos(0, 16)
    with pytest.raises(ValueError, match="pos_0 is -1"):
        image.positions(-1)
    with pytest.raises(ValueError, match="the chunk is text"):
        chunks[0].positions()


def test_save_and_load(mtmd: MtmdContext, chunks: InputChunks) -> None:
    for chunk in chunks:
        loaded = InputChunk.load(chunk.save())
        assert loaded.is_placeholder and loaded.context is None
        for name in ("type", "tokens", "n_tokens", "n_pos", "id"):
            assert getattr(loaded, name) == getattr(chunk, name)
    loaded = InputChunk.load(chunks[1].save())
    np.testing.assert_array_equal(loaded.positions(), chunks[1].positions())
    with pytest.raises(ValueError, match="placeholder"):
        mtmd.encode_chunk(loaded)
    with pytest.raises(ValueError, match="placeholder"):
        mtmd.encode_chunk(chunks[1].placeholder())


@pytest.mark.parametrize("data", [b"", b"x", bytes(8), b"\2" + bytes(7), b"\2" + bytes(7) + b"\xff" * 60])
def test_load_rejects_other_data(data: bytes) -> None:
    with pytest.raises(ValueError, match="no saved chunk"):
        InputChunk.load(data)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_load_survives_damaged_data(mtmd: MtmdContext, chunks: InputChunks, data: st.DataObject) -> None:
    saved = bytearray(chunks[data.draw(st.integers(0, 2))].save())
    for _ in range(data.draw(st.integers(1, 4))):
        saved[data.draw(st.integers(0, len(saved) - 1))] = data.draw(st.integers(0, 255))
    try:
        loaded = InputChunk.load(bytes(saved[: data.draw(st.integers(1, len(saved)))]))
    except ValueError:
        return
    assert loaded.n_tokens <= 1 << 24 and len(loaded.tokens) <= loaded.n_tokens
    repr(loaded), loaded.n_pos, loaded.id, InputChunk.load(loaded.save())
    if loaded.type == ChunkType.IMAGE:
        assert len(loaded.positions()) == loaded.n_tokens


def test_copies_stay_valid_after_the_list(mtmd: MtmdContext) -> None:
    made = mtmd.tokenize("<__media__>", [Bitmap.from_pixels(pixels())])
    view, copy = made[1], made[1].copy()
    with pytest.raises(InUseError, match="InputChunks cannot be closed: 1"):
        made.close()
    expected = mtmd.encode(view)
    del view
    gc.collect()
    made.close()
    np.testing.assert_array_equal(mtmd.encode(copy), expected)
    with pytest.raises(ClosedError):
        len(made)


def test_chunks_are_a_sequence(chunks: InputChunks) -> None:
    assert len(chunks) == 3 and chunks[-3].type == ChunkType.TEXT
    for i in (3, -4, 2**40):
        with pytest.raises(IndexError, match="does not exist"):
            chunks[i]
    with pytest.raises(TypeError):
        chunks["a"]
    with pytest.raises(TypeError, match="cannot be called"):
        InputChunk()
    assert len(InputChunks()) == 0


def test_placeholder_has_the_same_tokens(mtmd: MtmdContext) -> None:
    for width, height in ((224, 224), (300, 200), (50, 400)):
        stand_in = mtmd.tokenize("Look: <__media__>", [Bitmap.placeholder(width, height)])
        real = mtmd.tokenize("Look: <__media__>", [Bitmap.from_pixels(np.zeros((height, width, 3), np.uint8))])
        assert [chunk.n_tokens for chunk in stand_in] == [chunk.n_tokens for chunk in real]
    with pytest.raises(MediaError, match="placeholder"):
        mtmd.encode(stand_in[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 700), (2000, 1500)])
def test_accepts_images_of_any_size(mtmd: MtmdContext, size: tuple[int, int]) -> None:
    array = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    made = mtmd.tokenize("<__media__>", [Bitmap.from_pixels(array)])
    assert made[1].n_tokens == 16
    assert np.isfinite(mtmd.encode(made[1])).all()
