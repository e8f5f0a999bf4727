"""Convert the arguments of llama-cpp-python to those of `cyllama.LLM`, and of a model and a context."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from cyllama.compat._chat_styles import ChatStyle
from cyllama.compat.llama_chat_format import MTMDChatHandler
from cyllama.compat.llama_grammar import LlamaGrammar
from cyllama.compat.llama_speculative import LlamaPromptLookupDecoding
from cyllama.errors import UnsupportedError
from cyllama.llama import (
    AttentionType,
    FlashAttnType,
    LlamaContextParams,
    LlamaModelParams,
    LoadMode,
    PoolingType,
    RopeScalingType,
    SplitMode,
    TensorType,
)

__all__ = ["LoadArguments", "loop_fields", "request_fields"]

DEFAULT_SEED = 0xFFFFFFFF
NUMA = {1: "distribute", 2: "isolate", 3: "numactl"}
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
)
OLD_NAMES = {"temp": "temperature", "mirostat_mode": "mirostat"}
WITHOUT_EFFECT = ("tfs_z", "penalize_nl")  # also in llama-cpp-python itself; tfs_z must be 1
# Arguments of a context that have the same name there.
CONTEXT = (
    "rope_freq_base",
    "rope_freq_scale",
    "yarn_ext_factor",
    "yarn_attn_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
    "yarn_orig_ctx",
    "n_threads",
    "n_threads_batch",
    "offload_kqv",
    "op_offload",
    "swa_full",
    "no_perf",
    "type_k",
    "type_v",
)
ENUMS = {"rope_scaling_type": RopeScalingType, "attention_type": AttentionType}


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
    seed: int | None = DEFAULT_SEED
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
        for name in ("tokenizer", "lora_base"):
            if getattr(self, name) is not None:
                raise UnsupportedError(f"{name} is not supported; use cyllama.LLM")
        if not (
            self.chat_handler is None or isinstance(self.chat_handler, MTMDChatHandler) or callable(self.chat_handler)
        ):
            raise TypeError(f"chat_handler is {self.chat_handler!r}, expected a handler or a function")
        if not isinstance(self.draft_model, str | os.PathLike | LlamaPromptLookupDecoding | None):
            raise UnsupportedError(
                f"draft_model is {self.draft_model!r}, expected LlamaPromptLookupDecoding or a model file"
            )
        if self.numa not in (*NUMA, False):
            raise ValueError(f"numa is {self.numa!r}, expected True, False or one of {', '.join(map(str, NUMA))}")

    @property
    def chosen_seed(self) -> int | None:
        """The seed; None for a random one."""
        return None if self.seed in (None, -1, DEFAULT_SEED) else self.seed

    @property
    def format_name(self) -> str | None:
        """The chat format: the argument, or that of the handler."""
        return self.chat_format or getattr(self.chat_handler, "chat_format", None)

    def settings(self, style: ChatStyle | None = None) -> dict[str, Any]:
        """Return the keyword arguments of `cyllama.LLM`, for a style of chats."""
        found = {
            "n_gpu_layers": "all" if self.n_gpu_layers < 0 else self.n_gpu_layers,
            "n_ctx": self.n_ctx or None,
            "n_batch": self.n_batch,
            "n_ubatch": min(self.n_batch, self.n_ubatch),
            "n_threads": self.n_threads,
            "n_threads_batch": self.n_threads_batch,
            "n_parallel": 1,
            "tensor_split": self.tensor_split,
            "main_gpu": self.main_gpu or None,
            "split_mode": None if self.split_mode == 1 else _name_of(SplitMode, self.split_mode, "split_mode"),
            "load_mode": _name_of(LoadMode, self._load_mode(), "load_mode"),
            "flash_attn": self.flash_attn,
            "rope_scaling_type": _name_of(RopeScalingType, self.rope_scaling_type, "rope_scaling_type"),
            "pooling_type": _name_of(PoolingType, self.pooling_type, "pooling_type"),
            "rope_freq_base": self.rope_freq_base or None,
            "rope_freq_scale": self.rope_freq_scale or None,
            "yarn_ext_factor": self.yarn_ext_factor,
            "yarn_attn_factor": self.yarn_attn_factor,
            "yarn_beta_fast": self.yarn_beta_fast,
            "yarn_beta_slow": self.yarn_beta_slow,
            "yarn_orig_ctx": self.yarn_orig_ctx or None,
            "cache_type_k": _name_of(TensorType, self.type_k, "type_k"),
            "cache_type_v": _name_of(TensorType, self.type_v, "type_v"),
            "chat_template": None if style is None else style.template,
            "embedding": self.embedding or None,
            "draft_model": "ngram" if isinstance(self.draft_model, LlamaPromptLookupDecoding) else self.draft_model,
            "loras": [] if self.lora_path is None else [(self.lora_path, self.lora_scale)],
            "options": self.options(),
        }
        return found | (self.chat_handler.settings() if isinstance(self.chat_handler, MTMDChatHandler) else {})

    def options(self) -> dict[str, Any]:
        """Return the options of upstream without a keyword of `cyllama.LLM`."""
        found: dict[str, Any] = {
            "spm-infill": self.spm_infill,
            "no-kv-offload": not self.offload_kqv,
            "no-perf": self.no_perf,
            "swa-full": bool(self.swa_full),
            "no-op-offload": self.op_offload is False,
            "no-mmproj-offload": isinstance(self.chat_handler, MTMDChatHandler) and not self.chat_handler.use_gpu,
        }
        attention = _name_of(AttentionType, self.attention_type, "attention_type")
        if attention is not None:
            found["attention"] = attention
        if self.numa:
            found["numa"] = NUMA[int(self.numa)]
        if self.kv_overrides:
            found["override-kv"] = ",".join(_override(name, value) for name, value in self.kv_overrides.items())
        if isinstance(self.draft_model, LlamaPromptLookupDecoding):
            found["spec-ngram-simple-size-n"] = self.draft_model.max_ngram_size
            found["spec-ngram-simple-size-m"] = self.draft_model.num_pred_tokens
        return found

    def model_params(self) -> LlamaModelParams:
        """Return the parameters of the model that generates token by token."""
        return LlamaModelParams(
            n_gpu_layers=self.n_gpu_layers,
            split_mode=self.split_mode,
            main_gpu=self.main_gpu,
            tensor_split=self.tensor_split,
            load_mode=self._load_mode(),
            kv_overrides=self.kv_overrides,
        )

    def context_params(self, n_ctx: int) -> LlamaContextParams:
        """Return the parameters of the context that generates token by token."""
        given = {name: getattr(self, name) for name in CONTEXT}
        given |= {name: getattr(self, name) for name in ENUMS if (getattr(self, name) or -1) >= 0}
        return LlamaContextParams(
            n_ctx=n_ctx,
            n_batch=self.n_batch,
            n_ubatch=min(self.n_batch, self.n_ubatch),
            flash_attn_type=FlashAttnType.ENABLED if self.flash_attn else FlashAttnType.DISABLED,
            **given,
        )

    def _load_mode(self) -> LoadMode | None:
        if self.use_mlock:
            return LoadMode.MMAP_MLOCK if self.use_mmap else LoadMode.MLOCK
        return None if self.use_mmap else LoadMode.NONE


def _name_of(kind: type[IntEnum], value: int | None, name: str) -> str | None:
    """Return the name of a value as upstream's options have it; None for its default."""
    if value is None or value < 0:
        return None
    try:
        return kind(value).name.lower().replace("mmap_", "mmap+")
    except ValueError:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(f'{k.value}' for k in kind)}") from None


