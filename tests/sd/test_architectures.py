"""Models of real architecture and size with random weights. Run by ``make test-heavy``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sd.architectures import write_control_net, write_flux, write_sd1, write_sd3, write_sdxl, write_wan

from cyllama.errors import CancelledError, EngineError, UnsupportedError
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import (
    SampleMethod,
    Scheduler,
    StableDiffusion,
    detect,
    sd_sample_method_name,
    sd_scheduler_name,
)

pytestmark = pytest.mark.heavy

TINY = {"width": 64, "height": 64, "steps": 3, "seed": 42, "output_type": "np"}


@pytest.mark.parametrize(
    ("write", "family"), [(write_sd1, "SD 1.x"), (write_sdxl, "SDXL"), (write_sd3, "SD3.x"), (write_flux, "Flux")]
)
def test_generates_images(write: Callable[[Path], Path], family: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf")
    found = detect(path)
    assert found is not None and found.name == family
    steps: list[int] = []
    with StableDiffusion(path) as sd:
        assert sd.family.name == family
        options = {"width": 64, "height": 64, "steps": 1, "seed": 1, "cfg_scale": 4.0, "output_type": "np"}
        (pixels,) = sd.txt2img(
            "a (red:1.2) circle", negative_prompt="blue", on_step=lambda s, *_: steps.append(s), **options
        )
        assert pixels.shape == (64, 64, 3) and pixels.std() > 1 and steps == [0, 1]
        (again,) = sd.txt2img("a (red:1.2) circle", negative_prompt="blue", **options)
        np.testing.assert_array_equal(pixels, again)
        (other,) = sd.txt2img("a square", **options)
        more = options | {"steps": 3} | ({} if family == "Flux" else {"clip_skip": 2})
        (started,) = sd.img2img("a square", pixels, strength=0.9, sampler="Euler a", **more)
        assert (other != pixels).any() and (started != pixels).any()


def test_generates_videos(tmp_path: Path) -> None:
    path = write_wan(tmp_path / "model.gguf")
    found = detect(path)
    assert found is not None and found.name == "Wan 2.x" and found.makes_videos
    options = {"width": 64, "height": 64, "frames": 5, "steps": 1, "cfg_scale": 1.0, "seed": 1, "output_type": "np"}
    with StableDiffusion(path) as sd:
        video = sd.txt2vid("waves", **options)
        assert len(video) == 5 and video.fps == 16
        assert all(frame.shape == (64, 64, 3) and frame.std() > 1 for frame in video)
        other = sd.txt2vid("a forest", **options)
        assert any((a != b).any() for a, b in zip(video, other, strict=True))
        assert video.save(tmp_path / "waves.gif").stat().st_size > 100
        previews: list[int] = []
        sd.txt2vid("waves", on_preview=lambda frames, step: previews.append(len(frames)), **options)
        assert previews == [2]  # one latent frame for the first frame and one for each four
        with pytest.raises(UnsupportedError, match="image was given, but this Wan"):
            sd.img2vid("waves", np.zeros((64, 64, 3), np.uint8), **options)
        with pytest.raises(CancelledError):
            sd.txt2vid("waves", on_step=lambda step, *_: step < 1, **options)


# ------------------------------------------------------------------- features of UNets, on SD 1.5


@pytest.fixture(scope="module")
def sd1_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = write_sd1(tmp_path_factory.mktemp("sd1") / "model.gguf")
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def sd1(sd1_path: Path) -> Iterator[StableDiffusion]:
    as_sd_cli = dict.fromkeys(("diffusion_flash_attn", "diffusion_conv_direct", "vae_conv_direct"), False)
    with StableDiffusion(sd1_path, **as_sd_cli) as model:
        yield model


def native(bin_dir: Path, model: Path, out: Path, *more: str) -> np.ndarray:
    command = [bin_dir / "sd-cli", "-m", model, "--taesd", model, "-p", "a red circle", "-n", "blue", "-W", "64", "-H",
               "64", "-s", "42", "-t", "2", "--steps", "3", "--cfg-scale", "7", "-o", out, *more]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    with Image.open(out) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("method", list(SampleMethod))
def test_samplers_of_noise_prediction_match_sd_cli(
    sd1: StableDiffusion, sd1_path: Path, bin_dir: Path, tmp_path: Path, method: SampleMethod
) -> None:
    expected = native(bin_dir, sd1_path, tmp_path / "a.png", "--sampling-method", sd_sample_method_name(method))
    (found,) = sd1.txt2img("a red circle", negative_prompt="blue", sampler=method, **TINY)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_schedulers_of_noise_prediction_match_sd_cli(
    sd1: StableDiffusion, sd1_path: Path, bin_dir: Path, tmp_path: Path, scheduler: Scheduler
) -> None:
    expected = native(bin_dir, sd1_path, tmp_path / "a.png", "--scheduler", sd_scheduler_name(scheduler))
    (found,) = sd1.txt2img("a red circle", negative_prompt="blue", scheduler=scheduler, **TINY)
    np.testing.assert_array_equal(found, expected)


def test_control_net_matches_sd_cli(sd1: StableDiffusion, sd1_path: Path, bin_dir: Path, tmp_path: Path) -> None:
    path = write_control_net(tmp_path / "control.gguf")
    control = np.zeros((64, 64, 3), np.uint8)
    control[16:48, 16:48] = 255
    Image.fromarray(control).save(tmp_path / "control.png")
    words = {"negative_prompt": "blue", **TINY}
    (plain,) = sd1.txt2img("a red circle", **words)
    with StableDiffusion(sd1_path, control_net=path) as sd:
        out = sd.txt2img("a red circle", control_image=control, control_strength=0.7, **words)
        assert out.parameters["control_strength"] == 0.7 and (out[0] != plain).any()
        (none,) = sd.txt2img("a red circle", control_image=control, control_strength=0.0, **words)
        np.testing.assert_array_equal(none, plain)
        np.testing.assert_array_equal(sd.txt2img("a red circle", **words)[0], plain)
    expected = native(bin_dir, sd1_path, tmp_path / "a.png", "--control-net", path, "--control-image",
                      tmp_path / "control.png", "--control-strength", "0.7")  # fmt: skip
    np.testing.assert_array_equal(out[0], expected)


def test_textual_inversions(sd1_path: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(2, 768)).astype(np.float16)
    files = {}
    for name, data in (("whole", rows.astype(np.float32)), ("half", rows), ("wide", np.zeros((2, 1024), np.float32))):
        files[name] = tmp_path / f"{name}.safetensors"
        write_safetensors({"emb_params": data}, files[name])
    files["noise"] = tmp_path / "noise.pt"
    files["noise"].write_bytes(b"nonsense" * 100)
    words = {f"xq{name}": path for name, path in files.items()}
    with StableDiffusion(sd1_path, embeddings=words) as sd:

        def pixels(prompt: str) -> np.ndarray:
            return sd.txt2img(prompt, **TINY)[0]

        plain = pixels("a circle")
        whole = pixels("a circle xqwhole")
        assert (whole != plain).any()
        np.testing.assert_array_equal(pixels("a circle xqwhole"), whole)  # cached after the first use
        np.testing.assert_array_equal(pixels("a circle xqhalf"), whole)
        assert (pixels("a circle xqhalf xqwhole") != whole).any()
        with pytest.raises(EngineError, match="'xqwide' .* does not fit the text encoders"):
            pixels("a circle xqwide")
        with pytest.raises(EngineError, match="'xqnoise' cannot be loaded"):
            pixels("a circle xqnoise")
        np.testing.assert_array_equal(pixels("a circle"), plain)
