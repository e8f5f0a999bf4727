"""Parameters: one keyword-only dataclass for each parameter struct of stable-diffusion.h.

Field names are those of the C struct; lists have no count beside them. ``None`` is the engine's own default. Enums can
be given as members of ``cyllama.sd``'s enums, as numbers, or by name, ours or the engine's (``"dpm++2m"``).
``checked`` in ``_fields.py`` holds every value against its field's metadata before C sees it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.sd._fields import MAX_SIDE, Params, param

__all__ = [
    "CacheParams",
    "Embedding",
    "GuidanceParams",
    "HiresParams",
    "ImageGenParams",
    "Lora",
    "PhotoMakerParams",
    "SDContextParams",
    "SDTilingParams",
    "SampleParams",
    "SlgParams",
    "VideoGenParams",
]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Image = npt.NDArray[np.uint8]
MAX_STEPS = 1000  # the schedules interpolate between the 1,000 steps of the training


def _path(help_text: str, **metadata: Any) -> Any:
    return param("path", help_text, **metadata)


def _switch(help_text: str) -> Any:
    return param("bool", help_text)


@dataclass(kw_only=True)
class Embedding(Params):
    """A textual inversion (``sd_embedding_t``)."""

    name: str | None = param("text", "the word in the prompt that stands for it")
    path: Path | None = _path("its file")


@dataclass(kw_only=True)
class SDContextParams(Params):
    """What is loaded, and how (``sd_ctx_params_t``)."""

    model_path: Path | None = _path("a whole model: a file, or a folder of the diffusers layout", folder=True)
    clip_l_path: Path | None = _path("CLIP-L text encoder")
    clip_g_path: Path | None = _path("CLIP-G text encoder")
    clip_vision_path: Path | None = _path("CLIP vision encoder")
    t5xxl_path: Path | None = _path("T5-XXL text encoder")
    llm_path: Path | None = _path("language model as a text encoder")
    llm_vision_path: Path | None = _path("vision encoder of the language model")
    diffusion_model_path: Path | None = _path("diffusion model without encoders")
    high_noise_diffusion_model_path: Path | None = _path("diffusion model of the noisy steps (Wan 2.2)")
    vae_path: Path | None = _path("auto-encoder")
    taesd_path: Path | None = _path("tiny auto-encoder, used instead of the other one")
    control_net_path: Path | None = _path("ControlNet")
    embeddings: Sequence[Embedding] | None = param("list", "textual inversions", of="Embedding")
    photo_maker_path: Path | None = _path("PhotoMaker model")
    tensor_type_rules: str | None = param("rules", "types by tensor name: 'regex=type,...'")
    vae_decode_only: bool | None = _switch("load no encoder of the VAE: only text to image is possible then")
    free_params_immediately: bool | None = _switch(
        "free each part after its use: a second generation is refused; default: False"
    )
    n_threads: int | None = param("int", "threads; default: the thread budget", low=1, high=512)
    wtype: int | str | None = param("enum", "type to convert the weights to", enum="SDType")
    rng_type: int | str | None = param("enum", "random numbers", enum="RngType")
    sampler_rng_type: int | str | None = param("enum", "random numbers of the sampler", enum="RngType")
    prediction: int | str | None = param("enum", "what the model predicts", enum="Prediction")
    lora_apply_mode: int | str | None = param("enum", "when LoRA weights are added", enum="LoraApplyMode")
    offload_params_to_cpu: bool | None = _switch("keep the weights in RAM, load them to the GPU when needed")
    enable_mmap: bool | None = _switch("map the files into memory while loading")
    keep_clip_on_cpu: bool | None = _switch("compute the text encoders on the CPU")
    keep_control_net_on_cpu: bool | None = _switch("compute ControlNet on the CPU")
    keep_vae_on_cpu: bool | None = _switch("compute the VAE on the CPU")
    flash_attn: bool | None = _switch("flash attention everywhere")
    diffusion_flash_attn: bool | None = _switch("flash attention in the diffusion model")
    tae_preview_only: bool | None = _switch("use the tiny auto-encoder for previews only")
    diffusion_conv_direct: bool | None = _switch("direct convolutions in the diffusion model")
    vae_conv_direct: bool | None = _switch("direct convolutions in the VAE")
    circular_x: bool | None = _switch("the left and the right edge of the picture meet")
    circular_y: bool | None = _switch("the upper and the lower edge of the picture meet")
    force_sdxl_vae_conv_scale: bool | None = _switch("scale the convolutions of the SDXL VAE")
    chroma_use_dit_mask: bool | None = _switch("Chroma: mask the text in the diffusion model")
    chroma_use_t5_mask: bool | None = _switch("Chroma: mask the text in T5")
    chroma_t5_mask_pad: int | None = param("int", "Chroma: padding that T5 sees", low=0, high=512)
    qwen_image_zero_cond_t: bool | None = _switch("Qwen-Image: time zero for the reference")
    max_vram: float | None = param("float", "GiB of GPU memory for one graph; 0: no limit", low=0, high=65536)

    def to_str(self) -> str:
        """As the engine prints them. Source: ``sd_ctx_params_to_str``, stable-diffusion.h."""
        from cyllama.sd._context import sd_ctx_params_to_str

        return sd_ctx_params_to_str(self)


@dataclass(kw_only=True)
class SDTilingParams(Params):
    """The VAE in tiles (``sd_tiling_params_t``): less memory, and progress inside of it."""

    enabled: bool | None = _switch("compute in tiles")
    tile_size_x: int | None = param("int", "width of a tile in latents (of 8 pixels mostly); 0: 32", low=0, high=2048)
    tile_size_y: int | None = param("int", "height of a tile in latents; 0: 32", low=0, high=2048)
    target_overlap: float | None = param("float", "overlap, as a part of a tile", low=0, high=0.5)
    rel_size_x: float | None = param("float", "width: up to 1 a part of the picture, above 1 tiles", low=0, high=1024)
    rel_size_y: float | None = param("float", "height: up to 1 a part of the picture, above 1 tiles", low=0, high=1024)


@dataclass(kw_only=True)
class SlgParams(Params):
    """Skip-layer guidance of DiT models (``sd_slg_params_t``)."""

    layers: Sequence[int] | None = param("ints", "layers to skip", low=0, high=1023)
    layer_start: float | None = param("float", "first step, as a part of all", low=0, high=1)
    layer_end: float | None = param("float", "last step, as a part of all", low=0, high=1)
    scale: float | None = param("float", "strength; 0: off", low=-1000, high=1000)


@dataclass(kw_only=True)
class GuidanceParams(Params):
    """How closely the prompt is followed (``sd_guidance_params_t``)."""

    txt_cfg: float | None = param("float", "classifier-free guidance; 1: off", low=-1000, high=1000)
    img_cfg: float | None = param(
        "float", "guidance by the image (edit models); inf: as txt_cfg", low=-1000, high=1000, infinite=True
    )
    distilled_guidance: float | None = param("float", "guidance of distilled models (FLUX)", low=-1000, high=1000)
    slg: SlgParams | None = param("params", "skip-layer guidance", of="SlgParams")


@dataclass(kw_only=True)
class SampleParams(Params):
    """The way from noise to a picture (``sd_sample_params_t``)."""

    guidance: GuidanceParams | None = param("params", "guidance", of="GuidanceParams")
    scheduler: int | str | None = param("enum", "noise of each step; default: the model's", enum="Scheduler")
    sample_method: int | str | None = param("enum", "sampler; default: the model's", enum="SampleMethod")
    sample_steps: int | None = param("int", "steps; -1 in high_noise_sample_params: by moe_boundary", low=-1, high=1000)
    eta: float | None = param("float", "noise that is added; inf: the sampler's own", low=0, high=100, infinite=True)
    shifted_timestep: int | None = param("int", "NitroFusion: shift of the time step; 0: off", low=0, high=1000)
    custom_sigmas: Sequence[float] | None = param(
        "sigmas", "noise of each step, falling, one more than steps", low=0, high=100000
    )
    flow_shift: float | None = param(
        "float", "shift of flow models; inf: the model's", low=1e-6, high=1000, infinite=True
    )

    def to_str(self) -> str:
        """As the engine prints them. Source: ``sd_sample_params_to_str``, stable-diffusion.h."""
        from cyllama.sd._context import sd_sample_params_to_str

        return sd_sample_params_to_str(self)


@dataclass(kw_only=True)
class PhotoMakerParams(Params):
    """A person's likeness (``sd_pm_params_t``); needs ``photo_maker_path``."""

    id_images: Sequence[Image] | None = param("images", "photographs, (height, width, 3) uint8")
    id_embed_path: Path | None = _path("embeddings of the photographs (version 2)")
    style_strength: float | None = param("float", "strength of the style, percent", low=0, high=100)