def _override(name: str, value: bool | int | float | str) -> str:
    kind = {bool: "bool", int: "int", float: "float", str: "str"}.get(type(value))
    if kind is None:
        raise TypeError(f"kv_overrides[{name!r}] is {value!r}, expected a bool, an int, a float or a str")
    return f"{name}={kind}:{str(value).lower() if kind == 'bool' else value}"


def request_fields(given: Mapping[str, Any], seed: int | None, last_n: int) -> dict[str, Any]:
    """Return the fields of a request for the arguments of a call.

    Parameters
    ----------
    given : mapping
        All arguments by name.
    seed : int, optional
        The seed, if the call has none.
    last_n : int
        The number of tokens that the penalties cover.
    """
    _reject_tail_free(given)
    bias, stop, most = given["logit_bias"], given["stop"], given["max_tokens"]
    fields = {name: given[name] for name in SAME} | {
        # negative values mean 0
        "temperature": None if given["temperature"] is None else max(given["temperature"], 0),
        "top_k": None if given["top_k"] is None else max(given["top_k"], 0),
        "max_tokens": -1 if most is None or most <= 0 else most,
        "stop": [stop] if isinstance(stop, str) else list(stop or ()),
        "seed": seed if given["seed"] is None else given["seed"],
        "mirostat": given["mirostat_mode"],
        "logit_bias": [[int(token), float(value)] for token, value in bias.items()] if bias else None,
        "grammar": grammar_text(given["grammar"]),
        "repeat_last_n": last_n,
    }
    return {name: value for name, value in fields.items() if value is not None}


def loop_fields(given: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """Return the fields of `TokenLoop` for the arguments of `Llama.sample` and `Llama.generate`."""
    _reject_tail_free(given)
    fields = {OLD_NAMES.get(name, name): value for name, value in given.items() if name not in WITHOUT_EFFECT}
    return {"seed": seed, **fields, "grammar": grammar_text(fields.get("grammar"))}


def grammar_text(grammar: Any) -> str | None:
    """Return the text of a grammar.

    Raises
    ------
    TypeError
    """
    if grammar is None or isinstance(grammar, LlamaGrammar):
        return None if grammar is None else grammar.text
    raise TypeError(f"grammar is {grammar!r:.100}, expected a LlamaGrammar, as LlamaGrammar.from_string returns it")


def _reject_tail_free(given: Mapping[str, Any]) -> None:
    if given.get("tfs_z", 1.0) != 1.0:
        raise UnsupportedError("tfs_z: llama.cpp has removed tail free sampling")
