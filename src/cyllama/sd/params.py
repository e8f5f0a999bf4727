"""Parameters of the engine: one dataclass for each parameter struct of stable-diffusion.h.

A field that is an option of `cyllama.sd.txt2img` or the other functions has the option's name; `c` names the field of
the C struct where that differs. ``None`` is the engine's own default. Enums are given as members of the enums in
``cyllama.sd``, as numbers, or by name, Python's or the engine's (``"dpm++2m"``).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cyllama._params import MAX_IMAGE_SIDE, Params, names_of, param
from cyllama.sd._enums import (
    CacheMode,
    HiresUpscaler,
    LoraApplyMode,
    Prediction,
    RngType,
    SampleMethod,
    Scheduler,
    SDType,
    engine_names,
)
from cyllama.sd._pickle_check import check_checkpoint

__all__ = [
    "CacheParams",
    "Embedding",
    "GuidanceFields",
    "GuidanceParams",
    "HiresParams",
    "ImageFields",
    "ImageGenParams",
    "Lora",
    "PhotoMakerParams",
    "RequestFields",
    "SDContextParams",
    "SDTilingParams",
    "SampleParams",
    "SamplingFields",
    "SlgParams",
    "VideoFields",
    "VideoGenParams",
    "check_tensor_type_rules",
]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Image = npt.NDArray[np.uint8]
MAX_STEPS = 1000  # schedules interpolate between the 1,000 steps of the training
MAX_TEXT = 65536  # bytes of a prompt or of another text


@dataclass(kw_only=True, repr=False)
class Embedding(Params, c="sd_embedding_t"):
    """A textual inversion (``sd_embedding_t``)."""

    name: str | None = param("the word in prompts that stands for it", high=MAX_TEXT)
    path: Path | None = param("file")

    def _check_together(self) -> None:
        if not self.name or self.path is None:
            raise ValueError(f"an embedding is {self!r}, expected a name and a path")
        _check_checkpoints(self)


@dataclass(kw_only=True, repr=False)
class SDContextParams(Params, c="sd_ctx_params_t"):
    """Parameters for loading a model (``sd_ctx_params_t``)."""

    model_path: Path | None = param("complete model: a file, or a folder in the diffusers layout", folder=True)
    clip_l_path: Path | None = param("CLIP-L text encoder")
    clip_g_path: Path | None = param("CLIP-G text encoder")
    clip_vision_path: Path | None = param("CLIP vision encoder")
    t5xxl_path: Path | None = param("T5-XXL text encoder")
    llm_path: Path | None = param("language model as a text encoder")
    llm_vision_path: Path | None = param("vision encoder of the language model")
    diffusion_model_path: Path | None = param("diffusion model without encoders")
    high_noise_diffusion_model_path: Path | None = param("diffusion model of the high-noise steps (Wan 2.2)")
    vae_path: Path | None = param("auto-encoder")
    taesd_path: Path | None = param("tiny auto-encoder, used instead of the VAE")
    control_net_path: Path | None = param("ControlNet")
    embeddings: Sequence[Embedding] | None = param("textual inversions", count="embedding_count")
    photo_maker_path: Path | None = param("PhotoMaker model")
    tensor_type_rules: str | None = param("types by tensor name: 'regex=type,...'", high=MAX_TEXT)
    vae_decode_only: bool | None = param("do not load the encoder of the VAE; only text to image works then")
    free_params_immediately: bool | None = param("free each component after use; the model generates only once then")
    n_threads: int | None = param("threads; default: the thread budget", low=1, high=512)
    wtype: int | str | None = param("type to convert the weights to", enum=SDType)
    rng_type: int | str | None = param("random number generator", enum=RngType)
    sampler_rng_type: int | str | None = param("random number generator of the sampler", enum=RngType)
    prediction: int | str | None = param("what the model predicts", enum=Prediction)
    lora_apply_mode: int | str | None = param("when LoRA weights are added", enum=LoraApplyMode)
    offload_params_to_cpu: bool | None = param("keep the weights in RAM and load them to the GPU when needed")
    enable_mmap: bool | None = param("map the files into memory while loading")
    keep_clip_on_cpu: bool | None = param("compute the text encoders on the CPU")
    keep_control_net_on_cpu: bool | None = param("compute ControlNet on the CPU")
    keep_vae_on_cpu: bool | None = param("compute the VAE on the CPU")
    flash_attn: bool | None = param("flash attention everywhere")
    diffusion_flash_attn: bool | None = param("flash attention in the diffusion model; on a CPU by default")
    tae_preview_only: bool | None = param("use the tiny auto-encoder for previews only")
    diffusion_conv_direct: bool | None = param("no im2col in the diffusion model; on a CPU by default")
    vae_conv_direct: bool | None = param("no im2col in the VAE; on a CPU by default")
    circular_x: bool | None = param("make images that tile horizontally")
    circular_y: bool | None = param("make images that tile vertically")
    force_sdxl_vae_conv_scale: bool | None = param("scale the convolutions of the SDXL VAE")
    chroma_use_dit_mask: bool | None = param("Chroma: mask the text in the diffusion model")
    chroma_use_t5_mask: bool | None = param("Chroma: mask the text in T5")
    chroma_t5_mask_pad: int | None = param("Chroma: padding of the T5 mask", low=0, high=512)
    qwen_image_zero_cond_t: bool | None = param("Qwen-Image: time zero for the reference")
    max_vram: float | None = param("GPU memory of one graph in GiB; 0: no limit", low=0, high=65536)

    def _check_together(self) -> None:
        if self.tensor_type_rules is not None:
            check_tensor_type_rules(self.tensor_type_rules)
        _check_checkpoints(self)

    def to_str(self) -> str:
        """Return the engine's text. Source: ``sd_ctx_params_to_str``, stable-diffusion.h."""
        from cyllama.sd._context import sd_ctx_params_to_str

        return sd_ctx_params_to_str(self)


