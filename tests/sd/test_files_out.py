"""Parameters in image files, notebook output, videos, and LoRAs by name."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cyllama.errors import MediaError, UnsupportedError
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import GeneratedImage, ImageResult, StableDiffusion, parse_infotext, read_parameters, save_video
from cyllama.sd._enums import SampleMethod, Scheduler
from cyllama.sd.metadata import infotext
from cyllama.sd.results import VideoResult
from cyllama.sd.samplers import sampler_and_scheduler, sampler_label, scheduler_label

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 7}
A1111 = (
    "masterpiece, (best quality:1.2) <lora:ink:0.8>\nsecond line\n"
    "Negative prompt: bad hands,\nworst quality\n"
    "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 4065423450, Size: 512x768, Model hash: 6ce0161689, "
    'Model: v1-5-pruned, Denoising strength: 0.4, Clip skip: 2, ENSD: 31337, Lora hashes: "ink: abc, pen: def", '
    "Version: v1.6.0"
)


# ---------------------------------------------------------------------------------------------- text


def test_parses_the_text_of_automatic1111() -> None:
    found = parse_infotext(A1111)
    assert found["prompt"] == "masterpiece, (best quality:1.2) <lora:ink:0.8>\nsecond line"
    assert found["negative_prompt"] == "bad hands,\nworst quality"
    assert (found["steps"], found["cfg_scale"], found["seed"]) == (28, 6.5, 4065423450)
    assert (found["width"], found["height"], found["strength"], found["clip_skip"]) == (512, 768, 0.4, 2)
    assert found["model"] == "v1-5-pruned" and found["ENSD"] == "31337"
    assert found["Lora hashes"] == "ink: abc, pen: def" and found["version"] == "v1.6.0"
    assert sampler_and_scheduler(found["sampler"], None) == (SampleMethod.DPMPP2M, Scheduler.KARRAS)


def test_infotext_round_trip() -> None:
    parameters = {
        "prompt": "a",
        "negative_prompt": "b",
        "steps": 20,
        "sampler": "euler_a",
        "scheduler": "karras",
        "cfg_scale": 7.0,
        "guidance": None,
        "seed": 42,
        "width": 512,
        "height": 640,
        "model": 'odd, "name": x',
        "version": "cyllama 1",
    }
    assert infotext(parameters) == (
        "a\nNegative prompt: b\nSteps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 42, "
        'Size: 512x640, Model: "odd, \\"name\\": x", Version: cyllama 1'
    )
    found = parse_infotext(infotext(parameters))
    assert found.pop("sampler") == "Euler a" and found.pop("scheduler") == "Karras"
    assert found == {k: v for k, v in parameters.items() if v is not None and k not in ("sampler", "scheduler")}


@pytest.mark.parametrize("text", ["", "only a prompt", "a\nb: c", "Negative prompt: x", "Steps: 3", ",,,", 'a: "b'])
def test_parses_malformed_texts(text: str) -> None:
    found = parse_infotext(text)
    assert isinstance(found["prompt"], str) and isinstance(found["negative_prompt"], str)


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).map(str.strip)


@given(words, words, st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(str.strip))
@settings(max_examples=300)
def test_any_prompt_survives_a_round_trip(prompt: str, negative: str, model: str) -> None:
    if "Negative prompt:" in prompt or not model:
        return
    values = {"prompt": prompt, "negative_prompt": negative, "steps": 3, "cfg_scale": 1.5, "seed": 1, "model": model}
    assert parse_infotext(infotext(values)) == values


@pytest.mark.parametrize("sampler", list(SampleMethod))
def test_sampler_labels_round_trip(sampler: SampleMethod) -> None:
    assert sampler_and_scheduler(sampler_label(sampler), None) == (sampler, None)
    for scheduler in Scheduler:
        assert sampler_and_scheduler(sampler_label(sampler), scheduler_label(scheduler)) == (sampler, scheduler)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [("euler_ancestral", "EULER_A"), ("k_dpmpp_2m", "DPMPP2M"), ("dpmpp_2s_ancestral", "DPMPP2S_A"), ("dpm_2", "DPM2")],
)
def test_accepts_sampler_names_of_other_programs(name: str, sampler: str) -> None:
    assert sampler_and_scheduler(name, None) == (SampleMethod[sampler], None)


# ------------------------------------------------------------------------------------------- images


@pytest.fixture(scope="module")
def made(flux_path: Path) -> ImageResult:
    with StableDiffusion(flux_path) as sd:
        return sd.txt2img("a red circle, ünïcode", negative_prompt="blue", cfg_scale=2.0, batch_size=2, **SMALL)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_files_have_the_parameters(made: ImageResult, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    made[1].save(path)
    text = read_parameters(path)
    assert text == made.infotexts[1] == made[1].info["parameters"]
    found = parse_infotext(text)
    assert found["prompt"] == "a red circle, ünïcode" and found["negative_prompt"] == "blue"
    assert (found["steps"], found["seed"], found["width"], found["height"]) == (2, 8, 64, 64)
    assert found["model"] == "tiny-flux-random" and found["guidance"] == 3.5


def test_png_has_a_text_chunk_and_the_pixels(made: ImageResult, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    made[0].save(path)
    with Image.open(path) as image:
        assert image.text["parameters"] == made.infotexts[0]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(made[0]))


def test_saves_to_file_objects_and_other_formats(made: ImageResult, tmp_path: Path) -> None:
    out = io.BytesIO()
    made[0].save(out, "PNG")
    (tmp_path / "a.png").write_bytes(out.getvalue())
    assert read_parameters(tmp_path / "a.png") == made.infotexts[0]
    with open(tmp_path / "e.png", "wb") as file:
        made[0].save(file)  # the format is that of the file name
    assert read_parameters(tmp_path / "e.png") == made.infotexts[0]
    made[0].save(tmp_path / "b.png", pnginfo=None)
    assert read_parameters(tmp_path / "b.png") is None
    made[0].save(tmp_path / "c.bmp")
    assert read_parameters(tmp_path / "c.bmp") is None
    for ending, atol in (("gif", 60), ("webp", 60), ("tif", 0)):
        made[0].save(tmp_path / f"f.{ending}")
        with Image.open(tmp_path / f"f.{ending}") as image:
            difference = np.asarray(image.convert("RGB")).astype(int) - np.asarray(made[0])
            assert abs(difference).mean() <= atol and image.size == (64, 64)
    assert made[0].copy().info["parameters"] == made.infotexts[0]
    with pytest.raises(ValueError, match="unknown file extension"):
        made[0].save(tmp_path / "d.xyz")


def test_result_saves_all_images(made: ImageResult, tmp_path: Path) -> None:
    paths = made.save(tmp_path / "a.png")
    assert [path.name for path in paths] == ["a-1.png", "a-2.png"]
    assert [read_parameters(path) for path in paths] == made.infotexts
    arrays = ImageResult([np.asarray(made[0])], [7], made.parameters, made.infotexts[:1])
    assert arrays.save(tmp_path / "b.png") == [tmp_path / "b.png"]
    assert read_parameters(tmp_path / "b.png") == made.infotexts[0]
    assert made.to_dict()["seeds"] == [7, 8]


def test_results_show_themselves(made: ImageResult) -> None:
    data = made[0]._repr_png_()
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(made[0]))
    assert repr(made[0]) == "<GeneratedImage 64x64>"
    assert repr(made) == "<ImageResult 2 images of 64x64, seeds 7, 8>"
    shown = made._repr_html_()
    assert shown.count("data:image/png;base64,") == 2 and "seed 8" in shown and "a red circle, ünïcode" in shown
    arrays = ImageResult([np.asarray(made[0])], [7], made.parameters, made.infotexts[:1])
    assert arrays._repr_html_().count("data:image/png;base64,") == 1
    assert repr(ImageResult([], [], {}, [])) == "<ImageResult no images, seeds none>"


def test_video_shows_a_bounded_animation() -> None:
    frames = [np.zeros((480, 832, 3), np.uint8) for _ in range(100)]
    for i, frame in enumerate(frames):
        frame[:, 8 * i : 8 * i + 32] = 255
    video = VideoResult(frames, 25, {"seed": 3, "prompt": "<waves>"})
    assert repr(video) == "<VideoResult 100 frames of 832x480, 25 fps, seed 3>"
    shown = video._repr_html_()
    assert "&lt;waves&gt;" in shown and "<waves>" not in shown and len(shown) < 2_000_000
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', shown)
    with Image.open(io.BytesIO(base64.b64decode(data))) as animation:
        assert animation.size[0] == 256 and animation.n_frames == 34
        animation.seek(1)
        animation.load()
        assert animation.info["duration"] == 120  # every third frame
    noise = [np.random.default_rng(i).integers(0, 256, (480, 832, 3), np.uint8) for i in range(48)]
    assert len(VideoResult(noise, 25, {"seed": 3})._repr_html_()) < 2_000_000
    assert "data:" not in VideoResult([], 25, {"seed": 3})._repr_html_()


def test_generated_image_is_a_pillow_image(made: ImageResult) -> None:
    assert isinstance(made[0], Image.Image) and isinstance(made[0], GeneratedImage)
    assert made[0].resize((8, 8)).size == (8, 8) and made[0].convert("L").mode == "L"


def test_read_parameters_of_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_parameters(tmp_path / "none.png")
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(MediaError):
        read_parameters(tmp_path / "a.png")


# -------------------------------------------------------------------------------------------- videos


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Return frames of a square that moves to the right."""
    found = []
    for i in range(9):
        frame = np.full((48, 64, 3), 30, np.uint8)
        frame[16:32, 4 * i : 4 * i + 16] = (200, 40, 40)
        found.append(frame)
    return found


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animations_have_frames_and_duration(frames: list[np.ndarray], tmp_path: Path, ending: str) -> None:
    path = save_video(frames, tmp_path / f"a.{ending}", fps=16)
    duration = 0
    with Image.open(path) as video:
        assert video.n_frames == 9 and video.info["loop"] == 0
        for i, frame in enumerate(frames):
            video.seek(i)
            video.load()
            duration += video.info["duration"]
            np.testing.assert_allclose(np.asarray(video.convert("RGB")).astype(int), frame, atol=8)
    assert abs(duration - 1000 * 9 / 16) <= 5


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_mp4_has_frames_and_rate(frames: list[np.ndarray], tmp_path: Path, size: tuple[int, int]) -> None:
    import av

    height, width = size
    path = save_video([frame[:height, :width] for frame in frames], tmp_path / "a.mp4", fps=12)
    with av.open(path) as container:
        (stream,) = container.streams.video
        assert stream.average_rate == 12
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(found) == 9 and found[0].shape == (48, 64, 3)
    for frame, seen in zip(frames, found, strict=True):
        difference = np.abs(seen[:height, :width].astype(int) - frame[:height, :width])
        assert difference.mean() < 8


