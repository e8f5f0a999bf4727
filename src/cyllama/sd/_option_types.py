"""Keyword arguments as TypedDicts; written by scripts/gen_option_types.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from cyllama._cancel import Cancel
from cyllama.sd.options import LoraList
from cyllama.sd.params import CacheParams, Embedding, HiresParams, Path, PhotoMakerParams, SDTilingParams

__all__ = [
    "EditCallDict",
    "EditOptionsDict",
    "ImageOptionsDict",
    "Img2ImgCallDict",
    "Img2ImgOptionsDict",
    "Img2VidCallDict",
    "Img2VidOptionsDict",
    "InpaintCallDict",
    "InpaintOptionsDict",
    "ModelOptionsDict",
    "Txt2ImgCallDict",
    "Txt2VidCallDict",
    "VideoOptionsDict",
]


class ModelOptionsDict(TypedDict, total=False):
    """Keyword arguments."""

    clip_l: Path | None
    clip_g: Path | None
    clip_vision: Path | None
    t5xxl: Path | None
    llm: Path | None
    llm_vision: Path | None
    diffusion_model: Path | None
    high_noise_diffusion_model: Path | None
    vae: Path | None
    taesd: Path | None
    control_net: Path | None
    embeddings: Mapping[str, Path] | Sequence[Embedding] | None
    photo_maker: Path | None
    tensor_type_rules: str | None
    vae_decode_only: bool | None
    free_params_immediately: bool | None
    n_threads: int | None
    wtype: int | str | None
    rng_type: int | str | None
    sampler_rng_type: int | str | None
    prediction: int | str | None
    lora_apply_mode: int | str | None
    offload_params_to_cpu: bool | None
    enable_mmap: bool | None
    keep_clip_on_cpu: bool | None
    keep_control_net_on_cpu: bool | None
    keep_vae_on_cpu: bool | None
    flash_attn: bool | None
    diffusion_flash_attn: bool | None
    tae_preview_only: bool | None
    diffusion_conv_direct: bool | None
    vae_conv_direct: bool | None
    circular_x: bool | None
    circular_y: bool | None
    force_sdxl_vae_conv_scale: bool | None
    chroma_use_dit_mask: bool | None
    chroma_use_t5_mask: bool | None
    chroma_t5_mask_pad: int | None
    qwen_image_zero_cond_t: bool | None
    max_vram: float | None
    clip_l_path: Path | None
    clip_g_path: Path | None
    clip_vision_path: Path | None
    t5xxl_path: Path | None
    llm_path: Path | None
    llm_vision_path: Path | None
    diffusion_model_path: Path | None
    high_noise_diffusion_model_path: Path | None
    vae_path: Path | None
    taesd_path: Path | None
    control_net_path: Path | None
    photo_maker_path: Path | None
    type: int | str | None
    model_path: Path | None


class ImageOptionsDict(TypedDict, total=False):
    """Keyword arguments."""

    batch_size: int | None
    strength: float | None
    control_strength: float | None
    resize_references: bool | None
    increase_ref_index: bool | None
    slg_scale: float | None
    skip_layers: Sequence[int] | None
    skip_layer_start: float | None
    skip_layer_end: float | None
    cfg_scale: float | None
    guidance: float | None
    image_cfg_scale: float | None
    steps: int | None
    sampler: int | str | None
    scheduler: int | str | None
    sigmas: Sequence[float] | None
    eta: float | None
    flow_shift: float | None
    timestep_shift: int | None
    negative_prompt: str | None
    clip_skip: int | None
    width: int | None
    height: int | None
    seed: int | None
    guidance_scale: float | None
    loras: LoraList | None
    vae_tiling: bool | SDTilingParams | None
    cache: str | CacheParams | None
    preview: str | int | None
    preview_interval: int | None
    output_type: str
    control_image: Any
    hires: float | HiresParams | None
    pm_params: PhotoMakerParams | None
    num_images_per_prompt: int | None
    batch_count: int | None
    n_iter: int | None
    denoising_strength: float | None
    controlnet_conditioning_scale: float | None
    auto_resize_ref_image: bool | None
    txt_cfg: float | None
    true_cfg_scale: float | None
    distilled_cfg_scale: float | None
    distilled_guidance: float | None
    image_guidance_scale: float | None
    img_cfg: float | None
    num_inference_steps: int | None
    sample_steps: int | None
    sampler_name: int | str | None
    sampler_index: int | str | None
    sample_method: int | str | None
    schedule: int | str | None
    scheduler_type: int | str | None
    custom_sigmas: Sequence[float] | None
    shifted_timestep: int | None
    generator: int | None
    lora: LoraList | None
    vae_tiling_params: bool | SDTilingParams | None
    cache_mode: str | CacheParams | None
    preview_method: str | int | None
    hr_scale: float | HiresParams | None
    hires_scale: float | HiresParams | None
    on_step: Callable[[int, int, float], object] | None
    on_preview: Callable[[Any, int], object] | None
    cancel: Cancel | None
    progress: bool | None
    callback_on_step_end: Callable[..., object] | None
    progress_callback: Callable[[int, int, float], object] | None
    step_callback: Callable[[int, int, float], object] | None
    preview_callback: Callable[[Any, int], object] | None


class VideoOptionsDict(TypedDict, total=False):
    """Keyword arguments."""

    frames: int | None
    moe_boundary: float | None
    vace_strength: float | None
    slg_scale: float | None
    skip_layers: Sequence[int] | None
    skip_layer_start: float | None
    skip_layer_end: float | None
    cfg_scale: float | None
    guidance: float | None
    image_cfg_scale: float | None
    steps: int | None
    sampler: int | str | None
    scheduler: int | str | None
    sigmas: Sequence[float] | None
    eta: float | None
    flow_shift: float | None
    timestep_shift: int | None
    negative_prompt: str | None
    clip_skip: int | None
    width: int | None
    height: int | None
    seed: int | None
    guidance_scale: float | None
    loras: LoraList | None
    vae_tiling: bool | SDTilingParams | None
    cache: str | CacheParams | None
    preview: str | int | None
    preview_interval: int | None
    output_type: str
    fps: int | None
    end_image: Any
    control_frames: Any
    high_noise_steps: int | None
    high_noise_cfg_scale: float | None
    high_noise_sampler: int | str | None
    high_noise_eta: float | None
    num_frames: int | None
    video_frames: int | None
    txt_cfg: float | None
    true_cfg_scale: float | None
    distilled_cfg_scale: float | None
    distilled_guidance: float | None
    image_guidance_scale: float | None
    img_cfg: float | None
    num_inference_steps: int | None
    sample_steps: int | None
    sampler_name: int | str | None
    sampler_index: int | str | None
    sample_method: int | str | None
    schedule: int | str | None
    scheduler_type: int | str | None
    custom_sigmas: Sequence[float] | None
    shifted_timestep: int | None
    generator: int | None
    lora: LoraList | None
    vae_tiling_params: bool | SDTilingParams | None
    cache_mode: str | CacheParams | None
    preview_method: str | int | None
    on_step: Callable[[int, int, float], object] | None
    on_preview: Callable[[Any, int], object] | None
    cancel: Cancel | None
    progress: bool | None
    callback_on_step_end: Callable[..., object] | None
    progress_callback: Callable[[int, int, float], object] | None
    step_callback: Callable[[int, int, float], object] | None
    preview_callback: Callable[[Any, int], object] | None


class Img2ImgOptionsDict(ImageOptionsDict, total=False):
    """Keyword arguments: ImageOptionsDict."""

    init_image: Any
    init_images: Any


class InpaintOptionsDict(Img2ImgOptionsDict, total=False):
    """Keyword arguments: Img2ImgOptionsDict."""

    mask: Any


class EditOptionsDict(ImageOptionsDict, total=False):
    """Keyword arguments: ImageOptionsDict."""

    image: Any
    ref_images: Any


class Img2VidOptionsDict(VideoOptionsDict, total=False):
    """Keyword arguments: VideoOptionsDict."""

    init_image: Any


class Txt2ImgCallDict(ImageOptionsDict, ModelOptionsDict, total=False):
    """Keyword arguments: ImageOptionsDict, ModelOptionsDict."""

    lora_dir: str | os.PathLike[str] | None


class Img2ImgCallDict(Img2ImgOptionsDict, ModelOptionsDict, total=False):
    """Keyword arguments: Img2ImgOptionsDict, ModelOptionsDict."""

    lora_dir: str | os.PathLike[str] | None


class InpaintCallDict(InpaintOptionsDict, ModelOptionsDict, total=False):
    """Keyword arguments: InpaintOptionsDict, ModelOptionsDict."""

    lora_dir: str | os.PathLike[str] | None


class EditCallDict(EditOptionsDict, ModelOptionsDict, total=False):
    """Keyword arguments: EditOptionsDict, ModelOptionsDict."""

    lora_dir: str | os.PathLike[str] | None


class Txt2VidCallDict(VideoOptionsDict, ModelOptionsDict, total=False):
    """Keyword arguments: VideoOptionsDict, ModelOptionsDict."""

    lora_dir: str | os.PathLike[str] | None


class Img2VidCallDict(Img2VidOptionsDict, ModelOptionsDict, total=False):
    """Keyword arguments: Img2VidOptionsDict, ModelOptionsDict."""

    lora_dir: str | os.PathLike[str] | None