@dataclass(kw_only=True)
class CacheParams(Params):
    """Steps that are not computed again (``sd_cache_params_t``)."""

    mode: int | str | None = param("enum", "method", enum="CacheMode")
    reuse_threshold: float | None = param("float", "easycache, ucache: change that is still reused; inf: the method's",
                                          low=0, high=1000, infinite=True)  # fmt: skip
    start_percent: float | None = param("float", "easycache, ucache: first step, as a part", low=0, high=1)
    end_percent: float | None = param("float", "easycache, ucache: last step, as a part", low=0, high=1)
    error_decay_rate: float | None = param("float", "ucache: decay of the accumulated error", low=0, high=1)
    use_relative_threshold: bool | None = _switch("ucache: threshold relative to the output")
    reset_error_on_compute: bool | None = _switch("ucache: forget the error when a step is computed")
    Fn_compute_blocks: int | None = param("int", "dbcache: first blocks that are computed", low=0, high=1024)
    Bn_compute_blocks: int | None = param("int", "dbcache: last blocks that are computed", low=0, high=1024)
    residual_diff_threshold: float | None = param("float", "dbcache: change that is still reused", low=0, high=1000)
    max_warmup_steps: int | None = param("int", "dbcache: steps before reuse", low=0, high=MAX_STEPS)
    max_cached_steps: int | None = param("int", "dbcache: most reused steps; -1: any", low=-1, high=MAX_STEPS)
    max_continuous_cached_steps: int | None = param(
        "int", "dbcache: most reused steps in a row; -1: any", low=-1, high=MAX_STEPS
    )
    taylorseer_n_derivatives: int | None = param("int", "taylorseer: order", low=1, high=8)
    taylorseer_skip_interval: int | None = param("int", "taylorseer: steps between two computed", low=0, high=MAX_STEPS)
    scm_mask: str | None = param("mask", "dbcache: steps to compute, '1,1,0,1'")
    scm_policy_dynamic: bool | None = _switch("dbcache: the mask's zeros may be computed")
    spectrum_w: float | None = param("float", "spectrum: weight of the polynomial", low=0, high=1)
    spectrum_m: int | None = param("int", "spectrum: degree of the polynomial", low=1, high=32)
    spectrum_lam: float | None = param("float", "spectrum: regularisation", low=1e-6, high=1000)
    spectrum_window_size: int | None = param("int", "spectrum: steps between two computed", low=1, high=MAX_STEPS)
    spectrum_flex_window: float | None = param("float", "spectrum: growth of the window", low=0, high=100)
    spectrum_warmup_steps: int | None = param("int", "spectrum: steps before reuse", low=0, high=MAX_STEPS)
    spectrum_stop_percent: float | None = param("float", "spectrum: last step, as a part", low=0, high=1)


