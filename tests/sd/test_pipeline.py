"""High-level functions on the generated model: options, defaults, sizes, seeds, callbacks, threads, errors."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sd.support import small

from cyllama._native import cpu_kernels, has_gpu
from cyllama.errors import CancelledError, ClosedError, InUseError, MediaError, ModelLoadError, UnsupportedError
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import (
    SDContext,
    StableDiffusion,
    canny,
    edit,
    img2img,
    inpaint,
    parse_infotext,
    txt2img,
    txt2vid,
    upscale,
)
from cyllama.sd._model_files import model_files

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def sd(flux_path: Path) -> Iterator[StableDiffusion]:
    with StableDiffusion(flux_path) as model:
        yield model


@pytest.fixture(scope="module")
def context(flux_path: Path) -> Iterator[SDContext]:
    """The low-level context that a pipeline has."""
    with SDContext(model_files(flux_path, {}).params) as low_level:
        yield low_level


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


# ------------------------------------------------------------------------------------------- images


def test_txt2img_with_a_model_name() -> None:
    out = txt2img("a red circle", "tiny-flux-random", **SMALL)
    assert len(out) == 1 and isinstance(out[0], Image.Image)
    assert out[0].mode == "RGB" and out[0].size == (64, 64)
    assert out.images == [out[0]] and out.seeds == [7]
    assert out.parameters["steps"] == 2 and out.parameters["prompt"] == "a red circle"


def test_pixels_equal_the_low_level(sd: StableDiffusion, context: SDContext) -> None:
    (expected,) = context.generate_image(small(sampling={"steps": 3, "sampler": "heun"}))
    out = sd.txt2img("a red circle", width=128, height=128, steps=3, seed=42, sampler="Heun", output_type="np")
    np.testing.assert_array_equal(out[0], expected)


def test_kernels_of_the_package_change_the_defaults_of_a_cpu(flux_path: Path, base_image: np.ndarray) -> None:
    """The faster operations give the pixels of the engine's defaults, within the rounding of two levels."""
    names = ("diffusion_flash_attn", "diffusion_conv_direct", "vae_conv_direct")
    params = model_files(flux_path, {}).params
    expected = True if cpu_kernels() and not has_gpu() else None
    assert [getattr(params, name) for name in names] == [expected] * 3
    refused = dict.fromkeys(names, False)
    assert not any(getattr(model_files(flux_path, refused).params, name) for name in names)
    with SDContext(params) as context:
        (pixels,) = context.generate_image(small())
    assert np.abs(pixels.astype(int) - base_image).max() <= 2


def test_uses_defaults_of_the_family(sd: StableDiffusion) -> None:
    assert sd.family.name == "Flux" and sd.name == "tiny-flux-random"
    out = sd.txt2img("x", width=64, height=64)
    found = {name: out.parameters[name] for name in ("steps", "cfg_scale", "guidance", "sampler", "scheduler")}
    assert found == {"steps": 20, "cfg_scale": 1.0, "guidance": 3.5, "sampler": "euler", "scheduler": "discrete"}


@pytest.mark.parametrize(
    "names",
    [
        {"num_inference_steps": 2, "guidance_scale": 3.0, "num_images_per_prompt": 1},
        {"sample_steps": 2, "distilled_guidance": 3.0, "batch_count": 1},
        {"steps": 2, "distilled_cfg_scale": 3.0, "n_iter": 1, "sampler_name": "Euler", "schedule": "Normal"},
        {"steps": 2, "guidance": 3.0, "sample_method": "euler", "scheduler_type": "discrete"},
        {"steps": 2, "guidance": 3.0, "sampler": 0, "scheduler": "DISCRETE"},
    ],
)
def test_accepts_aliases(sd: StableDiffusion, names: dict) -> None:
    expected = sd.txt2img("x", width=64, height=64, seed=3, steps=2, guidance=3.0)
    found = sd.txt2img("x", width=64, height=64, seed=3, **names)
    assert expected.infotexts == found.infotexts
    np.testing.assert_array_equal(array(found[0]), array(expected[0]))


def test_accepts_a_generator_as_seed(sd: StableDiffusion) -> None:
    class Generator:
        def initial_seed(self) -> int:
            return 7

    out = sd.txt2img("x", generator=Generator(), width=64, height=64, steps=2)
    assert out.seeds == [7]


