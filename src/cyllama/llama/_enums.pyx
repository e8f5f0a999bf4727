"""Upstream's enums as Python enums; every value comes from the header."""

from enum import IntEnum, IntFlag

from cyllama._native cimport libggml as ggml
from cyllama.llama cimport libllama as lib

VocabType = IntEnum("VocabType", {
    "NONE": <int> lib.LLAMA_VOCAB_TYPE_NONE, "SPM": <int> lib.LLAMA_VOCAB_TYPE_SPM,
    "BPE": <int> lib.LLAMA_VOCAB_TYPE_BPE, "WPM": <int> lib.LLAMA_VOCAB_TYPE_WPM,
    "UGM": <int> lib.LLAMA_VOCAB_TYPE_UGM, "RWKV": <int> lib.LLAMA_VOCAB_TYPE_RWKV,
    "PLAMO2": <int> lib.LLAMA_VOCAB_TYPE_PLAMO2, "TEST": <int> lib.LLAMA_VOCAB_TYPE_TEST,
})

RopeType = IntEnum("RopeType", {
    "NONE": <int> lib.LLAMA_ROPE_TYPE_NONE, "NORM": <int> lib.LLAMA_ROPE_TYPE_NORM,
    "NEOX": <int> lib.LLAMA_ROPE_TYPE_NEOX, "MROPE": <int> lib.LLAMA_ROPE_TYPE_MROPE,
    "IMROPE": <int> lib.LLAMA_ROPE_TYPE_IMROPE, "VISION": <int> lib.LLAMA_ROPE_TYPE_VISION,
})

TokenAttr = IntFlag("TokenAttr", {
    "UNDEFINED": <int> lib.LLAMA_TOKEN_ATTR_UNDEFINED, "UNKNOWN": <int> lib.LLAMA_TOKEN_ATTR_UNKNOWN,
    "UNUSED": <int> lib.LLAMA_TOKEN_ATTR_UNUSED, "NORMAL": <int> lib.LLAMA_TOKEN_ATTR_NORMAL,
    "CONTROL": <int> lib.LLAMA_TOKEN_ATTR_CONTROL, "USER_DEFINED": <int> lib.LLAMA_TOKEN_ATTR_USER_DEFINED,
    "BYTE": <int> lib.LLAMA_TOKEN_ATTR_BYTE, "NORMALIZED": <int> lib.LLAMA_TOKEN_ATTR_NORMALIZED,
    "LSTRIP": <int> lib.LLAMA_TOKEN_ATTR_LSTRIP, "RSTRIP": <int> lib.LLAMA_TOKEN_ATTR_RSTRIP,
    "SINGLE_WORD": <int> lib.LLAMA_TOKEN_ATTR_SINGLE_WORD,
})

FileType = IntEnum("FileType", {
    "ALL_F32": <int> lib.LLAMA_FTYPE_ALL_F32, "F16": <int> lib.LLAMA_FTYPE_MOSTLY_F16,
    "Q4_0": <int> lib.LLAMA_FTYPE_MOSTLY_Q4_0, "Q4_1": <int> lib.LLAMA_FTYPE_MOSTLY_Q4_1,
    "Q8_0": <int> lib.LLAMA_FTYPE_MOSTLY_Q8_0, "Q5_0": <int> lib.LLAMA_FTYPE_MOSTLY_Q5_0,
    "Q5_1": <int> lib.LLAMA_FTYPE_MOSTLY_Q5_1, "Q2_K": <int> lib.LLAMA_FTYPE_MOSTLY_Q2_K,
    "Q3_K_S": <int> lib.LLAMA_FTYPE_MOSTLY_Q3_K_S, "Q3_K_M": <int> lib.LLAMA_FTYPE_MOSTLY_Q3_K_M,
    "Q3_K_L": <int> lib.LLAMA_FTYPE_MOSTLY_Q3_K_L, "Q4_K_S": <int> lib.LLAMA_FTYPE_MOSTLY_Q4_K_S,
    "Q4_K_M": <int> lib.LLAMA_FTYPE_MOSTLY_Q4_K_M, "Q5_K_S": <int> lib.LLAMA_FTYPE_MOSTLY_Q5_K_S,
    "Q5_K_M": <int> lib.LLAMA_FTYPE_MOSTLY_Q5_K_M, "Q6_K": <int> lib.LLAMA_FTYPE_MOSTLY_Q6_K,
    "IQ2_XXS": <int> lib.LLAMA_FTYPE_MOSTLY_IQ2_XXS, "IQ2_XS": <int> lib.LLAMA_FTYPE_MOSTLY_IQ2_XS,
    "Q2_K_S": <int> lib.LLAMA_FTYPE_MOSTLY_Q2_K_S, "IQ3_XS": <int> lib.LLAMA_FTYPE_MOSTLY_IQ3_XS,
    "IQ3_XXS": <int> lib.LLAMA_FTYPE_MOSTLY_IQ3_XXS, "IQ1_S": <int> lib.LLAMA_FTYPE_MOSTLY_IQ1_S,
    "IQ4_NL": <int> lib.LLAMA_FTYPE_MOSTLY_IQ4_NL, "IQ3_S": <int> lib.LLAMA_FTYPE_MOSTLY_IQ3_S,
    "IQ3_M": <int> lib.LLAMA_FTYPE_MOSTLY_IQ3_M, "IQ2_S": <int> lib.LLAMA_FTYPE_MOSTLY_IQ2_S,
    "IQ2_M": <int> lib.LLAMA_FTYPE_MOSTLY_IQ2_M, "IQ4_XS": <int> lib.LLAMA_FTYPE_MOSTLY_IQ4_XS,
    "IQ1_M": <int> lib.LLAMA_FTYPE_MOSTLY_IQ1_M, "BF16": <int> lib.LLAMA_FTYPE_MOSTLY_BF16,
    "TQ1_0": <int> lib.LLAMA_FTYPE_MOSTLY_TQ1_0, "TQ2_0": <int> lib.LLAMA_FTYPE_MOSTLY_TQ2_0,
    "MXFP4_MOE": <int> lib.LLAMA_FTYPE_MOSTLY_MXFP4_MOE, "NVFP4": <int> lib.LLAMA_FTYPE_MOSTLY_NVFP4,
    "Q1_0": <int> lib.LLAMA_FTYPE_MOSTLY_Q1_0, "Q2_0": <int> lib.LLAMA_FTYPE_MOSTLY_Q2_0,
    "GUESSED": <int> lib.LLAMA_FTYPE_GUESSED,
})

