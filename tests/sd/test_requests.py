"""What options become for the engine: sizes, defaults of families, videos, names in messages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cyllama.errors import UnsupportedError
from cyllama.models.esrgan import write_safetensors
from cyllama.sd import (
    ImageOptions,
    Lora,
    SampleMethod,
    Scheduler,
    SDContextParams,
    StableDiffusion,
    VideoOptions,
)
from cyllama.sd._fields import checked
from cyllama.sd.family import FAMILIES, Family
from cyllama.sd.loading import model_files
from cyllama.sd.options import ALIASES, MODEL_OPTIONS, options_from
from cyllama.sd.params import ImageGenParams, VideoGenParams
from cyllama.sd.requests import Inputs, image_request, in_our_names, resolved_seed, resolved_size, video_request

SD1, FLUX, WAN = FAMILIES["SD 1.x"], FAMILIES["Flux"], FAMILIES["Wan 2.x"]


def picture(width: int, height: int) -> np.ndarray:
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
        ({}, SD1, picture(640, 384), (640, 384)),
        ({}, SD1, picture(630, 390), (640, 384)),
        ({}, SD1, picture(10, 10), (64, 64)),
        ({}, SD1, picture(4000, 3000), (576, 448)),  # no more pixels than 512x512, about
        ({"width": 256}, SD1, picture(4000, 2000), (256, 128)),
        ({"height": 256}, SD1, picture(4000, 2000), (512, 256)),
        ({"width": 64, "height": 64}, SD1, picture(4000, 2000), (64, 64)),
    ],
)
def test_sizes(options: dict, family: Family, image: np.ndarray | None, size: tuple[int, int]) -> None:
    assert resolved_size(ImageOptions(**options), family, image) == size


@pytest.mark.parametrize("family", FAMILIES.values(), ids=str)
def test_every_family_has_sizes_that_the_engine_keeps(family: Family) -> None:
    assert family.width % family.multiple == 0 and family.height % family.multiple == 0
    assert 1 <= family.steps <= 50 and 1 <= family.cfg_scale <= 10
    assert resolved_size(ImageOptions(), family, None) == (family.width, family.height)


def test_seeds() -> None:
    assert resolved_seed(0) == 0 and resolved_seed(np.int64(5)) == 5
    assert len({resolved_seed(None) for _ in range(8)}) == 8
    assert all(0 <= resolved_seed(-1) < 2**32 for _ in range(8))
    for bad in (True, "1", 1.0):
        with pytest.raises(TypeError):
            resolved_seed(bad)


# ------------------------------------------------------------------------------------------- requests


def test_a_picture() -> None:
    options = ImageOptions(sampler="DPM++ 2M Karras", slg_scale=2.5, hires=2.0, cache="ucache", vae_tiling=True)
    request = image_request("x", options, FLUX, Inputs(), [Lora(path="a")])
    sampling = request.sample_params
    assert (sampling.sample_method, sampling.scheduler) == (SampleMethod.DPMPP2M, Scheduler.KARRAS)
    assert (sampling.sample_steps, sampling.guidance.txt_cfg, sampling.guidance.distilled_guidance) == (20, 1.0, 3.5)
    assert list(sampling.guidance.slg.layers) == [7, 8, 9] and sampling.guidance.slg.scale == 2.5
    assert request.hires.enabled and request.hires.scale == 2.0 and request.cache.mode == "ucache"
    assert request.vae_tiling_params.enabled and len(request.loras) == 1
    assert request.init_image is None and request.strength is None
    with pytest.raises(UnsupportedError, match="no layers that can be skipped"):
        image_request("x", options, SD1, Inputs(), [])


def test_a_control_picture() -> None:
    request = image_request("x", ImageOptions(control_image=picture(50, 40), width=64, height=64), SD1, Inputs(), [])
    assert request.control_image.shape == (64, 64, 3) and request.control_strength == 0.9
    with pytest.raises(TypeError, match="control_image is int"):
        image_request("x", ImageOptions(control_image=3), SD1, Inputs(), [])


def test_defaults_of_edit_models() -> None:
    request = image_request("x", ImageOptions(), FAMILIES["Instruct-Pix2Pix"], Inputs(), [])
    assert request.sample_params.guidance.img_cfg == 1.5 and request.sample_params.guidance.txt_cfg == 7.5


def test_a_video() -> None:
    end, frames = picture(50, 50), [picture(60, 40)] * 3
    options = VideoOptions(
        frames=17, end_image=end, control_frames=frames, high_noise_steps=4, high_noise_cfg_scale=2.0, seed=3, fps=8
    )
    request = video_request("x", options, WAN, Inputs(picture(416, 240)), [])
    assert (request.width, request.height, request.video_frames, request.seed) == (416, 240, 17, 3)
    assert request.end_image.shape == (240, 416, 3) and [f.shape for f in request.control_frames] == [(240, 416, 3)] * 3
    assert request.sample_params.flow_shift == 3.0 and request.sample_params.guidance.txt_cfg == 6.0
    assert request.high_noise_sample_params.sample_steps == 4
    assert request.high_noise_sample_params.guidance.txt_cfg == 2.0
    assert checked(request, VideoGenParams, "params")["video_frames"] == 17
    plain = video_request("x", VideoOptions(), WAN, Inputs(), [])
    assert plain.video_frames == 33 and plain.high_noise_sample_params.sample_steps == -1


# --------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("kind", [ImageOptions, VideoOptions])
def test_names(kind: type) -> None:
    names = {f.name for f in dataclasses.fields(kind)}
    both = {f.name for k in (ImageOptions, VideoOptions) for f in dataclasses.fields(k)}
    assert set(ALIASES.values()) <= both and not set(ALIASES) & both
    assert not names & set(MODEL_OPTIONS)  # one call takes both
    assert not set(ALIASES) & set(MODEL_OPTIONS)


def test_either_guidance() -> None:
    assert options_from(ImageOptions, {"guidance_scale": 5.0}).cfg_scale == 5.0
    assert options_from(ImageOptions, {"guidance_scale": 5.0}, distilled=True).guidance == 5.0
    with pytest.raises(TypeError, match="cfg_scale was given twice, once as guidance_scale"):
        options_from(ImageOptions, {"cfg_scale": 1.0, "guidance_scale": 5.0})


def test_options_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ImageOptions().steps = 3


def test_messages_in_our_names() -> None:
    for error, text in (
        (ValueError("sample_steps is 0"), "steps is 0"),
        (TypeError("txt_cfg is 'x'"), "cfg_scale is 'x'"),
        (ValueError("width is 0"), "width is 0"),
        (KeyError("sample_steps"), "'sample_steps'"),
        (UnicodeDecodeError("sample_steps", b"", 0, 1, ""), "'sample_steps' codec"),
        (ValueError(""), ""),
    ):
        with pytest.raises(type(error)) as caught, in_our_names():
            raise error
        assert str(caught.value).startswith(text)


# ----------------------------------------------------------------------------------------------- files


def test_where_files_go(tmp_path: Path, flux_path: Path) -> None:
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


def test_parts_one_by_one(flux_path: Path) -> None:
    """The engine makes the same of the parts as of the whole."""
    options = {"width": 64, "height": 64, "steps": 1, "seed": 1, "output_type": "np"}
    with StableDiffusion(flux_path) as whole:
        expected = whole.txt2img("x", **options)[0]
    with StableDiffusion(model_path=flux_path, taesd_path=flux_path) as parts:
        np.testing.assert_array_equal(parts.txt2img("x", **options)[0], expected)


def test_every_model_parameter_is_an_option() -> None:
    fields = {f.name for f in dataclasses.fields(SDContextParams)}
    assert set(MODEL_OPTIONS.values()) == fields


def test_every_request_parameter_can_be_reached() -> None:
    """What no option names is what the functions' own arguments, or other objects, are."""
    reached = set(ImageOptions.__dataclass_fields__) | set(ALIASES)
    arguments = {"prompt", "init_image", "ref_images", "mask_image", "sample_params"}
    renamed = {"auto_resize_ref_image", "vae_tiling_params"}
    assert {f.name for f in dataclasses.fields(ImageGenParams)} - reached == arguments | renamed - reached
