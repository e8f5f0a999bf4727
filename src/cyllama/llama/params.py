"""Parameters of the engine: one dataclass for each parameter struct of llama.h.

Field names are those of the C struct. ``None`` is the engine's own default. Enums can be given as members of
``cyllama.llama``'s enums, as numbers or by name (``"mean"``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cyllama._native._tensors import TensorType
from cyllama._params import Params, param
from cyllama.llama._enums import (
    AttentionType,
    ContextType,
    FileType,
    FlashAttnType,
    LazyMode,
    LoadMode,
    PoolingType,
    RopeScalingType,
    SplitMode,
)

__all__ = [
    "LlamaContextParams",
    "LlamaModelParams",
    "LlamaQuantizeParams",
    "LlamaSamplerChainParams",
    "llama_context_default_params",
    "llama_model_default_params",
    "llama_model_quantize_default_params",
    "llama_sampler_chain_default_params",
]

MAX_TOKENS = 2**31 - 512


@dataclass(kw_only=True, repr=False)
class LlamaModelParams(Params, c="llama_model_params"):
    """Parameters for loading a model (``llama_model_params``, llama.h)."""

    devices: Sequence[str] | None = param("devices to offload to, by name; default: all", c=None)
    tensor_buft_overrides: Sequence[tuple[str, str]] | None = param(
        "(pattern, buffer type name): the buffer of tensors whose name matches the regular expression", c=None
    )
    n_gpu_layers: int | None = param("layers to keep in GPU memory; negative: all")
    split_mode: int | str | None = param("how to split the model across GPUs", enum=SplitMode)
    load_mode: int | str | None = param("how to read the file", enum=LoadMode)
    lazy_mode: int | str | None = param("read rows of marked tensors on demand", enum=LazyMode)
    main_gpu: int | None = param("the GPU for the whole model when split_mode is none", low=-1)
    tensor_split: Sequence[float] | None = param("proportion of the model for each GPU", c=None)
    progress_callback: Callable[[float], bool | None] | None = param(
        "called with 0.0 to 1.0 while loading; False cancels", c=None
    )
    kv_overrides: Mapping[str, int | float | bool | str] | None = param("metadata of the file to override", c=None)
    vocab_only: bool | None = param("load the vocabulary only, no weights")
    check_tensors: bool | None = param("validate the tensor data")
    use_extra_bufts: bool | None = param("repack weights for this CPU")
    no_host: bool | None = param("bypass the host buffer")
    no_alloc: bool | None = param("load the metadata only and simulate the allocations")
    load_mtp: bool | None = param("load the layers of multi-token prediction")


@dataclass(kw_only=True, repr=False)
class LlamaContextParams(Params, c="llama_context_params"):
    """Parameters of a context (``llama_context_params``, llama.h)."""

    n_ctx: int | None = param("context size in tokens; 0: that of the training", low=0, high=MAX_TOKENS)
    n_batch: int | None = param("most tokens of one decode()", low=1, high=MAX_TOKENS)
    n_ubatch: int | None = param("most tokens computed at once", low=1, high=MAX_TOKENS)
    n_seq_max: int | None = param("most sequences at once", low=1, high=MAX_TOKENS)
    n_rs_seq: int | None = param("recurrent-state snapshots for each sequence, for rollback", low=0, high=MAX_TOKENS)
    n_outputs_max: int | None = param("most outputs of one ubatch; 0: n_batch", low=0, high=MAX_TOKENS)
    n_outputs_max_per_seq: int | None = param("most outputs of one sequence; 0: n_outputs_max", low=0, high=MAX_TOKENS)
    n_threads: int | None = param("threads for generation; default: the thread budget", low=1, high=512)
    n_threads_batch: int | None = param("threads for prompts; default: the thread budget", low=1, high=512)
    ctx_type: int | str | None = param("type of the context", enum=ContextType)
    rope_scaling_type: int | str | None = param("RoPE scaling", enum=RopeScalingType)
    pooling_type: int | str | None = param("pooling of embeddings over a sequence", enum=PoolingType)
    attention_type: int | str | None = param("attention used for embeddings", enum=AttentionType)
    flash_attn_type: int | str | None = param("flash attention", enum=FlashAttnType)
    rope_freq_base: float | None = param("RoPE base frequency; 0: from the model")
    rope_freq_scale: float | None = param("RoPE frequency scaling factor; 0: from the model")
    yarn_ext_factor: float | None = param("YaRN extrapolation mix factor; negative: from the model")
    yarn_attn_factor: float | None = param("YaRN magnitude scaling factor")
    yarn_beta_fast: float | None = param("YaRN low correction dim")
    yarn_beta_slow: float | None = param("YaRN high correction dim")
    yarn_orig_ctx: int | None = param("YaRN original context size in tokens", low=0, high=MAX_TOKENS)
    cb_eval: Callable[[Any, bool], bool] | None = param(
        "called for every tensor of the graph, see LlamaContext; slows the computation down", c=None
    )
    type_k: int | str | None = param("data type of the K cache", enum=TensorType)
    type_v: int | str | None = param("data type of the V cache", enum=TensorType)
    embeddings: bool | None = param("compute embeddings as well as logits")
    offload_kqv: bool | None = param("keep the KV cache on the GPU")
    no_perf: bool | None = param("do not measure timings")
    op_offload: bool | None = param("offload operations on host tensors to the GPU")
    swa_full: bool | None = param("full-size cache for sliding-window attention")
    kv_unified: bool | None = param("one buffer for all sequences")
    samplers: Mapping[int, Any] | None = param("sampler chains that run in the backend, by sequence id", c=None)
    ctx_other: Any = param("context to share results or memory with", c=None)


@dataclass(kw_only=True, repr=False)
class LlamaQuantizeParams(Params, c="llama_model_quantize_params"):
    """Parameters for quantising a model file (``llama_model_quantize_params``, llama.h)."""

    nthread: int | None = param("threads; 0 or less: all cores")
    ftype: int | str | None = param("file type to quantise to", enum=FileType)
    output_tensor_type: int | str | None = param("type of the output tensor", enum=TensorType)
    token_embedding_type: int | str | None = param("type of the token embeddings", enum=TensorType)
    allow_requantize: bool | None = param("quantise tensors that are quantised already")
    quantize_output_tensor: bool | None = param("quantise output.weight")
    only_copy: bool | None = param("copy the tensors unchanged")
    pure: bool | None = param("all tensors to the same type")
    keep_split: bool | None = param("as many shards as the input")
    dry_run: bool | None = param("only compute the size of the result")
    imatrix: Mapping[str, Any] | None = param("importance matrix: tensor name to float32 array", c=None)
    kv_overrides: Mapping[str, int | float | bool | str] | None = param("metadata to override", c=None)
    tt_overrides: Sequence[tuple[str, int | str]] | None = param("(name pattern, tensor type)", c=None)
    prune_layers: Sequence[int] | None = param("layers to leave out", c=None, low=0, high=2**20)
    max_buf_size: int | None = param("most bytes of tensor rows in memory at once; 0: 8 GiB", low=0, high=2**62)


@dataclass(kw_only=True, repr=False)
class LlamaSamplerChainParams(Params, c="llama_sampler_chain_params"):
    """Parameters of a sampler chain (``llama_sampler_chain_params``, llama.h)."""

    no_perf: bool | None = param("do not measure timings")


def llama_model_default_params() -> LlamaModelParams:
    """Return the engine's defaults."""
    return LlamaModelParams()


def llama_context_default_params() -> LlamaContextParams:
    """Return the engine's defaults."""
    return LlamaContextParams()


def llama_model_quantize_default_params() -> LlamaQuantizeParams:
    """Return the engine's defaults."""
    return LlamaQuantizeParams()


def llama_sampler_chain_default_params() -> LlamaSamplerChainParams:
    """Return the engine's defaults."""
    return LlamaSamplerChainParams()
