"""What the kernels do to the accuracy: perplexity beside ggml's products, and beside products without rounding."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import RESULTS, Figures, Rounds, figures_of, program, python, run, spell
from benchmarks.serving import weights

TITLE = "Perplexity with each kind of matrix products"
TIMED = False
TYPES = ("Q4_0", "Q5_0", "Q8_0", "IQ4_XS", "Q4_K_M", "Q5_K_M", "Q6_K")
KINDS = ("cyllama", "upstream")


def exact(kind: str) -> str:
    """Return the same weights as 32-bit floats, whose products round no activations."""
    path = RESULTS / f"SmolLM2-135M-Instruct.{kind}-F32.gguf"
    if not path.exists():
        run([program("llama-quantize"), "--allow-requantize", weights(kind), str(path), "F32"])
    return str(path)


def measure(rounds: Rounds) -> Figures:
    """Evaluate each model with exact products and with both kinds, once: the values are deterministic."""

    def words(path: str) -> list[str]:
        return python("perplexity_once", path, "--chunks", rounds.pick(60, 2))

    found = {}
    for kind in TYPES[: rounds.pick(len(TYPES), 1)]:
        found[kind] = {"exact": figures_of(words(exact(kind)))["perplexity"]} | {
            name: figures_of(words(weights(kind)), {"CYLLAMA_KERNELS": name})["perplexity"] for name in KINDS
        }
        print(f"   {kind}: {found[kind]}", flush=True)
    return {"commands": [spell(words("TYPE.gguf"), {"CYLLAMA_KERNELS": "KIND"})], "types": found}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    rows = []
    for kind, values in figures["types"].items():
        changes = [100 * (values[a] / values[b] - 1) for a, b in
                   (("cyllama", "exact"), ("upstream", "exact"), ("cyllama", "upstream"))]  # fmt: skip
        rows.append((kind, f"{values['exact']:.3f}", *(f"{change:+.3f}" for change in changes)))
    return [
        "SmolLM2 135M on texts of Python's help, in chunks of 512 tokens. *Exact* has the same weights as 32-bit "
        "floats. Both kinds of products round activations to 8 bits.",
        "",
        *show.commands(figures["commands"]),
        *show.table(("weights", "exact", "cyllama, %", "upstream, %", "cyllama beside upstream, %"), rows),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["perplexity", *sys.argv[1:]]))