def test_seeds_of_a_batch_are_reproducible(sd: StableDiffusion) -> None:
    out = sd.txt2img("x", **{**SMALL, "batch_size": 3})
    assert out.seeds == [7, 8, 9]
    assert len({text.split("Seed: ")[1][0] for text in out.infotexts}) == 3
    for image, seed in zip(out, out.seeds, strict=True):
        (alone,) = sd.txt2img("x", **{**SMALL, "seed": seed})
        np.testing.assert_array_equal(array(image), array(alone))


@pytest.mark.parametrize("seed", [None, -1])
def test_random_seed_is_reported_and_reproducible(sd: StableDiffusion, seed: int | None) -> None:
    first, second = (sd.txt2img("x", **{**SMALL, "seed": seed}) for _ in range(2))
    assert first.seeds != second.seeds and 0 <= first.seeds[0] < 2**32
    again = sd.txt2img("x", **{**SMALL, "seed": first.seeds[0]})
    np.testing.assert_array_equal(array(first[0]), array(again[0]))


def test_returns_arrays(sd: StableDiffusion) -> None:
    (pixels,) = sd.txt2img("x", output_type="np", **SMALL)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, array(sd.txt2img("x", **SMALL)[0]))


def test_rounds_sizes_up(sd: StableDiffusion) -> None:
    out = sd.txt2img("x", width=100, height=60, steps=1, seed=1)
    assert out[0].size == (104, 64) == (out.parameters["width"], out.parameters["height"])


def test_hires_and_cache(sd: StableDiffusion) -> None:
    out = sd.txt2img("x", hires=1.5, cache="easycache", vae_tiling=True, **SMALL)
    assert out[0].size == (96, 96)
    assert parse_infotext(out.infotexts[0])["hires"] == 1.5


# --------------------------------------------------------------------------------------- images as input


@pytest.fixture(scope="module")
def start(sd: StableDiffusion) -> np.ndarray:
    (pixels,) = sd.txt2img("a red circle", width=128, height=64, steps=2, seed=1, output_type="np")
    return pixels


def test_image_to_image(sd: StableDiffusion, context: SDContext, start: np.ndarray) -> None:
    out = sd.img2img("x", start, strength=0.5, steps=4, seed=2, output_type="np")
    assert out[0].shape == start.shape and out.parameters["strength"] == 0.5
    request = small(prompt="x", init_image=start, strength=0.5, width=128, height=64, seed=2)
    request.sample_params.steps = 4
    np.testing.assert_array_equal(out[0], context.generate_image(request)[0])
    for form in (Image.fromarray(start), start.astype(np.float32) / 255, start.transpose(2, 0, 1)):
        (same,) = sd.img2img("x", image=form, strength=0.5, steps=4, seed=2, output_type="np")
        np.testing.assert_array_equal(same, out[0])
    (other,) = sd.img2img("x", init_images=[start], denoising_strength=0.5, steps=4, seed=2, output_type="np")
    np.testing.assert_array_equal(other, out[0])


def test_size_follows_the_image(sd: StableDiffusion) -> None:
    image = np.zeros((51, 102, 3), np.uint8)
    assert sd.img2img("x", image, steps=1, seed=1)[0].size == (104, 48)
    assert sd.img2img("x", image, steps=1, seed=1, width=64)[0].size == (64, 32)
    assert sd.img2img("x", image, steps=1, seed=1, height=80)[0].size == (160, 80)
    assert sd.img2img("x", image, steps=1, seed=1, width=64, height=64)[0].size == (64, 64)


def test_low_strength_keeps_more_of_the_image(sd: StableDiffusion, start: np.ndarray) -> None:
    change = []
    for strength in (0.1, 0.9):
        (out,) = sd.img2img("x", start, strength=strength, steps=10, seed=9, output_type="np")
        (kept,) = sd.img2img("x", start, strength=0.0, steps=10, seed=9, output_type="np")
        change.append(np.abs(out.astype(int) - kept).mean())
    assert change[0] < change[1]


def test_inpainting_changes_only_the_mask(sd: StableDiffusion, start: np.ndarray) -> None:
    mask = np.zeros(start.shape[:2], np.uint8)
    mask[:, 64:] = 255
    (out,) = sd.inpaint("a blue square", start, mask, steps=3, seed=5, strength=1.0, output_type="np")
    np.testing.assert_array_equal(out[:, :64], start[:, :64])
    assert np.abs(out[:, 64:].astype(int) - start[:, 64:]).mean() > 2
    for form in (Image.fromarray(mask), mask > 0, mask[:, :, None] / 255.0):
        (same,) = sd.inpaint("a blue square", image=start, mask=form, steps=3, seed=5, strength=1, output_type="np")
        np.testing.assert_array_equal(same, out)


