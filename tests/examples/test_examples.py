"""Each program of examples/ runs and prints its result."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data.sounds import JFK
from data.voice import speak
from PIL import Image
from sd.reading import read
from server.running import running_server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
TEMPLATE = ROOT / "thirdparty" / "llama.cpp" / "models" / "templates" / "Qwen-Qwen2.5-7B-Instruct.jinja"

# Program: (arguments, regular expressions that its output contains, in this order).
OUTPUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "complete": ("", (r"The capital of France is .*Paris", r"\[24 tokens, \d+ per second\]")),
    "chat": ("", (r"Paris",)),
    "tools": ("{template}", (r"tool call: add\(\{[^}]*2[^}]*3[^}]*\}\)",)),
    "structured_output": ("", (r"City\(name='.*', country='.*'\)",)),
    "embed": ("", (r"0\.[3-9]\d  A man is eating food\.\n", r"fine today|cheetah")),
    "rerank": ("", (r"-?\d+\.\d{4}  ", r"-?\d+\.\d{4}  ", r"-?\d+\.\d{4}  ")),
    "parallel_requests": ("", (r"France: .*Paris", r"Italy: .*Rome", r"Spain: .*Madrid", r"Japan: .*Tokyo")),
    "asyncio_chat": ("", (r"Paris", r"Rome")),
    "speculative": ("", (r"no draft: 0 tokens drafted", r"ngram: [1-9]\d* tokens drafted, [1-9]\d* accepted")),
    "save_state": ("", (r"first: [1-9]\d\d prompt tokens", r"second: [1-9] prompt tokens")),
    "transcribe": ("{jfk}", (r"ask not what your country can do for you", r"0\.\d\d to +\d\.\d\d s  And")),
    "live_transcription": ("{jfk}", (r"\d s partial: .*fellow Americans", r"end: .*country")),
    "txt2img": ("", (r"step 1 of 20", r"step 20 of 20", r"image\.png: a large red circle on yellow, seed 1")),
    "img2img": ("", (r"before\.png, after\.png",)),
    "inpaint": ("", (r"left half unchanged: True",)),
    "upscale": ("", (r"64x64 to 256x256 pixels",)),
    "speech_to_image": (
        "{voice}",
        (
            r"transcription 'A large red circle on white\.?', prompt 'a large red circle on white'",
            r"transcribe +\d",
            r"generate +\d",
        ),
    ),
    "summarize_audio": ("{jfk}", (r"(\w+\W+){5}", r"\[11 s of speech, 2\d words\]")),
    "voice_chat": ("{question}", (r"user: Please tell me the capital of France", r"assistant: .*Paris")),
    "illustrate": ("", (r"illustration\.png: a .*(circle|square|triangle|cross|ring)",)),
    "describe_image": ("", (r"red circle",)),
    "image_questions": ("", (r"blue square.* \[\d+\.\d\d s\]", r"blue.* \[\d+\.\d\d s\]")),
    "chat_about_images": ("", (r"green triangle", r"\n.*green", r"\[\d\d tokens from the cache, \d+ computed\]")),
    "image_variation": (
        "",
        (r"red circle", r"prompt: 'a large red circle on white'", r"caption +\d", r"generate +\d"),
    ),
    "txt2img_progress": ("", (r"step 1 of 10, \d", r"step 10 of 10, \d")),
    "cancel": ("", (r"cancelled: ", r"first chunk: \S", r"next: .*Paris")),
    "estimate_memory": ("", (r"2048 tokens, cache f16: 2\d\d MiB", r"8192 tokens, cache q8_0: [23]\d\d MiB")),
    "openai_client": ("{server}", (r"Paris",)),
    "model_pool": ("", (r"\['whisper tiny\.en: \d+ MiB'\]", r"'sd tiny-shapes", r"'llm tiny-random-llama")),
    "low_level": ("", (r"Paris",)),
}
# Image files that a program writes: their shapes, as (colour, shape).
IMAGES = {
    "txt2img": {"image.png": [("red", "circle")]},
    "img2img": {"before.png": [("red", "circle")], "after.png": [("blue", "circle")]},
    "inpaint": {"inpainted.png": [("red", "circle"), ("blue", "circle")]},
    "upscale": {"large.png": [("purple", "ring")]},
    "image_variation": {"variation.png": [("red", "circle")]},
    "txt2img_progress": {"ring.png": [("green", "ring")], "preview-10.png": [("green", "ring")]},
    "speech_to_image": {"spoken.png": [("red", "circle")]},
}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("spoken")
    with running_server("-m", "smollm2-135m-instruct") as server:
        yield {
            "server": server.url,
            "jfk": str(JFK),
            "template": str(TEMPLATE),
            "voice": str(speak("A large red circle on white.", folder / "red-circle.wav")),
            "question": str(speak("Please tell me the capital of France.", folder / "question.wav")),
        }


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, arguments: dict[str, str], tmp_path: Path) -> None:
    template, expected = OUTPUTS[name]
    command = [
        sys.executable,
        "-W",
        "error",
        str(ROOT / "examples" / f"{name}.py"),
        *template.format(**arguments).split(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    position = 0
    for pattern in expected:
        found = re.compile(pattern, re.DOTALL if pattern.startswith("(?s)") else 0).search(done.stdout, position)
        assert found, f"{pattern} not found after {position}:\n{done.stdout}"
        position = found.end()
    for file, things in IMAGES.get(name, {}).items():
        image = Image.open(tmp_path / file).convert("RGB")
        if image.width > 200:
            image = image.resize((128, 128), Image.Resampling.BOX)
        seen = read(np.asarray(image)).things
        assert [(thing.colour, thing.shape) for thing in seen] == things
