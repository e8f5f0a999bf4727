"""Each program of examples/ runs as it stands, and prints what it is there for."""

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

# Program: (arguments, what it prints: regular expressions, in this order). {voice}: a spoken prompt, {question}: another, {server}: an address.
SAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "complete": ("", (r"The capital of France is .*Paris", r"\[24 tokens, \d+ per second\]")),
    "chat": ("", (r"Paris",)),
    "tools": ("{template}", (r"the model calls add with \{[^}]*2[^}]*3[^}]*\}",)),
    "json_answer": ("", (r"City\(name='.*', country='.*'\)",)),
    "embed": ("", (r"0\.[3-9]\d  A man is eating food\.\n", r"fine today|cheetah")),
    "rerank": ("", (r"-?\d+\.\d{4}  ", r"-?\d+\.\d{4}  ", r"-?\d+\.\d{4}  ")),
    "many_at_once": ("", (r"France: .*Paris", r"Italy: .*Rome", r"Spain: .*Madrid", r"Japan: .*Tokyo")),
    "asyncio_chat": ("", (r"Paris", r"Rome")),
    "speculative": ("", (r"no draft: 0 tokens drafted", r"ngram: [1-9]\d* tokens drafted, [1-9]\d* of them right")),
    "save_state": ("", (r"first: [1-9]\d\d tokens", r"second: [1-9] tokens")),
    "transcribe": ("{jfk}", (r"ask not what your country can do for you", r"0\.\d\d to +\d\.\d\d s  And")),
    "live_transcription": ("{jfk}", (r"\d s perhaps: .*fellow Americans", r"s is said: .*", r"the end: .*country")),
    "txt2img": ("", (r"step 1 of 20", r"step 20 of 20", r"picture\.png: a large red circle on yellow, seed 1")),
    "img2img": ("", (r"before\.png, after\.png",)),
    "inpaint": ("", (r"the left half is as it was: True",)),
    "upscale": ("", (r"64x64 pixels became 256x256",)),
    "speech_to_image": (
        "{voice}",
        (
            r"heard: 'A large red circle on white\.?', prompt: 'a large red circle on white'",
            r"transcribe +\d",
            r"draw +\d",
        ),
    ),
    "summarize_audio": ("{jfk}", (r"(\w+\W+){5}", r"\[from 11 s of speech, 2\d words\]")),
    "voice_chat": ("{question}", (r"you: Please tell me the capital of France", r"model: .*Paris")),
    "illustrate": ("", (r"illustration\.png: a .*(circle|square|triangle|cross|ring)",)),
    "describe": ("", (r"red circle",)),
    "questions_about_a_picture": (
        "",
        (r"blue square", r"\[0\.\d*[1-9]\d* s in the encoder", r"blue", r"\[0\.00 s in the encoder"),
    ),
    "chat_about_pictures": ("", (r"green triangle", r"\n.*green", r"\[\d\d tokens were still known, \d+ were new\]")),
    "describe_and_redraw": (
        "",
        (r"red circle", r"prompt: 'a large red circle on white'", r"describe +\d", r"draw +\d"),
    ),
    "draw_with_progress": ("", (r"step 1 of 20, \d", r"step 20 of 20, \d")),
    "cancel": ("", (r"stopped: the call was cancelled", r"begun: \S", r"next: .*Paris")),
    "estimate_memory": ("", (r"2048 tokens, cache f16: 2\d\d MiB", r"8192 tokens, cache q8_0: 2\d\d MiB")),
    "openai_client": ("{server}", (r"Paris",)),
    "model_pool": ("", (r"\['whisper tiny\.en: \d+ MiB'\]", r"'sd tiny-shapes", r"'llm tiny-random-llama")),
    "low_level": ("", (r"Paris",)),
}
# Pictures that a program writes: what is to be seen in them.
DRAWS = {
    "txt2img": {"picture.png": [("red", "circle")]},
    "img2img": {"before.png": [("red", "circle")], "after.png": [("blue", "circle")]},
    "inpaint": {"inpainted.png": [("red", "circle"), ("blue", "circle")]},
    "upscale": {"large.png": [("purple", "ring")]},
    "describe_and_redraw": {"redrawn.png": [("red", "circle")]},
    "draw_with_progress": {"ring.png": [("green", "ring")], "preview-20.png": [("green", "ring")]},
    "speech_to_image": {"spoken.png": [("red", "circle")]},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
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
def test_example(name: str, words: dict[str, str], tmp_path: Path) -> None:
    arguments, expected = SAYS[name]
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), *arguments.format(**words).split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    position = 0
    for pattern in expected:
        found = re.compile(pattern, re.DOTALL if pattern.startswith("(?s)") else 0).search(done.stdout, position)
        assert found, f"{pattern} is not in what comes after {position}:\n{done.stdout}"
        position = found.end()
    for file, things in DRAWS.get(name, {}).items():
        picture = Image.open(tmp_path / file).convert("RGB")
        if picture.width > 200:
            picture = picture.resize((128, 128), Image.Resampling.BOX)
        seen = read(np.asarray(picture)).things
        assert [(thing.colour, thing.shape) for thing in seen] == things
