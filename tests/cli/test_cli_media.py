"""``cyllama describe``, and images and audio in ``cyllama chat``: the same responses as `LLM`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from data.projectors import write_projector
from data.sounds import JFK
from PIL import Image, ImageDraw

from cyllama import LLM, models
from cyllama.cli import main

MODEL, WIDTH = "tiny-random-llama", 32  # the model, and its embedding size
QUESTION = "What is in this picture?"
GREEDY = {"max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_projector(tmp_path_factory.mktemp("projector") / "both.gguf", WIDTH, audio=True)


@pytest.fixture(scope="module")
def llm(projector: Path) -> Iterator[LLM]:
    with LLM(MODEL, mmproj=projector, n_ctx=1024, options={"no-cache-prompt": True}) as model:
        yield model


@pytest.fixture(scope="module")
def pair(projector: Path) -> tuple[str, ...]:
    return ("-m", MODEL, "--mmproj", str(projector), "-c", "1024", "--max-tokens", "8", "--no-cache-prompt")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With circle.png, square.png and jfk.wav."""
    for name, colour in (("circle", "red"), ("square", "blue")):
        image = Image.new("RGB", (96, 96), "white")
        draw = ImageDraw.Draw(image)
        (draw.ellipse if name == "circle" else draw.rectangle)((20, 20, 76, 76), colour)
        image.save(tmp_path / f"{name}.png")
    (tmp_path / "jfk.wav").symlink_to(JFK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 1
    return capsys.readouterr().err


def test_describe_responds_as_llm(capsys: pytest.CaptureFixture[str], llm: LLM, pair: tuple[str, ...]) -> None:
    circle, square = (llm.chat(QUESTION, images=f"{name}.png", **GREEDY).text for name in ("circle", "square"))
    assert circle != square
    assert printed(capsys, "describe", "circle.png", *pair) == circle + "\n"
    assert printed(capsys, "describe", "--image", "square.png", *pair) == square + "\n"
    both = llm.chat("Well?", images=["circle.png", "square.png"], **GREEDY).text
    assert printed(capsys, "describe", "circle.png", "square.png", "-p", "Well?", *pair) == both + "\n"
    each = printed(capsys, "describe", "circle.png", "square.png", "--each", *pair)
    assert each == f"circle.png: {circle}\nsquare.png: {square}\n"
    transcript = llm.chat("What is said here?", audio="jfk.wav", **GREEDY).text
    assert printed(capsys, "describe", "--audio", "jfk.wav", *pair) == transcript + "\n"
    mixed = llm.chat([
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Well?"},
    ], images="circle.png", audio="jfk.wav", **GREEDY).text  # fmt: skip
    out = printed(capsys, "describe", "circle.png", "--audio", "jfk.wav", "-p", "Well?", "-sys", "Be kind.", *pair)
    assert out == mixed + "\n"


def test_describe_uses_sampler_options(capsys: pytest.CaptureFixture[str], llm: LLM, pair: tuple[str, ...]) -> None:
    fields = {"max_tokens": 8, "temperature": 1.5, "seed": 7}
    assert (
        llm.chat(QUESTION, images="circle.png", **fields).text != llm.chat(QUESTION, images="circle.png", **GREEDY).text
    )
    found = printed(capsys, "describe", "circle.png", *pair, "--temp", "1.5", "--seed", "7")
    assert found == llm.chat(QUESTION, images="circle.png", **fields).text + "\n"


def test_describe_names_a_coloured_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """Ask for the colour: after the default question, several first words are equally probable, and one omits it."""
    model = ("-m", "smollm2-135m-instruct", "-mm", "vision-dinov2s", "-c", "1024")
    out = printed(capsys, "describe", "circle.png", *model, "-p", "What is the colour of the shape in the picture?")
    assert "circle" in out and "red" in out


def test_chat_responds_as_llm(capsys: pytest.CaptureFixture[str], llm: LLM, pair: tuple[str, ...]) -> None:
    wanted = llm.chat(QUESTION, images="circle.png", audio="jfk.wav", **GREEDY).text
    arguments = ("chat", QUESTION, "--image", "circle.png", "--audio", "jfk.wav", "--temp", "0", *pair)
    assert printed(capsys, *arguments).strip() == wanted.strip()


def test_interactive_chat_adds_images_and_audio(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    llm: LLM,
    pair: tuple[str, ...],
) -> None:
    lines = iter([
        "/image none.png", "/image jfk.wav", "/audio circle.png", "/image circle.png", "/image square.png", "Which?",
        "And now?", "/again", "/audio jfk.wav", "/clear", "Hello", "/save chat.json", "/clear", "/load chat.json",
        "/audio jfk.wav", "Again?", "/save more.json", "/exit",
    ])  # fmt: skip
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert main(("chat", *pair, "--temp", "0")) == 0
    out, err = capsys.readouterr()
    assert "/image: " in err and "none.png" in err and "jfk.wav" in err and "/audio: " in err
    first = llm.chat("Which?", images=["circle.png", "square.png"], **GREEDY)
    messages = [
        {"role": "user", "content": [{"type": "image", "image": Image.open(f"{n}.png")} for n in ("circle", "square")]
                                    + [{"type": "text", "text": "Which?"}]},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And now?"},
    ]  # fmt: skip
    second = llm.chat(messages, **GREEDY).text
    assert out.startswith(f"{first.text}\n{second}\n{second}\n")
    assert json.loads((folder / "chat.json").read_text())["messages"][0] == {"role": "user", "content": "Hello"}
    kept = json.loads((folder / "more.json").read_text())["messages"]
    assert [part["type"] for part in kept[2]["content"]] == ["input_audio", "text"]
    response = llm.chat([*kept[:2], {"role": "user", "content": "Again?"}], audio="jfk.wav", **GREEDY).text
    assert kept[3] == {"role": "assistant", "content": response}


def test_rejects_invalid_media(capsys: pytest.CaptureFixture[str], folder: Path, pair: tuple[str, ...]) -> None:
    (folder / "bomb.ppm").write_bytes(b"P6\n40000 40000\n255\n")
    for arguments, message in [
        (("describe", *pair), "cyllama: "),
        (("describe", "none.png", *pair), "none.png"),
        (("describe", "jfk.wav", *pair), "jfk.wav"),
        (("describe", "bomb.ppm", *pair), "1,600,000,000 pixels"),
        (("describe", ".", *pair), "a directory"),
        (("describe", "--audio", "circle.png", *pair), "circle.png"),
        (("describe", "circle.png", "--each", "--audio", "jfk.wav", *pair), "--each"),
        (
            ("describe", "circle.png", "-m", MODEL, "-c", "256"),
            "does not support images: give its projector with --mmproj",
        ),
        (("chat", "Well?", "--image", "circle.png", "-m", MODEL, "-c", "256"), "give its projector with --mmproj"),
        (("describe", "circle.png", "-m", MODEL, "--mmproj", "none.gguf"), "none.gguf"),
    ]:
        assert message in failed(capsys, *arguments)
    one = write_projector(folder / "one.gguf", WIDTH)
    error = failed(capsys, "describe", "--audio", "jfk.wav", "-m", MODEL, "--mmproj", str(one), "-c", "256")
    assert "supports images, not audio" in error


@pytest.mark.usefixtures("fixed_team")
def test_describe_equals_llama_mtmd_cli(capsys: pytest.CaptureFixture[str], bin_dir: Path) -> None:
    """The default model of describe, with the native program."""
    pair = ["-m", str(models.get("smollm2-135m-instruct")), "--mmproj", str(models.get("vision-dinov2s"))]
    common = [*pair, "--jinja", "--temp", "0", "-c", "1024", "--image", "circle.png", "-p", QUESTION]
    command = [str(bin_dir / "llama-mtmd-cli"), "-n", "16", *common]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert "circle" in done.stdout
    assert printed(capsys, "describe", "--max-tokens", "16", *common).strip() == done.stdout.strip()