@dataclass(kw_only=True, repr=False)
class SDTilingParams(Params, c="sd_tiling_params_t"):
    """Compute the VAE in tiles (``sd_tiling_params_t``): less memory, and progress while it decodes."""

    enabled: bool | None = param("compute in tiles")
    tile_size_x: int | None = param("width of a tile in latents (usually 8 pixels); 0: 32", low=0, high=2048)
    tile_size_y: int | None = param("height of a tile in latents; 0: 32", low=0, high=2048)
    target_overlap: float | None = param("overlap, as a fraction of a tile", low=0, high=0.5)
    rel_size_x: float | None = param("width: up to 1 a fraction of the image, above 1 tiles", low=0, high=1024)
    rel_size_y: float | None = param("height: up to 1 a fraction of the image, above 1 tiles", low=0, high=1024)


@dataclass(kw_only=True, repr=False)
class SlgParams(Params, c="sd_slg_params_t"):
    """Skip-layer guidance of transformers (``sd_slg_params_t``)."""

    slg_scale: float | None = param("strength of skip-layer guidance (transformers)", low=-1000, high=1000, c="scale")
    skip_layers: Sequence[int] | None = param(
        "layers to skip for it", low=0, high=1023, c="layers", count="layer_count"
    )
    skip_layer_start: float | None = param("its first step, as a fraction", low=0, high=1, c="layer_start")
    skip_layer_end: float | None = param("its last step, as a fraction", low=0, high=1, c="layer_end")


@dataclass(kw_only=True, repr=False)
class GuidanceFields(Params):
    """Strengths of guidance: options, and parameters of ``sd_guidance_params_t``."""

    cfg_scale: float | None = param(
        "classifier-free guidance: how closely to follow the prompt; 1: off", low=-1000, high=1000, c="txt_cfg",
        aliases=("txt_cfg", "true_cfg_scale"),
    )  # fmt: skip
    guidance: float | None = param("distilled guidance (FLUX)", low=-1000, high=1000, c="distilled_guidance",
                                   aliases=("distilled_cfg_scale", "distilled_guidance"))  # fmt: skip
    image_cfg_scale: float | None = param(
        "how closely to follow the image (edit models); inf: as cfg_scale", low=-1000, high=1000, infinite=True,
        c="img_cfg", aliases=("image_guidance_scale", "img_cfg"),
    )  # fmt: skip


@dataclass(kw_only=True, repr=False)
class GuidanceParams(GuidanceFields, c="sd_guidance_params_t"):
    """Guidance (``sd_guidance_params_t``)."""

    slg: SlgParams | None = param("skip-layer guidance")


