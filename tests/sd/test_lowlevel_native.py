"""Pixels equal those of sd-cli."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sd.support import small

import cyllama
from cyllama.sd import (
    GuidanceParams,
    SampleMethod,
    Scheduler,
    SDContext,
    convert,
    preprocess_canny,
    sd_sample_method_name,
    sd_scheduler_name,
    upscale,
)


def native(bin_dir: Path, model: Path, out: Path, *more: str) -> np.ndarray:
    """Return the image of sd-cli."""
    command = [bin_dir / "sd-cli", "-m", model, "--taesd", model, "-p", "a red circle", "-W", "64", "-H", "64",
               "-s", "42", "-t", "2", "-o", out, *more]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    with Image.open(out) as image:
        return np.asarray(image.convert("RGB"))


def ours(flux: SDContext, **more: object) -> np.ndarray:
    (image,) = flux.generate_image(small(width=64, height=64, **more))
    return image


@pytest.mark.parametrize("method", list(SampleMethod))
def test_every_sampler_matches_sd_cli(
    flux: SDContext, flux_path: Path, bin_dir: Path, tmp_path: Path, method: SampleMethod
) -> None:
    expected = native(bin_dir, flux_path, tmp_path / "a.png", "--steps", "4", "--cfg-scale", "1",
                      "--sampling-method", sd_sample_method_name(method))  # fmt: skip
    found = ours(flux, sampling={"steps": 4, "sampler": method})
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scheduler", [s for s in Scheduler if s != Scheduler.AYS])
def test_every_scheduler_matches_sd_cli(
    flux: SDContext, flux_path: Path, bin_dir: Path, tmp_path: Path, scheduler: Scheduler
) -> None:
    expected = native(bin_dir, flux_path, tmp_path / "a.png", "--steps", "4", "--cfg-scale", "1",
                      "--scheduler", sd_scheduler_name(scheduler))  # fmt: skip
    found = ours(flux, sampling={"steps": 4, "scheduler": scheduler})
    np.testing.assert_array_equal(found, expected)


def test_guidance_and_negative_prompt_match_sd_cli(
    flux: SDContext, flux_path: Path, bin_dir: Path, tmp_path: Path
) -> None:
    expected = native(bin_dir, flux_path, tmp_path / "a.png", "--steps", "3", "--cfg-scale", "4", "--guidance", "2",
                      "-n", "a blue square")  # fmt: skip
    guidance = GuidanceParams(cfg_scale=4.0, guidance=2.0)
    found = ours(flux, negative_prompt="a blue square", sampling={"guidance": guidance})
    np.testing.assert_array_equal(found, expected)


def test_image_to_image_matches_sd_cli(flux: SDContext, flux_path: Path, bin_dir: Path, tmp_path: Path) -> None:
    start = ours(flux, seed=1)
    Image.fromarray(start).save(tmp_path / "start.png")
    expected = native(bin_dir, flux_path, tmp_path / "a.png", "--steps", "4", "--cfg-scale", "1",
                      "-i", str(tmp_path / "start.png"), "--strength", "0.6")  # fmt: skip
    found = ours(flux, init_image=start, strength=0.6, sampling={"steps": 4})
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["realesrgan-x4plus", "realesrgan-x4plus-anime"])
def test_upscaling_in_tiles_matches_sd_cli(
    name: str, bin_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with Image.open(Path(request.config.rootpath) / "thirdparty/llama.cpp/tools/mtmd/test-1.jpeg") as photograph:
        image = photograph.convert("RGB").crop((456, 84, 496, 108))
    image.save(tmp_path / "in.png")
    path = cyllama.models.get(name)
    command = [bin_dir / "sd-cli", "-M", "upscale", "--upscale-model", path, "-i", tmp_path / "in.png",
               "-o", tmp_path / "out.png", "--upscale-tile-size", "24", "-t", "2"]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    seen: list[tuple[int, int]] = []
    found = upscale(image, name, tile_size=24, on_step=lambda tile, tiles, seconds: seen.append((tile, tiles)))
    with Image.open(tmp_path / "out.png") as expected:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected.convert("RGB")))
    assert found.size == (160, 96) and seen == [(i, seen[-1][1]) for i in range(seen[-1][1] + 1)] and len(seen) > 2
    reduced = np.asarray(found.resize(image.size, Image.Resampling.BOX))
    assert np.corrcoef(reduced.ravel(), np.asarray(image).ravel())[0, 1] > 0.95  # the same image with more detail


def test_conversion_matches_sd_cli(flux_path: Path, bin_dir: Path, tmp_path: Path) -> None:
    command = [bin_dir / "sd-cli", "-M", "convert", "-m", flux_path, "-o", tmp_path / "native.gguf", "--type", "q8_0"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    convert(flux_path, tmp_path / "ours.gguf", output_type="q8_0", convert_name=False)
    theirs = cyllama.llama.GGUFContext.from_file(tmp_path / "native.gguf")
    mine = cyllama.llama.GGUFContext.from_file(tmp_path / "ours.gguf")
    assert {info.name: (info.type, info.shape) for info in mine.tensors()} == {
        info.name: (info.type, info.shape) for info in theirs.tensors()
    }


def test_canny_detects_the_edges_of_a_square() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[20:44, 20:44] = 255
    edges = preprocess_canny(image)
    assert image.sum() == 24 * 24 * 3 * 255  # not changed
    assert edges.shape == image.shape and edges.dtype == np.uint8
    assert (edges[..., 0] == edges[..., 2]).all()
    assert edges[:, 18:23, 0].max() == 255 and edges[30:34, 30:34].max() == 0 and edges[:10].max() == 0
    np.testing.assert_array_equal(preprocess_canny(image, inverse=True), 255 - edges)
    for bad in ({"high_threshold": 2}, {"weak": float("nan")}, {"inverse": 1}):
        with pytest.raises((TypeError, ValueError)):
            preprocess_canny(image, **bad)
    with pytest.raises(ValueError, match="at least 3x3"):
        preprocess_canny(image[:2])
