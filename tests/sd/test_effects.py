"""Options without an effect raise an error or a warning; none is silently ignored."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cyllama.errors import ModelLoadError, UnsupportedError
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import (
    CacheParams,
    HiresParams,
    ImageOptions,
    PhotoMakerParams,
    SDContextParams,
    SDTilingParams,
    StableDiffusion,
    VideoOptions,
    parse_infotext,
    txt2img,
)
from cyllama.sd._request import Inputs, image_params, video_params
from cyllama.sd._tensor_header import TensorFile
from cyllama.sd._validation import reject_unused_components, reject_unused_image_options, reject_unused_video_options
from cyllama.sd.families import FAMILIES, family_of

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 7}
BLACK = np.zeros((64, 64, 3), np.uint8)


def image(family: str, *, loaded: SDContextParams | None = None, **options: object) -> None:
    reject_unused_image_options(
        ImageOptions(**options), FAMILIES[family], loaded or SDContextParams(), image=False, references=False
    )


@pytest.mark.parametrize(
    ("family", "options", "kind", "match"),
    [
        ("SD 1.x", {"strength": 0.5}, ValueError, "strength is 0.5, but the request has no image"),
        (
            "Flux",
            {"resize_references": True},
            ValueError,
            "resize_references is True, but the request has no reference",
        ),
        ("Flux", {"increase_ref_index": False}, ValueError, "increase_ref_index is False"),
        (
            "SD 1.x",
            {"control_strength": 0.5},
            ValueError,
            "control_strength is 0.5, but the request has no control_image",
        ),
        ("SD 1.x", {"control_image": BLACK}, UnsupportedError, "without control_net"),
        ("SDXL", {"pm_params": PhotoMakerParams()}, UnsupportedError, "without photo_maker"),
        ("SD 1.x", {"timestep_shift": 250}, UnsupportedError, "only SDXL models support it, not SD 1.x"),
        ("SD 1.x", {"guidance": 3.5}, UnsupportedError, r"\(SD 1.x\) has no distilled guidance"),
        ("SD 1.x", {"image_cfg_scale": 1.5}, UnsupportedError, "no image guidance"),
        ("Flux", {"clip_skip": 2}, UnsupportedError, "uses only the last layer of CLIP"),
        ("SDXL", {"flow_shift": 3.0}, UnsupportedError, "not a flow model"),
        ("Flux", {"sigmas": [1.0, 0.5, 0.0], "scheduler": "karras"}, ValueError, "scheduler is 'karras', but sigmas"),
        ("Flux", {"sigmas": [1.0, 0.5, 0.0], "steps": 3}, ValueError, "steps is 3, but sigmas has 3 values"),
        ("Flux", {"cache": "ucache"}, UnsupportedError, "'ucache', which this model"),
        ("SD 1.x", {"cache": CacheParams(mode="easycache")}, UnsupportedError, "'easycache'"),
        ("SD 1.x", {"cache": CacheParams(reuse_threshold=0.1)}, ValueError, "cache has no mode"),
        ("SD 1.x", {"cache": "easy"}, ValueError, "did you mean 'easycache'"),
    ],
)
def test_rejects_image_options_without_effect(family: str, options: dict, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        image(family, **options)


def test_accepts_options_with_effect() -> None:
    image("Flux", guidance=2.0, flow_shift=3.0, cache="easycache", sigmas=[1.0, 0.5, 0.0], steps=2)
    image("SD 1.x", cache=CacheParams(mode="ucache"), clip_skip=2)
    image("Flux", clip_skip=-1)
    image("SDXL", timestep_shift=250, cache="spectrum")
    image("Instruct-Pix2Pix", image_cfg_scale=1.2)
    image("Flux Control", control_image=BLACK, control_strength=0.5)
    image("SD 1.x", control_image=BLACK, loaded=SDContextParams(control_net_path="a"))
    image("SDXL", pm_params=PhotoMakerParams(), loaded=SDContextParams(photo_maker_path="a"))
    reject_unused_image_options(
        ImageOptions(strength=0.5, resize_references=False, increase_ref_index=True),
        FAMILIES["Flux"], SDContextParams(), image=True, references=True,
    )  # fmt: skip


WAN = {"blocks.0.cross_attn.norm_k.weight": (8,)}
KINDS = {
    "text": ("Wan 2.x", WAN, ()),
    "image": ("Wan 2.x", WAN | {"img_emb.proj.0.weight": (8,)}, ("image", "end_image")),
    "vace": ("Wan 2.x", WAN | {"vace_blocks.0.x": (8,)}, ("image", "control_frames")),
    "image 2.2": ("Wan 2.2 I2V", WAN, ("image", "end_image")),
    "both 2.2": ("Wan 2.2 TI2V", WAN, ("image",)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rejects_unsupported_video_inputs(kind: str) -> None:
    """A model for text alone would silently ignore the image."""
    version, tensors, able = KINDS[kind]
    family = family_of(version, TensorFile("gguf", tensors))
    assert family.video_inputs == able
    for name in ("image", "end_image", "control_frames"):
        options = VideoOptions(**({} if name == "image" else {name: BLACK}))
        if name in able:
            reject_unused_video_options(options, family, SDContextParams(), image=name == "image")
        else:
            with pytest.raises(UnsupportedError, match=f"{name} was given, but this Wan"):
                reject_unused_video_options(options, family, SDContextParams(), image=name == "image")
    unknown = family_of(version)
    if version == "Wan 2.x":  # a file whose header cannot be read
        reject_unused_video_options(VideoOptions(end_image=BLACK), unknown, SDContextParams(), image=True)


@pytest.mark.parametrize(
    "options", [{"moe_boundary": 0.9}, {"high_noise_steps": 3}, {"high_noise_cfg_scale": 2.0}, {"high_noise_eta": 0.5}]
)
def test_rejects_high_noise_options_without_second_model(options: dict) -> None:
    family = FAMILIES["Wan 2.x"]
    with pytest.raises(ValueError, match="without high_noise_diffusion_model"):
        reject_unused_video_options(VideoOptions(**options), family, SDContextParams(), image=False)
    two = SDContextParams(high_noise_diffusion_model_path="a")
    reject_unused_video_options(VideoOptions(**options), family, two, image=False)
    with pytest.raises(ValueError, match="the request has no control_frames"):
        reject_unused_video_options(VideoOptions(vace_strength=0.5), family, two, image=False)


def test_high_noise_options_reach_the_second_model() -> None:
    options = VideoOptions(eta=0.25, high_noise_steps=0, high_noise_sampler=0, sampler="heun")
    noisy = video_params("x", options, FAMILIES["Wan 2.x"], Inputs(), []).high_noise_sample_params
    assert (noisy.eta, noisy.steps, noisy.sampler) == (0.25, 0, 0)
    options = VideoOptions(eta=0.25, high_noise_eta=0.75)
    assert video_params("x", options, FAMILIES["Wan 2.x"], Inputs(), []).high_noise_sample_params.eta == 0.75


def test_given_parameters_are_enabled() -> None:
    options = ImageOptions(hires=HiresParams(scale=1.5), vae_tiling=SDTilingParams(tile_size_x=16))
    request = image_params("x", options, FAMILIES["Flux"], Inputs(), [])
    assert request.hires.enabled and request.vae_tiling.enabled
    assert options.hires.enabled is None  # the caller's object is not changed
    options = ImageOptions(hires=HiresParams(enabled=False), vae_tiling=SDTilingParams(enabled=False))
    request = image_params("x", options, FAMILIES["Flux"], Inputs(), [])
    assert request.hires.enabled is False and request.vae_tiling.enabled is False


def test_sigmas_determine_steps() -> None:
    request = image_params("x", ImageOptions(sigmas=[1.0, 0.5, 0.0]), FAMILIES["Flux"], Inputs(), [])
    assert request.sample_params.steps == 2


def test_rejects_unused_components(flux_path: Path) -> None:
    for name, value in (("control_net", flux_path), ("photo_maker", flux_path), ("embeddings", {"word": flux_path})):
        with pytest.raises(UnsupportedError, match=rf"{name} was given, but this model \(Flux\) does not support it"):
            StableDiffusion(flux_path, **{name: value})
    reject_unused_components(SDContextParams(control_net_path="a", photo_maker_path="a"), FAMILIES["SDXL"])
    with pytest.raises(UnsupportedError, match="only SDXL does"):
        reject_unused_components(SDContextParams(photo_maker_path="a"), FAMILIES["SD 1.x"])


def test_checks_values_before_loading(tmp_path: Path) -> None:
    """The file cannot be loaded: the last call raises ModelLoadError."""
    path = tmp_path / "model.safetensors"
    write_safetensors({"model.diffusion_model.double_blocks.0.x": np.zeros(4, np.float32)}, path)
    for options, match in (
        ({"steps": 0}, "^steps is 0"),
        ({"cfg_scale": float("nan")}, "^cfg_scale is nan"),
        ({"sampler": "eulr"}, "did you mean 'euler'"),
        ({"hires": HiresParams(scale=100)}, "scale is 100"),
        ({"guidance_scale": 2000}, "^cfg_scale is 2000"),
    ):
        with pytest.raises(ValueError, match=match):
            txt2img("x", path, **options)
    with pytest.raises(ModelLoadError):
        txt2img("x", path)


# ---------------------------------------------------------------------------------- on a loaded model


@pytest.fixture(scope="module")
def sd(flux_path: Path) -> Iterator[StableDiffusion]:
    with StableDiffusion(flux_path) as model:
        yield model


@pytest.mark.parametrize("options", [{"preview": "proj"}, {"preview_interval": 2}])
def test_rejects_preview_without_callback(sd: StableDiffusion, options: dict) -> None:
    with pytest.raises(ValueError, match="no on_preview to show it"):
        sd.txt2img("x", **SMALL, **options)


def test_model_rejects_options_without_effect(sd: StableDiffusion) -> None:
    with pytest.raises(ValueError, match="the request has no image to change"):
        sd.txt2img("x", strength=0.5, **SMALL)
    with pytest.raises(UnsupportedError, match="control_net"):
        sd.txt2img("x", control_image=BLACK, **SMALL)
    with pytest.raises(ValueError, match="the request has no image to change"):
        sd.edit("x", BLACK, strength=0.5, **SMALL)


def test_warns_of_negative_prompt_without_guidance(sd: StableDiffusion) -> None:
    with pytest.warns(UserWarning, match="no effect while cfg_scale is 1") as warned:
        (plain,) = sd.txt2img("x", negative_prompt="blue", output_type="np", **SMALL)
    assert warned[0].filename == __file__
    np.testing.assert_array_equal(plain, sd.txt2img("x", output_type="np", **SMALL)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (guided,) = sd.txt2img("x", negative_prompt="blue", cfg_scale=2.0, output_type="np", **SMALL)
        (other,) = sd.txt2img("x", negative_prompt="green", cfg_scale=2.0, output_type="np", **SMALL)
    assert (guided != other).any()


def test_numpy_numbers_are_reported_as_python_numbers(sd: StableDiffusion) -> None:
    out = sd.txt2img("x", width=np.int64(64), height=64, steps=np.int32(1), seed=np.uint8(3), guidance=np.float32(2))
    assert parse_infotext(out.infotexts[0])["guidance"] == 2.0
    assert json.loads(json.dumps(out.to_dict()))["parameters"]["steps"] == 1


def test_reports_every_parameter(sd: StableDiffusion) -> None:
    out = sd.txt2img(
        "x",
        hires=HiresParams(scale=1.5, upscaler="lanczos", steps=2, denoising_strength=0.5),
        vae_tiling=SDTilingParams(tile_size_x=4, tile_size_y=4),
        cache=CacheParams(mode="dbcache"),
        sigmas=[1.0, 0.5, 0.0],
        slg_scale=1.5,
        skip_layers=[1],
        **SMALL,
    )
    assert out[0].size == (96, 96)
    found = parse_infotext(out.infotexts[0])
    assert (found["hires"], found["hires_upscaler"], found["hires_steps"], found["hires_strength"]) == (
        1.5, "Lanczos", 2, 0.5,
    )  # fmt: skip
    assert found["sigmas"] == [1.0, 0.5, 0.0] and found["slg_scale"] == 1.5 and found["skip_layers"] == [1]
    assert found["vae_tiling"] == "True" and found["cache"] == "dbcache"
    assert found == {k: v if k != "vae_tiling" else "True" for k, v in out.parameters.items() if v is not None} | {
        "sampler": "Euler"
    }
