"""Lifetimes: closing in any order, use after close, fork, pickling, threads."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import pickle
import threading
import time
from pathlib import Path

import pytest

from cyllama.errors import ClosedError, InUseError, UnsupportedError
from cyllama.llama import (
    LlamaBatch,
    LlamaBatchExt,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaSampler,
)
from cyllama.llava import Bitmap


@pytest.fixture
def model(tiny_path: Path) -> LlamaModel:
    return LlamaModel(tiny_path)


def small(model: LlamaModel) -> LlamaContext:
    return LlamaContext(model, LlamaContextParams(n_ctx=64))


def test_a_child_keeps_its_parent(model: LlamaModel) -> None:
    ctx = small(model)
    del model
    gc.collect()
    ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))
    assert ctx.model.n_vocab > 0


def test_close_is_refused_while_children_live(model: LlamaModel) -> None:
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


def test_collecting_children_lets_the_parent_close(model: LlamaModel) -> None:
    ctx = small(model)
    del ctx
    gc.collect()
    model.close()


def test_with_closes(tiny_path: Path) -> None:
    with LlamaModel(tiny_path) as model, small(model) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1]))
    assert model.closed and ctx.closed


def _members(handle: object) -> list[str]:
    skipped = {"close", "closed"}
    return [n for n in dir(type(handle)) if not n.startswith("_") and n not in skipped]


def _arguments(method: object) -> list[object] | None:
    """Harmless arguments for a method, by its signature; None when it needs none of ours."""
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return []
    required = [p for p in signature.parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return [0] * len(required)


FIELDS = {"model", "params", "path_model", "n_vocab", "capacity", "embd", "n_seq_max", "context"}
OF_CLASS = {"from_splits", "from_fileobj", "from_user", "from_tokens"}


@pytest.mark.parametrize("kind", ["model", "context", "batch", "batch_ext", "sampler"])
def test_every_member_of_a_closed_handle_raises(model: LlamaModel, kind: str) -> None:
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
    checked = 0
    for name in _members(handle):
        if name in FIELDS | OF_CLASS:
            continue
        checked += 1
        with pytest.raises((ClosedError, TypeError, ValueError)) as caught:
            if name in bound:
                bound[name](*_arguments(bound[name]))
            else:
                getattr(handle, name)
        if name not in bound or not _arguments(bound[name]):
            assert caught.type is ClosedError, f"{name}: {caught.value!r}"
    assert checked >= 5


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


def test_handles_are_not_copied(model: LlamaModel) -> None:
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            duplicate(model)


def test_a_second_init_leaks_nothing(model: LlamaModel) -> None:
    before = model.n_params
    model.__init__("another")
    assert model.n_params == before


def test_two_threads_on_one_context(smol_model: LlamaModel) -> None:
    ctx = LlamaContext(smol_model, LlamaContextParams(n_ctx=1024))
    long_prompt = LlamaBatch.from_tokens([1] * 900)
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
    refused = []
    while thread.is_alive():
        try:
            ctx.memory.clear()
        except InUseError as error:
            refused.append(error)
            with pytest.raises(InUseError, match="call is running"):
                ctx.close()
            break
        time.sleep(0.001)
    thread.join()
    assert not errors
    assert refused, "the other thread was never seen at work"
    assert ctx.memory.seq_pos_max(0) in (899, -1)


def test_fork_after_load(model: LlamaModel, tiny_path: Path) -> None:
    """In the child an old handle is refused, a new one works; the parent goes on."""
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
                verdict = "refused" if "forked" in str(error) else str(error)
            fresh = small(LlamaModel(tiny_path))
            fresh.decode(LlamaBatch.from_tokens([1, 2, 3]))
            os.write(write, f"{verdict} {fresh.get_logits_ith(-1).argmax()}".encode())
            ctx.close()
        finally:
            os._exit(0)
    os.close(write)
    answer = os.read(read, 1000).decode()
    os.waitpid(pid, 0)
    assert answer == f"refused {ctx.get_logits_ith(-1).argmax()}"
    ctx.decode(LlamaBatch.from_tokens([4], pos0=3))


def test_classes_of_the_same_name_are_refused(model: LlamaModel) -> None:
    """Handles are checked by class, not by class name."""
    sampler, adapter, context = (type(name, (), {})() for name in ("LlamaSampler", "LlamaAdapterLora", "MtmdContext"))
    with small(model) as ctx:
        with pytest.raises(TypeError, match="expected a LlamaSampler"):
            ctx.set_sampler(0, sampler)
        with pytest.raises(TypeError, match="expected a LlamaAdapterLora"):
            ctx.set_adapters_lora([(adapter, 1.0)])
    with pytest.raises(TypeError, match="expected an MtmdContext"):
        Bitmap.from_file(context, "picture.png")


NATIVE_CALLS = {
    "a context is made": lambda model, path: LlamaContext(model, LlamaContextParams(n_ctx=2048)).close(),
    "a text is tokenized": lambda model, path: model.vocab.tokenize("some words and dots... " * 20_000),
    "tokens become text": lambda model, path: model.vocab.detokenize([450, 4996, 17354] * 50_000),
    "the model is saved": lambda model, path: model.save_to_file(path),
}


@pytest.mark.parametrize("name", NATIVE_CALLS)
def test_a_model_is_not_closed_while(name: str, tiny_path: Path, tmp_path: Path) -> None:
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


def test_outputs_are_not_read_during_a_call(model: LlamaModel) -> None:
    refused: list[str] = []

    def read(*_: object) -> bool:
        for getter in (ctx.get_logits, ctx.get_logits_ith):
            try:
                getter()
            except InUseError:
                refused.append(getter.__name__)
        return False

    with LlamaContext(model, LlamaContextParams(n_ctx=64, cb_eval=read)) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))
        assert set(refused) == {"get_logits", "get_logits_ith"}
        assert ctx.get_logits().shape == (1, model.n_vocab)
