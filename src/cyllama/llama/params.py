"""Parameters: one keyword-only dataclass for each parameter struct of llama.h.

Field names are those of the C struct. ``None`` is the engine's own default. Enums can be given as members of
``cyllama.llama``'s enums, as numbers or by name (``"mean"``).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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


class _Params:
    """Refuses attributes that the C struct does not have."""

    def __setattr__(self, name: str, value: Any) -> None:
        names = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"{type(self).__name__} has no parameter {name!r}{hint}")
        object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The parameters that were given (not None) as a dict."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) is not None
        }


def _param(help_text: str, **metadata: Any) -> Any:
    return field(default=None, metadata={"help": help_text, **metadata})


@dataclass(kw_only=True)
class LlamaModelParams(_Params):
    """How a model is loaded (``llama_model_params``, llama.h)."""

    devices: Sequence[str] | None = _param("devices to offload to, by name; default: all")
    tensor_buft_overrides: Sequence[tuple[str, str]] | None = _param(
        "(pattern, buffer type name): where tensors whose name matches the regular expression go"
    )
    n_gpu_layers: int | None = _param("layers to keep in GPU memory; negative: all")
    split_mode: int | str | None = _param("how to split the model across GPUs", enum="SplitMode")
    load_mode: int | str | None = _param("how to read the file", enum="LoadMode")
    lazy_mode: int | str | None = _param("read rows of marked tensors on demand", enum="LazyMode")
    main_gpu: int | None = _param("the GPU for the whole model when split_mode is none")
    tensor_split: Sequence[float] | None = _param("proportion of the model for each GPU")
    progress_callback: Callable[[float], bool | None] | None = _param(
        "called with 0.0 to 1.0 while loading; False cancels"
    )
    kv_overrides: Mapping[str, int | float | bool | str] | None = _param("metadata of the file to override")
    vocab_only: bool | None = _param("load the vocabulary only, no weights")
    check_tensors: bool | None = _param("validate the tensor data")
    use_extra_bufts: bool | None = _param("repack weights for this CPU")
    no_host: bool | None = _param("bypass the host buffer")
    no_alloc: bool | None = _param("load the metadata only and simulate the allocations")
    load_mtp: bool | None = _param("load the layers of multi-token prediction")


@dataclass(kw_only=True)
class LlamaContextParams(_Params):
    """How a context is made (``llama_context_params``, llama.h)."""

    n_ctx: int | None = _param("context size in tokens; 0: what the model was trained with")
    n_batch: int | None = _param("most tokens of one decode()")
    n_ubatch: int | None = _param("most tokens computed at once")
    n_seq_max: int | None = _param("most sequences at the same time")
    n_rs_seq: int | None = _param("recurrent-state snapshots for each sequence, for rollback")
    n_outputs_max: int | None = _param("most outputs of one ubatch; 0: n_batch")
    n_outputs_max_per_seq: int | None = _param("most outputs of one sequence; 0: n_outputs_max")
    n_threads: int | None = _param("threads for generation; default: the thread budget")
    n_threads_batch: int | None = _param("threads for prompts; default: the thread budget")
    ctx_type: int | str | None = _param("kind of context", enum="ContextType")
    rope_scaling_type: int | str | None = _param("RoPE scaling", enum="RopeScalingType")
    pooling_type: int | str | None = _param("pooling of embeddings over a sequence", enum="PoolingType")
    attention_type: int | str | None = _param("attention used for embeddings", enum="AttentionType")
    flash_attn_type: int | str | None = _param("flash attention", enum="FlashAttnType")
    rope_freq_base: float | None = _param("RoPE base frequency; 0: from the model")
    rope_freq_scale: float | None = _param("RoPE frequency scaling factor; 0: from the model")
    yarn_ext_factor: float | None = _param("YaRN extrapolation mix factor; negative: from the model")
    yarn_attn_factor: float | None = _param("YaRN magnitude scaling factor")
    yarn_beta_fast: float | None = _param("YaRN low correction dim")
    yarn_beta_slow: float | None = _param("YaRN high correction dim")
    yarn_orig_ctx: int | None = _param("YaRN original context size in tokens")
    cb_eval: Callable[[Any, bool], bool] | None = _param(
        "called for every tensor of the graph, see LlamaContext; slows the computation down"
    )
    type_k: int | str | None = _param("data type of the K cache", enum="TensorType")
    type_v: int | str | None = _param("data type of the V cache", enum="TensorType")
    embeddings: bool | None = _param("give embeddings as well as logits")
    offload_kqv: bool | None = _param("keep the KV cache on the GPU")
    no_perf: bool | None = _param("do not measure timings")
    op_offload: bool | None = _param("offload operations on host tensors to the GPU")
    swa_full: bool | None = _param("full-size cache for sliding-window attention")
    kv_unified: bool | None = _param("one buffer for all sequences")
    samplers: Mapping[int, Any] | None = _param("sampler chains that run in the backend, by sequence id")
    ctx_other: Any = _param("context to share results or memory with")


@dataclass(kw_only=True)
class LlamaQuantizeParams(_Params):
    """How a model file is quantised (``llama_model_quantize_params``, llama.h)."""

    nthread: int | None = _param("threads; 0 or less: all cores")
    ftype: int | str | None = _param("file type to quantise to", enum="FileType")
    output_tensor_type: int | str | None = _param("type of the output tensor", enum="TensorType")
    token_embedding_type: int | str | None = _param("type of the token embeddings", enum="TensorType")
    allow_requantize: bool | None = _param("quantise tensors that are quantised already")
    quantize_output_tensor: bool | None = _param("quantise output.weight")
    only_copy: bool | None = _param("copy the tensors unchanged")
    pure: bool | None = _param("all tensors to the same type")
    keep_split: bool | None = _param("as many shards as the input")
    dry_run: bool | None = _param("only compute the size of the result")
    imatrix: Mapping[str, Any] | None = _param("importance matrix: tensor name to float32 array")
    kv_overrides: Mapping[str, int | float | bool | str] | None = _param("metadata to override")
    tt_overrides: Sequence[tuple[str, int | str]] | None = _param("(name pattern, tensor type)")
    prune_layers: Sequence[int] | None = _param("layers to leave out")
    max_buf_size: int | None = _param("most bytes of tensor rows in memory at once; 0: 8 GiB")


@dataclass(kw_only=True)
class LlamaSamplerChainParams(_Params):
    """How a sampler chain is made (``llama_sampler_chain_params``, llama.h)."""

    no_perf: bool | None = _param("do not measure timings")


def llama_model_default_params() -> LlamaModelParams:
    """Parameters that all mean the engine's own defaults."""
    return LlamaModelParams()


def llama_context_default_params() -> LlamaContextParams:
    """Parameters that all mean the engine's own defaults."""
    return LlamaContextParams()


def llama_model_quantize_default_params() -> LlamaQuantizeParams:
    """Parameters that all mean the engine's own defaults."""
    return LlamaQuantizeParams()


def llama_sampler_chain_default_params() -> LlamaSamplerChainParams:
    """Parameters that all mean the engine's own defaults."""
    return LlamaSamplerChainParams()
