"""Text: llama.cpp's own API, under upstream's names.

:func:`simple` is the shortest way from a prompt to a text; the classes are thin handles on llama.cpp's.
"""

from typing import TYPE_CHECKING, Any

from cyllama.llama._adapter import ControlVector, LlamaAdapterLora, load_control_vector
from cyllama.llama._backend import (
    ggml_time_us,
    llama_backend_free,
    llama_backend_init,
    llama_flash_attn_type_name,
    llama_load_mode_from_str,
    llama_load_mode_name,
    llama_max_devices,
    llama_max_parallel_sequences,
    llama_max_tensor_buft_overrides,
    llama_numa_init,
    llama_print_system_info,
    llama_supports_gpu_offload,
    llama_supports_mlock,
    llama_supports_mmap,
    llama_supports_rpc,
    llama_time_us,
    llama_version,
)
from cyllama.llama._batch import LlamaBatch, LlamaBatchExt
from cyllama.llama._common import (
    CommonParams,
    CommonSampler,
    common_batch_add,
    common_batch_clear,
    common_context_params_to_llama,
    common_detokenize,
    common_model_params_to_llama,
    common_params_get_system_info,
    common_token_to_piece,
    common_tokenize,
    json_schema_to_grammar,
    string_process_escapes,
)
from cyllama.llama._context import LlamaContext
from cyllama.llama._enums import (
    AttentionType,
    ContextType,
    FileType,
    FlashAttnType,
    LazyMode,
    LoadMode,
    NumaStrategy,
    PoolingType,
    ProcessType,
    RopeScalingType,
    RopeType,
    SplitMode,
    TensorType,
    TokenAttr,
    VocabType,
)
from cyllama.llama._gguf import GGUFContext, TensorInfo
from cyllama.llama._memory import LlamaMemory
from cyllama.llama._model import (
    LlamaModel,
    llama_chat_apply_template,
    llama_chat_builtin_templates,
    llama_model_meta_key_str,
)
from cyllama.llama._quantize import llama_model_quantize, llama_split_path, llama_split_prefix
from cyllama.llama._sampler import LlamaSampler, TokenDataArray
from cyllama.llama._speculative import Speculative, speculative_types
from cyllama.llama._state import LlamaState
from cyllama.llama._training import Trainer, TrainingResult, training_windows
from cyllama.llama._vocab import LlamaVocab
from cyllama.llama.params import (
    LlamaContextParams,
    LlamaModelParams,
    LlamaQuantizeParams,
    LlamaSamplerChainParams,
    llama_context_default_params,
    llama_model_default_params,
    llama_model_quantize_default_params,
    llama_sampler_chain_default_params,
)
from cyllama.llama.simple import SimpleResult, simple

if TYPE_CHECKING:
    from cyllama.llama.estimate import DeviceMemory, MemoryEstimate, estimate_memory
    from cyllama.llama.gguf_files import gguf_merge, gguf_split
    from cyllama.llama.measures import BenchResult, Perplexity, bench, perplexity

__all__ = [
    "AttentionType",
    "BenchResult",
    "CommonParams",
    "CommonSampler",
    "ContextType",
    "ControlVector",
    "DeviceMemory",
    "FileType",
    "FlashAttnType",
    "GGUFContext",
    "LazyMode",
    "LlamaAdapterLora",
    "LlamaBatch",
    "LlamaBatchExt",
    "LlamaContext",
    "LlamaContextParams",
    "LlamaMemory",
    "LlamaModel",
    "LlamaModelParams",
    "LlamaQuantizeParams",
    "LlamaSampler",
    "LlamaSamplerChainParams",
    "LlamaState",
    "LlamaVocab",
    "LoadMode",
    "MemoryEstimate",
    "NumaStrategy",
    "Perplexity",
    "PoolingType",
    "ProcessType",
    "RopeScalingType",
    "RopeType",
    "SimpleResult",
    "Speculative",
    "SplitMode",
    "TensorInfo",
    "TensorType",
    "TokenAttr",
    "TokenDataArray",
    "Trainer",
    "TrainingResult",
    "VocabType",
    "bench",
    "common_batch_add",
    "common_batch_clear",
    "common_context_params_to_llama",
    "common_detokenize",
    "common_model_params_to_llama",
    "common_params_get_system_info",
    "common_token_to_piece",
    "common_tokenize",
    "estimate_memory",
    "ggml_time_us",
    "gguf_merge",
    "gguf_split",
    "json_schema_to_grammar",
    "llama_backend_free",
    "llama_backend_init",
    "llama_chat_apply_template",
    "llama_chat_builtin_templates",
    "llama_context_default_params",
    "llama_flash_attn_type_name",
    "llama_load_mode_from_str",
    "llama_load_mode_name",
    "llama_max_devices",
    "llama_max_parallel_sequences",
    "llama_max_tensor_buft_overrides",
    "llama_model_default_params",
    "llama_model_meta_key_str",
    "llama_model_quantize",
    "llama_model_quantize_default_params",
    "llama_numa_init",
    "llama_print_system_info",
    "llama_sampler_chain_default_params",
    "llama_split_path",
    "llama_split_prefix",
    "llama_supports_gpu_offload",
    "llama_supports_mlock",
    "llama_supports_mmap",
    "llama_supports_rpc",
    "llama_time_us",
    "llama_version",
    "load_control_vector",
    "perplexity",
    "simple",
    "speculative_types",
    "string_process_escapes",
    "training_windows",
]

# Imported when they are first asked for: they need the scheduler, or are for few programs.
_LATER = {
    "BenchResult": "measures",
    "DeviceMemory": "estimate",
    "MemoryEstimate": "estimate",
    "Perplexity": "measures",
    "bench": "measures",
    "estimate_memory": "estimate",
    "gguf_merge": "gguf_files",
    "gguf_split": "gguf_files",
    "perplexity": "measures",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
