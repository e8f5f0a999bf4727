"""The commands that generate images and videos: their flags, files and output."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyllama import sd
from cyllama.cli import main
from cyllama.cli._terminal import Preview, image_lines

MODEL = ("-m", "tiny-flux-random")
SMALL = (*MODEL, "-W", "64", "-H", "64", "--steps", "2", "-s", "5")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def image_file(folder: Path) -> str:
    y, x = np.mgrid[:64, :64]
    pixels = np.stack([x * 4, y * 4, (x > 31) * 255], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "in.png")
    return "in.png"


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


def failed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    assert main(arguments) == code
    return capsys.readouterr().err


def test_txt2img_writes_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "txt2img", "a circle", *SMALL) == ["txt2img-5.png"]
    with sd.StableDiffusion("tiny-flux-random") as model:
        expected = model.txt2img("a circle", width=64, height=64, steps=2, seed=5, output_type="np")[0]
    np.testing.assert_array_equal(pixels("txt2img-5.png"), expected)
    assert printed(capsys, "txt2img", "x", *SMALL, "-b", "2", "-o", "a.jpg") == ["a-1.jpg", "a-2.jpg"]


def test_flags_reach_the_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--sampler", "Heun", "--guidance", "2", "--sigmas", "1,0.5,0", "-n", "blue", "--cfg-scale", "2")
    printed(capsys, "txt2img", "x", *SMALL, *flags, "-o", "a.png", "--n-threads", "1", "--vae-tiling")
    found = json.loads("\n".join(printed(capsys, "sd", "info", "--json", "a.png")))
    assert (found["sampler"], found["guidance"], found["negative_prompt"], found["seed"]) == ("Heun", 2.0, "blue", 5)
    assert "scheduler" not in found  # --sigmas replaces it


def test_commands_with_input_images(capsys: pytest.CaptureFixture[str], image_file: str) -> None:
    options = (*MODEL, "--steps", "2", "-s", "5")
    assert printed(capsys, "img2img", "x", "--image", image_file, *options) == ["img2img-5.png"]
    assert pixels("img2img-5.png").shape == (64, 64, 3)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save("mask.png")
    printed(capsys, "inpaint", "x", "--image", image_file, "--mask-image", "mask.png", *options, "-o", "b.png")
    np.testing.assert_array_equal(pixels("b.png")[:, 32:], pixels(image_file)[:, 32:])
    assert (pixels("b.png")[:, :32] != pixels(image_file)[:, :32]).any()
    printed(capsys, "edit", "x", "--images", image_file, image_file, *SMALL, "-o", "c.png")
    assert pixels("c.png").shape == (64, 64, 3)


def test_sd_info_prints_parameters(capsys: pytest.CaptureFixture[str], image_file: str) -> None:
    printed(capsys, "txt2img", "a, b", *SMALL, "-o", "a.png")
    lines = dict(line.split(":", 1) for line in printed(capsys, "sd", "info", "a.png"))
    assert lines["prompt"].strip() == "a, b" and lines["seed"].strip() == "5" and lines["steps"].strip() == "2"
    lines = dict(line.split(":", 1) for line in printed(capsys, "sd", "info", "tiny-flux-random"))
    assert lines["family"].strip() == "Flux" and lines["guidance"].strip() == "3.5"
    assert "has no parameters" in failed(capsys, "sd", "info", image_file)
    assert "no such file" in failed(capsys, "sd", "info", "none.gguf").casefold()
    Path("a.gguf").write_bytes(b"nonsense")
    assert "a.gguf" in failed(capsys, "sd", "info", "a.gguf")


def test_canny_upscale_and_convert(capsys: pytest.CaptureFixture[str], image_file: str) -> None:
    assert printed(capsys, "canny", image_file, "--inverse") == ["in-edges.png"]
    assert pixels("in-edges.png").max() == 255
    network = ("-m", "realesrgan-x4plus-anime", "--tile-size", "0")
    assert printed(capsys, "upscale", image_file, *network, "--factor", "2") == ["in-large.png"]
    assert pixels("in-large.png").shape == (128, 128, 3)
    target = "a.safetensors"
    assert printed(capsys, "convert", "realesrgan-x4plus-anime", target, "--type", "f32") == [target]
    assert Path(target).stat().st_size > 17_000_000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("txt2img", "x"), 1, "neither model nor diffusion_model"),
        (("txt2img", "x", "-m", "tiny-flux-rand"), 1, "tiny-flux-random"),
        (("txt2img", "x", *MODEL, "--steps", "0"), 1, "steps is 0"),
        (("txt2img", "x", *MODEL, "--steps", "many"), 2, "invalid int"),
        (("txt2img", "x", *MODEL, "--sigmas", "1,x"), 2, "--sigmas"),
        (("txt2img", "x", *MODEL, "--sampler", "eulr"), 1, "did you mean 'euler'"),
        (("txt2img", "x", *MODEL, "--lora", "a:b"), 1, "FILE:WEIGHT"),
        (("txt2img", "x", *MODEL, "--lora", "none.safetensors:2"), 1, "none.safetensors"),
        (("txt2img", "x", *MODEL, "--preview", "proj"), 1, "needs a terminal"),
        (("txt2vid", "x", *MODEL), 1, "does not generate videos"),
        (("img2vid", "x", "--image", "in.png", *MODEL), 1, "in.png"),
        (("img2img", "x", *MODEL), 2, "--image"),
        (("upscale", "none.png"), 1, "none.png"),
        (("canny", "none.png"), 1, "none.png"),
        (("convert", "none.gguf", "a.gguf"), 1, "none.gguf"),
    ],
)
def test_error_message_and_exit_code(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert message in failed(capsys, *arguments, code=code)


@pytest.mark.parametrize(("name", "kind"), [("txt2img", sd.ImageOptions), ("txt2vid", sd.VideoOptions)])
def test_every_option_has_a_flag(capsys: pytest.CaptureFixture[str], name: str, kind: type) -> None:
    assert main([name, "--help-all"]) == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(kind):
        if field.metadata["flag"] and field.name != "pm_params":
            assert f"--{field.name.replace('_', '-')}" in shown
    for field in dataclasses.fields(sd.SDContextParams):
        name = "embedding" if field.name == "embeddings" else field.name.removesuffix("_path")
        assert f"--{name.replace('_', '-')}" in shown


@pytest.mark.parametrize(
    ("option", "kind", "own"),
    [("hires", sd.HiresParams, {"enabled", "scale"}), ("vae-tiling", sd.SDTilingParams, {"enabled"}),
     ("cache", sd.CacheParams, {"mode"}), ("pm", sd.PhotoMakerParams, set())],
)  # fmt: skip
def test_every_parameter_of_an_option_has_a_flag(
    capsys: pytest.CaptureFixture[str], option: str, kind: type, own: set[str]
) -> None:
    assert main(["txt2img", "--help-all"]) == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(kind):
        assert field.name in own or f"--{option}-{field.name.lower().replace('_', '-')}" in shown


def test_parameters_of_options_reach_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--hires", "1.5", "--hires-upscaler", "lanczos", "--hires-steps", "2", "--cache", "dbcache",
            "--cache-max-warmup-steps", "1", "--vae-tiling-tile-size-x", "4")  # fmt: skip
    printed(capsys, "txt2img", "x", *SMALL, *more, "-o", "a.png")
    found = json.loads("\n".join(printed(capsys, "sd", "info", "--json", "a.png")))
    assert (found["hires"], found["hires_upscaler"], found["hires_steps"]) == (1.5, "Lanczos", 2)
    assert (found["cache"], found["vae_tiling"]) == ("dbcache", "True") and pixels("a.png").shape == (96, 96, 3)
    printed(capsys, "txt2img", "x", *SMALL, "--hires-upscaler", "nearest", "-o", "b.png")
    assert pixels("b.png").shape == (128, 128, 3)
    assert "has no mode" in failed(capsys, "txt2img", "x", *SMALL, "--cache-spectrum-m", "3")
    assert "spectrum_m is 99" in failed(
        capsys, "txt2img", "x", *SMALL, "--cache", "spectrum", "--cache-spectrum-m", "99"
    )
    assert "without photo_maker" in failed(capsys, "txt2img", "x", *SMALL, "--pm-id-images", "a.png", "b.png")
    assert "does not support it" in failed(capsys, "txt2img", "x", *SMALL, "--embedding", "word=a.png")
    assert "is not WORD=FILE" in failed(capsys, "txt2img", "x", *SMALL, "--embedding", "word", code=2)


@pytest.mark.parametrize(
    ("command", "target", "message"),
    [
        ("txt2img", "none/a.png", "there is no folder 'none'"),
        ("txt2img", "a.xyz", "has the ending '.xyz'"),
        ("txt2img", ".", "is a directory"),
        ("txt2vid", "a.avi", "path ends in '.avi'"),
    ],
)
def test_checks_output_path_before_loading(
    capsys: pytest.CaptureFixture[str], command: str, target: str, message: str
) -> None:
    """The model file is damaged, so an error about the path shows that the path was checked first."""
    Path("broken.gguf").write_bytes(b"GGUF")
    assert message in failed(capsys, command, "x", "-m", "broken.gguf", "-o", target)


def test_tools_reject_unknown_extension(capsys: pytest.CaptureFixture[str], image_file: str) -> None:
    for command in ("upscale", "canny"):
        assert "has the ending '.xyz'" in failed(capsys, command, image_file, "-o", "a.xyz")


# ------------------------------------------------------------------------------------------- terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_preview_prints_images_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    red = Image.new("RGB", (20, 10), (255, 0, 0))
    lines = image_lines(red, 8)
    assert len(lines) == 2 and all(line.count("\x1b[38;2;255;0;0m") == 8 and line.endswith("\x1b[0m") for line in lines)
    out = Terminal()
    preview = Preview(out)
    preview.show(red, 1)
    preview.show([red, red], 2)
    rows = out.getvalue().count("\n") // 2
    assert f"\x1b[{rows}A" in out.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(ValueError, match="terminal"):
        Preview(out)


def test_prints_previews_and_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stderr", Terminal())
    assert main(["txt2img", "x", *SMALL, "--preview", "proj"]) == 0
    shown = sys.stderr.getvalue()
    assert "2/2" in shown and "\x1b[38;2;" in shown