@dataclass(kw_only=True, repr=False)
class SamplingFields(Params):
    """Sampling: options, and parameters of ``sd_sample_params_t``."""

    steps: int | None = param("steps of the sampler", low=-1, high=MAX_STEPS, c="sample_steps",
                              aliases=("num_inference_steps", "sample_steps"))  # fmt: skip
    sampler: int | str | None = param(
        "sampler, such as euler_a or 'DPM++ 2M Karras'", enum=SampleMethod, c="sample_method",
        aliases=("sampler_name", "sampler_index", "sample_method"),
    )  # fmt: skip
    scheduler: int | str | None = param("noise schedule, such as karras", enum=Scheduler,
                                        aliases=("schedule", "scheduler_type"))  # fmt: skip
    sigmas: Sequence[float] | None = param(
        "noise level of each step, decreasing, one more than steps", low=0, high=100000,
        c="custom_sigmas", count="custom_sigmas_count", aliases=("custom_sigmas",),
    )  # fmt: skip
    eta: float | None = param("noise added by the sampler; inf: its own default", low=0, high=100, infinite=True)
    flow_shift: float | None = param("shift of flow models; inf: the model's", low=1e-6, high=1000, infinite=True)
    timestep_shift: int | None = param("shift of the time step (NitroFusion); 0: off", low=0, high=1000,
                                       c="shifted_timestep", aliases=("shifted_timestep",))  # fmt: skip

    def _check_together(self) -> None:
        if self.sigmas is None:
            return
        if not 2 <= len(self.sigmas) <= MAX_STEPS + 1:
            raise ValueError(f"sigmas has {len(self.sigmas)} values, expected 2 to {MAX_STEPS + 1}")
        for before, after in itertools.pairwise(self.sigmas):
            if after >= before:
                raise ValueError(f"sigmas has {after} after {before}, expected decreasing values")


@dataclass(kw_only=True, repr=False)
class SampleParams(SamplingFields, c="sd_sample_params_t"):
    """Sampling (``sd_sample_params_t``). ``steps=-1`` in ``high_noise_sample_params``: by ``moe_boundary``."""

    guidance: GuidanceParams | None = param("guidance")

    def to_str(self) -> str:
        """Return the engine's text. Source: ``sd_sample_params_to_str``, stable-diffusion.h."""
        from cyllama.sd._context import sd_sample_params_to_str

        return sd_sample_params_to_str(self)


@dataclass(kw_only=True, repr=False)
class PhotoMakerParams(Params, c="sd_pm_params_t"):
    """Likeness of a person (``sd_pm_params_t``); needs ``photo_maker_path``."""

    id_images: Sequence[Image] | None = param("photographs, (height, width, 3) uint8", count="id_images_count")
    id_embed_path: Path | None = param("embeddings of the photographs (version 2)")
    style_strength: float | None = param("strength of the style in percent", low=0, high=100)


