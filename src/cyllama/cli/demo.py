"""``cyllama demo``: run all engines with the small models of the registry."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cyllama._paths import expanded
from cyllama.errors import UnsupportedError
from cyllama.media.samples import SPEECH

if TYPE_CHECKING:
    from cyllama.pipelines import ModelPool

__all__ = ["add_arguments", "run"]

LLM_MODEL, MMPROJ = "smollm2-135m-instruct", "vision-dinov2s"
WHISPER_MODEL, SD_MODEL = "tiny.en", "tiny-shapes"
PROMPT = "What is the capital of France? Answer with one word."
ESPEAK_OPTIONS = ("-v", "en-us+f3", "-s", "110")  # a voice that whisper tiny.en transcribes well, as in SPEECH
COLUMNS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "words",
        nargs="?",
        help="an image prompt to speak, such as 'a large blue square on white'; needs espeak-ng. Default: a recording",
    )
    parser.add_argument("--audio", type=expanded, metavar="FILE", help="a recording of an image prompt")
    parser.add_argument(
        "-o", "--output", type=expanded, default=Path("demo.png"), help="image to write; default: demo.png"
    )


def run(arguments: argparse.Namespace) -> int:
    """Chat, transcribe a prompt, generate its image, and describe the image."""
    import cyllama
    from cyllama._native import engine_label
    from cyllama.pipelines import ModelPool

    if arguments.words is not None and arguments.audio is not None:
        raise ValueError("words and --audio were both given, expected one of them")
    info = cyllama.build_info()
    engines = ", ".join(f"{name} {engine_label(engine)}" for name, engine in info["engines"].items())
    print(f"cyllama {info['version']} with {engines}, on one ggml {info['ggml']['version']}")
    for device in info["devices"]:
        print(f"device: {device['name']} ({device['description']}), CPU variant {info['cpu']['variant']}")
    with ModelPool() as pool, _recording(arguments) as audio:
        _chat(pool)
        _generate(pool, audio, arguments.output)
        _caption(pool, arguments.output)
    return 0


def _chat(pool: ModelPool) -> None:
    with pool.use("llm", LLM_MODEL, n_ctx=1024) as llm:
        print(f"\ntext    {PROMPT}\n        ", end="", flush=True)
        with llm.chat(PROMPT, stream=True, max_tokens=64, temperature=0) as parts:
            for part in parts:
                print(part.text, end="", flush=True)
    if part.timings is not None:
        print(f"\n        {part.timings.predicted_n} tokens, {part.timings.predicted_per_second:.0f} per second")


def _generate(pool: ModelPool, audio: Path, output: Path) -> None:
    from cyllama.cli._terminal import image_lines
    from cyllama.pipelines import speech_to_image

    made = speech_to_image(audio, whisper_model=WHISPER_MODEL, sd_model=SD_MODEL, pool=pool, sd_options={"seed": 1})
    output.parent.mkdir(parents=True, exist_ok=True)
    made.image.save(output)
    print(f"\nspeech  {made.transcription.duration:.1f} s of audio in {made.seconds['transcribe']:.2f} s")
    print(f"        {made.transcription.text.strip()!r}")
    print(f"\nimage   {made.image.width}x{made.image.height} pixels in {made.seconds['generate']:.2f} s")
    print(f"        prompt {made.prompt!r}: {output}")
    if sys.stdout.isatty():
        print("\n".join("        " + line for line in image_lines(made.image, COLUMNS)))


def _caption(pool: ModelPool, image: Path) -> None:
    from cyllama.pipelines import caption

    start = time.perf_counter()
    text = caption(image, llm_model=LLM_MODEL, mmproj=MMPROJ, pool=pool).text
    print(f"\nvision  {time.perf_counter() - start:.2f} s, including loading\n        {text!r}")


@contextmanager
def _recording(arguments: argparse.Namespace) -> Iterator[Path]:
    """Yield a recording of the prompt."""
    if arguments.audio is not None:
        yield arguments.audio
    elif arguments.words is None:
        yield SPEECH
    else:
        program = shutil.which("espeak-ng")
        if program is None:
            raise UnsupportedError("words needs the program espeak-ng (Debian: apt-get install espeak-ng)")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "spoken.wav")
            subprocess.run([program, *ESPEAK_OPTIONS, "-w", path, arguments.words], check=True)
            yield path
