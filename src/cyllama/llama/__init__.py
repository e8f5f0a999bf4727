"""Text: `LLM` for applications, and llama.cpp's own API under upstream's names.

The classes of the low level are thin handles on llama.cpp's; :func:`simple` shows their use.
"""

from typing import TYPE_CHECKING

from cyllama._native._gguf import GGUFContext, TensorInfo
from cyllama._native._tensors import TensorType
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
    TokenAttr,
    VocabType,
)
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
    from cyllama.llama._async import AsyncStream
    from cyllama.llama._chat_request import message_list
    from cyllama.llama._gguf_split import gguf_merge, gguf_split
    from cyllama.llama._limits import check_limits
    from cyllama.llama._message_types import ChatMessageDict, Messages, ResponseFormat, Tool, ToolDict
    from cyllama.llama._properties import ModelProperties, Slot
    from cyllama.llama._request_types import ChatOptions, CompletionOptions, InfillOptions, LLMOptionsDict
    from cyllama.llama._validation import request_fields
    from cyllama.llama.benchmark import BenchResult, Perplexity, bench, perplexity
    from cyllama.llama.imatrix import read_imatrix
    from cyllama.llama.llm import LLM
    from cyllama.llama.memory_estimate import DeviceMemory, MemoryEstimate, estimate_memory
    from cyllama.llama.options import LLMOptions
    from cyllama.llama.responses import (
        ChatChunk,
        ChatCompletion,
        Completion,
        CompletionChunk,
        Infill,
        Record,
        RerankResult,
        Timings,
        ToolCall,
        Usage,
    )
    from cyllama.llama.streaming import RawResponse, Stream

__all__ = [
    "LLM",
    "AsyncStream",
    "AttentionType",
    "BenchResult",
    "ChatChunk",
    "ChatCompletion",
    "ChatMessageDict",
    "ChatOptions",
    "CommonParams",
    "CommonSampler",
    "Completion",
    "CompletionChunk",
    "CompletionOptions",
    "ContextType",
    "ControlVector",
    "DeviceMemory",
    "FileType",
    "FlashAttnType",
    "GGUFContext",
    "Infill",
    "InfillOptions",
    "LLMOptions",
    "LLMOptionsDict",
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
    "Messages",
    "ModelProperties",
    "NumaStrategy",
    "Perplexity",
    "PoolingType",
    "ProcessType",
    "RawResponse",
    "Record",
    "RerankResult",
    "ResponseFormat",
    "RopeScalingType",
    "RopeType",
    "SimpleResult",
    "Slot",
    "Speculative",
    "SplitMode",
    "Stream",
    "TensorInfo",
    "TensorType",
    "Timings",
    "TokenAttr",
    "TokenDataArray",
    "Tool",
    "ToolCall",
    "ToolDict",
    "Trainer",
    "TrainingResult",
    "Usage",
    "VocabType",
    "bench",
    "check_limits",
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
    "message_list",
    "perplexity",
    "read_imatrix",
    "request_fields",
    "simple",
    "speculative_types",
    "string_process_escapes",
    "system_info",
    "training_windows",
    "version",
]

# Names by their module, which is imported on first use: `import cyllama.llama` stays cheap for the low level.
_LAZY = {
    name: module
    for module, names in {
        "_async": ("AsyncStream",),
        "_chat_request": ("message_list",),
        "_message_types": ("ChatMessageDict", "Messages", "ResponseFormat", "Tool", "ToolDict"),
        "_properties": ("ModelProperties", "Slot"),
        "_request_types": ("ChatOptions", "CompletionOptions", "InfillOptions", "LLMOptionsDict"),
        "_limits": ("check_limits",),
        "_validation": ("request_fields",),
        "benchmark": ("BenchResult", "Perplexity", "bench", "perplexity"),
        "_gguf_split": ("gguf_merge", "gguf_split"),
        "imatrix": ("read_imatrix",),
        "llm": ("LLM",),
        "memory_estimate": ("DeviceMemory", "MemoryEstimate", "estimate_memory"),
        "options": ("LLMOptions",),
        "responses": (
            "ChatChunk", "ChatCompletion", "Completion", "CompletionChunk", "Infill", "Record", "RerankResult",
            "Timings", "ToolCall", "Usage",
        ),
        "streaming": ("RawResponse", "Stream"),
    }.items()
    for name in names
}  # fmt: skip


def version() -> str:
    """Return the version of llama.cpp."""
    return llama_version()


def system_info() -> str:
    """Return the features of the CPU and of the backends that llama.cpp uses."""
    return llama_print_system_info()


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
