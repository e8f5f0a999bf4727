"""Convert the arguments of llama-cpp-python to those of `cyllama.LLM`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cyllama.errors import UnsupportedError
from cyllama.llama import AttentionType, PoolingType, RopeScalingType, SplitMode, TensorType

__all__ = ["LlamaPromptLookupDecoding", "LoadArguments", "loop_fields", "request_fields"]

DEFAULT_SEED = 0xFFFFFFFF
TEMPLATES = {"llama-2": "llama2", "llama-3": "llama3", "mistral-instruct": "mistral-v1", "phind": "vicuna"}
# Arguments with the same name in requests, and those with another one.
SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "frequency_penalty",
    "presence_penalty",
    "repeat_penalty",
    "mirostat_tau",
    "mirostat_eta",
    "logprobs",
)
OLD_NAMES = {"temp": "temperature", "mirostat_mode": "mirostat"}
WITHOUT_EFFECT = ("tfs_z", "penalize_nl", "idx")  # also in llama-cpp-python itself; tfs_z must be 1


class LlamaPromptLookupDecoding:
    """Draft tokens from the previous text: ``Llama(draft_model=LlamaPromptLookupDecoding())``."""

    def __init__(self, max_ngram_size: int = 2, num_pred_tokens: int = 10) -> None:
        self.max_ngram_size, self.num_pred_tokens = max_ngram_size, num_pred_tokens


@dataclass(kw_only=True)
class LoadArguments:
    """Arguments of the constructor, with llama-cpp-python's defaults."""

    n_gpu_layers: int = 0
    split_mode: int = 1
    main_gpu: int = 0
    tensor_split: Sequence[float] | None = None
    vocab_only: bool = False
    use_mmap: bool = True
    use_mlock: bool = False
    kv_overrides: Mapping[str, bool | int | float | str] | None = None
    seed: int = DEFAULT_SEED
    n_ctx: int = 512
    n_batch: int = 512
    n_ubatch: int = 512
    n_threads: int | None = None
    n_threads_batch: int | None = None
    rope_scaling_type: int | None = None
    pooling_type: int | None = None
    attention_type: int | None = None
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    yarn_ext_factor: float = -1.0
    yarn_attn_factor: float = 1.0
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    yarn_orig_ctx: int = 0
    logits_all: bool = False
    embedding: bool = False
    offload_kqv: bool = True
    flash_attn: bool = False
    op_offload: bool | None = None
    swa_full: bool | None = None
    no_perf: bool = False
    last_n_tokens_size: int = 64
    lora_base: str | None = None
    lora_scale: float = 1.0
    lora_path: str | None = None
    numa: bool | int = False
    chat_format: str | None = None
    chat_handler: Any = None
    draft_model: Any = None
    tokenizer: Any = None
    type_k: int | None = None
    type_v: int | None = None
    spm_infill: bool = False
    verbose: bool = True

    def __post_init__(self) -> None:
        for name in ("chat_handler", "tokenizer", "lora_base"):
            if getattr(self, name) is not None:
                raise UnsupportedError(f"{name} is not supported; use cyllama.LLM")

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of `cyllama.LLM`."""
        return {
            "n_gpu_layers": "all" if self.n_gpu_layers < 0 else self.n_gpu_layers or None,
            "n_ctx": self.n_ctx or None,
            "n_batch": self.n_batch,
            "n_ubatch": min(self.n_batch, self.n_ubatch),
            "n_threads": self.n_threads,
            "n_threads_batch": self.n_threads_batch,
            "n_parallel": 1,
            "tensor_split": self.tensor_split,
            "main_gpu": self.main_gpu or None,
            "split_mode": None if self.split_mode == 1 else SplitMode(self.split_mode).name.lower(),
            "load_mode": "mlock" if self.use_mlock else None if self.use_mmap else "none",
            "flash_attn": self.flash_attn,
            "rope_scaling_type": _name_of(RopeScalingType, self.rope_scaling_type),
            "pooling_type": _name_of(PoolingType, self.pooling_type),
            "rope_freq_base": self.rope_freq_base or None,
            "rope_freq_scale": self.rope_freq_scale or None,
            "yarn_ext_factor": self.yarn_ext_factor,
            "yarn_attn_factor": self.yarn_attn_factor,
            "yarn_beta_fast": self.yarn_beta_fast,
            "yarn_beta_slow": self.yarn_beta_slow,
            "yarn_orig_ctx": self.yarn_orig_ctx or None,
            "cache_type_k": _name_of(TensorType, self.type_k),
            "cache_type_v": _name_of(TensorType, self.type_v),
            "chat_template": TEMPLATES.get(self.chat_format, self.chat_format) if self.chat_format else None,
            "embedding": self.embedding or None,
            "draft_model": "ngram" if isinstance(self.draft_model, LlamaPromptLookupDecoding) else self.draft_model,
            "loras": [] if self.lora_path is None else [(self.lora_path, self.lora_scale)],
            "options": self.options(),
        }

    def options(self) -> dict[str, Any]:
        """Return the options of upstream without a keyword of `cyllama.LLM`."""
        found: dict[str, Any] = {
            "spm-infill": self.spm_infill,
            "no-kv-offload": not self.offload_kqv,
            "no-perf": self.no_perf,
            "swa-full": bool(self.swa_full),
            "no-op-offload": self.op_offload is False,
        }
        if self.attention_type is not None and self.attention_type >= 0:
            found["attention"] = AttentionType(self.attention_type).name.lower()
        if self.numa:
            found["numa"] = "distribute"
        if self.kv_overrides:
            found["override-kv"] = ",".join(_override(name, value) for name, value in self.kv_overrides.items())
        if isinstance(self.draft_model, LlamaPromptLookupDecoding):
            found["spec-ngram-simple-size-n"] = self.draft_model.max_ngram_size
            found["spec-ngram-simple-size-m"] = self.draft_model.num_pred_tokens
        return found


def _name_of(kind: Any, value: int | None) -> str | None:
    return None if value is None or value < 0 else str(kind(value).name).lower()


def _override(name: str, value: bool | int | float | str) -> str:
    kind = {bool: "bool", int: "int", float: "float", str: "str"}[type(value)]
    return f"{name}={kind}:{str(value).lower() if kind == 'bool' else value}"


def request_fields(given: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """Return the fields of a request for the arguments of a call.

    Parameters
    ----------
    given : mapping
        All arguments by name.
    seed : int, optional
        The seed, if the call has none.
    """
    _reject_tail_free(given)
    grammar, bias, stop, most = given["grammar"], given["logit_bias"], given["stop"], given["max_tokens"]
    fields = {name: given[name] for name in SAME} | {
        # negative values mean 0
        "temperature": None if given["temperature"] is None else max(given["temperature"], 0),
        "top_k": None if given["top_k"] is None else max(given["top_k"], 0),
        "max_tokens": -1 if most is None or most < 0 else most,
        "stop": [stop] if isinstance(stop, str) else list(stop or ()),
        "seed": seed if given["seed"] is None else given["seed"],
        "mirostat": given["mirostat_mode"],
        "logit_bias": [[int(token), float(value)] for token, value in bias.items()] if bias else None,
        "grammar": None if grammar is None else grammar.text,
    }
    return {name: value for name, value in fields.items() if value is not None}


def loop_fields(given: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """Return the fields of `TokenLoop` for the arguments of `Llama.sample` and `Llama.generate`."""
    _reject_tail_free(given)
    fields = {OLD_NAMES.get(name, name): value for name, value in given.items() if name not in WITHOUT_EFFECT}
    if fields.get("grammar") is not None:
        fields["grammar"] = fields["grammar"].text
    return {"seed": seed, **fields}


def _reject_tail_free(given: Mapping[str, Any]) -> None:
    if given.get("tfs_z", 1.0) != 1.0:
        raise UnsupportedError("tfs_z: llama.cpp has removed tail free sampling")
