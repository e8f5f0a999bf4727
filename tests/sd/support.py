"""Parameters shared by the tests."""

from __future__ import annotations

from pathlib import Path

from cyllama.sd import GuidanceParams, ImageGenParams, SampleParams, SDContextParams


def flux_params(path: Path, **more: object) -> SDContextParams:
    """Return context parameters for a file with a model and its tiny auto-encoder."""
    return SDContextParams(model_path=path, taesd_path=path, **more)


def small(**more: object) -> ImageGenParams:
    """Return parameters for 128x128 pixels in 3 steps, without classifier-free guidance."""
    sampling = {"steps": 3, "guidance": GuidanceParams(cfg_scale=1.0), **more.pop("sampling", {})}
    values = {"prompt": "a red circle", "width": 128, "height": 128, "seed": 42, **more}
    return ImageGenParams(sample_params=SampleParams(**sampling), **values)
