"""The upscaler, conversion, and enum names."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest
from sd.support import flux_params, small

import cyllama
from cyllama.errors import ClosedError, DownloadError, EngineError, ModelLoadError
from cyllama.llama import GGUFContext
from cyllama.models._download import sha256_of
from cyllama.models.converters.esrgan import read_ncnn, write_safetensors
from cyllama.sd import (
    HiresUpscaler,
    LoraApplyMode,
    Prediction,
    PreviewMode,
    RngType,
    SampleMethod,
    Scheduler,
    SDContext,
    SDType,
    Upscaler,
    _enums,
    convert,
    num_physical_cores,
)


@pytest.fixture(scope="module")
def anime() -> Path:
    return cyllama.models.get("realesrgan-x4plus-anime")


# ------------------------------------------------------------------------------------------- upscaler


def test_upscales_by_four_and_sharpens(anime: Path) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = (200, 100, 50)
    with Upscaler(anime) as upscaler:
        assert upscaler.factor == 4
        large = upscaler.upscale(image)
    assert large.shape == (128, 128, 3) and large.dtype == np.uint8
    np.testing.assert_allclose(large[40:80, 80:].mean(axis=(0, 1)), (200, 100, 50), atol=6)
    assert large[40:80, :50].mean() < 6


def test_tiles_and_progress(anime: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, (48, 48, 3), np.uint8)
    seen: list[tuple[int, int]] = []
    with Upscaler(anime, tile_size=32) as upscaler:
        tiled = upscaler.upscale(image, progress=lambda tile, tiles, seconds: seen.append((tile, tiles)))
    assert tiled.shape == (192, 192, 3)
    assert seen == [(i, 4) for i in range(5)]


def test_upscaler_rejects_invalid_arguments(anime: Path, flux_path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Upscaler(tmp_path / "none")
    with pytest.raises(ModelLoadError, match="cannot load"):
        Upscaler(flux_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(anime.read_bytes()[:-100_000])
    with pytest.raises(ModelLoadError, match="cannot load"):
        Upscaler(cut)
    for bad in ({"tile_size": 4}, {"tile_size": -1}, {"n_threads": 0}, {"direct": 1}):
        with pytest.raises((TypeError, ValueError)):
            Upscaler(anime, **bad)
    with Upscaler(anime) as upscaler:
        for image in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)),
                      np.zeros((0, 8, 3), np.uint8), None):  # fmt: skip
            with pytest.raises((TypeError, ValueError)):
                upscaler.upscale(image)
        with pytest.raises(ValueError, match="more than"):
            upscaler.upscale(np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (16384, 16384, 3)))
    with pytest.raises(ClosedError):
        upscaler.upscale(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ClosedError):
        _ = upscaler.factor


# ----------------------------------------------------------------------------------------- conversion


def test_converted_model_generates_the_same_image(flux_path: Path, tmp_path: Path, base_image: np.ndarray) -> None:
    seen: list[int] = []
    convert(flux_path, tmp_path / "same.gguf", progress=lambda step, total, seconds: seen.append(step))
    assert seen and seen[-1] > 100
    with SDContext(flux_params(tmp_path / "same.gguf")) as context:
        np.testing.assert_array_equal(context.generate_image(small())[0], base_image)


def test_converts_types_by_rule(flux_path: Path, tmp_path: Path) -> None:
    convert(flux_path, tmp_path / "a.gguf", tensor_type_rules=r"single_blocks\.0\.linear1=q8_0,double_blocks=q4_0")
    types = {info.name: info.type.name for info in GGUFContext.from_file(tmp_path / "a.gguf").tensors()}
    assert types["model.diffusion_model.single_blocks.0.linear1.weight"] == "Q8_0"
    assert types["model.diffusion_model.double_blocks.0.img_mlp.0.weight"] == "Q4_0"
    assert types["model.diffusion_model.single_blocks.1.linear1.weight"] == "F16"


def test_converts_to_safetensors(anime: Path, flux_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    convert(anime, target, output_type="f32")
    assert target.stat().st_size > 1.9 * anime.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    with Upscaler(anime) as upscaler, Upscaler(target) as wide:
        image = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
        np.testing.assert_allclose(wide.upscale(image).astype(int), upscaler.upscale(image), atol=2)
    with pytest.raises(EngineError, match="q4_0"):  # the engine keeps embeddings as they are
        convert(flux_path, target, output_type="f16")


def test_rejects_invalid_conversions(flux_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "none", out)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        convert(flux_path, tmp_path / "no" / "out.gguf")
    for bad in ({"output_type": "q99"}, {"output_type": 41}, {"output_type": "i8"}, {"tensor_type_rules": "a"},
                {"convert_name": 1}):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            convert(flux_path, out, **bad)
    with pytest.raises(ValueError, match="output_type is q4_0, expected one of: f32, f16, bf16"):
        convert(flux_path, tmp_path / "out.safetensors", output_type="q4_0")
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(5000))
    with pytest.raises(EngineError, match="cannot convert"):
        convert(noise, out)
    with pytest.raises(EngineError):
        convert(flux_path, out, tensor_type_rules="(=q8_0")  # no regular expression
    empty = tmp_path / "empty.safetensors"
    write_safetensors({"a.weight": np.zeros((4, 0), np.float32), "b.weight": np.zeros((4, 32), np.float32)}, empty)
    convert(empty, out, output_type="f16")
    out.unlink()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(flux_path.read_bytes()[:-1_000_000])
    with pytest.raises(EngineError):
        convert(cut, out)
    assert not out.exists() and not [path for path in tmp_path.iterdir() if path.name.startswith(".cyllama")]


def test_rules_take_linear_time(flux_path: Path, tmp_path: Path) -> None:
    """The watchdog of the process ends an expression that never ends."""
    code = (
        "import sys; from cyllama.sd import convert; convert(sys.argv[1], sys.argv[2], tensor_type_rules=sys.argv[3])"
    )
    for rule in ("(a|a|.)*$=q4_0", "((.|[a-z])+)+QQQQ$=q4_0", "(.*)*(.*)*(.*)*Q=q4_0"):
        subprocess.run([sys.executable, "-c", code, flux_path, tmp_path / "out.gguf", rule], check=True, timeout=120)


# ------------------------------------------------------------------------------------------ other functions


@pytest.mark.parametrize(
    ("enum", "name_of", "value_of"),
    [
        (SDType, "sd_type_name", "str_to_sd_type"),
        (RngType, "sd_rng_type_name", "str_to_rng_type"),
        (SampleMethod, "sd_sample_method_name", "str_to_sample_method"),
        (Scheduler, "sd_scheduler_name", "str_to_scheduler"),
        (Prediction, "sd_prediction_name", "str_to_prediction"),
        (PreviewMode, "sd_preview_name", "str_to_preview"),
        (LoraApplyMode, "sd_lora_apply_mode_name", "str_to_lora_apply_mode"),
        (HiresUpscaler, "sd_hires_upscaler_name", "str_to_sd_hires_upscaler"),
    ],
)
def test_enum_names_round_trip(enum: type[IntEnum], name_of: str, value_of: str) -> None:
    names = [getattr(_enums, name_of)(member) for member in enum]
    assert len(set(names)) == len(enum)
    for member, name in zip(enum, names, strict=True):
        assert getattr(_enums, value_of)(name) is member
        assert _enums.enum_value(enum, name, "x") == _enums.enum_value(enum, member.name.lower(), "x") == member
    with pytest.raises(ValueError, match="name is 'nonsense', expected"):
        getattr(_enums, value_of)("nonsense")
    with pytest.raises(ValueError, match="expected one of"):
        getattr(_enums, name_of)(len(enum) + 100)


def test_num_physical_cores() -> None:
    assert 1 <= num_physical_cores() <= 4096


def test_networks_have_the_pinned_hash(anime: Path) -> None:
    assert sha256_of(anime) == cyllama.models.find("realesrgan-x4plus-anime").sha256


def test_generated_model_has_the_pinned_hash(flux_path: Path) -> None:
    assert sha256_of(flux_path) == cyllama.models.find("tiny-flux-random").sha256


def test_rejects_invalid_networks() -> None:
    with pytest.raises(DownloadError, match="not a network of ncnn"):
        read_ncnn("nonsense", b"")
    line = "Convolution c 1 1 a b 0=64 1=3 6=1728"
    with pytest.raises(DownloadError, match="end at byte 10"):
        read_ncnn(f"7767517\n1 1\n{line}\n", bytes(10))
