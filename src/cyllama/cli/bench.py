"""``cyllama bench``: measure the speed of a language model in tokens per second, and compare it with a saved result."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cyllama._native.files import write_file
from cyllama._paths import expanded

__all__ = ["add_arguments", "run"]

SETTINGS = ("model", "n_prompt", "n_gen", "n_depth", "threads", "batch_size", "ubatch_size", "cache_type_k",
            "cache_type_v", "flash_attn", "n_gpu_layers")  # fmt: skip
"""Arguments that are saved, and that a comparison expects to be the same."""
SLOWER = 1  # exit code


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
    parser.add_argument("--save", type=expanded, metavar="FILE", help="write the result to a JSON file")
    parser.add_argument("--compare", type=expanded, metavar="FILE", help="compare with a result of --save")
    parser.add_argument("--max-slowdown", type=float, metavar="PERCENT",
                        help="with --compare: exit with 1 if a test is slower by more")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each test."""
    from cyllama.llama import BenchResult, LlamaContextParams, LlamaModelParams, bench

    if arguments.max_slowdown is not None and arguments.compare is None:
        raise ValueError("--max-slowdown was given without --compare")
    before = None if arguments.compare is None else _Saved.read(arguments.compare)
    if before is not None:
        before.check(arguments)
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
            change = "" if before is None else f"  {before.change(result.name, result.mean):+.1f} %"
            print(f"{result.name:>16}  {result.mean:9.2f} ± {result.deviation:.2f} tokens/s{change}", flush=True)

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
    rows: list[dict[str, Any]] = [
        {"test": result.name, "tokens_per_second": result.mean, "runs": result.speeds} for result in results
    ]
    changes = (
        {} if before is None else {row["test"]: before.change(row["test"], row["tokens_per_second"]) for row in rows}
    )
    if arguments.json:
        print(json.dumps([{**row, **_change(changes, row["test"])} for row in rows], indent=1))
    if arguments.save is not None:
        _save(arguments, rows)
    limit = arguments.max_slowdown
    return SLOWER if limit is not None and any(change < -limit for change in changes.values()) else 0


def _change(changes: dict[str, float], test: str) -> dict[str, float]:
    return {"change_percent": round(changes[test], 2)} if test in changes else {}


def _save(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    import cyllama

    info = cyllama.build_info()
    saved = {
        "version": cyllama.__version__,
        "llama": info["engines"]["llama"]["version"],
        "cpu": info["cpu"]["variant"],
        "settings": {name: getattr(arguments, name) for name in SETTINGS},
        "results": rows,
    }
    write_file(arguments.save, json.dumps(saved, indent=1, default=str).encode())


class _Saved:
    """A result of ``--save``."""

    def __init__(self, path: Path, settings: dict[str, Any], speeds: dict[str, float]) -> None:
        self._path, self._settings, self._speeds = path, settings, speeds

    @classmethod
    def read(cls, path: Path) -> _Saved:
        """Read a file.

        Raises
        ------
        OSError
        ValueError
            The file is not a result of ``--save``.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            speeds = {str(row["test"]): float(row["tokens_per_second"]) for row in data["results"]}
            settings = dict(data["settings"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is not a result of `cyllama bench --save`") from error
        if not all(speed > 0 for speed in speeds.values()):
            raise ValueError(f"{path} has a speed that is not above 0")
        return cls(path, settings, speeds)

    def check(self, arguments: argparse.Namespace) -> None:
        """Raise ValueError if the result has other settings, whose speeds say nothing about these."""
        for name in SETTINGS:
            value = getattr(arguments, name)
            if self._settings.get(name) != value:
                flag = f"--{name.replace('_', '-')}"
                saved = self._settings.get(name)
                raise ValueError(f"{flag} is {value!r}, and {saved!r} in {self._path}; compare equal settings")

    def change(self, test: str, speed: float) -> float:
        """Return by how many percent a test is faster than it was.

        Raises
        ------
        ValueError
            The result does not have the test.
        """
        if test not in self._speeds:
            raise ValueError(f"{self._path} has no test {test!r}, expected one of {', '.join(self._speeds)}")
        return 100 * (speed / self._speeds[test] - 1)