def test_mp4_names_the_missing_package(
    frames: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnsupportedError, match="pip install av"):
        save_video(frames, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
    assert save_video(frames, tmp_path / "a.webp").exists() and save_video(frames, tmp_path / "a.gif").exists()


def test_video_result_saves_numbered_frames(frames: list[np.ndarray], tmp_path: Path) -> None:
    result = VideoResult([Image.fromarray(frame) for frame in frames], 16, {"seed": 3})
    assert result.seed == 3 and result.frames == list(result)
    folder = result.save(tmp_path / "frames")
    assert sorted(path.name for path in folder.iterdir()) == [f"{i:05d}.png" for i in range(1, 10)]
    with Image.open(folder / "00009.png") as last:
        np.testing.assert_array_equal(np.asarray(last), frames[8])
    assert result.save(tmp_path / "a.gif", fps=5).exists()


def test_rejects_invalid_videos(frames: list[np.ndarray], tmp_path: Path) -> None:
    for bad, match in (
        (([], "a.gif"), "frames"),
        (([frames[0], frames[0][:8]], "a.gif"), "expected one size"),
        ((frames, "a.avi"), "'.avi'"),
    ):
        with pytest.raises(ValueError, match=match):
            save_video(bad[0], tmp_path / bad[1])
    for fps in (0, -1, 5000, 2.5, True):
        with pytest.raises((TypeError, ValueError), match="fps"):
            save_video(frames, tmp_path / "a.gif", fps=fps)
    with pytest.raises(ValueError, match=r"fps is 101, expected 1 to 100 for \.gif"):
        save_video(frames, tmp_path / "a.gif", fps=101)  # a gif cannot express it
    with pytest.raises(FileNotFoundError):
        save_video(frames, tmp_path / "none" / "a.gif")
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------- LoRAs


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    folder = tmp_path / "loras" / "styles"
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    name = "lora_unet_single_blocks_0_linear1"
    path = folder / "ink.safetensors"
    write_safetensors(
        {
            f"{name}.lora_down.weight": random.normal(size=(4, 256)).astype(np.float32) / 16,
            f"{name}.lora_up.weight": random.normal(size=(1792, 4)).astype(np.float32),
        },
        path,
    )
    return path


def test_loras_by_path_and_by_tag(flux_path: Path, lora: Path) -> None:
    with StableDiffusion(flux_path, lora_dir=lora.parent.parent) as sd:

        def pixels(prompt: str, **more: object) -> np.ndarray:
            return sd.txt2img(prompt, output_type="np", **SMALL, **more)[0]

        plain, changed = pixels("a circle"), pixels("a circle", loras=[(lora, 2.0)])
        assert (plain != changed).any()
        for name in ("ink", "styles/ink", "ink.safetensors"):
            np.testing.assert_array_equal(pixels(f"a circle <lora:{name}:2>"), changed)
        np.testing.assert_array_equal(pixels("a circle", loras={lora: 2.0}), changed)
        np.testing.assert_array_equal(pixels("a circle", loras=[lora]), pixels("<lora:ink> a circle"))
        steps: list[tuple[int, int]] = []
        out = sd.txt2img("a circle", loras=[(lora, 0.5)], on_step=lambda i, n, _: steps.append((i, n)), **SMALL)
        assert steps == [(0, 2), (1, 2), (2, 2)]  # loading the LoRA is not a step
        assert out.parameters["prompt"] == "a circle <lora:ink:0.5>"
        np.testing.assert_array_equal(pixels("a circle"), plain)  # the LoRA is not applied to later calls
        with pytest.raises(FileNotFoundError, match="did you mean ink"):
            pixels("a circle <lora:imk:1>")
        with pytest.raises(ValueError, match="expected a number"):
            pixels("a circle <lora:ink:much>")
        with pytest.raises(ValueError, match="negative_prompt has '<lora:ink:1>'"):
            pixels("a circle", negative_prompt="blue <lora:ink:1>")