@dataclass(kw_only=True, repr=False)
class CacheParams(Params, c="sd_cache_params_t"):
    """Reuse of earlier steps (``sd_cache_params_t``)."""

    mode: int | str | None = param("method", enum=CacheMode)
    reuse_threshold: float | None = param(
        "easycache, ucache: largest change that is reused; inf: the method's", low=0, high=1000, infinite=True
    )
    start_percent: float | None = param("easycache, ucache: first step, as a fraction", low=0, high=1)
    end_percent: float | None = param("easycache, ucache: last step, as a fraction", low=0, high=1)
    error_decay_rate: float | None = param("ucache: decay of the accumulated error", low=0, high=1)
    use_relative_threshold: bool | None = param("ucache: threshold relative to the output")
    reset_error_on_compute: bool | None = param("ucache: reset the error when a step is computed")
    Fn_compute_blocks: int | None = param("dbcache: first blocks that are computed", low=0, high=1024)
    Bn_compute_blocks: int | None = param("dbcache: last blocks that are computed", low=0, high=1024)
    residual_diff_threshold: float | None = param("dbcache: largest change that is reused", low=0, high=1000)
    max_warmup_steps: int | None = param("dbcache: steps before reuse", low=0, high=MAX_STEPS)
    max_cached_steps: int | None = param("dbcache: most reused steps; -1: no limit", low=-1, high=MAX_STEPS)
    max_continuous_cached_steps: int | None = param(
        "dbcache: most reused steps in a row; -1: no limit", low=-1, high=MAX_STEPS
    )
    taylorseer_n_derivatives: int | None = param("taylorseer: order", low=1, high=8)
    taylorseer_skip_interval: int | None = param("taylorseer: steps between two computed", low=0, high=MAX_STEPS)
    scm_mask: str | None = param("dbcache: steps to compute, such as '1,1,0,1'", high=MAX_TEXT)
    scm_policy_dynamic: bool | None = param("dbcache: steps outside scm_mask may be computed as well")
    spectrum_w: float | None = param("spectrum: weight of the polynomial", low=0, high=1)
    spectrum_m: int | None = param("spectrum: degree of the polynomial", low=1, high=32)
    spectrum_lam: float | None = param("spectrum: regularisation", low=1e-6, high=1000)
    spectrum_window_size: int | None = param("spectrum: steps between two computed", low=1, high=MAX_STEPS)
    spectrum_flex_window: float | None = param("spectrum: growth of the window", low=0, high=100)
    spectrum_warmup_steps: int | None = param("spectrum: steps before reuse", low=0, high=MAX_STEPS)
    spectrum_stop_percent: float | None = param("spectrum: last step, as a fraction", low=0, high=1)

    def _check_together(self) -> None:
        mask = self.scm_mask
        if mask is not None and any(part.strip() not in ("0", "1") for part in mask.split(",")):
            raise ValueError(f"scm_mask is {mask!r}, expected 0 and 1 separated by commas, such as '1,1,0,1'")


@dataclass(kw_only=True, repr=False)
class Lora(Params, c="sd_lora_t"):
    """A LoRA and its weight (``sd_lora_t``)."""

    is_high_noise: bool | None = param("for the model of the high-noise steps")
    multiplier: float | None = param("weight", 1.0, low=-100, high=100)
    path: Path | None = param("file")

    def _check_together(self) -> None:
        if self.path is None:
            raise ValueError(f"a LoRA is {self!r}, expected a path")
        _check_checkpoints(self)


@dataclass(kw_only=True, repr=False)
class HiresParams(Params, c="sd_hires_params_t"):
    """A second pass in a larger size (``sd_hires_params_t``)."""

    enabled: bool | None = param("make the second pass")
    upscaler: int | str | None = param("how the first image is enlarged", enum=HiresUpscaler)
    model_path: Path | None = param("network of the upscaler 'Model'")
    scale: float | None = param("enlargement, if no size is given", low=0.1, high=16)
    target_width: int | None = param("width in pixels; 0: by scale", low=0, high=MAX_IMAGE_SIDE)
    target_height: int | None = param("height in pixels; 0: by scale", low=0, high=MAX_IMAGE_SIDE)
    steps: int | None = param("steps; 0: as many as the first pass", low=0, high=MAX_STEPS)
    denoising_strength: float | None = param("fraction of the steps that is computed", low=0.01, high=1)
    upscale_tile_size: int | None = param("tile of the network in pixels; 0: no tiles", low=0, high=4096)

    def _check_together(self) -> None:
        _check_checkpoints(self)


@dataclass(kw_only=True, repr=False)
class RequestFields(Params):
    """Options of images and videos that are parameters of the engine's request."""

    negative_prompt: str | None = param("what not to show", short="n", high=MAX_TEXT)
    clip_skip: int | None = param("last layers of CLIP to skip; -1: the model's default", low=-1, high=12)
    width: int | None = param("pixels, rounded up to the model's multiple", low=8, high=MAX_IMAGE_SIDE, short="W")
    height: int | None = param("pixels, rounded up to the model's multiple", low=8, high=MAX_IMAGE_SIDE, short="H")
    seed: int | None = param(
        "seed of the random numbers; -1: a random one", low=-1, high=2**62, short="s", aliases=("generator",)
    )


