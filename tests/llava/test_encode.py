"""Encoding: embeddings, batches, evaluation callbacks, cancelling."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from llava.support import After, pixels

from cyllama.errors import CancelledError, ClosedError, InUseError, MediaError
from cyllama.llama import LlamaModel
from cyllama.llava import Bitmap, InputChunk, MtmdBatch, MtmdContext, MtmdContextParams

SHAPES = [("circle", "red"), ("square", "blue"), ("triangle", "green")]


def image_chunk(mtmd: MtmdContext, *arguments: str) -> InputChunk:
    chunks = mtmd.tokenize("<__media__>", [Bitmap.from_pixels(pixels(*arguments))])
    return next(chunk for chunk in chunks if chunk.type.name == "IMAGE").copy()


@pytest.fixture(scope="module")
def image(mtmd: MtmdContext) -> InputChunk:
    return image_chunk(mtmd)


def test_embeddings_depend_on_the_image(mtmd: MtmdContext, image: InputChunk) -> None:
    rows = mtmd.encode(image)
    assert rows.shape == (16, 576) and rows.dtype == np.float32
    assert np.isfinite(rows).all() and rows.std() > 0
    np.testing.assert_array_equal(mtmd.encode(image), rows)
    np.testing.assert_array_equal(mtmd.get_output_embd(), rows)
    assert not np.allclose(mtmd.encode(image_chunk(mtmd, "square", "blue")), rows, atol=1e-2)


def test_get_output_embd_before_encoding_raises(mmproj_path: Path, smol_model: LlamaModel) -> None:
    with MtmdContext(mmproj_path, smol_model) as mtmd, pytest.raises(MediaError, match="no embeddings yet"):
        mtmd.get_output_embd()


def test_rejects_chunks_that_cannot_be_encoded(mtmd: MtmdContext, mmproj_path: Path, smol_model: LlamaModel) -> None:
    with pytest.raises(ValueError, match="the chunk is text"):
        mtmd.encode(mtmd.tokenize("text")[0])
    with MtmdContext(mmproj_path, smol_model) as other, pytest.raises(ValueError, match="another MtmdContext"):
        mtmd.encode(image_chunk(other))
    closed = image_chunk(mtmd)
    closed.close()
    with pytest.raises(ClosedError):
        mtmd.encode(closed)


def test_embeddings_are_equal_with_one_thread(mtmd: MtmdContext, image: InputChunk, mmproj_path: Path) -> None:
    with MtmdContext(mmproj_path, mtmd.model, MtmdContextParams(n_threads=1, flash_attn_type="disabled")) as one:
        np.testing.assert_allclose(one.encode(image_chunk(one)), mtmd.encode(image), rtol=0, atol=2e-2)


# ---------------------------------------------------------------------------------- batches


def test_batch_equals_single_chunks(mtmd: MtmdContext) -> None:
    chunks = [image_chunk(mtmd, *names) for names in SHAPES]
    with MtmdBatch(mtmd) as batch:
        taken = [chunk for chunk in chunks if batch.add_chunk(chunk)]
        assert len(batch) == len(taken) >= 1
        with pytest.raises(MediaError, match="no embeddings yet"):
            batch.get_output_embd(chunks[0])
        batch.encode()
        for chunk in taken:
            found, single = batch.get_output_embd(chunk), mtmd.encode(chunk)
            # products of other shapes round otherwise, and activations may become the next 16-bit float
            assert np.abs(found - single).max() < 2**-9 * np.abs(single).max()
        with pytest.raises(ValueError, match="not in the batch"):
            batch.get_output_embd(image_chunk(mtmd))
        with pytest.raises(ValueError, match="encoded already"):
            batch.add_chunk(chunks[0])
        with pytest.raises(InUseError, match="InputChunk cannot be closed"):
            chunks[0].close()
    chunks[0].close()


def test_batch_has_a_limit(mmproj_path: Path, smol_model: LlamaModel) -> None:
    with MtmdContext(mmproj_path, smol_model, MtmdContextParams(batch_max_tokens=34)) as mtmd:
        with MtmdBatch(mtmd) as batch:
            chunks = [image_chunk(mtmd) for _ in range(4)]
            added = [batch.add_chunk(chunk) for chunk in chunks]
            assert added[0] and not all(added) and sum(added) <= 2


def test_rejects_invalid_batches(mtmd: MtmdContext, image: InputChunk) -> None:
    with MtmdBatch(mtmd) as batch:
        with pytest.raises(ValueError, match="empty"):
            batch.encode()
        with pytest.raises(ValueError, match="the chunk is text"):
            batch.add_chunk(mtmd.tokenize("text")[0])
        with pytest.raises(ValueError, match="placeholder"):
            batch.add_chunk(image.placeholder())
        with pytest.raises(TypeError):
            batch.add_chunk(None)
        with pytest.raises(InUseError):
            mtmd.close()
    with pytest.raises(ClosedError):
        batch.encode()


# ---------------------------------------------------------------------------------- evaluation callbacks


def test_eval_callback_gets_tensors(mmproj_path: Path, smol_model: LlamaModel, mtmd: MtmdContext) -> None:
    requested: list[str] = []
    seen: dict[str, np.ndarray] = {}

    def look(name: str, op: str, shape: tuple[int, ...], values: np.ndarray | None) -> bool:
        if values is None:
            requested.append(op)
            return op == "SOFT_MAX" or name.startswith("ffn_up")
        assert values.shape == shape
        seen[name] = values
        return True

    params = MtmdContextParams(cb_eval=look)
    with MtmdContext(mmproj_path, smol_model, params) as watched:
        rows = watched.encode(image_chunk(watched))
    assert len(requested) > 100 and "MUL_MAT" in requested and len(seen) >= 12
    assert all(np.isfinite(values).all() for values in seen.values())
    np.testing.assert_allclose(rows, mtmd.encode(image_chunk(mtmd)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_errors_of_the_callback_propagate(mmproj_path: Path, smol_model: LlamaModel, kind: type[BaseException]) -> None:
    calls = 0

    def fail(*arguments: object) -> bool:
        nonlocal calls
        calls += 1
        if calls == 50:
            raise kind("from the callback")
        return False

    with MtmdContext(mmproj_path, smol_model, MtmdContextParams(cb_eval=fail)) as mtmd:
        with pytest.raises(kind, match="from the callback"):
            mtmd.encode(image_chunk(mtmd))
        assert calls == 50
        with pytest.raises(MediaError, match="no embeddings yet"):
            mtmd.get_output_embd()
        assert np.isfinite(mtmd.encode(image_chunk(mtmd))).all()


def test_callback_stops_the_graph(mmproj_path: Path, smol_model: LlamaModel) -> None:
    """The callback ends the graph when it returns False for the values of a tensor."""
    values_seen = 0

    def stop(name: str, op: str, shape: tuple[int, ...], values: object) -> bool:
        nonlocal values_seen
        values_seen += values is not None
        return values is None

    with MtmdContext(mmproj_path, smol_model, MtmdContextParams(cb_eval=stop)) as mtmd:
        mtmd.encode(image_chunk(mtmd))
    assert values_seen == 1


# ---------------------------------------------------------------------------------- cancelling


class Slow:
    """Count the tensors of an encoder, slow it down, and call `action` at one of them."""

    def __init__(self, at: int, action: object) -> None:
        self.count, self.at, self.action = 0, at, action

    def __call__(self, *arguments: object) -> bool:
        self.count += 1
        time.sleep(0.001)
        if self.count == self.at:
            self.action()
        return False


def test_cancel_stops_the_encoder(mmproj_path: Path, smol_model: LlamaModel) -> None:
    event = threading.Event()
    slow = Slow(60, event.set)
    with MtmdContext(mmproj_path, smol_model, MtmdContextParams(cb_eval=slow)) as mtmd:
        mtmd.encode(image_chunk(mtmd))
        event.clear()
        whole, slow.count = slow.count, 0
        with pytest.raises(CancelledError):
            mtmd.encode(image_chunk(mtmd), cancel=event)
        assert 60 <= slow.count < whole, "all of the encoder ran"
        event.clear()
        slow.at = -1
        assert np.isfinite(mtmd.encode(image_chunk(mtmd), cancel=event)).all()
        with MtmdBatch(mtmd) as batch:
            batch.add_chunk(image_chunk(mtmd))
            slow.at, slow.count = 60, 0
            with pytest.raises(CancelledError):
                batch.encode(cancel=event)
            assert slow.count < whole
            with pytest.raises(MediaError, match="no embeddings yet"):
                batch.get_output_embd(batch._chunks[0] if hasattr(batch, "_chunks") else image_chunk(mtmd))


def test_ctrl_c_stops_the_encoder(mmproj_path: Path, smol_model: LlamaModel) -> None:
    slow = Slow(60, lambda: os.kill(os.getpid(), signal.SIGINT))
    with MtmdContext(mmproj_path, smol_model, MtmdContextParams(cb_eval=slow)) as mtmd:
        with pytest.raises(KeyboardInterrupt):
            mtmd.encode(image_chunk(mtmd))
        slow.at = -1
        assert np.isfinite(mtmd.encode(image_chunk(mtmd))).all()


def test_cancel_before_encoding(mtmd: MtmdContext, image: InputChunk) -> None:
    with pytest.raises(CancelledError):
        mtmd.encode(image, cancel=After(0))
    with pytest.raises(TypeError, match="is_set"):
        mtmd.encode(image, cancel=True)


def test_second_thread_raises_in_use_error(mmproj_path: Path, smol_model: LlamaModel) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(*arguments: object) -> bool:
        inside.set()
        go_on.wait(30)
        return False

    with MtmdContext(mmproj_path, smol_model, MtmdContextParams(cb_eval=wait)) as mtmd:
        chunk = image_chunk(mtmd)
        results: list[np.ndarray] = []
        thread = threading.Thread(target=lambda: results.append(mtmd.encode(chunk)))
        thread.start()
        assert inside.wait(30)
        for use in (lambda: mtmd.encode(image_chunk(mtmd)), mtmd.close, chunk.close):
            with pytest.raises(InUseError):
                use()
        assert mtmd.tokenize("tokenizing needs no lock").n_tokens > 0
        go_on.set()
        thread.join()
        assert len(results) == 1 and np.isfinite(results[0]).all()


def test_releases_the_gil(mtmd: MtmdContext, image: InputChunk) -> None:
    """Another thread counts while this one encodes."""
    stop = threading.Event()
    beats = 0

    def beat() -> None:
        nonlocal beats
        while not stop.is_set():
            beats += 1
            time.sleep(0.001)

    thread = threading.Thread(target=beat)
    thread.start()
    before = beats
    for _ in range(5):
        mtmd.encode(image)
    during = beats - before
    stop.set()
    thread.join()
    assert during >= 5
