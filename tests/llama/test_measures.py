"""Perplexity, benchmark and memory estimate, compared with the native programs."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import pytest

from cyllama import LLM, models
from cyllama.errors import CancelledError, ModelLoadError
from cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel, bench, estimate_memory, perplexity

MODEL = "smollm2-135m-instruct"
ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "thirdparty" / "llama.cpp" / "README.md").read_text()[:9000]


def test_perplexity_equals_the_native_programs(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    seen: list[tuple[int, int]] = []
    ours = perplexity(
        MODEL, TEXT, n_ctx=256, max_chunks=2, on_chunk=lambda done, total, value: seen.append((done, total))
    )
    assert seen == [(1, 2), (2, 2)] and ours.n_tokens == 2 * 127
    flags = ("-c", "256", "-b", "256", "--chunks", "2")
    command = [ROOT / "bin" / "llama-perplexity", "-m", models.get(MODEL), "-f", file, *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)", done.stdout + done.stderr)
    assert found is not None
    assert ours.value == pytest.approx(float(found[1]), rel=2e-3)
    assert ours.error == pytest.approx(float(found[2]), rel=1e-2)


def test_perplexity_does_not_depend_on_n_batch() -> None:
    whole = perplexity("tiny-random-llama", TEXT, n_ctx=128, max_chunks=2)
    parts = perplexity("tiny-random-llama", TEXT, n_ctx=128, n_batch=50, max_chunks=2)
    assert parts.value == pytest.approx(whole.value, rel=1e-3)


def test_perplexity_rejects_invalid_arguments() -> None:
    with pytest.raises(ValueError, match=r"the text has \d+ tokens, expected 1024"):
        perplexity("tiny-random-llama", "short")
    with pytest.raises(ValueError, match="n_ctx is 2"):
        perplexity("tiny-random-llama", "short", n_ctx=2)
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        perplexity("tiny-random-llama", TEXT, n_ctx=64, cancel=stop)


def test_bench() -> None:
    with LlamaModel(models.get("tiny-random-llama")) as model:
        results = bench(model, n_prompt=64, n_gen=8, n_depth=16, repetitions=3)
    assert [result.name for result in results] == ["pp64 @ d16", "tg8 @ d16"]
    assert all(len(result.speeds) == 3 and result.mean > 0 and result.deviation >= 0 for result in results)
    assert results[0].mean > results[1].mean  # a prompt is computed together
    for wrong in ({"n_prompt": -1}, {"repetitions": 0}, {"n_prompt": 0, "n_gen": 0}):
        with pytest.raises(ValueError, match="expected"):
            bench("tiny-random-llama", **wrong)  # type: ignore[arg-type]


def test_estimate_equals_the_engines_allocation() -> None:
    """The size of the KV cache equals the size of its state."""
    # with reordered weights, a kernel may need a second copy of embeddings that are the output matrix as well
    need = estimate_memory(MODEL, n_ctx=1024, n_parallel=1, options={"no-repack": True})
    assert (need.n_ctx, need.n_ctx_train) == (1024, 8192) and need.fits
    with LlamaModel(models.get(MODEL)) as model:
        assert need.weights == pytest.approx(model.size, rel=0.02)
        with LlamaContext(model, LlamaContextParams(n_ctx=1024)):
            assert need.context == 1024 * 2 * 2 * model.n_layer * model.n_embd // model.n_head * model.n_head_kv
    small = estimate_memory(MODEL, n_ctx=1024, n_parallel=1, cache_type_k="q8_0", cache_type_v="q8_0", flash_attn=True)
    assert small.context * 16 == need.context * 17 // 2
    assert estimate_memory(MODEL, n_parallel=1).context == 8 * need.context
    assert need.total == need.weights + need.context + need.compute


def test_rejects_models_that_exceed_memory() -> None:
    with pytest.raises(MemoryError, match=r"needs [\d,]+ MiB of memory.*n_ctx"):
        LLM(MODEL, n_ctx=40_000_000)
    with pytest.raises(ModelLoadError):
        estimate_memory(Path(__file__))
    with pytest.raises(TypeError, match="n_ctxx"):
        estimate_memory(MODEL, n_ctxx=1)


def test_default_context_is_limited_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from cyllama.llama import memory_estimate as estimate

    full = estimate_memory(MODEL)
    monkeypatch.setattr(estimate, "free_memory", lambda total: full.total - full.context // 4)
    with LLM(MODEL, n_parallel=1) as llm:
        n_ctx = llm.properties.default_generation_settings.n_ctx
        assert 4096 <= n_ctx < 8192 and n_ctx % 256 == 0
    with pytest.raises(MemoryError):
        LLM(MODEL, n_ctx=8192)