@dataclass(kw_only=True)
class Lora(Params):
    """A LoRA and its weight (``sd_lora_t``)."""

    is_high_noise: bool | None = _switch("it belongs to the model of the noisy steps")
    multiplier: float | None = param("float", "its weight; default: 1", low=-100, high=100)
    path: Path | None = _path("its file")


@dataclass(kw_only=True)
class HiresParams(Params):
    """A second pass in a larger size (``sd_hires_params_t``)."""

    enabled: bool | None = _switch("make the second pass")
    upscaler: int | str | None = param("enum", "how the first picture is enlarged", enum="HiresUpscaler")
    model_path: Path | None = _path("network of the upscaler 'Model'")
    scale: float | None = param("float", "enlargement, if no size is given", low=0.1, high=16)
    target_width: int | None = param("int", "width in pixels; 0: by scale", low=0, high=MAX_SIDE)
    target_height: int | None = param("int", "height in pixels; 0: by scale", low=0, high=MAX_SIDE)
    steps: int | None = param("int", "steps; 0: as many as the first pass", low=0, high=MAX_STEPS)
    denoising_strength: float | None = param("float", "part of the steps that is computed", low=0.01, high=1)
    upscale_tile_size: int | None = param("int", "tile of the network, pixels; 0: no tiles", low=0, high=4096)