@dataclass(kw_only=True, repr=False)
class ImageFields(Params):
    """Options of images that are parameters of ``sd_img_gen_params_t``."""

    batch_size: int | None = param(
        "number of images, with consecutive seeds", low=1, high=1024, short="b", c="batch_count",
        aliases=("num_images_per_prompt", "batch_count", "n_iter"),
    )  # fmt: skip
    strength: float | None = param("how much the image may change, 0 to 1", low=0, high=1,
                                   aliases=("denoising_strength",))  # fmt: skip
    control_strength: float | None = param("weight of ControlNet", low=0, high=100,
                                           aliases=("controlnet_conditioning_scale",))  # fmt: skip
    resize_references: bool | None = param("fit reference images to the size of the result",
                                           c="auto_resize_ref_image", aliases=("auto_resize_ref_image",))  # fmt: skip
    increase_ref_index: bool | None = param("give each reference image its own position")


@dataclass(kw_only=True, repr=False)
class ImageGenParams(RequestFields, ImageFields, c="sd_img_gen_params_t"):
    """One request for images (``sd_img_gen_params_t``). Images are uint8 arrays (height, width, 3)."""

    loras: Sequence[Lora] | None = param("LoRAs", count="lora_count")
    prompt: str | None = param("what to show", high=MAX_TEXT)
    init_image: Image | None = param("image to start from, of the result's size")
    ref_images: Sequence[Image] | None = param("reference images of edit models", count="ref_images_count")
    mask_image: Image | None = param("(height, width, 1): 255 where to inpaint", channels=1)
    control_image: Image | None = param("image for ControlNet, of the result's size")
    sample_params: SampleParams | None = param("sampling")
    pm_params: PhotoMakerParams | None = param("PhotoMaker")
    vae_tiling: SDTilingParams | None = param("compute the VAE in tiles", c="vae_tiling_params")
    cache: CacheParams | None = param("reuse of steps")
    hires: HiresParams | None = param("second pass")

    def to_str(self) -> str:
        """Return the engine's text. Source: ``sd_img_gen_params_to_str``, stable-diffusion.h."""
        from cyllama.sd._context import sd_img_gen_params_to_str

        return sd_img_gen_params_to_str(self)


@dataclass(kw_only=True, repr=False)
class VideoFields(Params):
    """Options of videos that are parameters of ``sd_vid_gen_params_t``."""

    frames: int | None = param("number of frames: 4 n + 1, rounded down", low=1, high=1025, c="video_frames",
                               aliases=("num_frames", "video_frames"))  # fmt: skip
    moe_boundary: float | None = param("noise level at which Wan 2.2 changes the model", low=0, high=1)
    vace_strength: float | None = param("weight of the control frames", low=0, high=100)


@dataclass(kw_only=True, repr=False)
class VideoGenParams(RequestFields, VideoFields, c="sd_vid_gen_params_t"):
    """One request for a video (``sd_vid_gen_params_t``). Images are uint8 arrays (height, width, 3)."""

    loras: Sequence[Lora] | None = param("LoRAs", count="lora_count")
    prompt: str | None = param("what to show", high=MAX_TEXT)
    init_image: Image | None = param("first frame, of the result's size")
    end_image: Image | None = param("last frame, of the result's size")
    control_frames: Sequence[Image] | None = param("control frames, of the result's size",
                                                   count="control_frames_size")  # fmt: skip
    sample_params: SampleParams | None = param("sampling")
    high_noise_sample_params: SampleParams | None = param("sampling with the high-noise model", prefix="high_noise_")
    strength: float | None = param("how much init_image may change", low=0, high=1)
    vae_tiling: SDTilingParams | None = param("compute the VAE in tiles", c="vae_tiling_params")
    cache: CacheParams | None = param("reuse of steps")


def _check_checkpoints(params: Params) -> None:
    """Check the files of parameters before the engine reads them.

    Raises
    ------
    ModelLoadError
    """
    for name in names_of(type(params)):
        if name.endswith("path") and (path := getattr(params, name)) is not None:
            check_checkpoint(path)


def check_tensor_type_rules(rules: str) -> None:
    """Check types by tensor name.

    Raises
    ------
    ValueError
        A rule is not ``regex=type``.
    """
    types = engine_names(SDType)
    for rule in filter(None, rules.split(",")):
        pattern, _, kind = rule.partition("=")
        if not pattern or kind not in types:
            raise ValueError(
                f"tensor_type_rules has the rule {rule!r}, expected 'regex=type' with a type of {', '.join(types)}"
            )
