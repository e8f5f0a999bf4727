"""``cyllama convert``: convert a diffusion model to GGUF or safetensors, with other types."""

from __future__ import annotations

import argparse
import sys

from cyllama import sd
from cyllama._paths import expanded
from cyllama._progress import StepProgress

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("input", help="a name of `cyllama models list`, a model file, or a diffusers folder")
    parser.add_argument("output", type=expanded, help="file to write: .safetensors, or GGUF for any other name")
    parser.add_argument("--type", help="type of the weights, such as q8_0 or f16; default: unchanged")
    parser.add_argument("--vae", help="an auto-encoder to include")
    parser.add_argument("--tensor-type-rules", metavar="RULES", help="types by tensor name: 'regex=type,...'")
    parser.add_argument("--keep-names", action="store_true", help="keep the tensor names of the input")


def run(arguments: argparse.Namespace) -> int:
    """Convert the file."""
    line = StepProgress(sys.stderr) if sys.stderr.isatty() else None
    try:
        path = sd.convert(
            arguments.input,
            arguments.output,
            output_type=arguments.type,
            vae_path=arguments.vae,
            tensor_type_rules=arguments.tensor_type_rules,
            convert_name=not arguments.keep_names,
            progress=line,
        )
    finally:
        if line is not None:
            line.close()
    print(path)
    return 0
