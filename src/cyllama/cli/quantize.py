"""``cyllama quantize``: a language model with smaller weights."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

__all__ = ["add_arguments", "run"]

# Fields of LlamaQuantizeParams that are no flags: `type` and `threads` are arguments of their own.
LEFT_OUT = ("ftype", "nthread", "imatrix", "kv_overrides", "tt_overrides", "prune_layers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the flags come from `cyllama.llama.LlamaQuantizeParams`."""
    import dataclasses

    from cyllama.llama import LlamaQuantizeParams

    parser.add_argument("input", help="a GGUF file, or a name of `cyllama models list`")
    parser.add_argument("output", type=Path, help="file to write")
    parser.add_argument(
        "type", nargs="?", default="q4_k_m", help="such as q8_0, q4_k_m, iq4_xs, bf16 (default: q4_k_m)"
    )
    parser.add_argument("-t", "--threads", type=int, help="threads; default: those of cyllama")
    parser.add_argument("--tensor-type", action="append", default=[], metavar="PATTERN=TYPE",
                        help="another type for tensors whose name fits; may be given several times")  # fmt: skip
    parser.add_argument("--prune-layers", metavar="N,...", help="layers to leave out")
    for field in dataclasses.fields(LlamaQuantizeParams):
        if field.name in LEFT_OUT:
            continue
        flag = f"--{field.name.replace('_', '-')}"
        if str(field.type).startswith("bool"):
            parser.add_argument(
                flag, dest=field.name, action=argparse.BooleanOptionalAction, help=field.metadata["help"]
            )
        elif field.metadata.get("enum"):
            parser.add_argument(flag, dest=field.name, metavar="TYPE", help=field.metadata["help"])
        else:
            parser.add_argument(flag, dest=field.name, type=int, metavar="N", help=field.metadata["help"])


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    import dataclasses

    from cyllama import models
    from cyllama.llama import LlamaQuantizeParams, llama_model_quantize

    names = [field.name for field in dataclasses.fields(LlamaQuantizeParams) if field.name not in LEFT_OUT]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    rules = []
    for rule in arguments.tensor_type:
        pattern, equals, kind = rule.rpartition("=")
        if not equals or not pattern:
            raise ValueError(f"--tensor-type is {rule!r}, expected PATTERN=TYPE")
        rules.append((pattern, kind))
    layers = None
    if arguments.prune_layers is not None:
        layers = [int(number) for number in arguments.prune_layers.split(",")]
    params = LlamaQuantizeParams(
        ftype={"f32": "all_f32"}.get(arguments.type, arguments.type),
        nthread=arguments.threads,
        tt_overrides=rules or None,
        prune_layers=layers,
        **given,
    )
    source = models.resolve(arguments.input)
    llama_model_quantize(source, arguments.output, params)
    if arguments.dry_run:
        return 0
    before, after = os.path.getsize(source), os.path.getsize(arguments.output)
    print(f"{arguments.output}: {after / 1e6:.1f} MB, {after / before:.0%} of {before / 1e6:.1f} MB")
    return 0