@dataclass(kw_only=True)
class ImageGenParams(Params):
    """One or more pictures (``sd_img_gen_params_t``). Images are uint8 arrays (height, width, 3)."""

    loras: Sequence[Lora] | None = param("list", "LoRAs", of="Lora")
    prompt: str | None = param("text", "what is to be seen")
    negative_prompt: str | None = param("text", "what is not to be seen")
    clip_skip: int | None = param("int", "last layers of CLIP to skip; -1: the model's", low=-1, high=12)
    init_image: Image | None = param("image", "picture to start from, of the result's size")
    ref_images: Sequence[Image] | None = param("images", "reference pictures of edit models")
    auto_resize_ref_image: bool | None = _switch("fit the reference pictures to the result's size")
    increase_ref_index: bool | None = _switch("a position of its own for each reference picture")
    mask_image: Image | None = param("image", "(height, width, 1): 255 where to paint", channels=1)
    width: int | None = param("int", "pixels; the engine rounds up to the model's multiple", low=8, high=MAX_SIDE)
    height: int | None = param("int", "pixels; the engine rounds up to the model's multiple", low=8, high=MAX_SIDE)
    sample_params: SampleParams | None = param("params", "sampling", of="SampleParams")
    strength: float | None = param("float", "how much init_image may change", low=0, high=1)
    seed: int | None = param("int", "start of the random numbers; -1: any", low=-1, high=2**62)
    batch_count: int | None = param("int", "pictures, with seeds one after the other", low=1, high=1024)
    control_image: Image | None = param("image", "picture for ControlNet, of the result's size")
    control_strength: float | None = param("float", "weight of ControlNet", low=0, high=100)
    pm_params: PhotoMakerParams | None = param("params", "PhotoMaker", of="PhotoMakerParams")
    vae_tiling_params: SDTilingParams | None = param("params", "the VAE in tiles", of="SDTilingParams")
    cache: CacheParams | None = param("params", "reuse of steps", of="CacheParams")
    hires: HiresParams | None = param("params", "second pass", of="HiresParams")

    def to_str(self) -> str:
        """As the engine prints them. Source: ``sd_img_gen_params_to_str``, stable-diffusion.h."""
        from cyllama.sd._context import sd_img_gen_params_to_str

        return sd_img_gen_params_to_str(self)


@dataclass(kw_only=True)
class VideoGenParams(Params):
    """A video (``sd_vid_gen_params_t``). Images are uint8 arrays (height, width, 3)."""

    loras: Sequence[Lora] | None = param("list", "LoRAs", of="Lora")
    prompt: str | None = param("text", "what is to be seen")
    negative_prompt: str | None = param("text", "what is not to be seen")
    clip_skip: int | None = param("int", "last layers of CLIP to skip; -1: the model's", low=-1, high=12)
    init_image: Image | None = param("image", "first frame, of the result's size")
    end_image: Image | None = param("image", "last frame, of the result's size")
    control_frames: Sequence[Image] | None = param("images", "frames that control it, of the result's size")
    width: int | None = param("int", "pixels; the engine rounds up to the model's multiple", low=8, high=MAX_SIDE)
    height: int | None = param("int", "pixels; the engine rounds up to the model's multiple", low=8, high=MAX_SIDE)
    sample_params: SampleParams | None = param("params", "sampling", of="SampleParams")
    high_noise_sample_params: SampleParams | None = param(
        "params", "sampling with the model of the noisy steps", of="SampleParams"
    )
    moe_boundary: float | None = param("float", "noise at which the models change", low=0, high=1)
    strength: float | None = param("float", "how much init_image may change", low=0, high=1)
    seed: int | None = param("int", "start of the random numbers; -1: any", low=-1, high=2**62)
    video_frames: int | None = param("int", "frames; the engine takes 4 n + 1, rounded down", low=1, high=1025)
    vace_strength: float | None = param("float", "weight of the control frames", low=0, high=100)
    vae_tiling_params: SDTilingParams | None = param("params", "the VAE in tiles", of="SDTilingParams")
    cache: CacheParams | None = param("params", "reuse of steps", of="CacheParams")
