"""Slots: prompt cache, saved states, adapters, drafts, control vectors, infill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language.conftest import CHAT_MODEL
from openai.types import Completion

from cyllama import LLM, models
from cyllama.compat import Llama
from cyllama.errors import CyllamaError, ModelLoadError
from cyllama.llama import GGUFContext

STORY = "Once upon a time there was a king who had three sons and a castle by the sea. " * 20
TINY = "tiny-random-llama"


def text(llm: LLM, **fields: object) -> str:
    return str(llm.complete("The capital of France is", temperature=0, max_tokens=8, **fields).text)


# -------------------------------------------------------------------------------------------- prompts


def test_second_turn_uses_the_prompt_cache(llm: LLM) -> None:
    messages = [{"role": "user", "content": STORY + "How many sons?"}]
    first = llm.chat(messages, temperature=0, max_tokens=16)
    assert first.timings.prompt_n > 300
    messages += [dict(first.message), {"role": "user", "content": "And where was the castle?"}]
    second = llm.chat(messages, temperature=0, max_tokens=16)
    assert second.timings.prompt_n < 60
    assert second.timings.cache_n + second.timings.prompt_n == second.usage.prompt_tokens
    fresh = llm.chat(messages, temperature=0, max_tokens=16, cache_prompt=False)
    assert fresh.timings.cache_n == 0 and fresh.timings.prompt_n == fresh.usage.prompt_tokens


def test_saves_and_loads_state(tmp_path: Path) -> None:
    """A model continues with the state of another one."""
    path = tmp_path / "story.state"
    with LLM(CHAT_MODEL, n_ctx=1024, n_parallel=1) as llm:
        llm.complete(STORY, temperature=0, max_tokens=12, id_slot=0)
        expected = llm.complete(
            STORY, temperature=0, max_tokens=12, id_slot=0
        )  # with the cached prompt, as the next ones
        llm.save_state(path)
    assert path.stat().st_size > 1_000_000
    with LLM(CHAT_MODEL, n_ctx=1024, n_parallel=1) as llm:
        llm.load_state(path)
        found = llm.complete(STORY, temperature=0, max_tokens=12, id_slot=0)
        assert found.text == expected.text and found.timings.prompt_n <= 2
        for damaged in (b"", b"nonsense", path.read_bytes()[:5000]):
            (tmp_path / "bad").write_bytes(damaged)
            with pytest.raises((CyllamaError, ValueError)):
                llm.load_state(tmp_path / "bad")
        with pytest.raises(FileNotFoundError):
            llm.load_state(tmp_path / "nothing")
        with pytest.raises(ValueError, match="slot is 9, expected 0 to 0"):
            llm.save_state(path, slot=9)
        odd = Path("/dev/shm") / f"{os.getpid()} : état?.state"  # on another disk, with a name that upstream rejects
        llm.complete(STORY, temperature=0, max_tokens=12)  # the damaged file has emptied the slot
        try:
            llm.save_state(odd)
            llm.load_state(odd)
        finally:
            odd.unlink(missing_ok=True)
        assert not Path(llm._states).exists()
        assert llm.complete(STORY, temperature=0, max_tokens=12).text.startswith("1. The king")
    with LLM(TINY, n_ctx=512) as other, pytest.raises((CyllamaError, ValueError)):
        other.load_state(path)


def test_saves_the_slot_that_was_used_last(tmp_path: Path) -> None:
    path = tmp_path / "a.state"
    with LLM(TINY, n_ctx=2048, n_parallel=4, options={"cache-ram": 0}) as llm:  # slots keep their prompts
        with pytest.raises(ValueError, match="no slot"):
            llm.save_state(path)
        first = llm.complete("Once upon a time there was a king", max_tokens=4, ignore_eos=True)
        second = llm.complete("12 13 14 15 16 17 18 19", max_tokens=4, ignore_eos=True, stream=True).result()
        assert first.id_slot is not None and second.id_slot is not None and first.id_slot != second.id_slot
        assert llm.save_state(path) == second.id_slot
        assert llm.save_state(tmp_path / "b.state", slot=first) == first.id_slot
        unused = next(slot.id for slot in llm.metrics if not slot.get("n_prompt_tokens"))
        with pytest.raises(ValueError, match=f"slot {unused} has no prompt cache"):
            llm.save_state(tmp_path / "c.state", slot=unused)
        assert not (tmp_path / "c.state").exists()
    with LLM(TINY, n_ctx=2048, n_parallel=4, options={"cache-ram": 0}) as llm:  # slots keep their prompts
        places = {llm.load_state(path), llm.load_state(tmp_path / "b.state")}
        assert len(places) == 2
        for prompt in ("12 13 14 15 16 17 18 19", "Once upon a time there was a king"):
            found = llm.complete(prompt, max_tokens=4, ignore_eos=True)
            assert found.id_slot in places and found.timings.cache_n > 4


def test_saves_a_restored_slot(tmp_path: Path) -> None:
    with LLM(TINY, n_ctx=2048, n_parallel=4) as llm:
        llm.complete("Once upon a time", max_tokens=4, ignore_eos=True)
        llm.save_state(tmp_path / "a.state")
        llm.complete("1 2 3 4", max_tokens=4, ignore_eos=True)
        slot = llm.load_state(tmp_path / "a.state")
        assert llm.save_state(tmp_path / "b.state") == slot
        assert (tmp_path / "b.state").stat().st_size == (tmp_path / "a.state").stat().st_size
        assert llm.complete("Once upon a time", max_tokens=1).timings.cache_n > 2


def test_responses_name_their_slot(llm: LLM) -> None:
    chat = llm.chat("Hello", max_tokens=2, id_slot=1)
    assert chat.id_slot == 1 and "__verbose" not in chat
    for last in llm.chat("Hello", max_tokens=2, id_slot=2, stream=True):
        assert "__verbose" not in last
    assert last.id_slot == 2
    chunks = list(llm.complete("Hello", max_tokens=2, id_slot=3, stream=True))
    assert chunks[-1].id_slot == 3 and not any("__verbose" in chunk for chunk in chunks)
    verbose = llm.complete("Hello", max_tokens=2, id_slot=0, verbose=True)
    assert verbose.id_slot == 0 and verbose["__verbose"]["prompt"] == "Hello"


@pytest.mark.parametrize(
    ("options", "shown"), [({"verbose": True}, True), ({"verbosity": 10}, True), ({"verbosity": 3}, False)]
)
def test_verbose_models_return_details_by_default(options: dict[str, Any], shown: bool) -> None:
    with LLM(TINY, n_ctx=256, options=options) as llm:
        for call in (llm.chat, llm.complete):
            assert ("__verbose" in call("Hello", max_tokens=2)) is shown
            *_, last = call("Hello", max_tokens=2, stream=True)
            assert ("__verbose" in last) is shown
            assert "__verbose" not in call("Hello", max_tokens=2, verbose=False)


def test_verbosity_is_an_integer() -> None:
    with pytest.raises(ValueError, match=r"--verbosity is '3\.5', expected an integer"):
        LLM(TINY, n_ctx=256, options={"verbosity": 3.5})


def test_shifts_a_full_context() -> None:
    with LLM(TINY, n_ctx=256, n_parallel=1) as llm:
        response = llm.complete("Once", max_tokens=300, ignore_eos=True)
        assert response.finish_reason == "length" and response.usage.total_tokens <= 256
    with LLM(TINY, n_ctx=256, n_parallel=1, ctx_shift=True) as llm:
        shifted = llm.complete("Once", max_tokens=300, ignore_eos=True)
        assert shifted.usage.completion_tokens == 300


def test_supports_cache_types(llm: LLM) -> None:
    with LLM(CHAT_MODEL, n_ctx=512, flash_attn=True, cache_type_k="q8_0", cache_type_v="q8_0") as small:
        assert "Paris" in text(small) and "Paris" in text(llm)
    with pytest.raises(ValueError, match="cache"):
        LLM(CHAT_MODEL, cache_type_k="q9_0")


# ------------------------------------------------------------------------------------------- adapters


def write_adapter(path: Path, seed: int) -> Path:
    """Write an adapter of rank 4 with random weights for the tiny model."""
    with GGUFContext.from_file(models.get(TINY)) as model:
        shapes = {info.name: info.shape for info in model.tensors() if info.name.endswith("attn_q.weight")}
    random = np.random.default_rng(seed)
    with GGUFContext.empty() as file:
        for key, value in {
            "general.type": "adapter",
            "general.architecture": "llama",
            "adapter.type": "lora",
        }.items():
            file.set(key, value)
        file.set("adapter.lora.alpha", 8.0)
        for name, (rows, columns) in shapes.items():
            file.add_tensor(f"{name}.lora_a", random.normal(size=(4, columns)).astype(np.float32))
            file.add_tensor(f"{name}.lora_b", random.normal(size=(rows, 4)).astype(np.float32))
        file.write(path)
    return path


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters for the tiny model."""
    folder = tmp_path_factory.mktemp("loras")
    return [write_adapter(folder / f"{seed}.gguf", seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def adapted(adapters: list[Path]) -> Iterator[LLM]:
    with LLM(TINY, n_ctx=512, loras=[adapters[0], (adapters[1], 0.5)]) as model:
        yield model


def tokens(llm: LLM, **fields: object) -> str:
    return str(llm.complete("Hello", temperature=0, max_tokens=12, ignore_eos=True, cache_prompt=False, **fields).text)


def test_sets_weights_of_adapters(adapted: LLM, adapters: list[Path]) -> None:
    with LLM(TINY, n_ctx=512) as plain:
        none = tokens(plain)
    with LLM(TINY, n_ctx=512, loras=[(adapters[0], 1.0)]) as one:
        first = tokens(one)
    both = tokens(adapted)
    assert len({none, first, both}) == 3
    adapted.set_loras({adapters[0]: 1.0})
    assert tokens(adapted) == first
    adapted.set_loras({})
    assert tokens(adapted) == none
    adapted.set_loras({adapters[0]: 1.0, adapters[1]: 0.5})
    assert tokens(adapted) == both


def test_request_selects_adapters(adapted: LLM, adapters: list[Path]) -> None:
    adapted.set_loras({adapters[0]: 1.0, adapters[1]: 0.5})
    both = tokens(adapted)
    first = tokens(adapted, lora=[{"id": 0, "scale": 1.0}, {"id": 1, "scale": 0.0}])
    assert first != both and tokens(adapted) == both
    assert tokens(adapted, lora={adapters[0]: 1.0, str(adapters[1]): 0.0}) == first
    assert tokens(adapted, lora={adapters[0]: 1.0}) == first and tokens(adapted) == both
    with pytest.raises(ValueError, match="was not loaded"):
        tokens(adapted, lora={"other.gguf": 1.0})


def test_rejects_invalid_adapters(adapted: LLM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="was not loaded"):
        adapted.set_loras({"other.gguf": 1.0})
    with pytest.raises(FileNotFoundError):
        LLM(TINY, loras=[tmp_path / "nothing.gguf"])
    with pytest.raises((ModelLoadError, ValueError)):
        LLM(TINY, n_ctx=512, loras=[models.get(CHAT_MODEL)])


def test_applies_control_vectors(tmp_path: Path) -> None:
    with LLM(TINY, n_ctx=512) as plain:
        none = tokens(plain)
    with GGUFContext.empty() as file:
        file.set("general.architecture", "controlvector")
        file.set("controlvector.model_hint", "llama")
        file.set("controlvector.layer_count", 1)
        file.add_tensor("direction.1", np.random.default_rng(3).normal(size=32).astype(np.float32))
        file.write(tmp_path / "vector.gguf")
    with LLM(TINY, n_ctx=512, options={"control-vector": tmp_path / "vector.gguf"}) as steered:
        assert tokens(steered) != none
    with LLM(TINY, n_ctx=512, options={"control-vector-scaled": f"{tmp_path / 'vector.gguf'}:0.0"}) as still:
        assert tokens(still) == none


# --------------------------------------------------------------------------------------------- drafts


def test_draft_model_keeps_the_text() -> None:
    """A model that drafts for itself accepts nearly all tokens."""
    with LLM(CHAT_MODEL, n_ctx=512, n_parallel=1) as plain:
        expected = plain.complete("Count: one, two, three,", temperature=0, max_tokens=40)
        assert "draft_n" not in expected.timings
    with LLM(CHAT_MODEL, n_ctx=512, n_parallel=1, draft_model=CHAT_MODEL, draft_max=4) as drafted:
        found = drafted.complete("Count: one, two, three,", temperature=0, max_tokens=40)
    assert found.text == expected.text
    assert found.timings.draft_n > 10 and found.timings.draft_n_accepted > 0.8 * found.timings.draft_n


def test_ngram_drafts_keep_the_text() -> None:
    prompt = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen, " * 3
    with LLM(CHAT_MODEL, n_ctx=512, n_parallel=1) as plain:
        expected = plain.complete(prompt, temperature=0, max_tokens=24).text
    sizes = {"spec-ngram-simple-size-n": 3, "spec-ngram-simple-size-m": 8}
    with LLM(CHAT_MODEL, n_ctx=512, n_parallel=1, draft_model="ngram", options=sizes) as drafted:
        found = drafted.complete(prompt, temperature=0, max_tokens=24)
    assert found.text == expected and found.timings.draft_n_accepted > 0


def test_rejects_invalid_draft_models(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LLM(CHAT_MODEL, draft_model=tmp_path / "nothing.gguf")
    with pytest.raises((ModelLoadError, ValueError)):
        LLM(CHAT_MODEL, n_ctx=256, draft_model="vocab-llama-spm")


# ---------------------------------------------------------------------------------------------- infill


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with three tokens declared as prefix, suffix and middle."""
    path = tmp_path_factory.mktemp("infill") / "fim.gguf"
    with GGUFContext.from_file(models.get(TINY)) as file:
        for i, name in enumerate(("fim_pre", "fim_suf", "fim_mid")):
            file.set(f"tokenizer.ggml.{name}_token_id", 100 + i, "u32")
        file.write(path)
    return path


def test_fills_between_texts(filler: Path) -> None:
    with LLM(filler, n_ctx=512) as llm:
        response = llm.infill("def add(", "    return sum\n", temperature=0, max_tokens=6)
        assert response.tokens_predicted == 6 and isinstance(response.content, str)
        assert response.tokens_evaluated > 8
    with LLM(TINY, n_ctx=512) as llm, pytest.raises((CyllamaError, ValueError), match=r"[Ii]nfill"):
        llm.infill("a", "b")


def test_input_extra_adds_context(filler: Path) -> None:
    """`suffix` of llama-cpp-python returns the text of `LLM.infill`."""
    given: dict[str, Any] = {"temperature": 0, "max_tokens": 6}
    with LLM(filler, n_ctx=512) as llm:
        expected = llm.infill("def add(", "    return sum\n", **given).content
    other = Llama(str(filler), n_ctx=512, verbose=False)
    response = other("def add(", suffix="    return sum\n", **given)
    choice = response["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (expected, "length")
    assert (
        response["usage"]["completion_tokens"] == 6
        and Completion.model_validate({**response}).choices[0].text == expected
    )
    (part,) = other("def add(", suffix="    return sum\n", stream=True, echo=True, **given)
    assert part["choices"][0]["text"] == "def add(" + expected
    other.close()


def test_metrics_report_slots() -> None:
    with LLM(TINY, n_ctx=1024, n_parallel=2) as llm:
        assert [(slot.id, slot.is_processing) for slot in llm.metrics] == [(0, False), (1, False)]
        stream = llm.complete("Once", max_tokens=800, ignore_eos=True, stream=True)
        next(stream)
        assert [slot.is_processing for slot in llm.metrics].count(True) == 1
        stream.close()


def test_warns_without_gpu() -> None:
    import cyllama

    if any(device["type"] in ("gpu", "igpu") for device in cyllama.devices()):
        with LLM(TINY, n_ctx=256, n_gpu_layers="all") as llm:
            assert text(llm) is not None
        return
    with pytest.warns(RuntimeWarning, match="n_gpu_layers is 'all'"):
        LLM(TINY, n_ctx=256, n_gpu_layers="all").close()
    LLM(TINY, n_ctx=256, n_gpu_layers="auto").close()
