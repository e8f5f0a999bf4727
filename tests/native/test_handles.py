"""Lifetimes: closing in any order, use after close, fork, pickling, threads."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cyllama._native import ThreadPool
from cyllama.errors import ClosedError, InUseError, UnsupportedError
from cyllama.llama import (
    LlamaBatch,
    LlamaBatchExt,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaSampler,
    TokenDataArray,
)
from cyllama.llava import Bitmap


@pytest.fixture
def model(tiny_path: Path) -> LlamaModel:
    return LlamaModel(tiny_path)


def small(model: LlamaModel) -> LlamaContext:
    return LlamaContext(model, LlamaContextParams(n_ctx=64))


def test_context_keeps_its_model_open(model: LlamaModel) -> None:
    ctx = small(model)
    del model
    gc.collect()
    ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))
    assert ctx.model.n_vocab > 0


def test_close_raises_while_children_are_open(model: LlamaModel) -> None:
    ctx = small(model)
    ext = LlamaBatchExt(ctx)
    with pytest.raises(InUseError, match="depend on it"):
        model.close()
    with pytest.raises(InUseError, match="depend on it"):
        ctx.close()
    ext.close()
    ctx.close()
    ctx.close()
    model.close()
    assert model.closed and ctx.closed and ext.closed


def test_close_after_children_are_collected(model: LlamaModel) -> None:
    ctx = small(model)
    del ctx
    gc.collect()
    model.close()


def test_with_statement_closes(tiny_path: Path) -> None:
    with LlamaModel(tiny_path) as model, small(model) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1]))
    assert model.closed and ctx.closed


def _members(handle: object) -> list[str]:
    skipped = {"close", "closed"}
    return [n for n in dir(type(handle)) if not n.startswith("_") and n not in skipped]


# Valid arguments by the name of the parameter; all others are integers, for which 0 is valid.
VALID: dict[str, Callable[[LlamaContext], object]] = {
    "adapters": lambda ctx: [],
    "array": lambda ctx: TokenDataArray(np.arange(8, dtype=np.int32), np.zeros(8, np.float32)),
    "callback": lambda ctx: None,
    "ctx": lambda ctx: ctx,
    "data": lambda ctx: None,
    "n_threads": lambda ctx: 1,
    "other": lambda ctx: LlamaSampler(),
    "rows": lambda ctx: np.zeros((1, 4), np.float32),
    "threadpool": lambda ctx: ThreadPool(1),
    "tokens": lambda ctx: [1],
}
# Properties that keep their value, and class methods.
FIELDS = {"model", "params", "path_model", "n_vocab", "capacity", "embd", "n_seq_max", "context"}
UNREACHABLE = {"process"}  # a batch of the context keeps the context open
OF_CLASS = {"from_splits", "from_fileobj", "from_user", "from_tokens"}


def _arguments(method: Callable[..., object], ctx: LlamaContext) -> list[object]:
    """Return a valid argument for each parameter that a method requires."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    required = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    valid = VALID | {"batch": lambda ctx: LlamaBatch.from_tokens([1])}
    return [valid.get(name, lambda ctx: 0)(ctx) for name in required]


@pytest.mark.parametrize("kind", ["model", "context", "batch", "batch_ext", "sampler"])
def test_every_member_of_a_closed_handle_raises(model: LlamaModel, tiny_model: LlamaModel, kind: str) -> None:
    other = small(tiny_model)
    ctx = small(model)
    handle = {
        "model": lambda: model,
        "context": lambda: ctx,
        "batch": lambda: LlamaBatch(n_tokens=4),
        "batch_ext": lambda: LlamaBatchExt(ctx),
        "sampler": lambda: LlamaSampler(),
    }[kind]()
    bound = {name: getattr(handle, name) for name in _members(handle) if callable(getattr(type(handle), name))}
    if kind == "model":
        ctx.close()
    handle.close()
    members = set(_members(handle)) - FIELDS - OF_CLASS - UNREACHABLE
    assert len(members) >= 5
    for name in sorted(members):
        arguments = _arguments(bound[name], other) if name in bound else []
        try:
            outcome = bound[name](*arguments) if name in bound else getattr(handle, name)
        except Exception as error:
            outcome = error
        assert type(outcome) is ClosedError, f"{kind}.{name}: {outcome!r}"


def test_context_methods_after_close(model: LlamaModel) -> None:
    ctx = small(model)
    batch = LlamaBatch.from_tokens([1, 2])
    memory, state = ctx.memory, ctx.state
    ctx.close()
    for call in (
        lambda: ctx.decode(batch),
        lambda: ctx.get_logits(),
        lambda: ctx.n_ctx(),
        lambda: memory.clear(),
        lambda: memory.seq_rm(0),
        lambda: state.get_data(),
        lambda: state.size(),
        lambda: ctx.memory,
        lambda: LlamaBatchExt(ctx),
    ):
        with pytest.raises(ClosedError):
            call()
    batch.close()
    with small(model) as other, pytest.raises(ClosedError):
        other.decode(batch)


