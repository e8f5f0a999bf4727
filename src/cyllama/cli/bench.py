"""``cyllama bench``: measure the speed of a language model in tokens per second."""

from __future__ import annotations

import argparse
import json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the names are those of llama-bench."""
    parser.add_argument("-m", "--model", required=True, help="a GGUF file, or a name of `cyllama models list`")
    parser.add_argument("-p", "--n-prompt", type=int, default=512, metavar="N", help="tokens of the prompt (512)")
    parser.add_argument("-n", "--n-gen", type=int, default=128, metavar="N", help="tokens to generate (128)")
    parser.add_argument(
        "-d", "--n-depth", type=int, default=0, metavar="N", help="tokens in the context before the test (0)"
    )
    parser.add_argument("-r", "--repetitions", type=int, default=5, metavar="N", help="repetitions of each test (5)")
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="threads; default: the thread budget")
    parser.add_argument("-b", "--batch-size", type=int, default=2048, metavar="N", help="logical batch size")
    parser.add_argument("-ub", "--ubatch-size", type=int, default=512, metavar="N", help="physical batch size")
    parser.add_argument("-ctk", "--cache-type-k", default="f16", metavar="TYPE", help="type of the K cache")
    parser.add_argument("-ctv", "--cache-type-v", default="f16", metavar="TYPE", help="type of the V cache")
    parser.add_argument("-fa", "--flash-attn", default="auto", metavar="on|off|auto", help="flash attention")
    parser.add_argument("-ngl", "--n-gpu-layers", type=int, metavar="N", help="layers on the GPU; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each test."""
    from cyllama.llama import BenchResult, LlamaContextParams, LlamaModelParams, bench

    flash = {"on": "enabled", "off": "disabled"}.get(arguments.flash_attn, arguments.flash_attn)
    params = LlamaContextParams(
        n_batch=arguments.batch_size,
        n_ubatch=arguments.ubatch_size,
        type_k=arguments.cache_type_k,
        type_v=arguments.cache_type_v,
        flash_attn_type=flash,
    )

    def show(result: BenchResult) -> None:
        if not arguments.json:
            print(f"{result.name:>16}  {result.mean:9.2f} ± {result.deviation:.2f} tokens/s", flush=True)

    results = bench(
        arguments.model,
        n_prompt=arguments.n_prompt,
        n_gen=arguments.n_gen,
        n_depth=arguments.n_depth,
        repetitions=arguments.repetitions,
        n_threads=arguments.threads,
        params=params,
        model_params=LlamaModelParams(n_gpu_layers=arguments.n_gpu_layers),
        on_result=show,
    )
    if arguments.json:
        print(json.dumps([{"test": r.name, "tokens_per_second": r.mean, "runs": r.speeds} for r in results], indent=1))
    return 0
