"""Python enums with the values of upstream's header, and their names in the engine."""

import functools
from enum import IntEnum

from cyllama.sd cimport libsd as lib

from cyllama._params import enum_value

RngType = IntEnum("RngType", {
    "STD_DEFAULT": <int> lib.STD_DEFAULT_RNG, "CUDA": <int> lib.CUDA_RNG, "CPU": <int> lib.CPU_RNG,
})

SampleMethod = IntEnum("SampleMethod", {
    "EULER": <int> lib.EULER_SAMPLE_METHOD, "EULER_A": <int> lib.EULER_A_SAMPLE_METHOD,
    "HEUN": <int> lib.HEUN_SAMPLE_METHOD, "DPM2": <int> lib.DPM2_SAMPLE_METHOD,
    "DPMPP2S_A": <int> lib.DPMPP2S_A_SAMPLE_METHOD, "DPMPP2M": <int> lib.DPMPP2M_SAMPLE_METHOD,
    "DPMPP2MV2": <int> lib.DPMPP2Mv2_SAMPLE_METHOD, "IPNDM": <int> lib.IPNDM_SAMPLE_METHOD,
    "IPNDM_V": <int> lib.IPNDM_V_SAMPLE_METHOD, "LCM": <int> lib.LCM_SAMPLE_METHOD,
    "DDIM_TRAILING": <int> lib.DDIM_TRAILING_SAMPLE_METHOD, "TCD": <int> lib.TCD_SAMPLE_METHOD,
    "RES_MULTISTEP": <int> lib.RES_MULTISTEP_SAMPLE_METHOD, "RES_2S": <int> lib.RES_2S_SAMPLE_METHOD,
    "ER_SDE": <int> lib.ER_SDE_SAMPLE_METHOD,
})

Scheduler = IntEnum("Scheduler", {
    "DISCRETE": <int> lib.DISCRETE_SCHEDULER, "KARRAS": <int> lib.KARRAS_SCHEDULER,
    "EXPONENTIAL": <int> lib.EXPONENTIAL_SCHEDULER, "AYS": <int> lib.AYS_SCHEDULER,
    "GITS": <int> lib.GITS_SCHEDULER, "SGM_UNIFORM": <int> lib.SGM_UNIFORM_SCHEDULER,
    "SIMPLE": <int> lib.SIMPLE_SCHEDULER, "SMOOTHSTEP": <int> lib.SMOOTHSTEP_SCHEDULER,
    "KL_OPTIMAL": <int> lib.KL_OPTIMAL_SCHEDULER, "LCM": <int> lib.LCM_SCHEDULER,
    "BONG_TANGENT": <int> lib.BONG_TANGENT_SCHEDULER,
})

Prediction = IntEnum("Prediction", {
    "EPS": <int> lib.EPS_PRED, "V": <int> lib.V_PRED, "EDM_V": <int> lib.EDM_V_PRED,
    "FLOW": <int> lib.FLOW_PRED, "FLUX_FLOW": <int> lib.FLUX_FLOW_PRED, "FLUX2_FLOW": <int> lib.FLUX2_FLOW_PRED,
})

SDType = IntEnum("SDType", {
    "F32": <int> lib.SD_TYPE_F32, "F16": <int> lib.SD_TYPE_F16, "Q4_0": <int> lib.SD_TYPE_Q4_0,
    "Q4_1": <int> lib.SD_TYPE_Q4_1, "Q5_0": <int> lib.SD_TYPE_Q5_0, "Q5_1": <int> lib.SD_TYPE_Q5_1,
    "Q8_0": <int> lib.SD_TYPE_Q8_0, "Q8_1": <int> lib.SD_TYPE_Q8_1, "Q2_K": <int> lib.SD_TYPE_Q2_K,
    "Q3_K": <int> lib.SD_TYPE_Q3_K, "Q4_K": <int> lib.SD_TYPE_Q4_K, "Q5_K": <int> lib.SD_TYPE_Q5_K,
    "Q6_K": <int> lib.SD_TYPE_Q6_K, "Q8_K": <int> lib.SD_TYPE_Q8_K, "IQ2_XXS": <int> lib.SD_TYPE_IQ2_XXS,
    "IQ2_XS": <int> lib.SD_TYPE_IQ2_XS, "IQ3_XXS": <int> lib.SD_TYPE_IQ3_XXS, "IQ1_S": <int> lib.SD_TYPE_IQ1_S,
    "IQ4_NL": <int> lib.SD_TYPE_IQ4_NL, "IQ3_S": <int> lib.SD_TYPE_IQ3_S, "IQ2_S": <int> lib.SD_TYPE_IQ2_S,
    "IQ4_XS": <int> lib.SD_TYPE_IQ4_XS, "I8": <int> lib.SD_TYPE_I8, "I16": <int> lib.SD_TYPE_I16,
    "I32": <int> lib.SD_TYPE_I32, "I64": <int> lib.SD_TYPE_I64, "F64": <int> lib.SD_TYPE_F64,
    "IQ1_M": <int> lib.SD_TYPE_IQ1_M, "BF16": <int> lib.SD_TYPE_BF16, "TQ1_0": <int> lib.SD_TYPE_TQ1_0,
    "TQ2_0": <int> lib.SD_TYPE_TQ2_0, "MXFP4": <int> lib.SD_TYPE_MXFP4, "NVFP4": <int> lib.SD_TYPE_NVFP4,
})