RopeScalingType = IntEnum("RopeScalingType", {
    "UNSPECIFIED": <int> lib.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED, "NONE": <int> lib.LLAMA_ROPE_SCALING_TYPE_NONE,
    "LINEAR": <int> lib.LLAMA_ROPE_SCALING_TYPE_LINEAR, "YARN": <int> lib.LLAMA_ROPE_SCALING_TYPE_YARN,
    "LONGROPE": <int> lib.LLAMA_ROPE_SCALING_TYPE_LONGROPE,
})

PoolingType = IntEnum("PoolingType", {
    "UNSPECIFIED": <int> lib.LLAMA_POOLING_TYPE_UNSPECIFIED, "NONE": <int> lib.LLAMA_POOLING_TYPE_NONE,
    "MEAN": <int> lib.LLAMA_POOLING_TYPE_MEAN, "CLS": <int> lib.LLAMA_POOLING_TYPE_CLS,
    "LAST": <int> lib.LLAMA_POOLING_TYPE_LAST, "RANK": <int> lib.LLAMA_POOLING_TYPE_RANK,
})

AttentionType = IntEnum("AttentionType", {
    "UNSPECIFIED": <int> lib.LLAMA_ATTENTION_TYPE_UNSPECIFIED, "CAUSAL": <int> lib.LLAMA_ATTENTION_TYPE_CAUSAL,
    "NON_CAUSAL": <int> lib.LLAMA_ATTENTION_TYPE_NON_CAUSAL,
})

FlashAttnType = IntEnum("FlashAttnType", {
    "AUTO": <int> lib.LLAMA_FLASH_ATTN_TYPE_AUTO, "DISABLED": <int> lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "ENABLED": <int> lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
})

SplitMode = IntEnum("SplitMode", {
    "NONE": <int> lib.LLAMA_SPLIT_MODE_NONE, "LAYER": <int> lib.LLAMA_SPLIT_MODE_LAYER,
    "ROW": <int> lib.LLAMA_SPLIT_MODE_ROW, "TENSOR": <int> lib.LLAMA_SPLIT_MODE_TENSOR,
})

LoadMode = IntEnum("LoadMode", {
    "AUTO": <int> lib.LLAMA_LOAD_MODE_AUTO, "NONE": <int> lib.LLAMA_LOAD_MODE_NONE,
    "MMAP": <int> lib.LLAMA_LOAD_MODE_MMAP, "MLOCK": <int> lib.LLAMA_LOAD_MODE_MLOCK,
    "MMAP_MLOCK": <int> lib.LLAMA_LOAD_MODE_MMAP_MLOCK, "DIRECT_IO": <int> lib.LLAMA_LOAD_MODE_DIRECT_IO,
})

LazyMode = IntEnum("LazyMode", {
    "OFF": <int> lib.LLAMA_LAZY_MODE_OFF, "AUTO": <int> lib.LLAMA_LAZY_MODE_AUTO,
    "ON": <int> lib.LLAMA_LAZY_MODE_ON,
})

ContextType = IntEnum("ContextType", {
    "DEFAULT": <int> lib.LLAMA_CONTEXT_TYPE_DEFAULT, "MTP": <int> lib.LLAMA_CONTEXT_TYPE_MTP,
})

ProcessType = IntEnum("ProcessType", {
    "ENCODE": <int> lib.LLAMA_PROCESS_TYPE_ENCODE, "DECODE": <int> lib.LLAMA_PROCESS_TYPE_DECODE,
})

NumaStrategy = IntEnum("NumaStrategy", {
    "DISABLED": <int> ggml.GGML_NUMA_STRATEGY_DISABLED, "DISTRIBUTE": <int> ggml.GGML_NUMA_STRATEGY_DISTRIBUTE,
    "ISOLATE": <int> ggml.GGML_NUMA_STRATEGY_ISOLATE, "NUMACTL": <int> ggml.GGML_NUMA_STRATEGY_NUMACTL,
    "MIRROR": <int> ggml.GGML_NUMA_STRATEGY_MIRROR,
})
