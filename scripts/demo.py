"""Run the package's main job and show what it does (make demo)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cyllama
from cyllama.cli._terminal import drawn
from cyllama.sd import txt2img

COLUMNS = 32

PICTURE = Path("build/demo.png")


def main() -> None:
    """Say what was built, let a language model write and a diffusion model draw."""
    info = cyllama.build_info()
    engines = ", ".join(f"{name} {engine['version']}" for name, engine in info["engines"].items())
    print(f"cyllama {info['version']} with {engines}, on one ggml {info['ggml']['version']}")
    for device in info["devices"]:
        print(f"device: {device['name']} ({device['description']}), CPU variant {info['cpu']['variant']}")

    write()
    draw()


def write() -> None:
    """Fetch a real model, load it, and let it write."""
    path = cyllama.models.get("smollm2-135m-instruct")
    start = time.perf_counter()
    model = cyllama.LlamaModel(path)
    print(
        f"model:  {model.desc}, {model.n_params / 1e6:.0f} M parameters, {time.perf_counter() - start:.2f} s to load\n"
    )

    prompt = cyllama.llama.llama_chat_apply_template(
        "chatml", [{"role": "user", "content": "What is the capital of France?"}]
    )
    print(prompt, end="", flush=True)
    result = cyllama.llama.simple(model, prompt, 64, on_piece=lambda piece: print(piece, end="", flush=True))
    print(f"\n\n{result.n_decoded} tokens in {result.seconds:.2f} s: {result.tokens_per_second:.0f} tokens/s")


def draw() -> None:
    """Let the model that comes with the package draw what a prompt says."""
    prompt = "a large red circle on yellow"
    picture = txt2img(prompt, "tiny-shapes", seed=1, progress=False)[0]
    PICTURE.parent.mkdir(exist_ok=True)
    picture.save(PICTURE)
    print(f"\n{prompt}: {PICTURE}, {picture.width}x{picture.height} pixels\n")
    if sys.stdout.isatty():
        print("\n".join(drawn(picture, COLUMNS)))


if __name__ == "__main__":
    main()