PreviewMode = IntEnum("PreviewMode", {
    "NONE": <int> lib.PREVIEW_NONE, "PROJ": <int> lib.PREVIEW_PROJ, "TAE": <int> lib.PREVIEW_TAE,
    "VAE": <int> lib.PREVIEW_VAE,
})

LoraApplyMode = IntEnum("LoraApplyMode", {
    "AUTO": <int> lib.LORA_APPLY_AUTO, "IMMEDIATELY": <int> lib.LORA_APPLY_IMMEDIATELY,
    "AT_RUNTIME": <int> lib.LORA_APPLY_AT_RUNTIME,
})

CacheMode = IntEnum("CacheMode", {
    "DISABLED": <int> lib.SD_CACHE_DISABLED, "EASYCACHE": <int> lib.SD_CACHE_EASYCACHE,
    "UCACHE": <int> lib.SD_CACHE_UCACHE, "DBCACHE": <int> lib.SD_CACHE_DBCACHE,
    "TAYLORSEER": <int> lib.SD_CACHE_TAYLORSEER, "CACHE_DIT": <int> lib.SD_CACHE_CACHE_DIT,
    "SPECTRUM": <int> lib.SD_CACHE_SPECTRUM,
})

HiresUpscaler = IntEnum("HiresUpscaler", {
    "NONE": <int> lib.SD_HIRES_UPSCALER_NONE, "LATENT": <int> lib.SD_HIRES_UPSCALER_LATENT,
    "LATENT_NEAREST": <int> lib.SD_HIRES_UPSCALER_LATENT_NEAREST,
    "LATENT_NEAREST_EXACT": <int> lib.SD_HIRES_UPSCALER_LATENT_NEAREST_EXACT,
    "LATENT_ANTIALIASED": <int> lib.SD_HIRES_UPSCALER_LATENT_ANTIALIASED,
    "LATENT_BICUBIC": <int> lib.SD_HIRES_UPSCALER_LATENT_BICUBIC,
    "LATENT_BICUBIC_ANTIALIASED": <int> lib.SD_HIRES_UPSCALER_LATENT_BICUBIC_ANTIALIASED,
    "LANCZOS": <int> lib.SD_HIRES_UPSCALER_LANCZOS, "NEAREST": <int> lib.SD_HIRES_UPSCALER_NEAREST,
    "MODEL": <int> lib.SD_HIRES_UPSCALER_MODEL,
})


def sd_type_name(type: int | str) -> str:
    """Return the name of a tensor type, such as ``"q4_0"``. Source: same name, stable-diffusion.h."""
    return lib.sd_type_name(<lib.sd_type_t> <int> enum_value(SDType, type, "type")).decode()


def str_to_sd_type(name: str) -> int:
    """Return the tensor type of a name. Source: same name, stable-diffusion.h."""
    return SDType(_parsed(<int> lib.str_to_sd_type(name.encode()), <int> lib.SD_TYPE_COUNT, name, "tensor type"))


def sd_rng_type_name(rng_type: int | str) -> str:
    """Return the name of a random number generator, such as ``"cuda"``. Source: same name, stable-diffusion.h."""
    return lib.sd_rng_type_name(<lib.rng_type_t> <int> enum_value(RngType, rng_type, "rng_type")).decode()


def str_to_rng_type(name: str) -> int:
    """Return the random number generator of a name. Source: same name, stable-diffusion.h."""
    return RngType(_parsed(<int> lib.str_to_rng_type(name.encode()), <int> lib.RNG_TYPE_COUNT, name, "generator"))


def sd_sample_method_name(sample_method: int | str) -> str:
    """Return the name of a sampler, such as ``"dpm++2m"``. Source: same name, stable-diffusion.h."""
    return lib.sd_sample_method_name(
        <lib.sample_method_t> <int> enum_value(SampleMethod, sample_method, "sample_method")).decode()


