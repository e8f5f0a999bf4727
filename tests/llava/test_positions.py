"""M-RoPE positions, and models with non-causal attention in images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llava.projectors import projector_file, text_model
from llava.projectors_images import IMAGES
from llava.support import pixels

from cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel
from cyllama.llava import Bitmap, InputChunk, Llava, MtmdContext


def opened(name: str, folder: Path) -> tuple[LlamaModel, MtmdContext]:
    family = IMAGES[name]
    model = LlamaModel(text_model(family, folder))
    return model, MtmdContext(projector_file(name, family, folder), model)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LlamaModel, MtmdContext]]:
    yield opened("qwen2vl_merger", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LlamaModel, MtmdContext]]:
    yield opened("gemma3", tmp_path_factory.mktemp("gemma"))


def image_chunk(mtmd: MtmdContext, width: int, height: int) -> InputChunk:
    array = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    chunks = mtmd.tokenize("a <__media__> b", [Bitmap.from_pixels(array)])
    return next(chunk for chunk in chunks if chunk.type.name == "IMAGE").copy()


def test_mrope_positions_are_a_grid(qwen: tuple[LlamaModel, MtmdContext]) -> None:
    _, mtmd = qwen
    assert mtmd.decode_use_mrope and not mtmd.decode_use_non_causal()
    wide = image_chunk(mtmd, 160, 64)
    rows = wide.positions(5)
    columns, lines = 10, 4
    assert wide.n_tokens == columns * lines and wide.n_pos == max(columns, lines)
    np.testing.assert_array_equal(rows[:, 0], 5)
    np.testing.assert_array_equal(rows[:, 1].reshape(lines, columns), 5 + np.tile(np.arange(columns), (lines, 1)))
    np.testing.assert_array_equal(rows[:, 2].reshape(lines, columns).T, 5 + np.tile(np.arange(lines), (columns, 1)))
    assert wide.decoder_pos(5, 13) == (5, 8, 6, 0)
    saved = InputChunk.load(wide.save())
    np.testing.assert_array_equal(saved.positions(5), rows)


def test_positions_match_the_context(qwen: tuple[LlamaModel, MtmdContext]) -> None:
    model, mtmd = qwen
    chunks = mtmd.tokenize("Look <__media__> and say", [Bitmap.from_pixels(pixels(size=96))])
    assert chunks.n_pos < chunks.n_tokens
    with LlamaContext(model, LlamaContextParams(n_ctx=512)) as ctx:
        end = mtmd.eval_chunks(ctx, chunks)
        assert end == chunks.n_pos and ctx.memory.seq_pos_max(0) == end - 1
        logits = ctx.get_logits_ith(-1)
        ctx.memory.clear()
        seen: list[np.ndarray] = []
        image = chunks[1]
        pos = mtmd.eval_chunk_single(ctx, chunks[0])
        pos = mtmd.decode_image_chunk(
            ctx, image, mtmd.encode(image), pos, on_batch=lambda rows, positions, seq_id: seen.append(positions)
        )
        assert mtmd.eval_chunk_single(ctx, chunks[2], pos) == end
        np.testing.assert_allclose(ctx.get_logits_ith(-1), logits, rtol=1e-4, atol=1e-4)
        # the engine's order is t, y, x, z
        np.testing.assert_array_equal(seen[0], image.positions(chunks[0].n_pos).T[[0, 2, 1, 3]])


def test_same_request_reuses_prompt(qwen: tuple[LlamaModel, MtmdContext]) -> None:
    model, mtmd = qwen
    with Llava(model.path_model, mtmd.path_mmproj, n_ctx=512, chat_template="chatml") as llava:
        first = llava.ask("What?", pixels(size=96), max_tokens=8)
        second = llava.ask("What?", pixels(size=96), max_tokens=8)
        assert first.usage.completion_tokens >= 1 and second.text == first.text
        assert second.timings.cache_n >= first.usage.prompt_tokens - 1


def test_image_tokens_have_limits(tmp_path: Path) -> None:
    family = IMAGES["qwen2vl_merger"]
    pair = text_model(family, tmp_path), projector_file("qwen2vl_merger", family, tmp_path)

    def image_tokens(**limits: int) -> int:
        with Llava(*pair, n_ctx=512, chat_template="chatml", **limits) as llava:
            return llava.count_tokens("What?", pixels(size=128)) - llava.count_tokens("What?")

    assert image_tokens(image_max_tokens=20) < 40  # with the text around it
    assert image_tokens(image_min_tokens=90) >= 90


def test_non_causal_attention_of_images(gemma: tuple[LlamaModel, MtmdContext]) -> None:
    model, mtmd = gemma
    image = image_chunk(mtmd, 64, 64)
    text = mtmd.tokenize("text")[0]
    assert mtmd.decode_use_non_causal() and mtmd.decode_use_non_causal(image)
    assert mtmd.decode_use_non_causal(text)  # it is asked of the projector
    chunks = mtmd.tokenize("a <__media__> b", [Bitmap.from_pixels(pixels(size=64))])
    with LlamaContext(model, LlamaContextParams(n_ctx=256, n_batch=128, n_ubatch=8)) as small:
        for use in (
            lambda: mtmd.eval_chunks(small, chunks),
            lambda: mtmd.eval_chunk_single(small, image),
            lambda: mtmd.decode_image_chunk(small, image, mtmd.encode(image)),
        ):
            with pytest.raises(ValueError, match="16 tokens.*allow 8"):
                use()
    with LlamaContext(model, LlamaContextParams(n_ctx=256, n_batch=128, n_ubatch=64)) as ctx:
        with pytest.raises(ValueError, match="allow 15"):
            mtmd.eval_chunks(ctx, chunks, n_batch=15)
        assert mtmd.eval_chunks(ctx, chunks) == chunks.n_pos
        assert ctx.causal_attn  # as it was
    with Llava(model.path_model, mtmd.path_mmproj, n_ctx=256, n_batch=64, chat_template="chatml") as llava:
        assert llava.ask("What?", pixels(size=64), max_tokens=2).usage.prompt_tokens > 16