def test_rejects_mask_of_another_size(sd: StableDiffusion, start: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"mask_image has 64x64 pixels, expected those of image: 128x64"):
        sd.inpaint("x", start, np.zeros((64, 64), np.uint8))


def test_edits_one_or_several_images(sd: StableDiffusion, start: np.ndarray) -> None:
    plain = sd.txt2img("x", output_type="np", **SMALL)[0]
    one = sd.edit("x", start, output_type="np", **SMALL)[0]
    two = sd.edit("x", [start, Image.fromarray(start)], output_type="np", **SMALL)[0]
    assert (one != plain).any() and (two != one).any()
    with pytest.raises(ValueError, match="at least one image"):
        sd.edit("x", [])


def test_functions_accept_a_loaded_model(sd: StableDiffusion, start: np.ndarray) -> None:
    options = {"steps": 1, "seed": 1, "width": 64, "height": 64}
    mask = np.full(start.shape[:2], 255, np.uint8)
    assert img2img("x", start, sd, **options)[0].size == (64, 64)
    assert inpaint("x", start, mask, sd, **options)[0].size == (64, 64)
    assert edit("x", start, sd, **options)[0].size == (64, 64)
    with pytest.raises(TypeError, match="n_threads was given, but the model is loaded already"):
        txt2img("x", sd, n_threads=2)


# ------------------------------------------------------------------------------------------- callbacks


def test_steps_and_previews(sd: StableDiffusion) -> None:
    steps: list[tuple[int, int]] = []
    previews: list[tuple[int, tuple[int, int]]] = []
    sd.txt2img(
        "x",
        on_step=lambda step, total, seconds: steps.append((step, total)),
        on_preview=lambda image, step: previews.append((step, image.size)),
        **{**SMALL, "steps": 4},
        preview_interval=2,
    )
    assert steps == [(i, 4) for i in range(5)]
    steps.clear()
    sd.txt2img("x", on_step=lambda step, total, seconds: steps.append((step, total)), vae_tiling=True, **SMALL)
    assert steps == [(i, 2) for i in range(3)]  # tiles are not steps
    assert [step for step, _ in previews] == [2, 4]


def test_callbacks_of_diffusers(sd: StableDiffusion) -> None:
    seen: list[int] = []

    def stop(pipe: object, step: int, timestep: int, kwargs: dict) -> dict:
        seen.append(step)
        pipe._interrupt = step == 2
        return kwargs

    with pytest.raises(CancelledError):
        sd.txt2img("x", callback_on_step_end=stop, **{**SMALL, "steps": 8})
    assert seen == [0, 1, 2]


def test_shows_progress(sd: StableDiffusion, capsys: pytest.CaptureFixture[str]) -> None:
    sd.txt2img("x", progress=True, **SMALL)
    shown = capsys.readouterr().err
    assert "2/2" in shown and shown.endswith("\r")
    sd.txt2img("x", **SMALL)
    assert capsys.readouterr().err == ""


def test_exceptions_propagate_and_cancel_stops(sd: StableDiffusion) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("from the callback")

    for hook in ("on_step", "on_preview", "progress_callback"):
        with pytest.raises(ZeroDivisionError, match="from the callback"):
            sd.txt2img("x", **{hook: fail}, **SMALL)
    event = threading.Event()
    event.set()
    with pytest.raises(CancelledError):
        sd.txt2img("x", cancel=event, **SMALL)
    with pytest.raises(CancelledError):
        txt2img("x", "tiny-flux-random", cancel=event, **SMALL)
    assert sd.txt2img("x", **SMALL)[0].size == (64, 64)


def test_call_from_a_callback_raises(sd: StableDiffusion) -> None:
    with pytest.raises(InUseError, match="from a callback"):
        sd.txt2img("x", on_step=lambda *_: sd.txt2img("y", **SMALL), **SMALL)


# --------------------------------------------------------------------------------------------- threads


def test_calls_of_threads_are_queued(sd: StableDiffusion) -> None:
    expected = {seed: array(sd.txt2img("x", **{**SMALL, "seed": seed})[0]) for seed in range(4)}
    found: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        found[seed] = array(sd.txt2img("x", **{**SMALL, "seed": seed})[0])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, pixels in expected.items():
        np.testing.assert_array_equal(found[seed], pixels)


