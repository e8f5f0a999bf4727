"""Speed of a model whose layers another process computes, compared with one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import Figures, Rounds, Spread, in_turn, model, threads
from cyllama import LLM

TITLE = "A model on an RPC server"


def measure(rounds: Rounds) -> Figures:
    """Read a prompt and generate, in one process and with all layers on a server on this machine, in turn."""
    n_prompt, n_generate = rounds.pick(256, 32), rounds.pick(64, 8)
    server = subprocess.Popen(
        [sys.executable, "-m", "cyllama", "rpc-server", "--port", "0", "--threads", str(threads())],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        endpoint = server.stdout.readline().split(" on ")[1].split(",")[0]
        with (
            LLM(model(), n_ctx=1024, n_threads=threads()) as local,
            LLM(model(), n_ctx=1024, rpc=endpoint, n_gpu_layers="all") as remote,
        ):

            def run(llm: LLM) -> dict[str, float]:
                times = llm.complete(
                    [1000] * n_prompt, max_tokens=n_generate, temperature=0, ignore_eos=True, cache_prompt=False
                ).timings
                return {"prompt": times["prompt_per_second"], "generation": times["predicted_per_second"]}

            calls = {"one process": lambda: run(local), "RPC server": lambda: run(remote)}
            return {"n_prompt": n_prompt, "n_generate": n_generate, **in_turn(rounds.count, calls)}
    finally:
        server.terminate()
        server.communicate()


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    local: dict[str, Spread] = figures["one process"]
    remote: dict[str, Spread] = figures["RPC server"]
    rows = [
        (f"{what}, tokens per second", local[what], remote[what], remote[what] / local[what])
        for what in ("prompt", "generation")
    ]
    return [
        f"A prompt of {figures['n_prompt']} tokens and {figures['n_generate']} generated tokens; the server "
        "runs on the same machine.",
        "",
        *show.table(("", "one process", "RPC server", "ratio"), rows),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["rpc", *sys.argv[1:]]))