def str_to_sample_method(name: str) -> int:
    """Return the sampler of a name. Source: same name, stable-diffusion.h."""
    return SampleMethod(_parsed(<int> lib.str_to_sample_method(name.encode()), <int> lib.SAMPLE_METHOD_COUNT,
                                name, "sampler"))


def sd_scheduler_name(scheduler: int | str) -> str:
    """Return the name of a scheduler, such as ``"karras"``. Source: same name, stable-diffusion.h."""
    return lib.sd_scheduler_name(<lib.scheduler_t> <int> enum_value(Scheduler, scheduler, "scheduler")).decode()


def str_to_scheduler(name: str) -> int:
    """Return the scheduler of a name. Source: same name, stable-diffusion.h."""
    return Scheduler(_parsed(<int> lib.str_to_scheduler(name.encode()), <int> lib.SCHEDULER_COUNT, name, "scheduler"))


def sd_prediction_name(prediction: int | str) -> str:
    """Return the name of a prediction, such as ``"eps"``. Source: same name, stable-diffusion.h."""
    return lib.sd_prediction_name(<lib.prediction_t> <int> enum_value(Prediction, prediction, "prediction")).decode()


def str_to_prediction(name: str) -> int:
    """Return the prediction of a name. Source: same name, stable-diffusion.h."""
    return Prediction(_parsed(<int> lib.str_to_prediction(name.encode()), <int> lib.PREDICTION_COUNT,
                              name, "prediction"))


def sd_preview_name(preview: int | str) -> str:
    """Return the name of a preview mode, such as ``"proj"``. Source: same name, stable-diffusion.h."""
    return lib.sd_preview_name(<lib.preview_t> <int> enum_value(PreviewMode, preview, "preview")).decode()


def str_to_preview(name: str) -> int:
    """Return the preview mode of a name. Source: same name, stable-diffusion.h."""
    return PreviewMode(_parsed(<int> lib.str_to_preview(name.encode()), <int> lib.PREVIEW_COUNT, name, "preview mode"))


def sd_lora_apply_mode_name(mode: int | str) -> str:
    """Return the name of a LoRA mode, such as ``"at_runtime"``. Source: same name, stable-diffusion.h."""
    return lib.sd_lora_apply_mode_name(<lib.lora_apply_mode_t> <int> enum_value(LoraApplyMode, mode, "mode")).decode()


def str_to_lora_apply_mode(name: str) -> int:
    """Return the LoRA mode of a name. Source: same name, stable-diffusion.h."""
    return LoraApplyMode(_parsed(<int> lib.str_to_lora_apply_mode(name.encode()), <int> lib.LORA_APPLY_MODE_COUNT,
                                 name, "LoRA mode"))


def sd_hires_upscaler_name(upscaler: int | str) -> str:
    """Return the name of a second pass's upscaler, such as ``"Latent"``. Source: same name, stable-diffusion.h."""
    return lib.sd_hires_upscaler_name(
        <lib.sd_hires_upscaler_t> <int> enum_value(HiresUpscaler, upscaler, "upscaler")).decode()


def str_to_sd_hires_upscaler(name: str) -> int:
    """Return the upscaler of a name. Source: same name, stable-diffusion.h."""
    return HiresUpscaler(_parsed(<int> lib.str_to_sd_hires_upscaler(name.encode()),
                                 <int> lib.SD_HIRES_UPSCALER_COUNT, name, "hires upscaler"))


def _parsed(value: int, unknown: int, name: str, what: str) -> int:
    if value == unknown:
        raise ValueError(f"name is {name!r}, expected the name of a {what}")
    return value


_NAME_OF = {
    RngType: sd_rng_type_name, SampleMethod: sd_sample_method_name, Scheduler: sd_scheduler_name,
    Prediction: sd_prediction_name, SDType: sd_type_name, PreviewMode: sd_preview_name,
    LoraApplyMode: sd_lora_apply_mode_name, HiresUpscaler: sd_hires_upscaler_name,
}
_names: dict[type, dict[str, int]] = {}


def engine_names(enum) -> dict[str, int]:
    """Return the names that the engine's own program accepts, and their values; of CacheMode, Python's names."""
    if enum not in _names:
        name_of = _NAME_OF.get(enum, lambda member: member.name.lower())
        _names[enum] = {name_of(member): int(member) for member in enum}
    return _names[enum]


for _enum in (*_NAME_OF, CacheMode):
    _enum.engine_names = functools.partial(engine_names, _enum)
