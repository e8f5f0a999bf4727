"""The networks of Stable Diffusion 1.5 with one of two packages; prints seconds of the UNet and the VAE as JSON.

usage: python networks_once.py PACKAGE FOLDER [--side N] [--steps N] [--threads N] [--type NAME]

Runs in the Python that has the package: cyllama or diffusers. ``write`` as the package writes random weights of the
right shapes to FOLDER, in the layout of diffusers; it needs diffusers as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any


def write(folder: str) -> None:
    """Write a pipeline with random weights in 16 bits."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    widths = (320, 640, 1280, 1280)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=widths, cross_attention_dim=768, attention_head_dim=8, layers_per_block=2
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=None,
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def cyllama(options: argparse.Namespace) -> dict[str, float]:
    """Generate one image; decoding is what follows the last step."""
    from cyllama.sd import StableDiffusion

    sd = StableDiffusion(options.folder, n_threads=options.threads, wtype=options.type)
    times: list[float] = []
    size: dict[str, Any] = {"width": options.side, "height": options.side}
    sd.txt2img(
        "a red circle",
        steps=options.steps,
        cfg_scale=1.0,
        seed=1,
        on_step=lambda *_: times.append(time.perf_counter()),
        **size,
    )
    decoded = time.perf_counter() - times[-1]
    return {"unet": statistics.median(b - a for a, b in itertools.pairwise(times)), "vae": decoded}


def diffusers(options: argparse.Namespace) -> dict[str, float]:
    """Evaluate both networks; the first evaluation of each is not counted."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.set_num_threads(options.threads)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[options.type]
    latents = torch.randn(1, 4, options.side // 8, options.side // 8, dtype=kind)
    words = torch.randn(1, 77, 768, dtype=kind)
    found = {}
    with torch.inference_mode():
        unet = UNet2DConditionModel.from_pretrained(options.folder, subfolder="unet", torch_dtype=kind).eval()
        found["unet"] = seconds(lambda: unet(latents, 500, words), options.steps)
        vae = AutoencoderKL.from_pretrained(options.folder, subfolder="vae", torch_dtype=kind).eval()
        found["vae"] = seconds(lambda: vae.decode(latents), 1)
    return found


def seconds(evaluate: Callable[[], object], count: int) -> float:
    """Return the median time of `count` calls after one that is not counted."""
    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        evaluate()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


PACKAGES = {"cyllama": cyllama, "diffusers": diffusers}


def main() -> None:
    """Run one package."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", choices=(*PACKAGES, "write"))
    parser.add_argument("folder")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--type", default="f16", help="of the weights; for diffusers f32 or bf16")
    options = parser.parse_args()
    if options.package == "write":
        write(options.folder)
    else:
        print(json.dumps(PACKAGES[options.package](options)))


if __name__ == "__main__":
    main()
