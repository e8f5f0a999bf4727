"""Generation and speech decoding beside busy processes: upstream's fixed team that spins, against ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import cyllama
from benchmarks.measure import BEFORE, N_CORES, ROOT, Spread, neighbour, program, python, run, save

N_GENERATE = 128
SITUATIONS = {"idle": 0, "one busy process": 1, "a busy process on every core": N_CORES}


def generation(environment: dict[str, str] | None) -> float:
    """Tokens per second in a process of its own."""
    return python("benchmarks.decode_loop", "0", str(N_GENERATE), environment=environment)["generation"]


def speech(environment: dict[str, str] | None) -> float:
    """Decoder runs per second of native whisper-cli (on the same patched ggml) for 11 s of speech."""
    model = cyllama.models.get("whisper-tiny.en")
    sample = ROOT / "thirdparty" / "whisper.cpp" / "samples" / "jfk.wav"
    command = [program("whisper-cli"), "-m", str(model), "-f", str(sample), "-t", str(N_CORES), "-bs", "1", "-bo", "1"]
    found = re.search(r"decode time = .*?\(\s*([\d.]+) ms per run\)", run(command, environment, errors=True))
    if not found:
        raise SystemExit("whisper-cli printed no timings")
    return 1000 / float(found.group(1))


GROW = """
import json, sys, time
import cyllama
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel
model = LlamaModel(cyllama.models.get("smollm2-135m-instruct"))
ctx = LlamaContext(model, LlamaContextParams(n_ctx=4096))
batch = LlamaBatch.from_tokens([1])
ctx.decode(batch)
stamps, position, end = [], 1, time.time() + 6
while time.time() < end:
    batch.set_batch([500], position)
    ctx.decode(batch)
    stamps.append(time.time())
    position = position + 1 if position < 500 else 1
    if position == 1:
        ctx.memory.clear()
print(json.dumps(stamps))
"""


def time_to_grow_back() -> tuple[float, float]:
    """Seconds after the neighbours left until the speed is 80% of the final one; and that one, tokens/s."""
    with neighbour(N_CORES):
        process = subprocess.Popen([sys.executable, "-c", GROW], stdout=subprocess.PIPE, text=True)
        time.sleep(3)
    left = time.time()
    out, _ = process.communicate()
    stamps = json.loads(out)
    final = sum(stamp > stamps[-1] - 1 for stamp in stamps)
    begin = left
    while sum(begin <= stamp < begin + 0.1 for stamp in stamps) < 0.08 * final and begin < stamps[-1]:
        begin += 0.02
    return begin - left, final


def main(runs: int) -> None:
    """Measure and keep the figures."""
    kept: dict[str, object] = {}
    for what, measure in (("generation", generation), ("speech", speech)):
        for situation, n_processes in SITUATIONS.items():
            columns: dict[str, list[float]] = {"before": [], "after": []}
            with neighbour(n_processes):
                for _ in range(runs):
                    columns["before"].append(measure(BEFORE))
                    columns["after"].append(measure(None))
            for name, values in columns.items():
                key = f"{what}, {situation}, {name}"
                kept[key] = Spread(tuple(values))
                print(f"{key}: {kept[key]} per second", flush=True)
    seconds = [time_to_grow_back()[0] for _ in range(min(runs, 3))]
    kept["grow"] = Spread(tuple(seconds))
    print(f"grows back in {kept['grow']} s")
    save("contention", **kept)


if __name__ == "__main__":
    main(5)