def test_handles_cannot_be_copied(model: LlamaModel) -> None:
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            duplicate(model)


def test_second_init_changes_nothing(model: LlamaModel) -> None:
    before = model.n_params
    model.__init__("another")
    assert model.n_params == before


def test_second_thread_raises_in_use_error(smol_model: LlamaModel) -> None:
    ctx = LlamaContext(smol_model, LlamaContextParams(n_ctx=512))
    long_prompt = LlamaBatch.from_tokens([1] * 300)
    started = threading.Event()
    errors: list[BaseException] = []

    def decode() -> None:
        started.set()
        try:
            ctx.decode(long_prompt)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=decode)
    thread.start()
    started.wait()
    rejected = []
    while thread.is_alive():
        try:
            ctx.memory.clear()
        except InUseError as error:
            rejected.append(error)
            with pytest.raises(InUseError, match="call is running"):
                ctx.close()
            break
        time.sleep(0.001)
    thread.join()
    assert not errors
    assert rejected, "no call ran at the same time"
    assert ctx.memory.seq_pos_max(0) in (299, -1)


def test_fork_after_load(model: LlamaModel, tiny_path: Path) -> None:
    """A child process rejects the parent's handles and can load models; the parent continues."""
    ctx = small(model)
    ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                ctx.decode(LlamaBatch.from_tokens([1]))
                verdict = "no error"
            except UnsupportedError as error:
                verdict = "rejected" if "forked" in str(error) else str(error)
            fresh = small(LlamaModel(tiny_path))
            fresh.decode(LlamaBatch.from_tokens([1, 2, 3]))
            os.write(write, f"{verdict} {fresh.get_logits_ith(-1).argmax()}".encode())
            ctx.close()
        finally:
            os._exit(0)
    os.close(write)
    result = os.read(read, 1000).decode()
    os.waitpid(pid, 0)
    assert result == f"rejected {ctx.get_logits_ith(-1).argmax()}"
    ctx.decode(LlamaBatch.from_tokens([4], pos0=3))


def test_rejects_other_classes_of_the_same_name(model: LlamaModel) -> None:
    """Handles are checked by class, not by class name."""
    sampler, adapter, context = (type(name, (), {})() for name in ("LlamaSampler", "LlamaAdapterLora", "MtmdContext"))
    with small(model) as ctx:
        with pytest.raises(TypeError, match="expected a LlamaSampler"):
            ctx.set_sampler(0, sampler)
        with pytest.raises(TypeError, match="expected a LlamaAdapterLora"):
            ctx.set_adapters_lora([(adapter, 1.0)])
    with pytest.raises(TypeError, match="expected an MtmdContext"):
        Bitmap.from_file(context, "image.png")


NATIVE_CALLS = {
    "create a context": lambda model, path: LlamaContext(model, LlamaContextParams(n_ctx=2048)).close(),
    "tokenize": lambda model, path: model.vocab.tokenize("some words and dots... " * 5_000),
    "detokenize": lambda model, path: model.vocab.detokenize([450, 4996, 17354] * 50_000),
    "save the model": lambda model, path: model.save_to_file(path),
}


@pytest.mark.parametrize("name", NATIVE_CALLS)
def test_close_raises_during_native_calls(name: str, tiny_path: Path, tmp_path: Path) -> None:
    for _ in range(10):
        model, started, outcomes = LlamaModel(tiny_path), threading.Event(), []

        def call(model: LlamaModel = model, started: threading.Event = started, outcomes: list[str] = outcomes) -> None:
            started.set()
            try:
                NATIVE_CALLS[name](model, tmp_path / "model.gguf")
                outcomes.append("done")
            except ClosedError:
                outcomes.append("closed before")

        thread = threading.Thread(target=call)
        thread.start()
        started.wait()
        while thread.is_alive():
            try:
                model.close()
                break
            except InUseError:
                time.sleep(0)
        thread.join()
        assert outcomes and outcomes[0] in ("done", "closed before")
        model.close()


def test_outputs_cannot_be_read_during_a_call(model: LlamaModel) -> None:
    rejected: list[str] = []

    def read(*_: object) -> bool:
        for getter in (ctx.get_logits, ctx.get_logits_ith):
            try:
                getter()
            except InUseError:
                rejected.append(getter.__name__)
        return False

    with LlamaContext(model, LlamaContextParams(n_ctx=64, cb_eval=read)) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))
        assert set(rejected) == {"get_logits", "get_logits_ith"}
        assert ctx.get_logits().shape == (1, model.n_vocab)
