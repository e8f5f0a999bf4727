"""Image generation with one of several packages; prints the seconds of loading, step and call as JSON.

usage: python -m benchmarks.generate_once PACKAGE MODEL [--side N] [--steps N] [--threads N] [--type NAME]

Runs in the Python that has the package: cyllama or stable-diffusion-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

PROMPT = "a red circle"


class Clock:
    """Record the times of the first and the last step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, step: int, total: int, seconds: float) -> None:
        """Record the time of a step; step 0 is the start."""
        self.times.append(time.perf_counter())

    def step(self, steps: int) -> float:
        """Return the seconds of a step."""
        return (self.times[steps] - self.times[0]) / steps


def cyllama(options: argparse.Namespace, clock: Clock) -> tuple[float, float]:
    """Generate with this package."""
    from cyllama.sd import StableDiffusion

    start = time.perf_counter()
    sd = StableDiffusion(options.model, n_threads=options.threads, wtype=options.type)
    loaded = time.perf_counter()
    size: dict[str, Any] = {"width": options.side, "height": options.side}
    sd.txt2img(PROMPT, steps=options.steps, cfg_scale=1.0, seed=1, on_step=clock, **size)
    return loaded - start, time.perf_counter() - loaded


def stable_diffusion_cpp_python(options: argparse.Namespace, clock: Clock) -> tuple[float, float]:
    """Generate with stable-diffusion-cpp-python."""
    from stable_diffusion_cpp import StableDiffusion

    start = time.perf_counter()
    sd = StableDiffusion(
        model_path=options.model,
        taesd_path=options.model,
        n_threads=options.threads,
        vae_decode_only=True,
        verbose=False,
    )
    loaded = time.perf_counter()
    sd.generate_image(
        prompt=PROMPT,
        width=options.side,
        height=options.side,
        steps=options.steps,
        cfg_scale=1.0,
        sampler="euler",
        seed=1,
        progress_callback=clock,
    )
    return loaded - start, time.perf_counter() - loaded


PACKAGES = {"cyllama": cyllama, "stable-diffusion-cpp-python": stable_diffusion_cpp_python}


def main() -> None:
    """Run one package."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("model")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--type", help="of the weights; cyllama only")
    options = parser.parse_args()
    clock = Clock()
    load, total = PACKAGES[options.package](options, clock)
    print(json.dumps({"load": load, "step": clock.step(options.steps), "total": total}))


if __name__ == "__main__":
    main()
