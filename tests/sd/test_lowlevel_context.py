"""SDContext: results, callbacks and invalid inputs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sd.support import flux_params, small

from cyllama.errors import (
    EngineError,
)
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import (
    CacheParams,
    HiresParams,
    ImageGenParams,
    Lora,
    SampleMethod,
    SampleParams,
    Scheduler,
    SDContext,
    SDContextParams,
    SDTilingParams,
)


def test_model_properties(flux: SDContext) -> None:
    assert flux.version_name == "Flux"
    assert flux.supports_image_generation and not flux.supports_video_generation
    assert flux.default_sample_method == SampleMethod.EULER
    assert flux.default_scheduler() == Scheduler.DISCRETE
    assert flux.default_scheduler("lcm") == Scheduler.LCM
    assert repr(flux) == "<SDContext Flux>"


def test_generates_a_reproducible_image(flux: SDContext, base_image: np.ndarray) -> None:
    assert base_image.shape == (128, 128, 3) and base_image.dtype == np.uint8 and base_image.flags.owndata
    assert 20 < base_image.std() < 120
    (again,) = flux.generate_image(small())
    np.testing.assert_array_equal(again, base_image)


@pytest.mark.parametrize("change", [{"prompt": "a blue square"}, {"seed": 43}, {"sampling": {"steps": 4}}])
def test_prompt_seed_and_steps_change_the_image(flux: SDContext, base_image: np.ndarray, change: dict) -> None:
    (other,) = flux.generate_image(small(**change))
    assert np.abs(other.astype(int) - base_image).mean() > 1


def test_seeds_of_a_batch(flux: SDContext, base_image: np.ndarray) -> None:
    batch = flux.generate_image(small(batch_size=3))
    assert len(batch) == 3
    np.testing.assert_array_equal(batch[0], base_image)
    np.testing.assert_array_equal(batch[2], flux.generate_image(small(seed=44))[0])


def test_sizes_are_rounded_up(flux: SDContext) -> None:
    (image,) = flux.generate_image(small(width=100, height=60))
    assert image.shape == (64, 104, 3)


def test_image_to_image_with_strength_zero_keeps_the_image(flux: SDContext, base_image: np.ndarray) -> None:
    (near,) = flux.generate_image(small(init_image=base_image, strength=0.0, seed=7))
    (far,) = flux.generate_image(small(init_image=base_image, strength=1.0, seed=7))
    assert np.abs(near.astype(int) - far).mean() > 2
    strided = np.zeros((128, 256, 3), np.uint8)
    strided[:, ::2] = base_image
    (same,) = flux.generate_image(small(init_image=strided[:, ::2], strength=0.0, seed=7))
    np.testing.assert_array_equal(same, near)


def test_a_mask_limits_the_change(flux: SDContext, base_image: np.ndarray) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 64:] = 255
    (masked,) = flux.generate_image(small(init_image=base_image, mask_image=mask, strength=1.0, seed=7))
    (kept,) = flux.generate_image(small(init_image=base_image, mask_image=np.zeros_like(mask), strength=1.0, seed=7))
    change = np.abs(masked.astype(int) - kept).mean(axis=(0, 2))
    assert change[80:].mean() > 4 * change[:40].mean() + 1


def test_reference_images(flux: SDContext, base_image: np.ndarray) -> None:
    (edited,) = flux.generate_image(small(ref_images=[base_image], resize_references=True))
    assert np.abs(edited.astype(int) - base_image).mean() > 1


def test_custom_sigmas(flux: SDContext, base_image: np.ndarray) -> None:
    (image,) = flux.generate_image(small(sampling={"sigmas": [1.0, 0.5, 0.0]}))
    assert image.shape == base_image.shape and (image != base_image).any()


@pytest.mark.parametrize("mode", ["easycache", "dbcache", "taylorseer", "cache_dit", "spectrum"])
def test_caches(flux: SDContext, mode: str) -> None:
    (image,) = flux.generate_image(small(cache=CacheParams(mode=mode), sampling={"steps": 6}))
    assert image.std() > 10


@pytest.mark.parametrize("upscaler", ["latent", "Latent (bicubic)", "lanczos", "nearest"])
def test_hires_pass(flux: SDContext, upscaler: str) -> None:
    steps: list[int] = []
    hires = HiresParams(enabled=True, upscaler=upscaler, scale=1.5, steps=3, denoising_strength=0.5)
    (image,) = flux.generate_image(
        small(hires=hires, width=64, height=64), progress=lambda step, total, seconds: steps.append(total)
    )
    assert image.shape == (96, 96, 3)
    assert set(steps) == {3, 4}  # the engine adds a step


def test_vae_tiling(flux: SDContext, base_image: np.ndarray) -> None:
    steps: list[tuple[int, int]] = []
    tiles: list[tuple[int, int]] = []
    tiling = SDTilingParams(enabled=True, tile_size_x=8, tile_size_y=8)
    (tiled,) = flux.generate_image(
        small(vae_tiling=tiling),
        progress=lambda step, total, seconds: steps.append((step, total)),
        tile_progress=lambda tile, total, seconds: tiles.append((tile, total)),
    )
    assert tiled.shape == base_image.shape
    assert np.abs(tiled.astype(int) - base_image).mean() < 12  # the edges of tiles differ
    assert steps == [(i, 3) for i in range(4)]
    assert tiles[0][0] == 0 and tiles[-1][0] == tiles[-1][1] > 3
    with pytest.raises(TypeError, match="tile_progress"):
        flux.generate_image(small(), tile_progress=3)


def test_progress_and_preview(flux: SDContext) -> None:
    steps, frames = [], []
    flux.generate_image(
        small(),
        progress=lambda step, total, seconds: steps.append((step, total, seconds)),
        preview=lambda step, images, noisy: frames.append((step, images[0].shape, noisy)),
    )
    assert [(step, total) for step, total, _ in steps] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert all(0 <= seconds < 60 for _, _, seconds in steps)
    assert frames == [(i, (16, 16, 3), False) for i in (1, 2, 3)]


def test_preview_options(flux: SDContext) -> None:
    frames = []
    flux.generate_image(
        small(sampling={"steps": 5}),
        preview=lambda step, images, noisy: frames.append((step, images[0].shape, noisy)),
        preview_mode="vae",
        preview_interval=2,
        preview_noisy=True,
        preview_denoised=False,
    )
    assert frames == [(i, (128, 128, 3), True) for i in (2, 4, 5)]


def test_previews_of_a_second_order_sampler(flux: SDContext) -> None:
    frames: list[int] = []
    flux.generate_image(small(sampling={"sampler": "heun"}), preview=lambda step, images, noisy: frames.append(step))
    assert frames == [1, 2, 3]


# ------------------------------------------------------------------------------------ text of parameters


def test_to_str_prints_the_parameters(flux_path: Path) -> None:
    text = flux_params(flux_path, wtype="q4_0").to_str()
    assert f"model_path: {flux_path}\n" in text and "wtype: q4_0\n" in text
    assert "free_params_immediately: false\n" in text
    assert "scheduler: karras" in SampleParams(scheduler="karras", steps=9).to_str()
    text = small(negative_prompt="ä").to_str()
    assert "prompt: a red circle\n" in text and "negative_prompt: ä\n" in text and "seed: 42\n" in text
    with pytest.raises(ValueError, match="steps is 5000"):
        SampleParams(steps=5000).to_str()


# ------------------------------------------------------------------------------------------ bad values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width is 0, expected 8 to 16384"),
        ({"height": -8}, "height is -8"),
        ({"width": 10**9}, "width is 1000000000"),
        ({"width": 64.0}, "width is 64.0, expected an integer"),
        ({"strength": 1.5}, "strength is 1.5, expected 0 to 1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -2}, "seed is -2"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"clip_skip": 99}, "clip_skip is 99"),
        ({"prompt": 5}, "prompt is 5, expected a string"),
        ({"prompt": "a\0b"}, "null character"),
        ({"prompt": "\ud800"}, "lone surrogate"),
        ({"prompt": "word " * 20000}, "prompt has 100000 bytes, expected 65536 at most"),
        ({"sampling": {"steps": 0}}, "steps is 0, expected 1 to 1000"),
        ({"sampling": {"steps": -1}}, "steps is -1, expected 1 to 1000"),
        ({"sampling": {"steps": 10**6}}, "steps is 1000000"),
        ({"sampling": {"sampler": 15}}, "sampler is 15, expected one of: euler,"),
        ({"sampling": {"sampler": "eulr"}}, "did you mean 'euler'"),
        ({"sampling": {"scheduler": 11}}, "scheduler is 11, expected one of: discrete"),
        ({"sampling": {"scheduler": "gits", "steps": 1}}, "gits needs at least 2"),
        ({"sampling": {"scheduler": "karras", "steps": 1}}, "karras needs at least 2"),
        ({"sampling": {"scheduler": "ays"}}, "no table for this model"),
        ({"sampling": {"eta": float("nan")}}, "eta is nan"),
        ({"sampling": {"sigmas": [1.0]}}, "sigmas has 1 values"),
        ({"sampling": {"sigmas": [1.0, float("nan")]}}, r"sigmas\[1\] is nan"),
        ({"sampling": {"sigmas": [1.0, 2.0]}}, "decreasing values"),
        ({"sampling": {"guidance": 3.5}}, "guidance is 3.5, expected GuidanceParams"),
        ({"cache": CacheParams(scm_mask="1,x")}, "scm_mask is '1,x'"),
        ({"cache": CacheParams(mode=7)}, "mode is 7"),
        ({"cache": CacheParams(start_percent=0.9, end_percent=0.1)}, "less than end_percent"),
        ({"hires": HiresParams(enabled=True, upscaler="Model")}, "expected a hires.model_path"),
        ({"loras": [Lora(multiplier=1.0)]}, "expected a path"),
        ({"loras": ["a.safetensors"]}, r"loras\[0\] is 'a.safetensors', expected Lora"),
    ],
)  # fmt: skip
def test_rejects_invalid_values(flux: SDContext, change: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        flux.generate_image(small(**change))


def test_rejects_invalid_images(flux: SDContext, base_image: np.ndarray) -> None:
    for bad, message in (
        ({"init_image": base_image[:64]}, "init_image has 128x64 pixels, expected 128x128"),
        ({"init_image": base_image.astype(np.uint16)}, "dtype uint16"),
        ({"init_image": base_image[:, :, :1]}, r"expected \(height, width, 3\)"),
        ({"init_image": base_image[:, :, 0]}, "expected"),
        ({"init_image": "a.png"}, "init_image is str"),
        ({"init_image": base_image, "mask_image": base_image[:64, :, 0]}, "mask_image has 128x64 pixels"),
        ({"init_image": base_image, "mask_image": base_image}, r"expected \(height, width, 1\)"),
        ({"mask_image": base_image[:, :, 0]}, "without init_image"),
        ({"ref_images": [base_image[:100]]}, "expected multiples of 16"),
        ({"ref_images": base_image[0]}, "ref_images"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            flux.generate_image(small(**bad))


def test_unknown_parameter_suggests_the_closest_name() -> None:
    with pytest.raises(TypeError, match="ImageGenParams has no option 'promt'; did you mean 'prompt'"):
        ImageGenParams(promt="a cat")
    with pytest.raises(AttributeError, match="did you mean 'steps'"):
        SampleParams().sample_step = 3


def test_rejects_other_types(flux: SDContext, flux_path: Path) -> None:
    with pytest.raises(TypeError, match="params is 'x', expected ImageGenParams"):
        flux.generate_image("x")
    with pytest.raises(TypeError, match="expected SDContextParams"):
        SDContext(str(flux_path))
    with pytest.raises(ValueError, match="neither model_path nor diffusion_model_path"):
        SDContext(SDContextParams())
    with pytest.raises(TypeError, match="expected a callable"):
        flux.generate_image(small(), progress=3)
    with pytest.raises(ValueError, match="preview_mode is 4"):
        flux.generate_image(small(), preview=print, preview_mode=4)
    with pytest.raises(ValueError, match="preview_interval is 0"):
        flux.generate_image(small(), preview=print, preview_interval=0)


def test_rejects_missing_and_invalid_loras(flux: SDContext, base_image: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        flux.generate_image(small(loras=[Lora(path=tmp_path / "none.safetensors")]))
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(os.urandom(1000))
    with pytest.raises(EngineError, match="cannot be loaded"):
        flux.generate_image(small(loras=[Lora(path=noise)]))
    other = tmp_path / "other.safetensors"
    write_safetensors({"something.else": np.zeros(4, np.float32)}, other)
    with pytest.raises(EngineError, match="holds nothing for this model"):
        flux.generate_image(small(loras=[Lora(path=other)]))
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)


def test_lora_changes_the_image(flux: SDContext, base_image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    random = np.random.default_rng(1)
    name = "lora_unet_single_blocks_0_linear1"
    write_safetensors(
        {
            f"{name}.lora_down.weight": random.normal(size=(4, 256)).astype(np.float32) / 16,
            f"{name}.lora_up.weight": random.normal(size=(1792, 4)).astype(np.float32),
        },
        path,
    )
    (changed,) = flux.generate_image(small(loras=[Lora(path=path, multiplier=2.0)]))
    assert np.abs(changed.astype(int) - base_image).mean() > 1
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)


@pytest.mark.parametrize(
    "prompt",
    ["", "word " * 10000, "a" * 60000, " " * 60000, "(" * 30000, "[a]" * 10000, "\\" * 60000, ":1" * 20000, "BREAK " * 9000],
)  # fmt: skip
def test_long_and_malformed_prompts(flux: SDContext, prompt: str) -> None:
    (image,) = flux.generate_image(small(prompt=prompt, width=32, height=32, sampling={"steps": 1}))
    assert image.shape == (32, 32, 3)


def test_rejects_a_weight_that_is_not_a_number(flux: SDContext, base_image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"the weight '\.\.\.', expected a number"):
        flux.generate_image(small(prompt="a (red:...) circle"))
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)
