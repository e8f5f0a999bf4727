"""Train a model; create models from a callable."""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cyllama
from cyllama.errors import CancelledError, ClosedError, InUseError, ModelLoadError, UnsupportedError
from cyllama.llama import (
    GGUFContext,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaModelParams,
    LlamaQuantizeParams,
    TensorType,
    Trainer,
    llama_model_quantize,
    training_windows,
)

N_CTX = 256  # the engine rounds up to this


def first_logits(model: LlamaModel) -> np.ndarray:
    with LlamaContext(model, LlamaContextParams(n_ctx=64)) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1, 5, 9]))
        return ctx.get_logits_ith(-1)


def trainable(path: Path, **changes: Any) -> LlamaContext:
    model = LlamaModel(path, LlamaModelParams(load_mode="none", use_extra_bufts=False))
    params = {"n_ctx": N_CTX, "n_batch": N_CTX, "n_ubatch": N_CTX, "type_k": "f32", "type_v": "f32"} | changes
    return LlamaContext(model, LlamaContextParams(**params))


@pytest.fixture
def context(tiny_path: Path) -> LlamaContext:
    return trainable(tiny_path)


@pytest.fixture
def windows(context: LlamaContext) -> tuple[np.ndarray, np.ndarray]:
    text = "the cat sat on the mat and looked at the other cat . " * 66
    return training_windows(np.array(context.model.vocab.tokenize(text)), N_CTX, N_CTX)


# ------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(("optimizer", "rate", "epochs"), [("adamw", 1e-2, 3), ("sgd", 0.3, 5)])
def test_training_reduces_the_loss(
    context: LlamaContext, windows: Any, optimizer: str, rate: float, epochs: int
) -> None:
    tokens, labels = windows
    n_train = len(tokens) - 1
    trainer = Trainer(context, optimizer=optimizer, learning_rate=rate)
    results = [trainer.epoch(tokens, labels, n_train) for _ in range(epochs)]
    assert all(r.n_tokens == n_train * N_CTX and m.n_tokens == N_CTX for r, m in results)
    losses = [measured.loss for _, measured in results]
    assert losses[0] < 11 and losses[-1] < losses[0] - 1, losses
    assert results[-1][1].accuracy > results[0][1].accuracy
    assert results[0][0].loss_uncertainty > 0 and np.isnan(results[0][1].loss_uncertainty)


def test_trained_weights_are_saved(context: LlamaContext, windows: Any, tiny_model: LlamaModel, tmp_path: Path) -> None:
    before = first_logits(context.model)
    assert np.allclose(before, first_logits(tiny_model), atol=1e-2)
    Trainer(context, learning_rate=1e-2).epoch(*windows)
    after = first_logits(context.model)
    assert np.abs(after - before).max() > 0.1
    context.model.save_to_file(tmp_path / "trained.gguf")
    with LlamaModel(tmp_path / "trained.gguf") as saved:
        assert np.allclose(first_logits(saved), after, atol=1e-2)


def test_evaluation_changes_no_weights(context: LlamaContext, windows: Any) -> None:
    before = first_logits(context.model)
    trained, measured = Trainer(context).epoch(*windows, n_train=0)
    assert trained.n_tokens == 0 and np.isnan(trained.loss)
    assert measured.n_tokens == len(windows[0]) * N_CTX
    assert np.array_equal(first_logits(context.model), before)


def test_param_filter_selects_the_tensors(context: LlamaContext, windows: Any, tmp_path: Path) -> None:
    requested: list[str] = []

    def only_the_last_norm(name: str) -> bool:
        requested.append(name)
        return name == "output_norm.weight"

    original = GGUFContext.from_file(context.model.path_model)
    Trainer(context, learning_rate=1e-2, param_filter=only_the_last_norm).epoch(*windows)
    assert "blk.0.attn_q.weight" in requested
    context.model.save_to_file(tmp_path / "trained.gguf")
    trained = GGUFContext.from_file(tmp_path / "trained.gguf")
    changed = {t.name for t in original.tensors()
               if not np.array_equal(original.tensor_data(t.name), trained.tensor_data(t.name))}  # fmt: skip
    assert changed == {"output_norm.weight"}


def test_exception_of_param_filter_is_raised(tiny_path: Path) -> None:
    def broken(name: str) -> bool:
        raise LookupError(name)

    with pytest.raises(LookupError):
        Trainer(trainable(tiny_path), param_filter=broken)


def test_progress_and_cancel(context: LlamaContext, windows: Any) -> None:
    trainer = Trainer(context)
    seen: list[float] = []
    trainer.epoch(*windows, callback=seen.append)
    assert len(seen) == len(windows[0]) and seen[-1] == 1.0 and seen == sorted(seen)
    with pytest.raises(CancelledError):
        trainer.epoch(*windows, callback=lambda part: False)
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        trainer.epoch(*windows, cancel=stop)

    def broken(part: float) -> None:
        raise LookupError(part)

    with pytest.raises(LookupError):
        trainer.epoch(*windows, callback=broken)
    assert trainer.epoch(*windows)[0].n_tokens > 0


