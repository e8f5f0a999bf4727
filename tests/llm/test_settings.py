"""The settings are options that upstream has; those that download or start programs are known."""

from __future__ import annotations

import dataclasses

import pytest

from cyllama.llama._engine import engine_fields, engine_options
from cyllama.llama.settings import UNSAFE, LLMOptions, danger_of, more_arguments, option_arguments

NAMES = {name for option in engine_options() for name in option["names"]}


def test_every_setting_is_an_option() -> None:
    flags = {item.metadata[key] for item in dataclasses.fields(LLMOptions) for key in ("flag", "off")} - {""}
    assert flags <= NAMES and set(UNSAFE) <= NAMES


def test_arguments() -> None:
    options = LLMOptions(
        n_ctx=512, n_threads=2, flash_attn=True, warmup=False, tensor_split=[1, 2.5], n_gpu_layers="auto"
    )
    found = option_arguments(options)
    assert found == ["--ctx-size", "512", "--threads", "2", "--n-gpu-layers", "auto", "--tensor-split", "1,2.5", "--flash-attn", "on",
                     "--no-warmup"]  # fmt: skip
    with pytest.raises(TypeError, match="n_ctx is <object"):
        option_arguments(LLMOptions(n_ctx=object()))  # type: ignore[arg-type]


def test_other_options() -> None:
    assert more_arguments({"cache_ram": 100, "no-op-offload": True, "swa-full": False}) == [
        "--cache-ram", "100", "--no-op-offload"]  # fmt: skip
    with pytest.raises(TypeError, match="expected True or False"):
        more_arguments({"no-op-offload": 1})


def test_dangers() -> None:
    dangers = {name: danger_of(option) for option in engine_options() for name in option["names"]}
    for name in ("--hf-repo", "--model-url", "--mmproj-url", "--fim-qwen-7b-spec", "--hf-repo-draft"):
        assert dangers[name] == "downloads"
    assert dangers["--agent"] == "starts tools" and dangers["--ctx-size"] is None


def test_fields_of_requests() -> None:
    names = [name for field in engine_fields() for name in field["names"]]
    assert {"temperature", "top_k", "max_tokens", "n", "stop", "seed"} <= set(names)
