"""Options that could have no effect: refused, or told; none is left out in silence."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cyllama.errors import ModelLoadError, UnsupportedError
from cyllama.models.esrgan import write_safetensors
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
from cyllama.sd.effects import refuse_idle_image, refuse_idle_parts, refuse_idle_video
from cyllama.sd.family import FAMILIES, family_of
from cyllama.sd.requests import Inputs, image_request, video_request
from cyllama.sd.tensors import TensorFile

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 7}
PICTURE = np.zeros((64, 64, 3), np.uint8)


def image(family: str, *, loaded: SDContextParams | None = None, **options: object) -> None:
    refuse_idle_image(
        ImageOptions(**options), FAMILIES[family], loaded or SDContextParams(), image=False, references=False
    )


@pytest.mark.parametrize(
    ("family", "options", "kind", "match"),
    [
        ("SD 1.x", {"strength": 0.5}, ValueError, "strength is 0.5, but there is no picture"),
        ("Flux", {"resize_references": True}, ValueError, "resize_references is True, but there are no reference"),
        ("Flux", {"increase_ref_index": False}, ValueError, "increase_ref_index is False"),
        ("SD 1.x", {"control_strength": 0.5}, ValueError, "control_strength is 0.5, but there is no control_image"),
        ("SD 1.x", {"control_image": PICTURE}, UnsupportedError, "without control_net"),
        ("SDXL", {"pm_params": PhotoMakerParams()}, UnsupportedError, "without photo_maker"),
        ("SD 1.x", {"timestep_shift": 250}, UnsupportedError, "for SDXL, not for SD 1.x"),
        ("SD 1.x", {"guidance": 3.5}, UnsupportedError, r"\(SD 1.x\) has no distilled guidance"),
        ("SD 1.x", {"image_cfg_scale": 1.5}, UnsupportedError, "no guidance by a picture"),
        ("Flux", {"clip_skip": 2}, UnsupportedError, "reads no layer of CLIP but the last"),
        ("SDXL", {"flow_shift": 3.0}, UnsupportedError, "no flow model"),
        ("Flux", {"sigmas": [1.0, 0.5, 0.0], "scheduler": "karras"}, ValueError, "scheduler is 'karras', but sigmas"),
        ("Flux", {"sigmas": [1.0, 0.5, 0.0], "steps": 3}, ValueError, "steps is 3, but sigmas has 3 values"),
        ("Flux", {"cache": "ucache"}, UnsupportedError, "'ucache', which this model"),
        ("SD 1.x", {"cache": CacheParams(mode="easycache")}, UnsupportedError, "'easycache'"),
        ("SD 1.x", {"cache": CacheParams(reuse_threshold=0.1)}, ValueError, "cache has no mode"),
        ("SD 1.x", {"cache": "easy"}, ValueError, "did you mean 'easycache'"),
    ],
)
def test_pictures(family: str, options: dict, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        image(family, **options)


def test_what_has_an_effect() -> None:
    image("Flux", guidance=2.0, flow_shift=3.0, cache="easycache", sigmas=[1.0, 0.5, 0.0], steps=2)
    image("SD 1.x", cache=CacheParams(mode="ucache"), clip_skip=2)
    image("Flux", clip_skip=-1)
    image("SDXL", timestep_shift=250, cache="spectrum")
    image("Instruct-Pix2Pix", image_cfg_scale=1.2)
    image("Flux Control", control_image=PICTURE, control_strength=0.5)
    image("SD 1.x", control_image=PICTURE, loaded=SDContextParams(control_net_path="a"))
    image("SDXL", pm_params=PhotoMakerParams(), loaded=SDContextParams(photo_maker_path="a"))
    refuse_idle_image(
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
def test_what_videos_start_from(kind: str) -> None:
    """A model of text alone would forget the picture and make something else."""
    version, tensors, able = KINDS[kind]
    family = family_of(version, TensorFile("gguf", tensors))
    assert family.video_inputs == able
    for name in ("image", "end_image", "control_frames"):
        options = VideoOptions(**({} if name == "image" else {name: PICTURE}))
        if name in able:
            refuse_idle_video(options, family, SDContextParams(), image=name == "image")
        else:
            with pytest.raises(UnsupportedError, match=f"{name} was given, but this Wan"):
                refuse_idle_video(options, family, SDContextParams(), image=name == "image")
    unknown = family_of(version)
    if version == "Wan 2.x":  # a file whose header cannot be read
        refuse_idle_video(VideoOptions(end_image=PICTURE), unknown, SDContextParams(), image=True)


@pytest.mark.parametrize(
    "options", [{"moe_boundary": 0.9}, {"high_noise_steps": 3}, {"high_noise_cfg_scale": 2.0}, {"high_noise_eta": 0.5}]
)
def test_options_of_the_second_model(options: dict) -> None:
    family = FAMILIES["Wan 2.x"]
    with pytest.raises(ValueError, match="without high_noise_diffusion_model"):
        refuse_idle_video(VideoOptions(**options), family, SDContextParams(), image=False)
    two = SDContextParams(high_noise_diffusion_model_path="a")
    refuse_idle_video(VideoOptions(**options), family, two, image=False)
    with pytest.raises(ValueError, match="there are no control_frames"):
        refuse_idle_video(VideoOptions(vace_strength=0.5), family, two, image=False)


def test_the_second_model_hears_its_options() -> None:
    options = VideoOptions(eta=0.25, high_noise_steps=0, high_noise_sampler=0, sampler="heun")
    noisy = video_request("x", options, FAMILIES["Wan 2.x"], Inputs(), []).high_noise_sample_params
    assert (noisy.eta, noisy.sample_steps, noisy.sample_method) == (0.25, 0, 0)
    options = VideoOptions(eta=0.25, high_noise_eta=0.75)
    assert video_request("x", options, FAMILIES["Wan 2.x"], Inputs(), []).high_noise_sample_params.eta == 0.75


def test_parameters_that_are_given_are_switched_on() -> None:
    options = ImageOptions(hires=HiresParams(scale=1.5), vae_tiling=SDTilingParams(tile_size_x=16))
    request = image_request("x", options, FAMILIES["Flux"], Inputs(), [])
    assert request.hires.enabled and request.vae_tiling_params.enabled
    assert options.hires.enabled is None  # the caller's own stays as it is
    options = ImageOptions(hires=HiresParams(enabled=False), vae_tiling=SDTilingParams(enabled=False))
    request = image_request("x", options, FAMILIES["Flux"], Inputs(), [])
    assert request.hires.enabled is False and request.vae_tiling_params.enabled is False


def test_sigmas_are_steps() -> None:
    request = image_request("x", ImageOptions(sigmas=[1.0, 0.5, 0.0]), FAMILIES["Flux"], Inputs(), [])
    assert request.sample_params.sample_steps == 2


def test_parts_that_the_model_does_not_take(flux_path: Path) -> None:
    for name, value in (("control_net", flux_path), ("photo_maker", flux_path), ("embeddings", {"word": flux_path})):
        with pytest.raises(UnsupportedError, match=rf"{name} was given, but this model \(Flux\) takes none"):
            StableDiffusion(flux_path, **{name: value})
    refuse_idle_parts(SDContextParams(control_net_path="a", photo_maker_path="a"), FAMILIES["SDXL"])
    with pytest.raises(UnsupportedError, match="only SDXL does"):
        refuse_idle_parts(SDContextParams(photo_maker_path="a"), FAMILIES["SD 1.x"])


def test_values_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    """This one cannot be loaded, which is what the last call says."""
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
def test_a_preview_that_nobody_sees(sd: StableDiffusion, options: dict) -> None:
    with pytest.raises(ValueError, match="no on_preview to show it"):
        sd.txt2img("x", **SMALL, **options)


def test_a_model_refuses_what_it_cannot_hear(sd: StableDiffusion) -> None:
    with pytest.raises(ValueError, match="there is no picture"):
        sd.txt2img("x", strength=0.5, **SMALL)
    with pytest.raises(UnsupportedError, match="control_net"):
        sd.txt2img("x", control_image=PICTURE, **SMALL)
    with pytest.raises(ValueError, match="there is no picture"):
        sd.edit("x", PICTURE, strength=0.5, **SMALL)


def test_a_negative_prompt_without_guidance(sd: StableDiffusion) -> None:
    with pytest.warns(UserWarning, match="no effect while cfg_scale is 1") as told:
        (plain,) = sd.txt2img("x", negative_prompt="blue", output_type="np", **SMALL)
    assert told[0].filename == __file__
    np.testing.assert_array_equal(plain, sd.txt2img("x", output_type="np", **SMALL)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (guided,) = sd.txt2img("x", negative_prompt="blue", cfg_scale=2.0, output_type="np", **SMALL)
        (other,) = sd.txt2img("x", negative_prompt="green", cfg_scale=2.0, output_type="np", **SMALL)
    assert (guided != other).any()


def test_numbers_of_numpy_are_told_as_plain_ones(sd: StableDiffusion) -> None:
    out = sd.txt2img("x", width=np.int64(64), height=64, steps=np.int32(1), seed=np.uint8(3), guidance=np.float32(2))
    assert parse_infotext(out.infotexts[0])["guidance"] == 2.0
    assert json.loads(json.dumps(out.to_dict()))["parameters"]["steps"] == 1


def test_everything_that_was_used_is_told(sd: StableDiffusion) -> None:
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