def test_rejects_untrainable_models_and_contexts(
    tiny_path: Path, tiny_model: LlamaModel, context: LlamaContext
) -> None:
    wrong = [
        LlamaContext(tiny_model, LlamaContextParams(n_ctx=N_CTX, type_k="f32", type_v="f32")),
        trainable(tiny_path, type_k="f16"),
        trainable(tiny_path, n_seq_max=2),
        trainable(tiny_path, n_batch=96, n_ubatch=96),
    ]
    for ctx in wrong:
        with pytest.raises(UnsupportedError):
            Trainer(ctx)
    Trainer(context).close()
    with pytest.raises(UnsupportedError):
        Trainer(context)


def test_rejects_weights_that_a_kernel_reordered(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "q8.gguf"
    llama_model_quantize(tiny_path, path, LlamaQuantizeParams(ftype="q8_0"))
    params = LlamaContextParams(n_ctx=N_CTX, n_batch=N_CTX, n_ubatch=N_CTX, type_k="f32", type_v="f32")
    reorders = {True: bool(cyllama.build_info()["cpu"]["kernels"]), False: False}
    for use_extra_bufts, is_refused in reorders.items():
        model = LlamaModel(path, LlamaModelParams(load_mode="none", use_extra_bufts=use_extra_bufts))
        with pytest.raises(UnsupportedError, match="reordered") if is_refused else contextlib.nullcontext():
            Trainer(LlamaContext(model, params), param_filter=lambda name: "norm" in name)


def test_rejects_bad_arguments(context: LlamaContext, windows: Any) -> None:
    tokens, labels = windows
    for options in ({"optimizer": "adam"}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"beta1": 2.0},
                    {"weight_decay": -1.0}):  # fmt: skip
        with pytest.raises(ValueError):
            Trainer(context, **options)
    with pytest.raises(TypeError):
        Trainer(context, param_filter=3)
    trainer = Trainer(context)
    with pytest.raises(InUseError):
        context.close()
    for args in ((tokens[:, 1:], labels[:, 1:]), (tokens, labels[:1]), (tokens[0], labels[0]), (tokens[:0], labels[:0]),
                 (tokens.astype(float), labels), (tokens, labels, -1), (tokens, labels, 10**6)):  # fmt: skip
        with pytest.raises(ValueError):
            trainer.epoch(*args)
    for bad in (-1, 32000):
        with pytest.raises(IndexError):
            trainer.epoch(tokens, np.full_like(labels, bad))
    trainer.learning_rate = -1.0
    with pytest.raises(ValueError):
        trainer.epoch(tokens, labels)
    trainer.close()
    with pytest.raises(ClosedError):
        trainer.epoch(tokens, labels)


def test_training_windows() -> None:
    tokens, labels = training_windows(np.arange(10), 4, 3)
    assert tokens.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]] and labels.tolist() == [[1, 2, 3, 4], [4, 5, 6, 7]]
    for bad in ((np.arange(4), 4), (np.arange(9).reshape(3, 3), 2), (np.arange(9), 0), (np.arange(9), 2, 0)):
        with pytest.raises(ValueError):
            training_windows(*bad)


# ------------------------------------------------------------------------- weights from a function


def test_model_from_callable(tiny_path: Path, tiny_model: LlamaModel) -> None:
    source = GGUFContext.from_file(tiny_path)
    requested: dict[str, tuple[int, ...]] = {}

    def weights(name: str, kind: TensorType, shape: tuple[int, ...]) -> np.ndarray:
        requested[name] = shape
        if name == "output.weight":  # the file has none: it shares that of the embeddings
            return source.tensor_data("token_embd.weight").astype(np.float32)
        if name.endswith(".bias"):
            return np.zeros(shape, np.float32)
        if name == "rope_freqs.weight" or name.endswith("scale"):
            return np.ones(shape, np.float32)
        return source.tensor_data(name).reshape(shape)

    model = LlamaModel.from_user(source, weights)
    assert requested["blk.0.attn_q.weight"] == (64, 32) and {t.name for t in source.tensors()} < set(requested)
    assert np.allclose(first_logits(model), first_logits(tiny_model), atol=1e-2)
    assert model.path_model is None and model.n_vocab == tiny_model.n_vocab
    source.close()
    assert np.isfinite(first_logits(model)).all()


def test_rejects_invalid_weights_of_callable(tiny_path: Path) -> None:
    source = GGUFContext.from_file(tiny_path)

    def broken(name: str, kind: TensorType, shape: tuple[int, ...]) -> np.ndarray:
        raise LookupError(name)

    with pytest.raises(LookupError):
        LlamaModel.from_user(source, broken)
    for wrong in (np.zeros(3, np.float32), np.zeros((64, 32)), "text", None):
        with pytest.raises(ValueError, match="set_tensor_data"):
            LlamaModel.from_user(source, lambda name, kind, shape, wrong=wrong: wrong)
    with pytest.raises(TypeError):
        LlamaModel.from_user(source, None)
    with pytest.raises(ModelLoadError):
        LlamaModel.from_user(GGUFContext.empty(), broken)
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        LlamaModel.from_user(source, broken, cancel=stop)
    gc.collect()
