"""Requests of the engine from options: sizes, defaults of families, videos, names in messages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cyllama._params import aliases_of, checked, names_of
from cyllama.errors import UnsupportedError
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import (
    ImageOptions,
    Lora,
    SampleMethod,
    Scheduler,
    SDContextParams,
    StableDiffusion,
    VideoOptions,
)
from cyllama.sd._fill import check_request
from cyllama.sd._model_files import model_files
from cyllama.sd._request import Inputs, image_params, resolved_seed, video_params
from cyllama.sd.families import FAMILIES, Family
from cyllama.sd.options import MODEL_OPTIONS, options_from
from cyllama.sd.params import GuidanceParams, ImageGenParams, SampleParams, SlgParams, VideoGenParams
from cyllama.sd.sizes import resolved_size

SD1, FLUX, WAN = FAMILIES["SD 1.x"], FAMILIES["Flux"], FAMILIES["Wan 2.x"]


def black(width: int, height: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


# ---------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("options", "family", "image", "size"),
    [
        ({}, SD1, None, (512, 512)),
        ({}, FLUX, None, (1024, 1024)),
        ({}, WAN, None, (832, 480)),
        ({"width": 100}, SD1, None, (128, 512)),
        ({"width": 100, "height": 30}, FLUX, None, (104, 32)),
        ({}, SD1, black(640, 384), (640, 384)),
        ({}, SD1, black(630, 390), (640, 384)),
        ({}, SD1, black(10, 10), (64, 64)),
        ({}, SD1, black(4000, 3000), (576, 448)),  # about as many pixels as 512x512
        ({"width": 256}, SD1, black(4000, 2000), (256, 128)),
        ({"height": 256}, SD1, black(4000, 2000), (512, 256)),
        ({"width": 64, "height": 64}, SD1, black(4000, 2000), (64, 64)),
    ],
)
def test_resolves_sizes(options: dict, family: Family, image: np.ndarray | None, size: tuple[int, int]) -> None:
    assert resolved_size(ImageOptions(**options), family, image) == size


@pytest.mark.parametrize("family", FAMILIES.values(), ids=str)
def test_default_sizes_need_no_rounding(family: Family) -> None:
    assert family.width % family.multiple == 0 and family.height % family.multiple == 0
    assert 1 <= family.steps <= 50 and 1 <= family.cfg_scale <= 10
    assert resolved_size(ImageOptions(), family, None) == (family.width, family.height)


def test_resolves_seeds() -> None:
    assert resolved_seed(0) == 0 and resolved_seed(np.int64(5)) == 5
    assert len({resolved_seed(None) for _ in range(8)}) == 8
    assert all(0 <= resolved_seed(-1) < 2**32 for _ in range(8))
    for bad in (True, "1", 1.0):
        with pytest.raises(TypeError):
            resolved_seed(bad)


# ------------------------------------------------------------------------------------------- requests


def test_image_request() -> None:
    options = ImageOptions(sampler="DPM++ 2M Karras", slg_scale=2.5, hires=2.0, cache="ucache", vae_tiling=True)
    request = image_params("x", options, FLUX, Inputs(), [Lora(path="a")])
    sampling = request.sample_params
    assert (sampling.sampler, sampling.scheduler) == (SampleMethod.DPMPP2M, Scheduler.KARRAS)
    assert (sampling.steps, sampling.guidance.cfg_scale, sampling.guidance.guidance) == (20, 1.0, 3.5)
    assert list(sampling.guidance.slg.skip_layers) == [7, 8, 9] and sampling.guidance.slg.slg_scale == 2.5
    assert request.hires.enabled and request.hires.scale == 2.0 and request.cache.mode == "ucache"
    assert request.vae_tiling.enabled and len(request.loras) == 1
    assert request.init_image is None and request.strength is None
    with pytest.raises(UnsupportedError, match="no layers to skip"):
        image_params("x", options, SD1, Inputs(), [])


def test_control_image() -> None:
    request = image_params("x", ImageOptions(control_image=black(50, 40), width=64, height=64), SD1, Inputs(), [])
    assert request.control_image.shape == (64, 64, 3) and request.control_strength == 0.9
    with pytest.raises(TypeError, match="control_image is int"):
        image_params("x", ImageOptions(control_image=3), SD1, Inputs(), [])


def test_defaults_of_edit_models() -> None:
    request = image_params("x", ImageOptions(), FAMILIES["Instruct-Pix2Pix"], Inputs(), [])
    assert request.sample_params.guidance.image_cfg_scale == 1.5 and request.sample_params.guidance.cfg_scale == 7.5


def test_video_request() -> None:
    end, frames = black(50, 50), [black(60, 40)] * 3
    options = VideoOptions(
        frames=17, end_image=end, control_frames=frames, high_noise_steps=4, high_noise_cfg_scale=2.0, seed=3, fps=8
    )
    request = video_params("x", options, WAN, Inputs(black(416, 240)), [])
    assert (request.width, request.height, request.frames, request.seed) == (416, 240, 17, 3)
    assert request.end_image.shape == (240, 416, 3) and [f.shape for f in request.control_frames] == [(240, 416, 3)] * 3
    assert request.sample_params.flow_shift == 3.0 and request.sample_params.guidance.cfg_scale == 6.0
    assert request.high_noise_sample_params.steps == 4
    assert request.high_noise_sample_params.guidance.cfg_scale == 2.0
    assert checked(request, VideoGenParams, "params")["frames"] == 17
    plain = video_params("x", VideoOptions(), WAN, Inputs(), [])
    assert plain.frames == 33 and plain.high_noise_sample_params.steps == -1


# --------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("kind", [ImageOptions, VideoOptions])
def test_aliases_and_options_are_disjoint(kind: type) -> None:
    names = names_of(kind)
    assert not set(aliases_of(kind)) & names
    assert not names & set(MODEL_OPTIONS)  # one call takes both
    assert not set(aliases_of(kind)) & set(MODEL_OPTIONS)


def test_guidance_scale_depends_on_the_model() -> None:
    options = options_from(ImageOptions, {"guidance_scale": 5.0})
    assert options.for_model(distilled=False).cfg_scale == 5.0
    assert options.for_model(distilled=True).guidance == 5.0
    both = options_from(ImageOptions, {"cfg_scale": 1.0, "guidance_scale": 5.0})
    with pytest.raises(TypeError, match="cfg_scale was given twice, once as guidance_scale"):
        both.for_model(distilled=False)


def test_errors_have_the_option_names() -> None:
    """The engine's names differ: sample_steps, txt_cfg, ..."""
    for options, error, name in (
        ({"steps": 5000}, ValueError, "steps"),
        ({"cfg_scale": "x"}, TypeError, "cfg_scale"),
        ({"guidance": 1e9}, ValueError, "guidance"),
        ({"timestep_shift": -1}, ValueError, "timestep_shift"),
        ({"slg_scale": 1e9}, ValueError, "slg_scale"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ):
        with pytest.raises(error, match=f"^{name} is "):
            check_request(image_params("x", ImageOptions(**options), FLUX, Inputs(), []))
    with pytest.raises(ValueError, match="^high_noise_steps is 5000"):
        check_request(video_params("x", VideoOptions(high_noise_steps=5000), WAN, Inputs(), []))


# ----------------------------------------------------------------------------------------------- files


def test_assigns_model_files(tmp_path: Path, flux_path: Path) -> None:
    whole = model_files("tiny-flux-random", {"n_threads": 2, "type": "q8_0"})
    assert whole.params.model_path == whole.params.taesd_path == flux_path
    assert whole.params.n_threads == 2 and whole.params.wtype == "q8_0" and whole.params.vae_decode_only is False
    assert whole.name == "tiny-flux-random" and whole.vae_name is None
    bare, vae = tmp_path / "bare.safetensors", tmp_path / "ae.safetensors"
    write_safetensors({"double_blocks.0.x": np.zeros(4, np.float32)}, bare)
    write_safetensors({"x": np.zeros(4, np.float32)}, vae)
    alone = model_files(bare, {"vae": vae, "embeddings": {"word": vae}})
    assert alone.params.diffusion_model_path == bare and alone.params.model_path is None
    assert alone.params.embeddings[0].name == "word" and alone.vae_name == "ae.safetensors"
    assert model_files(None, {"diffusion_model": bare}).name == "bare"
    for given in ({"vae": vae, "vae_path": vae}, {"model_path": bare}, {"vae": 3}):
        with pytest.raises(TypeError):
            model_files(bare, given)


def test_separate_components_equal_one_file(flux_path: Path) -> None:
    """The components in separate arguments give the same pixels as the complete file."""
    options = {"width": 64, "height": 64, "steps": 1, "seed": 1, "output_type": "np"}
    with StableDiffusion(flux_path) as whole:
        expected = whole.txt2img("x", **options)[0]
    with StableDiffusion(model_path=flux_path, taesd_path=flux_path) as parts:
        np.testing.assert_array_equal(parts.txt2img("x", **options)[0], expected)


def test_every_model_parameter_is_an_option() -> None:
    fields = {f.name for f in dataclasses.fields(SDContextParams)}
    assert set(MODEL_OPTIONS.values()) == fields


def test_every_request_parameter_is_an_option() -> None:
    """Other parameters are arguments of the functions, or made from options."""
    arguments = {"prompt", "init_image", "ref_images", "mask_image", "sample_params"}
    assert names_of(ImageGenParams) - names_of(ImageOptions) == arguments
    assert names_of(SampleParams) <= names_of(ImageOptions)
    assert names_of(GuidanceParams) - names_of(ImageOptions) == {"slg"}
    assert names_of(SlgParams) <= names_of(ImageOptions)
    made = {"prompt", "init_image", "sample_params", "high_noise_sample_params", "strength"}
    assert names_of(VideoGenParams) - names_of(VideoOptions) == made
