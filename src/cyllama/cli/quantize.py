"""``cyllama quantize``: quantize a language model."""

from __future__ import annotations

import argparse
import os

from cyllama._paths import expanded

__all__ = ["add_arguments", "run"]

# Fields of LlamaQuantizeParams without a flag of the same name.
WITHOUT_FLAG = ("ftype", "nthread", "imatrix", "kv_overrides", "tt_overrides", "prune_layers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; most flags are fields of `cyllama.llama.LlamaQuantizeParams`."""
    import dataclasses

    from cyllama.llama import LlamaQuantizeParams

    parser.add_argument("input", help="a GGUF file, or a name of `cyllama models list`")
    parser.add_argument("output", type=expanded, help="file to write")
    parser.add_argument(
        "type", nargs="?", default="q4_k_m", help="such as q8_0, q4_k_m, iq4_xs, bf16 (default: q4_k_m)"
    )
    parser.add_argument("-t", "--threads", type=int, help="threads; default: the thread budget")
    parser.add_argument("--tensor-type", action="append", default=[], metavar="PATTERN=TYPE",
                        help="type of tensors whose name matches the pattern; repeatable")  # fmt: skip
    parser.add_argument("--imatrix", metavar="FILE", help="importance matrix of llama-imatrix (GGUF)")
    parser.add_argument("--include-weights", action="append", default=[], metavar="PART",
                        help="use the importance matrix only for tensors with PART in their names")  # fmt: skip
    parser.add_argument("--exclude-weights", action="append", default=[], metavar="PART",
                        help="do not use the importance matrix for such tensors")  # fmt: skip
    parser.add_argument("--override-kv", action="append", default=[], metavar="KEY=TYPE:VALUE",
                        help="replace metadata; TYPE is int, float, bool or str")  # fmt: skip
    parser.add_argument("--prune-layers", metavar="N,...", help="layers to remove")
    for field in dataclasses.fields(LlamaQuantizeParams):
        if field.name in WITHOUT_FLAG:
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
    """Quantize the model."""
    import dataclasses

    from cyllama import models
    from cyllama.llama import LlamaQuantizeParams, llama_model_quantize
    from cyllama.llama.imatrix import read_imatrix

    names = [field.name for field in dataclasses.fields(LlamaQuantizeParams) if field.name not in WITHOUT_FLAG]
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
    weights = {"include": arguments.include_weights, "exclude": arguments.exclude_weights}
    if arguments.imatrix is None and any(weights.values()):
        raise ValueError("--include-weights and --exclude-weights need --imatrix")
    params = LlamaQuantizeParams(
        imatrix=None if arguments.imatrix is None else read_imatrix(arguments.imatrix, **weights),
        kv_overrides=dict(_override(text) for text in arguments.override_kv) or None,
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


def _override(text: str) -> tuple[str, int | float | bool | str]:
    """Parse ``KEY=TYPE:VALUE`` into a key and its value."""
    key, equals, rest = text.partition("=")
    kind, colon, value = rest.partition(":")
    booleans = {"true": True, "false": False}
    try:
        if kind == "bool":
            return key, booleans[value]
        if key and equals and colon:
            return key, {"int": int, "float": float, "str": str}[kind](value)
    except (KeyError, ValueError):
        pass
    raise ValueError(f"--override-kv is {text!r}, expected KEY=TYPE:VALUE, such as general.name=str:x")
