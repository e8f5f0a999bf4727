"""Options: they exist upstream, invalid values are rejected, unsafe ones are known."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from cyllama import LLM
from cyllama.errors import UnsupportedError
from cyllama.llama._engine import engine_options
from cyllama.llama.options import (
    HTTP,
    HTTP_GROUPS,
    IGNORED,
    UNSAFE,
    LLMOptions,
    more_arguments,
    option_arguments,
    unsafe_reason,
)

NAMES = {name for option in engine_options() for name in option["names"]}


def test_every_option_exists_upstream() -> None:
    flags = {item.metadata[key] for item in dataclasses.fields(LLMOptions) for key in ("flag", "off")} - {""}
    assert flags <= NAMES and set(UNSAFE) <= NAMES


def test_converts_options_to_arguments() -> None:
    options = LLMOptions(
        n_ctx=512, n_threads=2, flash_attn=True, warmup=False, tensor_split=[1, 2.5], n_gpu_layers="auto"
    )
    found = option_arguments(options, False)
    assert found[-11:] == ["--ctx-size", "512", "--threads", "2", "--n-gpu-layers", "auto", "--tensor-split", "1,2.5", "--flash-attn", "on",
                     "--no-warmup"]  # fmt: skip
    with pytest.raises(TypeError, match="n_ctx is <object"):
        option_arguments(LLMOptions(n_ctx=object()), False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_ctx": -1}, "n_ctx is -1, expected 0 to 2147483647"),
        ({"n_ctx": 10**12}, "n_ctx is 1000000000000, expected 0 to"),
        ({"n_batch": 0}, "n_batch is 0, expected 1 to"),
        ({"n_ubatch": 0}, "n_ubatch is 0, expected 1 to"),
        ({"n_parallel": 0}, "n_parallel is 0, expected 1 to"),
        ({"main_gpu": 2**40}, "main_gpu is 1099511627776, expected"),
        ({"options": {"n-predict": -2}}, r"n-predict is -2, expected -1 \(no limit\) or more"),
        ({"options": {"temp": "hot"}}, "--temp is 'hot': expected a number\n"),
        ({"options": {"cache-ram": "much"}}, "--cache-ram is 'much': expected an integer\n"),
        ({"options": {"n-cpu-moe": "x"}}, "--n-cpu-moe is 'x': expected an integer\n"),
        ({"cache_type_k": "q9"}, r"--cache-type-k is 'q9': .*(?s:.*)allowed values: f32, f16"),
    ],
)
def test_rejects_numbers_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LLM("tiny-random-llama", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_ctx": True}, "n_ctx is True, expected an integer"),
        ({"n_ctx": "much"}, "n_ctx is 'much', expected an integer"),
        ({"n_ctx": 512.5}, "n_ctx is 512.5, expected an integer"),
        ({"n_gpu_layers": False}, "n_gpu_layers is False, expected int or str"),
        ({"embedding": 1}, "embedding is 1, expected bool"),
        ({"warmup": "no"}, "warmup is 'no', expected bool"),
        ({"tensor_split": b"12"}, "tensor_split is b'12'"),
        ({"tensor_split": {1: 2}}, "tensor_split is"),
    ],
)
def test_rejects_values_of_another_type(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        option_arguments(LLMOptions(n_threads=1, **given), False)


def test_accepts_numpy_numbers_and_mappings() -> None:
    options = LLMOptions(n_threads=1, n_ctx=np.int64(512), chat_template_kwargs={"a": True})  # type: ignore[arg-type]
    found = option_arguments(options, False)
    assert found[-6:] == ["--ctx-size", "512", "--threads", "1", "--chat-template-kwargs", '{"a": true}']


ENDING = """
import sys
from cyllama.errors import CyllamaError
from cyllama.llama._engine import engine_memory, engine_options
from cyllama.llama.options import unsafe_reason
count = 0
for option in engine_options():
    if unsafe_reason(option) is None:
        for name in option["names"]:
            for values in ([], ["7"] * option["values"], ["-7"] * option["values"], ["\u00e4"] * option["values"]):
                try:
                    engine_memory([name, *values])
                except (ValueError, CyllamaError):
                    count += 1
print("still here", count)
"""


def test_no_option_exits_the_process() -> None:
    """Upstream prints a text and exits for some options; a library must not."""
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("still here"), done.stderr[-2000:]
    for name in ("version", "list-devices", "cache-list", "help", "completion-bash"):
        with pytest.raises(ValueError, match="print a text and exit"):
            LLM("tiny-random-llama", options={name: True})


def test_accepts_upstream_options() -> None:
    assert more_arguments({"cache_ram": 100, "no-op-offload": True, "swa-full": False}) == [
        "--cache-ram", "100", "--no-op-offload"]  # fmt: skip
    with pytest.raises(TypeError, match="expected True or False"):
        more_arguments({"no-op-offload": 1})
    with pytest.raises(TypeError, match="expected 2 values"):
        more_arguments({"control-vector-layer-range": "12"})
    with pytest.raises(TypeError, match="override-kv is"):
        more_arguments({"override-kv": {"a": 1}})


def test_unsafe_options_have_a_reason() -> None:
    reasons = {name: unsafe_reason(option) for option in engine_options() for name in option["names"]}
    for name in ("--hf-repo", "--model-url", "--mmproj-url", "--fim-qwen-7b-spec", "--hf-repo-draft"):
        assert reasons[name] == "downloads"
    assert reasons["--agent"] == "starts tools" and reasons["--ctx-size"] is None


def test_rejects_http_options() -> None:
    """They would change nothing."""
    assert NAMES >= HTTP and all(any(name.startswith(group) for name in NAMES) for group in HTTP_GROUPS)
    for name in ("host", "slot-save-path", "api-key", "ssl-key-file", "models-dir", "no-webui", "no-slots", "tags"):
        with pytest.raises(UnsupportedError, match="llama-server's HTTP"):
            more_arguments({name: "x"})


def test_rejects_ignored_options() -> None:
    unread = {name for names in IGNORED.values() for name in names}
    assert unread <= NAMES
    for name in (*unread, "draft-max"):
        with pytest.raises(UnsupportedError, match="has no effect: "):
            more_arguments({name: True})
    assert more_arguments({"log-verbosity": 10, "spec-draft-cpu-moe": True})  # these do something


NUMA = """
from cyllama import LLM
for _ in range(2):
    LLM("tiny-random-llama", n_ctx=64, options={"numa": "distribute"}).close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ggml knows the nodes of Linux alone")
def test_initializes_numa() -> None:
    """Twice is once too often, which ggml says itself."""
    done = subprocess.run([sys.executable, "-c", NUMA], capture_output=True, text=True, check=True)
    assert "NUMA already initialized" in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"repack": False}, ["--no-repack"]),
        ({"no_repack": False}, ["--repack"]),
        ({"nr": True}, ["-nr"]),
        ({"nr": False}, ["--repack"]),
        ({"check-tensors": False}, []),  # it has no opposite, and is off by default
    ],
)
def test_false_turns_an_engine_option_off(options: dict[str, bool], expected: list[str]) -> None:
    assert more_arguments(options) == expected
