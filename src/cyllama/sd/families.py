"""Families of diffusion models: detect the family of a file by its tensors, and the default options of each family.

`version_of` repeats the detection of the engine (``ModelLoader::get_sd_version``, model.cpp) on the header of a file,
without loading it. For a loaded model, the version that the engine reports counts.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cyllama.sd._tensor_header import Shape, TensorFile, read_tensors

__all__ = ["FAMILIES", "Family", "detect", "family_of", "is_diffusion_model_only", "version_of"]

DIFFUSION = "model.diffusion_model."
# Prefixes of the tensors of whole models; a file without them has a diffusion model alone.
WHOLE = (DIFFUSION, "unet.", "cond_stage_model.", "conditioner.", "text_encoders.", "first_stage_model.", "te.")


@dataclass(frozen=True)
class Family:
    """A family of diffusion models and its default options.

    Attributes
    ----------
    name : str
        The engine's name, such as ``"SD 1.x"`` or ``"Flux"``.
    width, height : int
        Image size in pixels.
    steps : int
    cfg_scale : float
        Classifier-free guidance; 1 disables it, which halves the computation.
    guidance : float or None
        Distilled guidance; None for models without it.
    image_cfg_scale : float or None
        Image guidance of edit models.
    flow_shift : float or None
        None uses the engine's default.
    multiple : int
        The engine rounds sizes up to a multiple of this number.
    frames, fps : int
        Length and frame rate of a video; 0 frames for image models.
    video_inputs : tuple of str or None
        Inputs of a video model besides the prompt: ``"image"``, ``"end_image"``, ``"control_frames"``; None if the
        header does not show them.
    is_unet : bool
        Whether the model is a UNet (SD 1, 2, XL) rather than a transformer.
    about : str
        A short description.
    """

    name: str
    width: int
    height: int
    steps: int
    cfg_scale: float
    guidance: float | None = None
    image_cfg_scale: float | None = None
    flow_shift: float | None = None
    multiple: int = 64
    frames: int = 0
    fps: int = 0
    video_inputs: tuple[str, ...] | None = ()
    is_unet: bool = False
    about: str = ""

    @property
    def inpaints(self) -> bool:
        """Whether the model was trained for inpainting."""
        return self.name.endswith(("Inpaint", "Fill")) or self.name == "Flex.2"

    @property
    def controls(self) -> bool:
        """Whether the model takes a control image without a ControlNet."""
        return self.name in ("Flux Control", "Flex.2")

    @property
    def edits(self) -> bool:
        """Whether the model uses image guidance."""
        return self.inpaints or self.controls or self.name.endswith("Pix2Pix")

    @property
    def makes_videos(self) -> bool:
        """Whether the model generates videos."""
        return self.frames > 0


def _unet(name: str, side: int, steps: int = 20, cfg_scale: float = 7.0, **more: object) -> Family:
    return Family(name, side, side, steps, cfg_scale, is_unet=True, **more)  # type: ignore[arg-type]


def _transformer(name: str, steps: int, cfg_scale: float, multiple: int = 8, **more: object) -> Family:
    return Family(name, 1024, 1024, steps, cfg_scale, multiple=multiple, **more)  # type: ignore[arg-type]


def _video(name: str, cfg_scale: float, multiple: int, fps: int, *inputs: str) -> Family:
    return Family(
        name,
        832,
        480,
        20,
        cfg_scale,
        flow_shift=3.0,
        multiple=multiple,
        frames=33,
        fps=fps,
        video_inputs=inputs or None,
    )


# Sizes of the training, and sampling parameters that the authors or the engine's documentation recommend.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _unet("SD 1.x", 512),
        _unet("SD 1.x Inpaint", 512),
        _unet("Instruct-Pix2Pix", 512, cfg_scale=7.5, image_cfg_scale=1.5),
        _unet("SD 1.x Tiny UNet", 512),
        _unet("SD 2.x", 768),
        _unet("SD 2.x Inpaint", 512),
        _unet("SD 2.x Tiny UNet", 512),
        _unet("SDXS (512-DS)", 512, steps=1, cfg_scale=1.0, about="distilled to one step"),
        _unet("SDXS (09)", 512, steps=1, cfg_scale=1.0, about="distilled to one step"),
        _unet("SDXL", 1024),
        _unet("SDXL Inpaint", 1024),
        _unet("SDXL Instruct-Pix2Pix", 768, image_cfg_scale=1.5),
        _unet("SDXL (Vega)", 1024),
        _unet("SDXL (SSD1B)", 1024),
        _unet("SVD", 576),
        _transformer("SD3.x", 28, 4.5),
        _transformer("Flux", 20, 1.0, guidance=3.5),
        _transformer("Flux Fill", 20, 1.0, guidance=30.0),
        _transformer("Flux Control", 20, 1.0, guidance=10.0),
        _transformer("Flex.2", 25, 1.0, guidance=3.5),
        _transformer("Chroma Radiance", 26, 4.0, multiple=1),
        _video("Wan 2.x", 6.0, 16, 16),
        _video("Wan 2.2 I2V", 3.5, 16, 16, "image", "end_image"),
        _video("Wan 2.2 TI2V", 6.0, 32, 24, "image"),
        _transformer("Qwen Image", 20, 2.5, flow_shift=3.0),
        _transformer("Anima", 30, 4.0),
        _transformer("Flux.2", 20, 1.0, guidance=4.0, multiple=16),
        _transformer("Flux.2 klein", 4, 1.0, multiple=16, about="distilled to four steps"),
        _transformer("Z-Image", 8, 1.0, about="distilled to eight steps"),
        _transformer("Ovis Image", 20, 5.0),
        _transformer("Ernie Image", 20, 4.0, multiple=16),
    )
}


def detect(path: str | os.PathLike[str]) -> Family | None:
    """Return the family of a model file.

    Parameters
    ----------
    path : path
        A whole model, a diffusion model without encoders, or a folder of the diffusers layout.

    Returns
    -------
    Family or None
        None for a model that the engine does not support, or a format without a readable header (pickle).

    Raises
    ------
    FileNotFoundError, ModelLoadError
    """
    file = read_tensors(path)
    if file is None:
        return None
    version = version_of(prefixed(file))
    return None if version is None else family_of(version, file)


def is_diffusion_model_only(file: TensorFile) -> bool:
    """Return whether a file has a diffusion model alone, with tensor names without a prefix."""
    return not any(name.startswith(WHOLE) for name in file.tensors) and version_of(prefixed(file)) is not None


def prefixed(file: TensorFile) -> dict[str, Shape]:
    """Return the tensors by their names in a whole model."""
    if any(name.startswith(WHOLE) for name in file.tensors):
        return file.tensors
    return {DIFFUSION + name: shape for name, shape in file.tensors.items()}


def family_of(version: str, file: TensorFile | None = None) -> Family:
    """Return the family of a model.

    Parameters
    ----------
    version : str
        The engine's name of the family.
    file : TensorFile, optional
        The header of its file, which shows distilled variants and the image size (``modelspec.resolution``).

    Returns
    -------
    Family
    """
    family = FAMILIES.get(version) or _unet(version, 512)
    if file is None:
        return family
    if version == "Flux":
        family = _kind_of_flux(family, file)
    elif version == "Wan 2.x":
        family = dataclasses.replace(family, video_inputs=_inputs_of_wan(file.tensors))
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", file.metadata.get("modelspec.resolution", ""))
    if found:
        family = dataclasses.replace(family, width=int(found[1]), height=int(found[2]))
    return family


def _kind_of_flux(family: Family, file: TensorFile) -> Family:
    if _has(file.tensors, "distilled_guidance_layer."):
        return dataclasses.replace(family, steps=26, cfg_scale=4.0, guidance=None, about="Chroma")
    if _has(file.tensors, "guidance_in."):
        return family
    if _size(_first(prefixed(file), _INPUTS), 1) != FLUX_WIDTH:
        return dataclasses.replace(family, cfg_scale=3.0, guidance=None, about="without distilled guidance")
    return dataclasses.replace(family, steps=4, guidance=None, about="schnell: distilled to four steps")


def _inputs_of_wan(tensors: Mapping[str, Shape]) -> tuple[str, ...]:
    if _has(tensors, "vace_blocks."):
        return "image", "control_frames"
    return ("image", "end_image") if _has(tensors, "img_emb") else ()


def _has(tensors: Mapping[str, Shape], part: str) -> bool:
    return any(part in name for name in tensors)


# Tensor names that decide alone.
_MARKS = (
    ("model.diffusion_model.nerf_final_layer_conv.", "Chroma Radiance"),
    ("model.diffusion_model.joint_blocks.", "SD3.x"),
    ("model.diffusion_model.transformer_blocks.0.img_mod.1.weight", "Qwen Image"),
    ("llm_adapter.blocks.0.cross_attn.q_proj.weight", "Anima"),
    ("model.diffusion_model.double_blocks.0.img_mlp.gate_proj.weight", "Ovis Image"),
    ("model.diffusion_model.cap_embedder.0.weight", "Z-Image"),
    ("model.diffusion_model.layers.0.adaLN_sa_ln.weight", "Ernie Image"),
    ("model.diffusion_model.input_blocks.8.0.time_mixer.mix_factor", "SVD"),
)
_TOKEN_EMBEDDINGS = (
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "cond_stage_model.model.token_embedding.weight",
    "text_model.embeddings.token_embedding.weight",
    "te.text_model.embeddings.token_embedding.weight",
    "conditioner.embedders.0.model.token_embedding.weight",
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
)
_INPUTS = (
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.img_in.weight",
    "unet.conv_in.weight",
)
FLUX_WIDTH = 3072
_FLUX_KINDS = {384: "Flux Fill", 128: "Flux Control", 196: "Flex.2"}  # by the number of input channels


def version_of(tensors: Mapping[str, Shape]) -> str | None:
    """Return the engine's name for a model with these tensors; None for an unsupported model.

    Source: ``ModelLoader::get_sd_version``, model.cpp.
    """

    def has(*parts: str) -> bool:
        return any(_has(tensors, part) for part in parts)

    for part, version in _MARKS:
        if has(part):
            return version
    if has("model.diffusion_model.blocks.0.cross_attn.norm_k.weight"):
        return _kind_of_wan(tensors)
    entry = _first(tensors, _INPUTS)
    if has("model.diffusion_model.double_stream_modulation_img.lin.weight"):
        return "Flux.2" if has("single_blocks.47.linear1.weight") else "Flux.2 klein"
    is_unet = has("model.diffusion_model.input_blocks.", "unet.down_blocks.")
    if is_unet and has("conditioner.embedders.1", "cond_stage_model.1", "te.1"):
        return _kind_of_sdxl(tensors, _size(entry, 2))
    if has("model.diffusion_model.double_blocks."):
        return _FLUX_KINDS.get(_size(entry, 0), "Flux")
    return _kind_of_sd(tensors, _size(_first(tensors, _TOKEN_EMBEDDINGS), 0), _size(entry, 2))


def _first(tensors: Mapping[str, Shape], names: tuple[str, ...]) -> Shape:
    return next((tensors[name] for name in names if name in tensors), ())


def _size(shape: Shape, dimension: int) -> int:
    return shape[dimension] if dimension < len(shape) else 0


def _kind_of_wan(tensors: Mapping[str, Shape]) -> str:
    shape = next((s for n, s in tensors.items() if "model.diffusion_model.patch_embedding.weight" in n), ())
    # ggml has four dimensions: the engine multiplies the last two of five
    channels = shape[3] * shape[4] if len(shape) == 5 else _size(shape, 3)
    if not _has(tensors, "model.diffusion_model.img_emb"):
        if channels == 5120 * 36:
            return "Wan 2.2 I2V"
        if channels == 3072 * 48:
            return "Wan 2.2 TI2V"
    return "Wan 2.x"


def _middle(tensors: Mapping[str, Shape]) -> bool:
    return _has(tensors, "model.diffusion_model.middle_block.1.") or _has(tensors, "unet.mid_block.resnets.1.")


def _kind_of_sdxl(tensors: Mapping[str, Shape], channels: int) -> str:
    if channels in (9, 8):
        return "SDXL Inpaint" if channels == 9 else "SDXL Instruct-Pix2Pix"
    if _middle(tensors):
        return "SDXL"
    deep = (
        "model.diffusion_model.output_blocks.3.1.transformer_blocks.1",
        "unet.up_blocks.1.attentions.0.transformer_blocks.1",
    )
    return "SDXL (SSD1B)" if any(_has(tensors, part) for part in deep) else "SDXL (Vega)"


def _kind_of_sd(tensors: Mapping[str, Shape], vocabulary_width: int, channels: int) -> str | None:
    if vocabulary_width == 768:
        if channels in (9, 8):
            return "SD 1.x Inpaint" if channels == 9 else "Instruct-Pix2Pix"
        if _middle(tensors):
            return "SD 1.x"
        wide = _has(tensors, "model.diffusion_model.output_blocks.7.1") or _has(
            tensors, "unet.up_blocks.2.attentions.1"
        )
        return "SD 1.x Tiny UNet" if wide else "SDXS (512-DS)"
    if vocabulary_width == 1024:
        if channels == 9:
            return "SD 2.x Inpaint"
        if _middle(tensors):
            return "SD 2.x"
        key = "model.diffusion_model.output_blocks.7.1.transformer_blocks.0.attn1.to_k.weight"
        return "SDXS (09)" if _size(tensors.get(key, ()), 0) == 1024 else "SD 2.x Tiny UNet"
    return None
