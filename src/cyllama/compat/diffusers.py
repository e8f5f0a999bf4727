"""The names of diffusers' pipelines: change ``from diffusers import StableDiffusionPipeline`` to this module.

>>> from cyllama.compat.diffusers import StableDiffusionPipeline
>>> pipe = StableDiffusionPipeline.from_pretrained("tiny-shapes")                        # doctest: +SKIP
>>> pipe("a red circle", num_inference_steps=8, generator=1).images[0].save("a.png")     # doctest: +SKIP

All names are one class, a `cyllama.sd.StableDiffusion`: the model decides what a call can do, an image makes it
image-to-image, and a mask inpainting. Neither torch nor diffusers is needed. See docs/howto/migration.md for the
differences.
"""

from __future__ import annotations

from typing import Any, NoReturn, Self

from cyllama.errors import UnsupportedError
from cyllama.sd import StableDiffusion

__all__ = [
    "AutoPipelineForImage2Image",
    "AutoPipelineForInpainting",
    "AutoPipelineForText2Image",
    "ChromaPipeline",
    "DiffusionPipeline",
    "FluxImg2ImgPipeline",
    "FluxInpaintPipeline",
    "FluxPipeline",
    "QwenImagePipeline",
    "StableDiffusion3Img2ImgPipeline",
    "StableDiffusion3InpaintPipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLPipeline",
    "ZImagePipeline",
]

_FLASH = "flash_attn=True when the model loads"
_OFFLOAD = "offload_params_to_cpu=True when the model loads"
_TILING = "vae_tiling=True in the call"
# Members of diffusers' pipelines that have no counterpart, and what to do instead.
_INSTEAD = {
    "scheduler": "sampler= and scheduler= of the call, such as sampler='dpm++2m', scheduler='karras'",
    "enable_attention_slicing": _FLASH,
    "enable_xformers_memory_efficient_attention": _FLASH,
    "enable_model_cpu_offload": _OFFLOAD,
    "enable_sequential_cpu_offload": _OFFLOAD,
    "enable_vae_slicing": "nothing, as images are decoded one by one",
    "enable_vae_tiling": _TILING,
    "set_progress_bar_config": "progress=False in the call",
}


class DiffusionPipeline(StableDiffusion):
    """A loaded model with the members of diffusers' pipelines.

    Raises
    ------
    UnsupportedError
        `scheduler` is set, or a safety checker.
    """

    @classmethod
    def from_pipe(cls, pipeline: Self) -> Self:
        """Return the same object: one loaded model generates, changes and inpaints images."""
        if not isinstance(pipeline, StableDiffusion):
            raise TypeError(f"pipeline is {type(pipeline).__name__}, expected a pipeline of this module")
        return pipeline

    def __getattr__(self, name: str) -> NoReturn:
        if name in _INSTEAD:
            raise AttributeError(f"{name} has no counterpart; use {_INSTEAD[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "scheduler":
            raise UnsupportedError(f"scheduler is no attribute; use {_INSTEAD[name]}")
        if name == "safety_checker" and value is not None:
            raise UnsupportedError(f"safety_checker is {value!r}, expected None: images are not checked")
        super().__setattr__(name, value)


AutoPipelineForImage2Image = DiffusionPipeline
AutoPipelineForInpainting = DiffusionPipeline
AutoPipelineForText2Image = DiffusionPipeline
ChromaPipeline = DiffusionPipeline
FluxImg2ImgPipeline = DiffusionPipeline
FluxInpaintPipeline = DiffusionPipeline
FluxPipeline = DiffusionPipeline
QwenImagePipeline = DiffusionPipeline
StableDiffusion3Img2ImgPipeline = DiffusionPipeline
StableDiffusion3InpaintPipeline = DiffusionPipeline
StableDiffusion3Pipeline = DiffusionPipeline
StableDiffusionImg2ImgPipeline = DiffusionPipeline
StableDiffusionInpaintPipeline = DiffusionPipeline
StableDiffusionPipeline = DiffusionPipeline
StableDiffusionXLImg2ImgPipeline = DiffusionPipeline
StableDiffusionXLInpaintPipeline = DiffusionPipeline
StableDiffusionXLPipeline = DiffusionPipeline
ZImagePipeline = DiffusionPipeline