def test_cancel_while_waiting(sd: StableDiffusion) -> None:
    inside, leave, event = threading.Event(), threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=lambda: sd.txt2img("x", on_step=hold, **SMALL))
    thread.start()
    assert inside.wait(30)
    with pytest.raises(InUseError):
        sd.close()
    threading.Timer(0.2, event.set).start()
    begin = time.monotonic()
    try:
        with pytest.raises(CancelledError):
            sd.txt2img("x", cancel=event, **SMALL)
        assert time.monotonic() - begin < 1.0
    finally:
        leave.set()
        thread.join(60)


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"stepz": 3}, TypeError, "did you mean 'steps'"),
        ({"num_inference_step": 3}, TypeError, "did you mean 'num_inference_steps'"),
        ({"steps": 3, "num_inference_steps": 4}, TypeError, "steps was given twice"),
        ({"onstep": print}, TypeError, "did you mean 'on_step'"),
        ({"guidence_scale": 3}, TypeError, "did you mean 'guidance_scale'"),
        ({"init_image": "a.png"}, TypeError, "img2img, inpaint and edit take images"),
        ({"n_threads": 2}, TypeError, "an option of the model"),
        ({"on_step": 3}, TypeError, "expected a callable"),
        ({"cancel": True}, TypeError, "is_set"),
        ({"steps": 0}, ValueError, "^steps is 0"),
        ({"steps": -3}, ValueError, "^steps is -3"),
        ({"steps": 2.5}, TypeError, "^steps is 2.5"),
        ({"width": 0}, ValueError, "width is 0"),
        ({"width": -64}, ValueError, "width is -64"),
        ({"height": 64.0}, TypeError, "height is 64.0"),
        ({"width": 20000}, ValueError, "width is 20000"),
        ({"cfg_scale": "high"}, TypeError, "^cfg_scale is 'high'"),
        ({"cfg_scale": float("nan")}, ValueError, "^cfg_scale is nan"),
        ({"sampler": "eulr"}, ValueError, "did you mean 'euler'"),
        ({"sampler": 15}, ValueError, "sampler is 15"),
        ({"scheduler": "karas"}, ValueError, "did you mean 'karras'"),
        ({"scheduler": 11}, ValueError, "scheduler is 11"),
        ({"seed": "x"}, TypeError, "seed is 'x'"),
        ({"seed": 2**70}, ValueError, "seed"),
        ({"batch_size": 0}, ValueError, "^batch_size is 0"),
        ({"strength": 2}, ValueError, "strength"),
        ({"output_type": "pt"}, ValueError, "output_type is 'pt'"),
        ({"loras": [("none.safetensors", 1.0)]}, FileNotFoundError, "none.safetensors"),
        ({"loras": 3}, TypeError, "expected a list"),
        ({"loras": [("a", "b", "c")]}, TypeError, r"loras\[0\]"),
        ({"slg_scale": 2, "skip_layers": ["a"]}, TypeError, "^skip_layers"),
        ({"skip_layers": [1]}, ValueError, "without slg_scale"),
        ({"preview": "x", "on_preview": print}, ValueError, "^preview is 'x'"),
        ({"cache": "easy"}, ValueError, "did you mean 'easycache'"),
    ],
)
def test_rejects_invalid_options(sd: StableDiffusion, options: dict, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        sd.txt2img("x", **{**SMALL, **options} if not {"num_inference_steps"} & options.keys() else options)


def test_rejects_invalid_prompts(sd: StableDiffusion) -> None:
    with pytest.raises(TypeError, match="prompt is 3"):
        sd.txt2img(3, **SMALL)
    with pytest.raises(ValueError, match="null character"):
        sd.txt2img("a\0b", **SMALL)
    long = "word " * 10_000
    assert sd.txt2img(long, **SMALL)[0].size == (64, 64)
    with pytest.raises(ValueError, match="bytes"):
        sd.txt2img(long * 2, **SMALL)


def test_rejects_invalid_images(sd: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="image is missing"):
        sd.img2img("x")
    with pytest.raises(TypeError, match="image was given twice"):
        sd.img2img("x", np.zeros((8, 8, 3), np.uint8), init_image=np.zeros((8, 8, 3), np.uint8))
    for several in ([], [np.zeros((8, 8, 3), np.uint8)] * 2):
        with pytest.raises(ValueError, match=f"init_images has {len(several)} images, expected one"):
            sd.img2img("x", init_images=several)
    with pytest.raises(MediaError):
        sd.img2img("x", b"nonsense")
    with pytest.raises(FileNotFoundError):
        sd.img2img("x", tmp_path / "none.png")


def test_rejects_invalid_models(tmp_path: Path, flux_path: Path) -> None:
    with pytest.raises(ValueError, match="neither model nor diffusion_model"):
        txt2img("x")
    with pytest.raises(FileNotFoundError, match="tiny-flux-random"):
        txt2img("x", "tiny-flux-rand")
    with pytest.raises(FileNotFoundError):
        txt2img("x", tmp_path / "none.safetensors")
    with pytest.raises(TypeError, match="did you mean 'steps'"):
        txt2img("x", tmp_path / "none.safetensors", stepz=3)
    with pytest.raises(TypeError, match="did you mean 't5xxl'"):
        txt2img("x", flux_path, t5xl="a")
    with pytest.raises(TypeError, match="did you mean 't5xxl'"):
        StableDiffusion(flux_path, t5xl="a")
    with pytest.raises(FileNotFoundError, match="lora_dir"):
        StableDiffusion(flux_path, lora_dir=tmp_path / "none")
    cut = tmp_path / "cut.safetensors"
    write_safetensors({"model.diffusion_model.double_blocks.0.w": np.zeros((64, 64), np.float32)}, cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match="ends at byte"):
        StableDiffusion(cut)
    with pytest.raises(ModelLoadError):
        StableDiffusion(flux_path, vae=flux_path, taesd=None)  # it has no such auto-encoder


def test_image_model_rejects_videos(sd: StableDiffusion) -> None:
    with pytest.raises(UnsupportedError, match="does not generate videos"):
        txt2vid("x", sd)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_leak(sd: StableDiffusion, flux_path: Path) -> None:
    """Calls of each kind and loading free their memory."""
    trim = ctypes.CDLL(None).malloc_trim
    image = np.zeros((64, 64, 3), np.uint8)
    mask = np.full((64, 64), 255, np.uint8)

    def rounds(n: int) -> int:
        for _ in range(n):
            sd.txt2img("x", on_preview=lambda image, step: None, **{**SMALL, "batch_size": 2})
            sd.inpaint("x", image, mask, steps=1, seed=1)
            sd.edit("x", [image], **SMALL)
            with pytest.raises(CancelledError):
                sd.txt2img("x", on_step=lambda step, *_: step < 1, **SMALL)
        StableDiffusion(flux_path).close()
        gc.collect()
        trim(0)
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    rounds(2)
    before = rounds(2)
    assert rounds(8) - before < 3_000_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_use_after_fork_raises(sd: StableDiffusion) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            sd.txt2img("x", **SMALL)
        except Exception as error:
            os._exit(0 if "fork" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_closed_model_raises(flux_path: Path) -> None:
    with StableDiffusion(flux_path) as model:
        assert repr(model) == "<StableDiffusion tiny-flux-random (Flux)>"
    assert "closed" in repr(model)
    with pytest.raises(ClosedError):
        model.txt2img("x", **SMALL)
    model.close()


# ---------------------------------------------------------------------------------------- other tools


def test_upscales() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8))
    seen: list[tuple[int, int]] = []
    large = upscale(image, "realesrgan-x4plus-anime", tile_size=16, on_step=lambda t, n, s: seen.append((t, n)))
    assert large.size == (120, 80) and seen[-1][0] == seen[-1][1] > 1
    half = upscale(image, "realesrgan-x4plus-anime", factor=2, output_type="np")
    assert half.shape == (40, 60, 3)
    for bad in ({"factor": 0}, {"factor": "2"}, {"output_type": "x"}, {"tile_size": -1}):
        with pytest.raises((TypeError, ValueError)):
            upscale(image, "realesrgan-x4plus-anime", **bad)


def test_canny_returns_an_image() -> None:
    square = np.zeros((32, 32), np.uint8)
    square[8:24, 8:24] = 255
    edges = canny(square)
    assert edges.mode == "RGB" and edges.size == (32, 32)
    assert array(edges)[:, :, 0].max() == 255 and array(edges)[14:18, 14:18].max() == 0
