"""Parameters that the tests of the diffusion engine share."""

from __future__ import annotations

from pathlib import Path

from cyllama.sd import GuidanceParams, ImageGenParams, SampleParams, SDContextParams


def flux_params(path: Path, **more: object) -> SDContextParams:
    """The file is the model and its own auto-encoder."""
    return SDContextParams(model_path=path, taesd_path=path, **more)


def small(**more: object) -> ImageGenParams:
    """128x128 in 3 steps, without the second evaluation for a negative prompt."""
    sampling = {"sample_steps": 3, "guidance": GuidanceParams(txt_cfg=1.0), **more.pop("sampling", {})}
    values = {"prompt": "a red circle", "width": 128, "height": 128, "seed": 42, **more}
    return ImageGenParams(sample_params=SampleParams(**sampling), **values)
