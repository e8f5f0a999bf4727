"""Tokens per second of the low-level API against native llama-bench, side by side, for each CPU variant."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cyllama
from benchmarks.measure import N_CORES, ROOT, Spread, program, python, ratio, run, save, side_by_side

N_PROMPT, N_GENERATE = 256, 128


def native(test: str, environment: dict[str, str] | None = None) -> float:
    """llama-bench's tokens per second."""
    n_prompt, n_generate = (N_PROMPT, 0) if test == "prompt" else (0, N_GENERATE)
    model = cyllama.models.get("smollm2-135m-instruct")
    command = [program("llama-bench"), "-m", str(model), "-t", str(N_CORES), "-p", str(n_prompt), "-n", str(n_generate)]
    out = run([*command, "-r", "1", "-o", "json"], environment)
    return float(json.loads(out[out.index("[") :])[0]["avg_ts"])


def ours(test: str, environment: dict[str, str] | None = None) -> float:
    """The same through Python."""
    n_prompt, n_generate = (N_PROMPT, 1) if test == "prompt" else (0, N_GENERATE)
    found = python("benchmarks.decode_loop", str(n_prompt), str(n_generate), environment=environment)
    return found[test]


def example() -> float:
    """What tests/simple.py says of itself, with as many tokens."""
    import sys

    out = run([sys.executable, str(ROOT / "tests" / "simple.py"), "Once upon a time", str(N_GENERATE)])
    return float(re.findall(r"speed: ([\d.]+)", out)[-1])


def variants() -> list[str]:
    """CPU variants of this build."""
    names = (Path(cyllama.__file__).parent / "lib").glob("libggml-cpu-*.so")
    return sorted(path.stem.removeprefix("libggml-cpu-") for path in names)


def main(runs: int) -> None:
    """Measure and keep the figures."""
    for test in ("prompt", "generation"):
        a, b = side_by_side(runs, lambda test=test: ours(test), lambda test=test: native(test))
        print(f"{test}: ours {a} t/s, native {b} t/s, ratio {ratio(a, b)}")
        save(f"generation-{test}", ours=a, native=b, ratio=ratio(a, b))
    a, b = side_by_side(runs, example, lambda: native("generation"))
    print(f"tests/simple.py: {a} t/s, native {b} t/s, ratio {ratio(a, b)}")
    save("generation-simple", ours=a, native=b, ratio=ratio(a, b))
    table: dict[str, object] = {}
    for name in variants():
        environment = {"CYLLAMA_CPU_VARIANT": name}
        try:
            found = [
                python("benchmarks.decode_loop", "256", "64", environment=environment) for _ in range(min(runs, 3))
            ]
        except SystemExit as error:
            table[name] = f"does not run on this machine ({str(error).strip().splitlines()[-1][:80]})"
            continue
        table[name] = {test: Spread(tuple(f[test] for f in found)).median for test in ("prompt", "generation")}
        print(name, table[name])
    save("variants", **table)


if __name__ == "__main__":
    main(5)
