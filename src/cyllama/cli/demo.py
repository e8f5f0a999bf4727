"""``cyllama demo``: all engines at work, on the small models of the registry."""

from __future__ import annotations

import argparse
import importlib.resources
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cyllama.errors import UnsupportedError

__all__ = ["add_arguments", "run"]

QUESTION = "What is the capital of France? Answer with one word."
RECORDING = "a-large-red-circle-on-white.flac"  # by espeak-ng, with this voice
SPEAKER = ("-v", "en-us+f3", "-s", "110")  # whisper tiny.en hears it better than others
COLUMNS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "words",
        nargs="?",
        help="what is spoken and drawn, such as 'a large blue square on white'; needs espeak-ng. Default: a recording",
    )
    parser.add_argument("--sound", type=Path, metavar="FILE", help="a recording of what is to be drawn")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo.png"), help="the picture; default: demo.png")


def run(arguments: argparse.Namespace) -> int:
    """Let a language model write, whisper hear, a diffusion model draw, and a vision model look at the picture."""
    import cyllama
    from cyllama._native import engine_label
    from cyllama.pipelines import ModelPool

    if arguments.words is not None and arguments.sound is not None:
        raise ValueError("words and --sound were both given, expected one of them")
    info = cyllama.build_info()
    engines = ", ".join(f"{name} {engine_label(engine)}" for name, engine in info["engines"].items())
    print(f"cyllama {info['version']} with {engines}, on one ggml {info['ggml']['version']}")
    for device in info["devices"]:
        print(f"device: {device['name']} ({device['description']}), CPU variant {info['cpu']['variant']}")
    with ModelPool() as pool, _sound(arguments) as sound:
        _write(pool)
        _hear_and_draw(pool, sound, arguments.output)
        _look(pool, arguments.output)
    return 0


def _write(pool: Any) -> None:
    with pool.use("llm", "smollm2-135m-instruct", n_ctx=1024) as llm:
        print(f"\ntext    {QUESTION}\n        ", end="", flush=True)
        last: Any = None
        with llm.chat(QUESTION, stream=True, max_tokens=64, temperature=0) as parts:
            for part in parts:
                print(part.text, end="", flush=True)
                last = part
        print(f"\n        {last.timings.predicted_n} tokens, {last.timings.predicted_per_second:.0f} per second")


def _hear_and_draw(pool: Any, sound: Path, output: Path) -> None:
    from cyllama.cli._terminal import drawn
    from cyllama.pipelines import speech_to_image

    made = speech_to_image(sound, pool=pool, sd_options={"seed": 1})
    output.parent.mkdir(parents=True, exist_ok=True)
    made.image.save(output)
    print(f"\nspeech  {made.transcription.duration:.1f} s of sound in {made.seconds['transcribe']:.2f} s")
    print(f"        heard {made.transcription.text.strip()!r}")
    print(f"\npicture {made.image.width}x{made.image.height} pixels in {made.seconds['draw']:.2f} s")
    print(f"        prompt {made.prompt!r}: {output}")
    if sys.stdout.isatty():
        print("\n".join("        " + line for line in drawn(made.image, COLUMNS)))


def _look(pool: Any, picture: Path) -> None:
    from cyllama.pipelines import caption

    start = time.perf_counter()
    seen = caption(picture, pool=pool)
    print(f"\nvision  {time.perf_counter() - start:.2f} s, with the loading\n        sees {seen.text!r}")


@contextmanager
def _sound(arguments: argparse.Namespace) -> Iterator[Path]:
    """The recording of what is to be drawn."""
    if arguments.sound is not None:
        yield arguments.sound
    elif arguments.words is None:
        with importlib.resources.as_file(importlib.resources.files("cyllama.cli") / RECORDING) as path:
            yield path
    else:
        program = shutil.which("espeak-ng")
        if program is None:
            raise UnsupportedError("to speak the words, espeak-ng is needed (Debian: apt-get install espeak-ng)")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "spoken.wav")
            subprocess.run([program, *SPEAKER, "-w", path, arguments.words], check=True)
            yield path
